"""Columns of a run, in memory while they are small and beyond that in a temporary file: mapped, so that memory holds
what it has room for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from llmpar.summary.chunks import NONE

LEAST_BYTES = 1 << 20  # a smaller array is not worth a file

# In the order in which they were made, so that a process forked later knows them by number too.
_spills: list[Spill] = []


class Spill:
    """A temporary file without a name, in TMPDIR, and how far it is filled. Raises OSError, which says where."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="llmpar-", buffering=0)
        self._end = 0
        self._number = len(_spills)
        _spills.append(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _known, (self._number,)

    def put(self, values: np.ndarray) -> Stored:
        """Write an array."""
        return self.fill(len(values), values.dtype, [values])

    def fill(self, count: int, kind: Any, parts: Iterable[np.ndarray]) -> Stored:
        """Write an array of so many elements, a part at a time: in memory mapped for writing, each page would cost a
        fault of its own."""
        kind = np.dtype(kind)
        start = offset = self._reserve(count * kind.itemsize)
        for part in parts:
            data = np.ascontiguousarray(part, dtype=kind).view(np.uint8).data
            written = 0
            while written < len(data):
                written += os.pwrite(self._file.fileno(), data[written:], offset + written)
            offset += written
        return Stored(self, start, kind.str, count)

    def _reserve(self, size: int) -> int:
        """Where so many bytes go. A full disk says so here, and not by SIGBUS when memory is written to."""
        offset = self._end
        try:
            if size:
                os.posix_fallocate(self._file.fileno(), offset, size)
        except OSError as error:
            advice = f"{error.strerror}; TMPDIR may name a folder with more room"
            raise OSError(error.errno, advice, tempfile.gettempdir()) from None
        self._end += size
        return offset

    def mapped(self, offset: int, kind: Any, count: int) -> np.ndarray:
        return np.asarray(np.memmap(self._file, kind, "r", offset, (count,))) if count else np.empty(0, kind)


def _known(number: int) -> Spill:
    return _spills[number]


@dataclass(frozen=True)
class Stored:
    """An array in a file."""

    spill: Spill
    offset: int
    kind: str
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.kind)

    def array(self) -> np.ndarray:
        return self.spill.mapped(self.offset, self.kind, self.count)


def array(part: np.ndarray | Stored) -> np.ndarray:
    """An array, wherever it is."""
    return part.array() if isinstance(part, Stored) else part


class Column:
    """One column in the parts in which it came: arrays in memory or stored, and lengths of parts that are NONE all
    through."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray | Stored | int] = []

    def append(self, values: np.ndarray) -> int:
        """Add an array; returns how many bytes of memory it takes."""
        empty = len(values) and values.dtype == np.int64 and values[0] == NONE and bool((values == NONE).all())
        self.parts.append(len(values) if empty else values)
        return 0 if empty else values.nbytes

    def store(self, spill: Spill) -> None:
        """Put what is in memory into a file."""
        parts: list[np.ndarray | Stored | int] = []
        for stored, group in groupby(self.parts, lambda part: isinstance(part, Stored)):
            some = list(group)
            joined = some if stored else [_joined(some)]
            parts += [spill.put(part) if isinstance(part, np.ndarray) else part for part in joined]
        self.parts = parts

    def whole(self, spill: Spill | None) -> np.ndarray:
        """All of it; in the file where there is one."""
        if all(isinstance(part, int) for part in self.parts):
            return np.broadcast_to(np.int64(NONE), (sum(map(_length, self.parts)),))
        if len(self.parts) > 1 or not isinstance(self.parts[0], np.ndarray):
            self.parts = [_joined(self.parts, spill)]
        whole = self.parts[0]
        assert isinstance(whole, np.ndarray)
        return whole


def _length(part: np.ndarray | Stored | int) -> int:
    return part if isinstance(part, int) else len(part)


def _joined(parts: list[np.ndarray | Stored | int], spill: Spill | None = None) -> Any:
    """Parts as one array, in the file where one is given; a number where all are NONE."""
    count = sum(map(_length, parts))
    kinds = [part.dtype for part in parts if not isinstance(part, int)]
    if not kinds:
        return count
    arrays = (np.full(part, NONE) if isinstance(part, int) else array(part) for part in parts)
    return np.concatenate(list(arrays)) if spill is None else spill.fill(count, kinds[0], arrays).array()
