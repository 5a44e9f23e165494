"""Prompt sets: synthetic text of given token lengths, readers of other formats, manifests and their hash. No I/O.

A set is a directory with one file a prompt, so that `parallel llmpar-request ::: DIR/*` reads naturally, and a manifest
in `.manifest.jsonl`, whose leading dot keeps it out of that glob.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from llmpar.vocabulary import WORDS

MANIFEST = ".manifest.jsonl"
_UNIT = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_|\n")


class BadPrompts(ValueError):
    """An input or a set that is not what it should be; the text names what and where."""


@dataclass(frozen=True)
class Prompt:
    """One prompt before it has a file. `output_tokens`: length of the reply in the source, where it has one."""

    text: str
    tokens: int
    token_source: str  # rule, tokenizer, server
    source: str
    source_id: str | None = None
    output_tokens: int | None = None


def estimate(text: str) -> int:
    """Tokens by rule: one for each seven letters begun of a word, one for each digit, mark and line end.

    On the 32 prompts of prompts/ the sum is 4 % below Mistral 7B's tokenizer, 4 % above Tekken's and Gemma 3's; single English
    prompts differ by up to 16 %, other languages by up to 30 %. Text of `synthetic` comes out exactly, without a begin-of-text token.
    """
    return sum([1 + (len(unit) - 1) // 7 for unit in _UNIT.findall(text)])


def synthetic(index: int, tokens: int, seed: int, shared: int = 0, count: Callable[[str], int] | None = None) -> Prompt:
    """Prompt number `index` of a synthetic set: random common words and full stops, `tokens` tokens long.

    The text depends on seed and index alone, so a longer set begins with the shorter one. The first `shared` tokens
    depend on the seed alone: a prefix that all prompts have in common. With `count`, a tokenizer, words are added or
    taken away until it agrees; raises BadPrompts where it never does.
    """
    if tokens < 1:
        raise BadPrompts("a prompt has at least one token")
    head = _pieces(random.Random(f"{seed}:prefix"))
    tail = _pieces(random.Random(f"{seed}:{index}"))
    pieces = [" the"]  # one token at the start of a text too, which not every word is

    def text(length: int) -> str:
        while len(pieces) < length:
            pieces.append(next(head if len(pieces) < shared else tail))
        return "".join(pieces[:length]).lstrip()

    length = tokens
    if count is None:
        return Prompt(text(length), tokens, "rule", "synthetic")
    for _ in range(32):
        made = text(length)
        got = count(made)
        if got == tokens:
            return Prompt(made, tokens, "tokenizer", "synthetic")
        length = max(length + tokens - got, 1)
    raise BadPrompts(f"no text of exactly {tokens} tokens found with this tokenizer")


def _pieces(generator: random.Random) -> Iterator[str]:
    while True:
        for _ in range(generator.randint(7, 15)):
            yield " " + generator.choice(WORDS)
        yield "."


def lengths(number: int, mean: float, deviation: float, seed: int, least: int = 4) -> list[int]:
    """Token lengths: all round(mean), or normal with that mean and standard deviation, never below `least`."""
    found = []
    for index in range(number):
        value = mean if not deviation else random.Random(f"{seed}:length:{index}").gauss(mean, deviation)
        found.append(max(round(value), least if deviation else 1))
    return found


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
        yield Prompt(text, estimate(text), "rule", name, str(identity) if identity is not None else None,
                     estimate(reply) if isinstance(reply, str) else None)


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
        parts = [item["content"] for item in messages if isinstance(item, dict) and isinstance(item.get("content"), str)]
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


def record(name: str, prompt: Prompt) -> dict[str, Any]:
    """The manifest's record of one prompt."""
    data = prompt.text.encode()
    return {"kind": "prompt", "v": 1, "name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data),
            "tokens": prompt.tokens, "token_source": prompt.token_source, "source": prompt.source,
            "source_id": prompt.source_id, "output_tokens": prompt.output_tokens}


def names(stem: str, number: int) -> list[str]:
    """File names that sort in order: stem-1.txt … or stem-0001.txt …"""
    width = len(str(number))
    return [f"{stem}-{index:0{width}d}.txt" for index in range(1, number + 1)]


def set_hash(entries: Iterable[tuple[str, str]]) -> str:
    """One SHA-256 for a set, from (file name, its SHA-256) in any order: that of the lines `sha256  name`, sorted by name."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(entries)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def differences(manifest: list[dict[str, Any]], files: dict[str, str]) -> list[str]:
    """What a directory (name -> SHA-256) has otherwise than its manifest says; empty when they agree."""
    told = {str(entry.get("name")): entry.get("sha256") for entry in manifest}
    found = [f"'{name}' is missing" for name in sorted(told.keys() - files.keys())]
    found += [f"'{name}' is not in the manifest" for name in sorted(files.keys() - told.keys())]
    found += [f"'{name}' was changed" for name in sorted(told.keys() & files.keys()) if told[name] != files[name]]
    return found
