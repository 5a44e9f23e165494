"""Sizes and quantities with a unit, read in one place: "8GiB", "512", "1.5k"."""

from __future__ import annotations

import re
from typing import Any

UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def quantity(value: Any) -> float | None:
    """A number with an optional unit of bytes (`8GiB`, `500MB`) as a float, or None."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?", str(value).strip().lower())
    try:
        return float(match[1]) * UNITS[match[2]] if match else None
    except (ValueError, KeyError):
        return None


def by_size(value: Any) -> tuple[int, float, str]:
    """A key to sort values of a setting with: unset, then numbers and sizes by size (8GiB before 16GiB), then words."""
    size = quantity(value)
    return 0 if value is None else 2 if size is None else 1, size or 0.0, str(value)


def parse(text: str | int) -> int:
    """Bytes from `8GiB`, `24GB`, `16MiB` or a plain number. Raises ValueError."""
    size = quantity(text)
    if size is None or size <= 0:
        raise ValueError(f"'{text}' is not a size; write 8GiB, 24GB or a number of bytes")
    return int(size)


TIMES = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}


def seconds_of(text: str) -> float:
    """Seconds from `500ms`, `0.5s`, `2min` or a plain number of seconds, above 0. Raises ValueError."""
    match = re.fullmatch(
        r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(us|ms|s|min|)", str(text).strip().lower().replace("µ", "u")
    )
    value = float(match[1]) * TIMES[match[2]] if match else 0.0
    if not value > 0:
        raise ValueError(f"'{text}' is not a duration; write 500ms, 0.5s or a number of seconds")
    return value
