"""Traces of requests as others publish them: when each came, how long its prompt and its answer were.

Read: Azure's LLM inference traces of 2023 and 2024 (CSV: TIMESTAMP, ContextTokens, GeneratedTokens), BurstGPT (CSV:
Timestamp, Model, Request tokens, Response tokens, ...), Mooncake (JSON lines: timestamp in milliseconds, input_length,
output_length, hash_ids of blocks of 512 tokens), and a CSV of time, input tokens and output tokens under any of NAMES,
which is how requests of ServeGen are written down (docs/request.md).
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from llmpar.prompts.prompt import BadPrompts

BLOCK = 512  # tokens of one of Mooncake's blocks
MOST = 10_000_000  # tokens of one prompt or answer
# Names of columns and fields, in small letters and without blanks and underscores.
NAMES = {
    "at": ("timestamp", "time", "arrivaltime", "at"),
    "prompt": ("contexttokens", "requesttokens", "inputtokens", "inputlength", "prompttokens", "promptlength"),
    "output": ("generatedtokens", "responsetokens", "outputtokens", "outputlength", "completiontokens"),
}


@dataclass(frozen=True)
class Arrival:
    """One request of a trace: seconds since the first, tokens of prompt and answer, blocks the prompt is made of."""

    at_s: float
    tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def is_trace(head: str) -> bool:
    """Whether a file's first line is that of a trace."""
    return _places(_fields(head.strip("\ufeff \r\n"))) is not None


def _fields(line: str) -> list[str]:
    if line.startswith("{"):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            return []
        return list(value) if isinstance(value, dict) else []
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _places(fields: list[str]) -> dict[str, int] | None:
    """Where time, prompt and output stand; None where one of them is missing."""
    plain = ["".join(letter for letter in field.lower() if letter.isalnum()) for field in fields]
    found = {what: next((plain.index(name) for name in names if name in plain), -1) for what, names in NAMES.items()}
    return found if min(found.values()) >= 0 else None


def arrivals(text: str, name: str, left_out: list[str]) -> list[Arrival]:
    """The requests of a trace, in order of time. One that had no prompt or no answer, as BurstGPT's failed ones, goes
    into `left_out`. Raises BadPrompts."""
    lines = text.removeprefix("\ufeff").splitlines()
    number, first = next(((n, line) for n, line in enumerate(lines, 1) if line.strip()), (0, ""))
    fields = _fields(first.strip())
    places = _places(fields)
    if places is None:
        wanted = "; ".join(f"{what} tokens" if what != "at" else "a time" for what in NAMES)
        raise BadPrompts(f"cannot read '{name}': its first line names no {wanted} (docs/request.md has the names)")
    found = []
    if first.lstrip().startswith("{"):
        rows: Any = ((n, _object(line, name, n, fields)) for n, line in enumerate(lines, 1) if line.strip())
        scale = 1e-3  # Mooncake's milliseconds
    else:
        reader = csv.reader(io.StringIO("\n".join(lines[number:])))
        rows = ((number + reader.line_num, row) for row in reader if row)
        scale = 1.0
    for n, row in rows:
        try:
            at, prompt, output = (row[places[what]] for what in ("at", "prompt", "output"))
            one = Arrival(_instant(at) * scale, _tokens(prompt), _tokens(output))
        except (ValueError, IndexError, TypeError):
            raise BadPrompts(f"cannot read '{name}' line {n}: not a time and two numbers of tokens") from None
        if not one.tokens or not one.output_tokens:
            left_out.append(f"line {n}: {one.tokens} prompt and {one.output_tokens} output tokens")
            continue
        blocks = row[-1] if isinstance(row[-1], tuple) else ()
        found.append(Arrival(one.at_s, one.tokens, one.output_tokens, blocks))
    found.sort(key=lambda each: each.at_s)
    start = found[0].at_s if found else 0.0
    return [Arrival(round(each.at_s - start, 6), each.tokens, each.output_tokens, each.blocks) for each in found]


def _object(line: str, name: str, number: int, fields: list[str]) -> list[Any]:
    """A JSON line's values in the first line's order, its blocks last."""
    try:
        value = orjson.loads(line)
        ids = value.get("hash_ids") or []
        return [*(value.get(field) for field in fields), tuple(int(each) for each in ids)]
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        raise BadPrompts(f"cannot read '{name}' line {number}: not a JSON object of a trace") from None


def _instant(value: Any) -> float:
    """Seconds of a number, or of a date as Azure has it (UTC where it names no zone)."""
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, str) and re.match(r"\s*\d{4}-\d\d-\d\d", value):
        # Seven decimals, as in Azure's traces, are one more than Python reads.
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.strip()))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    at = float(value)
    if not math.isfinite(at):
        raise ValueError(value)
    return at


def _tokens(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError(value)
    count = float(value)
    if not 0 <= count <= MOST:
        raise ValueError(value)
    return round(count)
