"""Content codings: what stands between a server and us may compress an answer, though identity was asked for."""

from __future__ import annotations

import zlib

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class BadCoding(ValueError):
    """A body that cannot be decoded; the text names the coding."""


def decode(coding: str, body: bytes, marks: list[int], max_bytes: int) -> tuple[bytes, list[int]]:
    """The decoded body, and its length when each receipt had come, from the lengths of the coded one.

    Raises BadCoding for a coding that is not gzip or deflate, for a body that is not in it, and for more than
    `max_bytes`.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return body, marks
    if name not in _WINDOW:
        raise BadCoding(f"the answer is compressed ({name[:40]}), which was not asked for and cannot be read")
    window = _WINDOW[name]
    if name == "deflate" and body[:1] and body[0] & 0x0F != 8:
        window = -15  # without its own head, as some servers send it
    out = bytearray()
    decoded = []
    at = 0
    machine = zlib.decompressobj(window)
    try:
        for mark in marks:
            out += machine.decompress(body[at:mark], max_bytes + 1 - len(out))
            at = mark
            decoded.append(len(out))
            if len(out) > max_bytes or machine.unconsumed_tail:
                raise BadCoding(f"more than {max_bytes} bytes came out of the compressed answer")
    except zlib.error as error:
        raise BadCoding(f"the answer is not the {name} that it says it is ({error})") from None
    return bytes(out), decoded
