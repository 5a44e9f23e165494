"""A file of prompt names from which any number of processes take turns, each name once.

How far they are stands in a small file of the user's runtime directory, named after the fan-out (GNU parallel's
process) and the list, and locked for each take. It must outlive every single process: one that starts when the others
are done has to find the list used up. It goes when the fan-out has gone.
"""

from __future__ import annotations

import codecs
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator

from llmpar import runtime_directory
from llmpar.procfs import fan_out_key, process_key

ENTRY = 11  # bytes


def read(path: str) -> list[str]:
    """The names in a list, a line each, or NUL-separated. Raises OSError."""
    with open(path, "rb") as stream:
        data = stream.read()
    mark = b"\0" if b"\0" in data else b"\n"
    return [os.fsdecode(part) for part in plain_names(data.removeprefix(codecs.BOM_UTF8).split(mark), mark)]


def plain_names(parts: Iterable[bytes], mark: bytes) -> list[bytes]:
    """Names without the CR that lists made on Windows have at the end of each; a name that has one itself is
    NUL-separated."""
    return [name for part in parts if (name := part.removesuffix(b"\r") if mark == b"\n" else part)]


class Queue:
    """A list in use by one fan-out. Its file holds the taker of each name in turn, so that its length is the position
    and a taker that died can be told from one that is done."""

    def __init__(self, path: str, owner: str | None = None):
        """Raises OSError where the list or the runtime directory cannot be had."""
        self.items = read(path)
        found = os.stat(path)
        mark = hashlib.sha256(f"{found.st_dev}:{found.st_ino}".encode()).hexdigest()[:16]
        folder = runtime_directory.directory()
        runtime_directory.sweep(folder)
        self.file = f"{folder}/{owner or fan_out()}.queue-{mark}"

    def take(self, taker: int) -> Iterator[str]:
        """The names that fall to process `taker`, each taken when it is wanted."""
        fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            while True:
                fcntl.flock(fd, fcntl.LOCK_EX)
                try:
                    at = os.fstat(fd).st_size // ENTRY
                    if at >= len(self.items):
                        return
                    os.write(fd, b"%*d\n" % (ENTRY - 1, taker))
                finally:
                    fcntl.flock(fd, fcntl.LOCK_UN)
                yield self.items[at]
        finally:
            os.close(fd)

    def taken(self, taker: int) -> list[str]:
        """What this process has taken so far, in order."""
        try:
            with open(self.file, "rb") as stream:
                takers = stream.read().split()
        except FileNotFoundError:
            return []
        return [item for item, who in zip(self.items, takers, strict=False) if int(who) == taker]


def fan_out(environ: dict[str, str] | None = None) -> str:
    """What the processes of one fan-out have in common: the GNU parallel (or other parent) that starts them."""
    environ = dict(os.environ) if environ is None else environ
    text = environ.get("PARALLEL_PID", "")
    key = process_key(int(text)) if text.isascii() and text.isdigit() else None
    return key or fan_out_key(os.getppid())
