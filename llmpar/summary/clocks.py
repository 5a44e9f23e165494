"""Clocks of several hosts: instants of their records to one clock, and what is not known of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmpar import records

LARGE_S = 0.01  # an offset from here up is worth a word
LARGE_RATIO = 0.01  # and so is this share of the wall time


@dataclass(frozen=True)
class Clock:
    """One host's clock as it was read: instants (us, by the common clock), its offset then and the bound of its error
    (us)."""

    at: tuple[int, ...] = (0,)
    offsets: tuple[int, ...] = (0,)
    errors: tuple[int, ...] = (0,)

    def correct(self, instants: np.ndarray, none: int) -> np.ndarray:
        """Instants (int64 us, `none` for unknown ones) by the common clock: between readings a clock moves evenly."""
        if not any(self.offsets):
            return instants
        if len(set(self.offsets)) == 1:
            moved = instants - self.offsets[0]
        else:
            offset = np.interp(instants.astype(float) - self.offsets[0], self.at, self.offsets)
            moved = instants - np.rint(offset).astype(np.int64)
        return np.where(instants == none, none, moved)

    @property
    def moved(self) -> int:
        """By how much the offset changed between readings beyond what their errors explain (us)."""
        spread = max(self.offsets) - min(self.offsets)
        return spread if spread > 2 * max(self.errors) else 0

    @property
    def error(self) -> int:
        """No corrected instant is wrong by more (us): where the clock moved it may have done so at any moment."""
        return max(self.errors) + self.moved


def read(clock_records: Iterable[Mapping[str, Any]]) -> tuple[str | None, dict[str, Clock]]:
    """The common clock's host, and the clocks of all hosts by name, of clock records. Raises BadRecord."""
    against: str | None = None
    seen: dict[str, list[tuple[int, int, int]]] = {}
    for record in clock_records:
        try:
            host, other = str(record["host"]), str(record["against"])
            reading = tuple(round(float(record[name]) * 1e6) for name in ("at", "offset_s", "error_s"))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise records.BadRecord("clock record without host, against, at, offset_s or error_s") from None
        if against is not None and other != against:
            raise records.BadRecord(f"clocks against '{against}' and against '{other}' say nothing of one another")
        against = other
        seen.setdefault(host, []).append((reading[0], reading[1], reading[2] + 1))
    clocks = {host: Clock(*zip(*sorted(readings), strict=True)) for host, readings in seen.items()}
    if against is not None:
        clocks.setdefault(against, Clock())
    return against, clocks


def describe(against: str | None, clocks: Mapping[str, Clock], hosts: Iterable[str]) -> list[dict[str, Any]] | None:
    """The summary's `client.clocks`; None without clock records."""
    if against is None:
        return None
    return [
        {
            "host": host,
            "against": against,
            "offset_s": sum(clock.offsets) / len(clock.offsets) / 1e6,
            "moved_s": clock.moved / 1e6,
            "error_s": clock.error / 1e6,
            "readings": 0 if host == against and clock == Clock() else len(clock.at),
        }
        for host in sorted(set(hosts))
        if (clock := clocks.get(host)) is not None
    ]


def crossing(result: Mapping[str, Any], error_s: float, span_s: float) -> dict[str, Any]:
    """Bounds of the figures that set one host's instants beside another's, where none is wrong by more than `error_s`.

    A difference of two instants is wrong by twice that at most; a count over it is a rate. Latencies cross nothing:
    each is by one clock. In flight: over the `span_s` from first to last send, of the requests at its two ends.
    """
    slack = 2 * error_s
    wall = result["wall_s"]["value"]
    bounds: dict[str, Any] = {
        "error_s": error_s,
        "wall_s": _between(wall and max(wall - slack, 0.0), wall and wall + slack),
    }
    for name in ("output_tokens_per_s", "requests_per_s"):
        rate = result["throughput"][name]["wall"]["value"]
        total = rate * wall if rate is not None and wall else None
        bounds[name] = _between(
            total and total / (wall + slack), total / (wall - slack) if total and wall > slack else None
        )
    achieved, more = result["concurrency"]["achieved"], result["concurrency"]["peak"] * slack
    bounds["concurrency"] = _between(
        achieved and max(achieved * span_s - more, 0.0) / (span_s + slack),
        (achieved * span_s + more) / (span_s - slack) if achieved and span_s > slack else None,
    )
    return bounds


def _between(low: float | None, high: float | None) -> dict[str, float | None] | None:
    return None if low is None else {"low": low, "high": high}
