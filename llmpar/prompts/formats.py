"""Prompt sets of other formats: ShareGPT, JSONL, plain text."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from llmpar.prompts.prompt import BadPrompts, Prompt
from llmpar.prompts.tokens import estimate


def sharegpt(data: bytes, name: str) -> Iterator[Prompt]:
    """The first question of each conversation, with the length of its answer by rule. Raises BadPrompts."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadPrompts(f"cannot read '{name}': not JSON ({error})") from None
    if not isinstance(value, list):
        raise BadPrompts(f"cannot read '{name}': ShareGPT is a JSON list of conversations")
    for entry in value:
        turns = entry.get("conversations") or entry.get("conversation") if isinstance(entry, dict) else None
        turns = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
        start = next((n for n, turn in enumerate(turns) if turn.get("from") in ("human", "user")), None)
        if start is None or not isinstance(turns[start].get("value"), str) or not turns[start]["value"].strip():
            continue
        text = turns[start]["value"]
        reply = turns[start + 1].get("value") if start + 1 < len(turns) else None
        identity = entry.get("id")
        yield Prompt(
            text,
            estimate(text),
            "rule",
            name,
            str(identity) if identity is not None else None,
            estimate(reply) if isinstance(reply, str) else None,
        )


def jsonl(lines: Iterable[bytes], name: str, field: str | None = None) -> Iterator[Prompt]:
    """One prompt a line: a JSON string, or an object with `field`, else prompt, text, inputs, question or messages."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadPrompts(f"cannot read '{name}' line {number}: not JSON ({error})") from None
        text = _text(value, field)
        if text is None:
            wanted = f"'{field}'" if field else "prompt, text, inputs, question or messages"
            raise BadPrompts(f"cannot read '{name}' line {number}: no text in {wanted}")
        identity = value.get("id") if isinstance(value, dict) else None
        yield Prompt(text, estimate(text), "rule", name, str(identity) if identity is not None else str(number))


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
        parts = [
            item["content"] for item in messages if isinstance(item, dict) and isinstance(item.get("content"), str)
        ]
        if parts and len(parts) == len(messages):
            return "\n\n".join(parts)
    return None


def plain(text: str, name: str) -> Iterator[Prompt]:
    """Paragraphs: one prompt for each stretch of text between empty lines."""
    for number, part in enumerate(re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")), 1):
        if part.strip():
            yield Prompt(part.strip("\n"), estimate(part), "rule", name, str(number))


def choose(found: Iterable[Prompt], number: int | None, seed: int | None, least: int, most: int | None) -> list[Prompt]:
    """Those of `least` to `most` tokens; the first `number`, or with a seed a random sample of so many, in file order."""
    fits = [prompt for prompt in found if prompt.tokens >= least and (most is None or prompt.tokens <= most)]
    if number is None or number >= len(fits):
        return fits
    if seed is None:
        return fits[:number]
    return [fits[index] for index in sorted(random.Random(seed).sample(range(len(fits)), number))]
