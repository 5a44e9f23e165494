"""Words and numbers that come from outside: servers, files, other people's records."""

from __future__ import annotations

import re
from typing import Any

# No engine counts further in one request, and a million such counts still add up within 64 bits.
COUNT_LIMIT = 10**12

# Control characters of both sets, line and paragraph separators, marks that turn the direction of text, lone
# surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """The text on one line, with what a terminal, a mail or a table would act on written as an escape."""
    return _UNPRINTABLE.sub(_escape, text)


def printable_words(value: Any) -> Any:
    """Decoded JSON with all its words, keys too, made printable."""
    if isinstance(value, str):
        return value if value.isprintable() else printable(value)
    if isinstance(value, dict):
        return {printable_words(key): printable_words(item) for key, item in value.items()}
    return [printable_words(item) for item in value] if isinstance(value, list) else value


def _escape(match: re.Match[str]) -> str:
    letter = match[0]
    return _SHORT.get(letter) or (f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}")


# Escaped backslashes and whole pairs stay as they are; what is left of the surrogates is half of a letter.
_HALF = re.compile(
    rb"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def whole_letters(document: bytes) -> bytes:
    """JSON whose escapes hold no half of a surrogate pair: U+FFFD stands in its place."""
    return _HALF.sub(lambda match: match[1] or rb"\ufffd", document)


def count(value: object) -> int | None:
    """A count as an int from 0 to COUNT_LIMIT; None for anything else, `true` included."""
    return value if type(value) is int and 0 <= value <= COUNT_LIMIT else None
