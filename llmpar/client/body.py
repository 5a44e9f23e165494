"""Further fields of a request's body, fields left out, and fields under another name: a JSON Merge Patch (RFC 7396)."""

from __future__ import annotations

from typing import Any

import orjson

from llmpar import files

LIMIT = 16 << 20  # bytes of a patch; tools and schemas take some kilobytes
DEEPEST = 100  # orjson writes 254 levels

# Fields that a record answers for by itself -> where their values come from.
OWN = {
    "model": "--model",
    "prompt": "the prompt file",
    "prompts": "the prompt file",
    "messages": "the prompt file",
    "inputs": "the prompt file",
    "stream": "--stream or --no-stream",
}


def read(text: str, timeout_s: float = 600.0) -> dict[str, Any]:
    """The patch in JSON text, or in the file that `@FILE` names. Raises ValueError."""
    name = "--body"
    data = text.encode("utf-8", "surrogateescape")
    if text.startswith("@"):
        name = f"'{text[1:]}'"
        try:
            data = files.read(text[1:], LIMIT, timeout_s)
        except OSError as error:
            raise ValueError(f"cannot read {name}: {error.strerror}") from None
    try:
        patch = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    return checked(patch, name)


def checked(patch: Any, name: str) -> dict[str, Any]:
    """A patch that may be merged into a body; `name` is what holds it. Raises ValueError."""
    if not isinstance(patch, dict):
        raise ValueError(f"{name} is not a JSON object")
    for field, where in OWN.items():
        if field in patch:
            raise ValueError(f"{name} holds '{field}', which comes from {where}")
    for field in ("n", "best_of"):
        if patch.get(field) not in (None, 1):
            raise ValueError(f"{name} asks for {field} {patch[field]}: a record holds one answer")
    if _depth(patch) > DEEPEST:
        raise ValueError(f"{name} is nested deeper than {DEEPEST} levels")
    return patch


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
            if isinstance(item, dict | list)
        ]
    return depth


def merged(fields: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The fields with the patch applied: null leaves one out, objects are merged, anything else replaces."""
    made = dict(fields)
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict):
            before = made.get(name)
            made[name] = merged(before if isinstance(before, dict) else {}, value)
        else:
            made[name] = value
    return made
