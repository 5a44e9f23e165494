"""The file with an API key, read alike by everything that asks a server."""

from __future__ import annotations


def read(path: str) -> str:
    """The key in a file. Raises ValueError with a message that says what is wrong and never the key."""
    try:
        with open(path, encoding="ascii") as stream:
            key = stream.read().strip()
    except OSError as error:
        raise ValueError(f"cannot read the API key file '{path}': {error.strerror}") from None
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isprintable() or " " in key:
        raise ValueError(f"'{path}' does not hold one API key")
    return key
