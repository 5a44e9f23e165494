"""Rows as CSV (RFC 4180, `.` for decimals): one line a cell, each figure with its interval and sessions."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from llmpar.outside import printable
from llmpar.report import document
from llmpar.results.rows import Row


def rows(given: Sequence[Row]) -> str:
    """A header and one line a row; an empty field was not measured."""
    keys = list(dict.fromkeys(key for row in given for key in row.settings))
    metrics = [metric for metric in document.CSV_METRICS if any(row.figure(metric).value is not None for row in given)]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        [
            "sweep",
            "cell",
            "host",
            *map(_inert, keys),
            "sessions",
            "requests",
            "failed",
            "client_limited",
            *(f"{metric}{part}" for metric in metrics for part in ("", "_low", "_high")),
        ]
    )
    for row in given:
        requests = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries)
        line = [
            row.sweep,
            row.cell,
            row.host,
            *(row.settings.get(key) for key in keys),
            len(row.summaries),
            requests,
            row.failures,
            " ".join(row.limited),
        ]
        for metric in metrics:
            figure = row.figure(metric)
            line += [figure.value, figure.low, figure.high]
        writer.writerow(["" if value is None else _inert(value) for value in line])
    return out.getvalue()


def _inert(value: object) -> object:
    """A word without control characters, and with a quote before it if a spreadsheet would run it as a formula."""
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value)
