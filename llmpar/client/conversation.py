"""The turns of a conversation: one question after the other, each with all that was said before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from llmpar.client.prompt_file import Prompt


class Launch(NamedTuple):
    """What one request is called and when it began; instants in epoch nanoseconds."""

    launcher: str
    launched_ns: int | None
    attempt: int = 1
    slot: int | None = None
    seq: int | None = None
    scheduled_ns: int | None = None


class Place(NamedTuple):
    """Where in a conversation a request is: its number from 1, of how many, and the messages before it."""

    conversation: str
    turn: int
    turns: int
    think_s: float
    history: list[dict[str, str]]


def in_turns(
    prompt: Prompt,
    launch: Launch,
    text: bool,
    perform: Callable[[Launch, Prompt, Place | None], dict[str, Any]],
    pause: Callable[[float], bool],
) -> Iterator[dict[str, Any]]:
    """The records of a prompt file, one as a rule, of a conversation one a turn until a turn fails.

    `pause` waits for so many seconds and says whether to go on. `text`: whether records hold the answers.
    """
    talk = Conversation(prompt)
    while True:
        made = perform(launch, talk.prompt, talk.place)
        think = talk.next(made, text)
        yield made
        if think is None or not pause(think):
            return
        launch = launch._replace(launched_ns=time.time_ns(), scheduled_ns=None)


class Conversation:
    """How far a prompt file has been asked; a prompt without turns is asked once."""

    def __init__(self, prompt: Prompt):
        self.prompt = prompt
        turns = prompt.own.turns if prompt.own else ()
        self.place = Place(os.urandom(8).hex(), 1, len(turns), turns[0].think_s, []) if turns else None

    def next(self, made: dict[str, Any], text: bool) -> float | None:
        """After a turn's record: seconds to wait before the next turn, None where there is none to ask. Takes the
        answer's text out of the record where it is not wanted there (`text`)."""
        answer = made["text"]
        if not text:
            made["text"] = None
        if self.place is None or self.prompt.own is None:
            return None
        done, turns = self.place.turn, self.prompt.own.turns
        # A question after an answer that failed would be another conversation.
        if made["status"] != "ok" or done == len(turns):
            return None
        said = {"role": "user", "content": turns[done - 1].content}
        history = [*self.place.history, said, {"role": "assistant", "content": answer or ""}]
        self.place = self.place._replace(turn=done + 1, think_s=turns[done].think_s, history=history)
        return turns[done].think_s
