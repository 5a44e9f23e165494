"""A file of prompt names from which any number of processes take turns, each name once.

How far they are stands in a small file of the user's runtime directory, named after the fan-out (GNU parallel's process)
and the list, and locked for each take. It must outlive every single process: one that starts when the others are done
has to find the list used up. It goes when the fan-out has gone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator

from llmpar import runtime


def read(path: str) -> list[str]:
    """The names in a list, a line each, or NUL-separated. Raises OSError."""
    with open(path, "rb") as stream:
        data = stream.read()
    parts = data.split(b"\0" if b"\0" in data else b"\n")
    return [os.fsdecode(part) for part in parts if part]


def take(path: str, family: str | None = None) -> Iterator[str]:
    """The names that fall to this process, each taken when it is wanted. Raises OSError."""
    items = read(path)
    found = os.stat(path)
    mark = hashlib.sha256(f"{found.st_dev}:{found.st_ino}".encode()).hexdigest()[:16]
    folder = runtime.directory()
    runtime.sweep(folder)
    fd = os.open(f"{folder}/{family or runtime.family()}.queue-{mark}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                at = int(os.pread(fd, 20, 0) or b"0")
                if at >= len(items):
                    return
                os.pwrite(fd, b"%020d" % (at + 1), 0)
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)
            yield items[at]
    finally:
        os.close(fd)
