"""Reading files of which anything may be behind the name: a pipe that stays silent, a device without end."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

TABLE_LIMIT = 64 << 20  # bytes of a table or another file that people write
DOCUMENT_LIMIT = 4 << 30  # bytes of a data set, or of another tool's results
PROMPT_LIMIT = 64 << 20  # bytes of a prompt file
LINE_LIMIT = 256 << 20  # bytes of a record: an answer is 64 MiB by default


class TooLong(ValueError):
    """More bytes than any file of its kind holds."""


def read(path: str, limit: int, timeout_s: float) -> bytes:
    """The whole of a file, pipe or device. Raises OSError (TimeoutError where it does not end in time) and TooLong."""
    # Not blocking: the opening of a pipe would wait for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return _rest(partial(os.read, fd), limit)
        return _streamed(fd, limit, time.monotonic() + timeout_s)
    finally:
        os.close(fd)


def whole(stream: BinaryIO, limit: int) -> bytes:
    """The rest of a stream. Raises TooLong."""
    return _rest(stream.read, limit)


def _rest(read_most: Callable[[int], bytes], limit: int) -> bytes:
    """All that there is, read by a function that takes the most bytes that it may return."""
    parts = []
    left = limit
    while part := read_most(min(1 << 20, left + 1)):
        parts.append(part)
        left -= len(part)
        if left < 0:
            raise TooLong(f"it holds more than {limit} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _streamed(fd: int, limit: int, deadline: float) -> bytes:
    ready = select.poll()
    ready.register(fd, select.POLLIN)
    data = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            raise TimeoutError(None, "it did not come to an end in time")
        try:
            part = os.read(fd, 1 << 16)
        except BlockingIOError:
            continue
        if not part:
            return bytes(data)
        data += part
        if len(data) > limit:
            raise TooLong(f"it holds more than {limit} bytes")
