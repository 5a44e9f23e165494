"""Requests in flight over a cell's time, and the samples that were taken beside them, as tracks on one axis."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llmpar.results import rows
from llmpar.results.rows import Row


@dataclass(frozen=True)
class Track:
    """One sampled field: of which record kind, what to divide by for the label's unit; `rate`: a counter's growth a
    second."""

    kind: str
    field: str
    label: str
    unit: float = 1.0
    rate: bool = False


# In the order in which they are worth their place; the first MOST_TRACKS that have values are drawn.
TRACKS = (
    Track("gpu", "gpu_util_ratio", "GPU busy, %", 0.01),
    Track("gpu", "tensor_ratio", "tensor cores active, %", 0.01),
    Track("engine", "kv_usage_ratio", "KV cache used, %", 0.01),
    Track("engine", "waiting", "requests waiting in the engine"),
    Track("gpu", "power_w", "GPU power, W"),
    Track("engine", "cpu_s", "engine CPU, cores", rate=True),
    Track("gpu", "memory_used_bytes", "GPU memory used, GiB", 2**30),
    Track("engine", "running", "requests running in the engine"),
    Track("engine", "rss_bytes", "engine memory, GiB", 2**30),
)
MOST_TRACKS = 4


@dataclass
class Timeline:
    """`flight`: (seconds from the first launch, requests in flight); `tracks`: (label, seconds, values or None)."""

    row: rows.Row
    session: str
    flight: list[tuple[float, int]]
    tracks: list[tuple[str, list[float], list[float | None]]]


def of(row: rows.Row, summary: dict[str, Any], samples: Iterable[dict[str, Any]]) -> Timeline | None:
    """The time line of one summary; None where it holds no series. `samples`: gpu and engine records of the same
    cell."""
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
    for track in TRACKS:
        points = _points(sampled, track, start, flight[-1][0])
        if points and len(tracks) < MOST_TRACKS:
            tracks.append((track.label, *points))
    return Timeline(row, str(summary.get("session") or ""), flight, tracks)


def _points(
    samples: Sequence[dict[str, Any]], track: Track, start: float, span: float
) -> tuple[list[float], list[float | None]] | None:
    """Seconds and values of the first device that the engine used, else of the first that was sampled.

    None without at least two values that say something. A value is None where the sample failed; a field that was only
    not due in a sample is no hole in the line.
    """
    mine = [sample for sample in samples if sample.get("kind") == track.kind and _number(sample.get("at")) is not None]
    used = [sample for sample in mine if sample.get("engine_memory_bytes")] or mine
    device = used[0].get("uuid") if used else None
    points = [
        (sample["at"] - start, _number(sample.get(track.field)))
        for sample in mine
        if sample.get("uuid") == device and (sample.get("error") or sample.get(track.field) is not None)
    ]
    points.sort(key=lambda point: point[0])
    if track.rate:
        points = [
            (
                (at + before) / 2,
                None if value is None or last is None or at <= before else (value - last) / (at - before),
            )
            for (before, last), (at, value) in itertools.pairwise(points)
        ]
    points = [point for point in points if -1 <= point[0] <= span + 1]
    if sum(value is not None for _, value in points) < 2 or not any(value for _, value in points):
        return None
    return [at for at, _ in points], [None if value is None else value / track.unit for _, value in points]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def chosen(rows: Sequence[rows.Row], most: int) -> list[rows.Row]:
    """Which rows get a time line: each sweep's quickest first, then the second quickest of each, until there are
    enough."""
    queues = []
    for name in dict.fromkeys(row.sweep for row in rows):
        queues.append(
            sorted(
                (row for row in rows if row.sweep == name and row.figure("wall_s").value is not None),
                key=lambda row: row.figure("wall_s").value or 0.0,
            )
        )
    picked: list[Row] = []
    while any(queues) and len(picked) < most:
        for queue in queues:
            if queue and len(picked) < most:
                picked.append(queue.pop(0))
    return [row for row in rows if row in picked]
