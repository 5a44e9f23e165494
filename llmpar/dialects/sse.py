"""Server-sent events of a whole body, with the place where each became complete.

WHATWG HTML, "Server-sent events": lines end in LF, CR or CR LF; an event ends at an empty line; comments start with a
colon; one space after the field's colon is dropped.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


def events(body: bytes, names: dict[int, bytes] | None = None) -> list[tuple[int, bytes]]:
    """The data of each event that has any, as (offset, data), in order.

    `offset` is the number of body bytes after which the event was complete, its empty line included; `data` has its
    field name and one leading space removed, several data lines joined by LF. What stands at the end without an empty
    line counts as an event complete at the end of the body: servers that close the connection at once leave it out.
    `names` gets the names of those that have one (`event:`), by offset. A field `error:` is an event of that name:
    llama.cpp's servers until 2025 said so what went wrong.
    """
    if b"\r" in body:
        return _by_line(body, names)
    found: list[tuple[int, bytes]] = []
    end = 3 if body.startswith(b"\xef\xbb\xbf") else 0
    size = len(body)
    for block in body[end:].split(b"\n\n"):
        end = min(end + len(block) + 2, size)
        if block.startswith(b"data:") and b"\n" not in block:
            found.append((end, block[6:] if block[5:6] == b" " else block[5:]))
        elif block:
            # An odd number of empty lines leaves one at the head of the next block; it ends nothing.
            _event(block.split(b"\n"), end, found, names)
    return found


def _event(lines: list[bytes], end: int, found: list[tuple[int, bytes]], names: dict[int, bytes] | None) -> None:
    data = []
    name = b""
    for line in lines:
        field, _, value = line.partition(b":")
        if field not in (b"data", b"error", b"event"):
            continue
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
            continue
        if field == b"error":
            name = b"error"
        data.append(value)
    if data:
        found.append((end, b"\n".join(data)))
        if name and names is not None:
            names[end] = name


def _by_line(body: bytes, names: dict[int, bytes] | None) -> list[tuple[int, bytes]]:
    """The same for bodies with a CR somewhere: line by line, by the letter of the standard."""
    found: list[tuple[int, bytes]] = []
    lines: list[bytes] = []
    start = 3 if body.startswith(b"\xef\xbb\xbf") else 0
    for match in _LINE_END.finditer(body, start):
        if match.start() > start:
            lines.append(body[start : match.start()])
        elif lines:
            _event(lines, match.end(), found, names)
            lines = []
        start = match.end()
    if start < len(body):
        lines.append(body[start:])
    _event(lines, len(body), found, names)
    return found
