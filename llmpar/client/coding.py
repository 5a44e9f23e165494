"""Content codings: what stands between a server and us may compress an answer, though identity was asked for."""

from __future__ import annotations

import zlib

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
MOST = 3  # codings of one answer, one around the other


class BadCoding(ValueError):
    """A body that cannot be decoded; the text names the coding."""


def decode(coding: str, body: bytes, marks: list[int], max_bytes: int) -> tuple[bytes, list[int]]:
    """The decoded body, and its length when each receipt had come, from the lengths of the coded one.

    `coding` may name several, in the order in which they were put on. Raises BadCoding for one that is not gzip or
    deflate, for a body that is not in it, and for more than `max_bytes`.
    """
    names = [name for part in coding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    unknown = [name for name in names if name not in _WINDOW]
    if unknown or len(names) > MOST:
        what = ", ".join(unknown or names)[:40]
        raise BadCoding(f"the answer is compressed ({what}), which was not asked for and cannot be read")
    for name in reversed(names):  # the last one was put on last
        body, marks = _unpack(name, body, marks, max_bytes)
    return body, marks


def _unpack(name: str, body: bytes, marks: list[int], max_bytes: int) -> tuple[bytes, list[int]]:
    window = _WINDOW[name]
    if name == "deflate" and body[:1] and body[0] & 0x0F != 8:
        window = -15  # without its own head, as some servers send it
    out = bytearray()
    decoded = []
    at = 0
    machine = zlib.decompressobj(window)
    try:
        for mark in marks:
            data = body[at:mark]
            while data:
                if machine.eof:  # gzip may come in several members, and with zeros behind
                    if not data.strip(b"\0"):
                        break
                    machine = zlib.decompressobj(window)
                out += machine.decompress(data, max_bytes + 1 - len(out))
                if len(out) > max_bytes or machine.unconsumed_tail:
                    raise BadCoding(f"more than {max_bytes} bytes came out of the compressed answer")
                data = machine.unused_data if window == _WINDOW["gzip"] else b""
            at = mark
            decoded.append(len(out))
    except zlib.error as error:
        raise BadCoding(f"the answer is not the {name} that it says it is ({error})") from None
    return bytes(out), decoded
