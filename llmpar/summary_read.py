"""Files of records into a Summariser, fast: lines by the chunk, and slowly only where something is odd."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from itertools import chain
from operator import itemgetter
from typing import Any, BinaryIO

import orjson

from llmpar import records
from llmpar.columns import FIELDS, check, row
from llmpar.summary import Summariser

CHUNK_BYTES = 4 << 20
_all = itemgetter(*FIELDS)


def feed(summariser: Summariser, stream: BinaryIO, name: str) -> None:
    """Give all records of a stream to the summariser. Raises records.BadRecord naming stream and line.

    A last line without its newline that does not parse is torn: dropped and counted.
    """
    collecting = gc.isenabled()
    # Thousands of small lists live for a moment and hold no cycles; looking for some would cost a third of the time.
    gc.disable()
    try:
        number = 0
        while lines := stream.readlines(CHUNK_BYTES):
            if not _fast(summariser, lines):
                _slowly(summariser, lines, name, number)
            number += len(lines)
    finally:
        if collecting:
            gc.enable()


def _fast(summariser: Summariser, lines: list[bytes]) -> bool:
    """Take lines that are all request records with all fields; False, and nothing taken, where one is not."""
    try:
        rows = [_all(record) for record in map(orjson.loads, lines)]
    except (KeyError, TypeError, ValueError):
        return False
    versions = records.VERSIONS["request"]
    if any(each[0] != "request" or each[1] not in versions for each in rows):
        return False
    try:
        summariser.columns.add(rows)
    except (TypeError, ValueError, AttributeError, OverflowError):
        # Something is not of its type. The line by line way finds it and raises, so what was taken does not matter.
        return False
    return True


def _slowly(summariser: Summariser, lines: Iterable[bytes], name: str, number: int) -> None:
    rows: list[tuple[Any, ...]] = []
    for line in lines:
        number += 1
        if line.isspace():
            continue
        try:
            record = records.decode(line)
        except records.BadRecord as error:
            if line.endswith(b"\n"):
                raise records.BadRecord(f"cannot read '{name}' line {number}: {error}") from None
            summariser.torn += 1
            break
        if record["kind"] != "request":
            summariser.add_other(record)
            continue
        fields = row(record)
        try:
            check(fields)
        except records.BadRecord as error:
            raise records.BadRecord(f"cannot read '{name}' line {number}: {error}") from None
        rows.append(fields)
    summariser.columns.add(rows)


def feed_records(summariser: Summariser, given: Iterable[dict[str, Any]]) -> None:
    """Give records that are already parsed."""
    rows = []
    for record in chain(given):
        if record["kind"] == "request":
            fields = row(record)
            check(fields)
            rows.append(fields)
        else:
            summariser.add_other(record)
    summariser.columns.add(rows)
