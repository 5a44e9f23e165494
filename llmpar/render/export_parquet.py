"""Records as one Parquet table: a column for each field, nested objects as `outer.inner`.

A list of numbers stays a list; any other list, and a field that has values of several types, is JSON text. Integers
that meet decimals in one column become decimals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, BinaryIO


class Missing(ImportError):
    """pyarrow is not installed."""


def write(records: Iterable[dict[str, Any]], out: BinaryIO) -> int:
    """Write all records, which may be of several kinds; returns how many. Raises Missing."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise Missing(str(error)) from None
    columns: dict[str, list[Any]] = {}
    count = 0
    for record in records:
        for name, value in _flat(record):
            column = columns.setdefault(name, [])
            column.extend([None] * (count - len(column)))
            column.append(value)
        count += 1
    arrays = {}
    for name, column in columns.items():
        column.extend([None] * (count - len(column)))
        arrays[name] = pyarrow.array(_of_one_type(column))
    parquet.write_table(pyarrow.table(arrays), out, compression="zstd")
    return count


def _flat(record: dict[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{key}.")
        elif isinstance(value, dict):
            yield f"{before}{key}", None
        else:
            yield f"{before}{key}", value


def _kinds(values: Iterable[Any]) -> set[type]:
    return {type(value) for value in values if value is not None}


def _of_one_type(column: list[Any]) -> list[Any]:
    kinds = _kinds(column)
    if kinds <= {int} and all(value is None or -(2**63) <= value < 2**63 for value in column):
        return column
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in column]
    if kinds in ({str}, {bool}):
        return column
    if kinds == {list}:
        inside = _kinds(item for value in column if value is not None for item in value)
        if inside <= {int, float} and inside:
            cast = float if float in inside else int
            return [
                None if value is None else [None if item is None else cast(item) for item in value] for value in column
            ]
    return [None if value is None else json.dumps(value) for value in column]
