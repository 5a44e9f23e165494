"""Files changed by the seed: bytes cut, doubled and replaced, and JSON values replaced by values of other types."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

BYTES = [
    b"",
    b"\n",
    b"\r\n",
    b"\0",
    b"\t",
    b"-1",
    b"1e300",
    b"1e999",
    b"18446744073709551616",
    b'"5"',
    b"true",
    b"null",
    b"NaN",
    b"[" * 90,
    b"[" * 3000,
    b"{}",
    b"\xff",
    b"\xef\xbb\xbf",
    b'"\\ud83d"',
    b"\x1b[2J",
    b"$",
    b" " * 3000,
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    0.5,
    1e300,
    -1e300,
    5e-324,
    1e13,
    2**63,
    2**64 - 1,
    "",
    "5",
    "nan",
    "x\n\x1b[31m$\\frac{a$",
    "=1+1",
    "_x",
    "x" * 5000,
    [],
    [None],
    [1, "a"],
    [[]],
    {},
    {"value": "x"},
    {"a": {"b": [1]}},
]


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Each place in a document: what holds it, and its key or index there."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        found.append((value, key))
        _places(item, found)
    return found


def document(chance: random.Random, value: Any) -> Any:
    """The document with some values of other types, some missing, and some twice."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        places = _places(value, [])
        if not places:
            return chance.choice(VALUES)
        holder, key = chance.choice(places)
        how = chance.random()
        if how < 0.75:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
        elif how < 0.9:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[str(chance.choice(["x", "", "kind", "value", "n"]))] = holder[key]
    return value


def raw(chance: random.Random, data: bytes) -> bytes:
    """The bytes with pieces cut, doubled and replaced."""
    made = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(made) + 1)
        to = at + chance.choice([0, 1, 3, 30, 300])
        how = chance.random()
        made[at:to] = chance.choice(BYTES) if how < 0.6 else made[at:to] * 2 if how < 0.8 else b""
    return bytes(made)


def changed(chance: random.Random, data: bytes) -> bytes:
    """One of the two, on one line where there are several."""
    if chance.random() < 0.3:
        return raw(chance, data)
    try:
        whole = json.loads(data)
    except ValueError:
        whole = None
    if whole is not None:
        return json.dumps(document(chance, whole), separators=(",", ":")).encode() + b"\n"
    lines = data.splitlines(keepends=True)
    place = chance.randrange(len(lines)) if lines else 0
    try:
        made = json.dumps(document(chance, json.loads(lines[place])), separators=(",", ":")).encode() + b"\n"
    except (ValueError, IndexError):
        return raw(chance, data)
    return b"".join([*lines[:place], made, *lines[place + 1 :]])
