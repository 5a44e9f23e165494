"""A prompt file: plain text, or a `.prompt.json` with what its request asks of its own, or a conversation's turns."""

from __future__ import annotations

import codecs
import hashlib
import math
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from llmpar import files
from llmpar.client import body

ENDING = ".prompt.json"
FIELDS = ("prompt", "turns", "system", "max_tokens", "model", "body")
TURN_FIELDS = ("content", "think_s", "max_tokens")
LONGEST_THINK_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One question of a conversation: it is put `think_s` seconds after the answer before it ended."""

    content: str
    think_s: float = 0.0
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """What a prompt asks for itself; None leaves it to the command line. `turns`: of a conversation, else empty."""

    max_tokens: int | None = None
    model: str | None = None
    system: str | None = None
    body: dict[str, Any] | None = None
    turns: tuple[Turn, ...] = ()


class Prompt(NamedTuple):
    """A prompt file. `fault` is (type, message) where it cannot be asked, else None."""

    name: str
    text: str
    sha256: str | None
    fault: tuple[str, str] | None
    own: Own | None = None


def read_prompt(path: str, timeout_s: float = 600.0) -> Prompt:
    """Read a prompt file; never raises. One line end at its end belongs to the file, not to the prompt; nor does a byte
    order mark at its start."""
    # Bytes that are not UTF-8 in a name arrive as surrogates, which no JSON can hold.
    name = os.fsencode(os.path.basename(path)).decode("utf-8", "replace")
    try:
        data = files.read(path, files.PROMPT_LIMIT, timeout_s)
    except (OSError, ValueError) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        return Prompt(name, "", None, ("prompt_unreadable", f"cannot read '{name}': {why}"))
    digest = hashlib.sha256(data).hexdigest()
    if name.endswith(ENDING):
        try:
            text, own = parsed(data)
        except ValueError as error:
            return Prompt(name, "", digest, ("prompt_unreadable", f"cannot read '{name}': {error}"))
        return Prompt(name, text, digest, None, own)
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        return Prompt(name, "", digest, ("prompt_not_utf8", f"'{name}' is not UTF-8 at byte {error.start}"))
    if text.endswith("\n"):
        text = text.removesuffix("\r\n") if text.endswith("\r\n") else text[:-1]
    if not text.strip():
        return Prompt(name, text, digest, ("prompt_empty", f"'{name}' holds no text"))
    return Prompt(name, text, digest, None)


def parsed(data: bytes) -> tuple[str, Own]:
    """The (first) question of a `.prompt.json`, and what it asks of its own. Raises ValueError with what is wrong."""
    try:
        value = orjson.loads(data.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    _known(value, FIELDS)
    if ("prompt" in value) == ("turns" in value):
        raise ValueError("it needs either prompt or turns")
    turns: tuple[Turn, ...] = ()
    if "turns" in value:
        if not isinstance(value["turns"], list) or not value["turns"]:
            raise ValueError("turns is not a list of questions")
        turns = tuple(_turn(number, each) for number, each in enumerate(value["turns"], 1))
    patch = value.get("body")
    own = Own(
        max_tokens=_tokens("max_tokens", value.get("max_tokens")),
        model=None if value.get("model") is None else _text("model", value["model"]),
        system=None if value.get("system") is None else _text("system", value["system"]),
        body=None if patch is None else body.checked(patch, "body"),
        turns=turns,
    )
    return turns[0].content if turns else _text("prompt", value["prompt"]), own


def _turn(number: int, value: Any) -> Turn:
    name = f"turn {number}"
    if isinstance(value, str):
        value = {"content": value}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    _known(value, TURN_FIELDS, f"{name}: ")
    think = value.get("think_s") or 0.0
    if isinstance(think, bool) or not isinstance(think, int | float) or not 0 <= think <= LONGEST_THINK_S:
        raise ValueError(f"{name}: think_s is not a number of seconds up to {LONGEST_THINK_S:g}")
    return Turn(
        _text(f"{name}: content", value.get("content")),
        float(think),
        _tokens(f"{name}: max_tokens", value.get("max_tokens")),
    )


def _known(value: dict[str, Any], fields: tuple[str, ...], where: str = "") -> None:
    for field in value:
        if field not in fields:
            raise ValueError(f"{where}unknown field '{field[:40]}'; known are {', '.join(fields)}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} holds no text")
    return value


def _tokens(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < math.inf or value >= 2**63:
        raise ValueError(f"{name} is not a number of tokens")
    return value
