"""Where records and warnings go, and the exit code they add up to."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from llmpar import exit_codes, records
from llmpar.outside import printable


class Output:
    """Where records go: each with one write, to the end of a file or to standard output."""

    def __init__(self, path: str | None):
        self.path = path
        self.torn = False

    def put(self, record: dict[str, Any]) -> None:
        """Raises OSError (disk full, closed pipe)."""
        self.write(records.encode(record))

    def write(self, line: bytes) -> None:
        try:
            if self.path is not None:
                records.append(self.path, line)
                return
            # After a disk that was full there may be room again: what was cut short stays on a line of its own.
            view = memoryview(b"\n" + line if self.torn else line)
            self.torn = True
            while view:
                view = view[os.write(1, view) :]
            self.torn = False
        except OSError as error:
            raise OSError(
                error.errno, f"cannot write a record: {error.strerror}", self.path or "standard output"
            ) from None


class Tally:
    """What the records said, for the exit code."""

    def __init__(self) -> None:
        self.done = self.failed = 0

    def add(self, record: dict[str, Any]) -> None:
        self.done += 1
        if record["status"] != "ok":
            self.failed += 1
            self.say(f"'{record['prompt']}': {record['error']['message']}")

    def say(self, text: str) -> None:
        warn(text)

    @property
    def status(self) -> int:
        return exit_codes.REQUEST_FAILED if self.failed else exit_codes.OK


def warn(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"llmpar-request: {printable(text)}\n")
