"""Server-sent events of a whole body, with the place where each became complete.

WHATWG HTML, "Server-sent events": lines end in LF, CR or CR LF; an event ends at an empty line; comments start with a
colon; one space after the field's colon is dropped.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


def events(body: bytes) -> list[tuple[int, bytes]]:
    """The data of each event that has any, as (offset, data), in order.

    `offset` is the number of body bytes after which the event was complete, its empty line included; `data` has its
    field name and one leading space removed, several data lines joined by LF. What stands at the end without an empty
    line counts as an event complete at the end of the body: servers that close the connection at once leave it out.
    """
    if b"\r" in body:
        return _by_line(body)
    found = []
    end = 3 if body.startswith(b"\xef\xbb\xbf") else 0
    size = len(body)
    for block in body[end:].split(b"\n\n"):
        end = min(end + len(block) + 2, size)
        if block.startswith(b"data:") and b"\n" not in block:
            found.append((end, block[6:] if block[5:6] == b" " else block[5:]))
        elif block:
            data = _data(block.split(b"\n"))
            if data is not None:
                # An odd number of empty lines leaves one at the head of the next block; it ends nothing.
                found.append((end, data))
    return found


def _data(lines: list[bytes]) -> bytes | None:
    data = None
    for line in lines:
        if line.startswith(b"data:"):
            value = line[6:] if line[5:6] == b" " else line[5:]
        elif line == b"data":
            value = b""
        else:
            continue
        data = value if data is None else data + b"\n" + value
    return data


def _by_line(body: bytes) -> list[tuple[int, bytes]]:
    """The same for bodies with a CR somewhere: line by line, by the letter of the standard."""
    found = []
    lines: list[bytes] = []
    start = 3 if body.startswith(b"\xef\xbb\xbf") else 0
    for match in _LINE_END.finditer(body, start):
        if match.start() > start:
            lines.append(body[start : match.start()])
        elif lines:
            data = _data(lines)
            if data is not None:
                found.append((match.end(), data))
            lines = []
        start = match.end()
    if start < len(body):
        lines.append(body[start:])
    data = _data(lines)
    if data is not None:
        found.append((len(body), data))
    return found
