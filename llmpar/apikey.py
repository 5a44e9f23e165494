"""The file with an API key, read alike by everything that asks a server."""

from __future__ import annotations

from typing import overload

from llmpar import files

LIMIT = 1 << 16  # bytes of the file
WAIT_S = 60.0  # for a pipe, as of `--api-key-file <(pass show engine)`


def read(path: str) -> str:
    """The key in a file. Raises ValueError with a message that says what is wrong and never the key."""
    try:
        key = files.read(path, LIMIT, WAIT_S).decode("ascii").strip()
    except OSError as error:
        raise ValueError(f"cannot read the API key file '{path}': {error.strerror}") from None
    except (UnicodeDecodeError, files.TooLong, ValueError):
        key = ""
    if not key or not key.isprintable() or " " in key:
        raise ValueError(f"'{path}' does not hold one API key")
    return key


@overload
def scrub(text: str, key: str | None) -> str: ...
@overload
def scrub(text: str | None, key: str | None) -> str | None: ...
def scrub(text: str | None, key: str | None) -> str | None:
    """The text without the key, for servers that say it back."""
    return text.replace(key, "[API key]") if text and key and key in text else text
