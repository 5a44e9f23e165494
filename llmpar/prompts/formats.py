"""Prompt sets of other formats: ShareGPT, JSONL, plain text."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import orjson

from llmpar import outside
from llmpar.prompts.prompt import BadPrompts, Prompt
from llmpar.prompts.tokens import estimate


def sharegpt(data: bytes, name: str, left_out: list[str] | None = None) -> Iterator[Prompt]:
    """The first question of each conversation, with the length of its answer by rule: a JSON list, or a conversation a
    line.

    What an entry holds that is no conversation goes into `left_out`, with its number. Raises BadPrompts.
    """
    left_out = [] if left_out is None else left_out
    try:
        value = orjson.loads(outside.whole_letters(data))
    except orjson.JSONDecodeError as error:
        lines = [line for line in data.splitlines() if line.strip()]
        value = [_line(line) for line in lines]
        if len(lines) < 2 or not any(isinstance(entry, dict) for entry in value):
            raise BadPrompts(f"cannot read '{name}': not JSON ({error})") from None
    if isinstance(value, dict) and value.keys() & set(_TURNS):
        value = [value]
    if not isinstance(value, list):
        raise BadPrompts(f"cannot read '{name}': ShareGPT is a JSON list of conversations")
    for number, entry in enumerate(value, 1):
        turns = next((entry[key] for key in _TURNS if entry.get(key)), None) if isinstance(entry, dict) else None
        turns = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
        start = next((n for n, turn in enumerate(turns) if _who(turn) in ("human", "user")), None)
        text = None if start is None else _said(turns[start])
        if start is None or not text or not text.strip():
            left_out.append(f"entry {number}: no question in it")
            continue
        reply = _said(turns[start + 1]) if start + 1 < len(turns) else None
        identity = entry.get("id", entry.get("conversation_id"))
        yield Prompt(
            text, estimate(text), "rule", name, _identity(identity), estimate(reply) if reply is not None else None
        )


_TURNS = ("conversations", "conversation", "messages")


def is_conversation(line: bytes) -> bool:
    """Whether a line of JSON is an entry of ShareGPT's."""
    value = _line(line)
    return isinstance(value, dict) and bool(value.keys() & {"conversations", "conversation"})


def _line(line: bytes) -> Any:
    try:
        return orjson.loads(outside.whole_letters(line))
    except orjson.JSONDecodeError:
        return None


def _identity(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) else None


def _who(turn: dict[str, Any]) -> Any:
    return turn.get("from", turn.get("role"))


def _said(turn: dict[str, Any]) -> str | None:
    """The text of a turn: `value` or `content`, a string or a list of parts with text."""
    content = turn.get("value", turn.get("content"))
    if isinstance(content, list):
        parts = [
            part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict)
        ]
        content = "\n".join([part for part in parts if isinstance(part, str)]) or None
    return content if isinstance(content, str) else None


def jsonl(
    lines: Iterable[bytes], name: str, field: str | None = None, left_out: list[str] | None = None
) -> Iterator[Prompt]:
    """One prompt a line: a JSON string, or an object with `field`, else prompt, text, inputs, question or messages.

    A line without text goes into `left_out`, with its number. Raises BadPrompts where no line has any.
    """
    left_out = [] if left_out is None else left_out
    usable = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        value = _line(line)
        text = _text(value, field)
        if text is None or not text.strip():
            wanted = f"'{field}'" if field else "prompt, text, inputs, question or messages"
            why = "not JSON" if value is None and line.strip() != b"null" else f"no text in {wanted}"
            left_out.append(f"line {number}: {why}")
            continue
        usable = True
        identity = value.get("id") if isinstance(value, dict) else None
        yield Prompt(text, estimate(text), "rule", name, _identity(identity) or str(number))
    if left_out and not usable:
        raise BadPrompts(f"cannot read '{name}' {left_out[0]}")


def _text(value: Any, field: str | None) -> str | None:
    if isinstance(value, str) and field is None:
        return value
    if not isinstance(value, dict):
        return None
    for key in [field] if field else ["prompt", "text", "inputs", "question"]:
        if isinstance(value.get(key), str):
            return value[key]
    messages = value.get("messages") if field is None else None
    if isinstance(messages, list):
        parts = [text for text in map(_said, (item for item in messages if isinstance(item, dict))) if text]
        return "\n\n".join(parts) or None
    return None


def plain(text: str, name: str) -> Iterator[Prompt]:
    """Paragraphs: one prompt for each stretch of text between empty lines."""
    for number, part in enumerate(re.split(r"\n[ \t]*\n", text.removeprefix("\ufeff").replace("\r\n", "\n")), 1):
        if part.strip():
            yield Prompt(part.strip("\n"), estimate(part), "rule", name, str(number))


class Long(Protocol):
    """What has a length."""

    @property
    def tokens(self) -> int: ...


Entry = TypeVar("Entry", bound=Long)


def choose(entries: Iterable[Entry], number: int | None, seed: int | None, least: int, most: int | None) -> list[Entry]:
    """Those of `least` to `most` tokens; the first `number`, or with a seed a random sample of so many, in file
    order."""
    fits = [entry for entry in entries if entry.tokens >= least and (most is None or entry.tokens <= most)]
    if number is None or number >= len(fits):
        return fits
    if seed is None:
        return fits[:number]
    return [fits[index] for index in sorted(random.Random(seed).sample(range(len(fits)), number))]
