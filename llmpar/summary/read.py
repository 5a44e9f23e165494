"""Files of records into a Summariser, fast: lines by the chunk, and slowly only where something is odd."""

from __future__ import annotations

import gc
import io
import math
import os
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import islice
from typing import Any, BinaryIO

import msgspec

from llmpar import files, records
from llmpar.summary.chunks import EMPTY, Chunk, check, lines_of, mend
from llmpar.summary.summariser import Summariser

BLOCK_BYTES = 256 << 10  # of lines whose objects stay within a processor's cache
CHUNK_BLOCKS = 8
BUFFER_BYTES = 64 << 10
PART_BYTES = 32 << 20  # a process of its own pays from here
SAMPLES = (b'{"kind":"gpu"', b'{"kind":"engine"')


def feed_file(summariser: Summariser, path: str) -> None:
    """Give all records of a file to the summariser, a large one in as many processes as there are processors.

    Raises OSError, records.BadRecord.
    """
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    parts = min(len(os.sched_getaffinity(0)), size // PART_BYTES)
    if parts < 2:
        with open(path, "rb", buffering=BUFFER_BYTES) as stream:
            feed(summariser, stream, path)
        return
    with open(path, "rb") as stream:
        edges = [0]
        for part in range(1, parts):
            stream.seek(max(size * part // parts, edges[-1]))
            stream.readline(files.LINE_LIMIT)
            edges.append(stream.tell())
    multiprocessing = import_module("multiprocessing").get_context("fork")
    workers = []
    for start, end in zip(edges[1:], [*edges[2:], None], strict=True):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        worker = multiprocessing.Process(
            target=_part, args=(summariser.another(), path, start, end, sender), daemon=True
        )
        worker.start()
        sender.close()
        workers.append((worker, receiver))
    summarisers: list[Summariser | None] = [_read(summariser.another(), path, 0, edges[1])]
    for worker, receiver in workers:
        try:
            summarisers.append(receiver.recv())
        except EOFError:
            summarisers.append(None)
        worker.join()
    if None in summarisers:
        # Something in it is no record, or a worker died: one process, which can say which line it was.
        with open(path, "rb", buffering=BUFFER_BYTES) as stream:
            feed(summariser, stream, path)
        return
    for summariser_of_part in summarisers:
        if summariser_of_part is not None:
            summariser.merge(summariser_of_part)


def _read(summariser: Summariser, path: str, start: int, end: int | None) -> Summariser | None:
    """An empty summariser with the lines that begin in [start, end) of a file; None where one is not a record."""
    try:
        with open(path, "rb", buffering=BUFFER_BYTES) as stream:
            stream.seek(start)
            feed(summariser, stream, path, None if end is None else end - start)
    except (OSError, records.BadRecord):
        return None
    return summariser


def _part(summariser: Summariser, path: str, start: int, end: int | None, sender: Any) -> None:
    """In a process of its own: what was read, through a pipe, without its columns: their file is open in both."""
    done = _read(summariser, path, start, end)
    if done is not None:
        done.columns.store()
    sender.send(done)
    sender.close()


def feed(summariser: Summariser, stream: BinaryIO, name: str, limit: int | None = None) -> None:
    """Give all records of a stream to the summariser. Raises records.BadRecord naming stream and line.

    A torn line (records.salvage) is dropped and counted. `limit`: bytes to read, which must
    end with a line.
    """
    collecting = gc.isenabled()
    # Thousands of small lists live for a moment and hold no cycles; looking for some would cost a third of the time.
    gc.disable()
    try:
        number, rest = 0, _blocks(stream, name, math.inf if limit is None else limit)
        while blocks := list(islice(rest, CHUNK_BLOCKS)):
            lines = sum(map(lines_of, blocks))
            if not _fast(summariser, blocks, lines):
                _slowly(summariser, io.BytesIO(b"".join(blocks)), name, number)
            number += lines
    finally:
        if collecting:
            gc.enable()


def _blocks(stream: BinaryIO, name: str, limit: float) -> Iterator[bytes]:
    """The lines of a stream, up to `limit` bytes of it, so many at a time as BLOCK_BYTES holds and the one beyond.
    Raises records.BadRecord where a line does not end."""
    while limit > 0 and (block := stream.read(int(min(BLOCK_BYTES, limit)))):
        if not block.endswith(b"\n"):
            block += records.next_line(stream, name)
        limit -= len(block)
        yield block


def _fast(summariser: Summariser, blocks: list[bytes], lines: int) -> bool:
    """Take lines that are all request records in good order; False, and nothing taken, where one is not."""
    try:
        summariser.columns.add(Chunk.of_blocks(blocks, lines))
        return True
    except (msgspec.MsgspecError, OverflowError, RecursionError, ValueError):
        # Something is odd. The line by line way finds it: either it can be read, or it raises and what was taken of
        # this chunk does not matter.
        return False


def _slowly(summariser: Summariser, lines: Iterable[bytes], name: str, number: int) -> None:
    kept: list[dict[str, Any]] = []
    for line in lines:
        number += 1
        if line.isspace():
            continue
        try:
            try:
                record = records.decode(line)
            except records.BadShape as error:
                # A sample costs itself; without its cell, server or host a summary would be another.
                if not line.startswith(SAMPLES):
                    raise
                summariser.left_out.append(f"'{name}' line {number}: {error}")
                continue
            except records.BadRecord:
                torn, whole = records.salvage(line)
                if not torn:
                    raise
                summariser.torn += 1
                if whole is None:
                    continue
                record = whole
            if record["kind"] == "request":
                kept.append(_checked(summariser, record))
            else:
                summariser.add_other(record)
        except records.BadRecord as error:
            raise records.BadRecord(f"cannot read '{name}' line {number}: {error}") from None
    summariser.columns.add(Chunk.of_records(kept))


def _checked(summariser: Summariser, record: dict[str, Any]) -> dict[str, Any]:
    """The record with all its fields, numbers out of range as null."""
    record = EMPTY | record
    check(record)
    summariser.columns.out_of_range += mend(record)
    return record


def feed_records(summariser: Summariser, given: Iterable[dict[str, Any]]) -> None:
    """Give records that are already parsed. Raises records.BadRecord."""
    kept = []
    for record in given:
        if record["kind"] == "request":
            kept.append(_checked(summariser, record))
        else:
            summariser.add_other(record)
    summariser.columns.add(Chunk.of_records(kept))
