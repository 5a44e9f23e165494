"""Requests in flight over a cell's time, and the samples that were taken beside them, as tracks on one axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llmpar import series

# Candidates by record kind, first the dotted paths of which the first that has values is drawn, then the label and what
# to divide by. `devices.0.x` is the first device's.
TRACKS: tuple[tuple[str, tuple[str, ...], str, float], ...] = (
    ("gpu", ("utilisation_ratio", "sm_active_ratio"), "GPU busy, %", 0.01),
    ("gpu", ("tensor_active_ratio",), "tensor cores active, %", 0.01),
    ("gpu", ("power_w",), "GPU power, W", 1.0),
    ("gpu", ("memory_used_bytes",), "GPU memory used, GiB", 2**30),
    ("engine", ("kv_usage_ratio",), "KV cache used, %", 0.01),
    ("engine", ("waiting",), "requests waiting in the engine", 1.0),
    ("engine", ("running",), "requests running in the engine", 1.0),
    ("engine", ("cpu_ratio", "cpu_cores"), "engine CPU, cores", 1.0),
    ("engine", ("memory_bytes", "rss_bytes"), "engine memory, GiB", 2**30),
)
MOST_TRACKS = 4


@dataclass
class Timeline:
    """`flight`: (seconds from the first launch, requests in flight); `tracks`: (label, seconds, values or None)."""

    row: series.Row
    session: str
    flight: list[tuple[float, int]]
    tracks: list[tuple[str, list[float], list[float | None]]]


def of(row: series.Row, summary: dict[str, Any], samples: Iterable[dict[str, Any]]) -> Timeline | None:
    """The time line of one summary; None where it holds no series. `samples`: gpu and engine records of the same cell."""
    held = summary.get("series")
    if not isinstance(held, dict) or not held.get("in_flight"):
        return None
    start, step = held["start_at"], held["step_s"]
    flight = [(index * step, int(count)) for index, count in enumerate(held["in_flight"])]
    flight.append((len(flight) * step, 0))
    sampled = list(samples)
    tracks: list[tuple[str, list[float], list[float | None]]] = []
    rates = held.get("output_tokens_per_s") or []
    if any(rate for rate in rates if rate is not None):
        tracks.append(("output tokens per second", [(index + 0.5) * step for index in range(len(rates))], list(rates)))
    for kind, paths, label, unit in TRACKS:
        found = _track(sampled, kind, paths, start, flight[-1][0], unit)
        if found and len(tracks) < MOST_TRACKS:
            tracks.append((label, *found))
    return Timeline(row, str(summary.get("session") or ""), flight, tracks)


def _track(samples: Sequence[dict[str, Any]], kind: str, paths: Sequence[str], start: float, span: float,
           unit: float) -> tuple[list[float], list[float | None]] | None:  # fmt: skip
    for path in paths:
        seconds: list[float] = []
        values: list[float | None] = []
        for sample in samples:
            at = sample.get("at")
            if sample.get("kind") != kind or at is None or not -1 <= at - start <= span + 1:
                continue
            value = _at(sample, path)
            seconds.append(at - start)
            values.append(None if value is None else value / unit)
        if len(seconds) >= 2 and any(value for value in values if value is not None):
            return seconds, values
    return None


def _at(record: Any, path: str) -> float | None:
    for key in path.split("."):
        if isinstance(record, list) and key.isdigit():
            record = record[int(key)] if int(key) < len(record) else None
        else:
            record = record.get(key) if isinstance(record, dict) else None
    return float(record) if isinstance(record, int | float) and not isinstance(record, bool) else None


def chosen(rows: Sequence[series.Row], most: int) -> list[series.Row]:
    """Which rows get a time line: each sweep's quickest first, then the second quickest of each, until there are enough."""
    queues = []
    for name in dict.fromkeys(row.sweep for row in rows):
        queues.append(sorted((row for row in rows if row.sweep == name and row.figure("wall_s").value is not None),
                             key=lambda row: row.figure("wall_s").value or 0.0))  # fmt: skip
    picked: list[series.Row] = []
    while any(queues) and len(picked) < most:
        for queue in queues:
            if queue and len(picked) < most:
                picked.append(queue.pop(0))
    return [row for row in rows if row in picked]
