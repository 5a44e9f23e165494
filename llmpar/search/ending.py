"""When a measurement has shown enough: request records as they come, until objectives are surely met or missed.

The share of requests over each limit is tested after every request (`stats.anytime`), so that looking often costs no
error. As in a summary the first two turns of every client do not count, nor does what may hide slow requests: those
sent less than the longest request ago are left out, and requests that have been out for longer count as over where
that matters. Only closed loops are judged: an open load near capacity is slow only after a while.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmpar.results.rows import MOST_FAILED
from llmpar.stats import anytime
from llmpar.verdicts.objectives import MEETS, MISSES, UNKNOWN

RISK = 0.05
TURNS = 2  # of every client, at the start, that do not count
LEAST_COUNTED = 1.0  # turns that have to count, so that what is measured has a steady window
PERCENTS = ("p50", "p90", "p95", "p99")


def possible(wanted: Mapping[str, float], launcher: str) -> bool:
    """Whether such objectives are about shares of requests, and the launcher can be made to start no more."""
    return launcher in ("queue", "parallel", "cold") and all(_is_share(metric) for metric in wanted)


def _is_share(metric: str) -> bool:
    figure, _, statistic = metric.removesuffix("_s").rpartition("_")
    return figure in ("ttft", "tpot", "e2e") and statistic in PERCENTS


@dataclass
class Ending:
    """`wanted`: a figure such as ttft_p95_s to the most it may be, in seconds. `clients` of a closed loop. A load whose
    rate is wanted too ends only where it misses."""

    wanted: Mapping[str, float]
    clients: int
    ends: Collection[str] = (MEETS, MISSES)  # verdicts that end a measurement
    sent: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    over: list[list[bool]] = field(default_factory=list)  # failed, then over each limit

    def __post_init__(self) -> None:
        self.limits = [
            (metric.removesuffix("_s").rpartition("_")[0], int(metric.removesuffix("_s")[-2:]) / 100, most)
            for metric, most in self.wanted.items()
        ]
        self.shares = [MOST_FAILED, *(1 - level for _, level, _ in self.limits)]

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one request record."""
        sent, e2e = record.get("sent_at"), record.get("e2e_s")
        failed = record.get("status") != "ok"
        if sent is None or (e2e is None and not failed):
            return
        values = [_value(record, figure) for figure, _, _ in self.limits]
        over = [value is not None and value > most for value, (_, _, most) in zip(values, self.limits, strict=True)]
        self.take(float(sent), float(sent) + float(e2e or 0.0), [failed, *(failed or each for each in over)])

    def take(self, sent: float, ended: float, over: list[bool]) -> None:
        """Take one request: its instants, whether it failed, and whether it was over each limit."""
        self.sent.append(sent)
        self.ended.append(ended)
        self.over.append(over)

    def verdict(self) -> str:
        """Meets or misses as soon as that is sure and ends the measurement, else unknown."""
        if len(self.sent) <= (TURNS + LEAST_COUNTED) * self.clients:
            return UNKNOWN
        sent, ended = np.array(self.sent), np.array(self.ended)
        horizon = ended.max() - (ended - sent).max()
        opened = np.partition(sent, TURNS * self.clients - 1)[TURNS * self.clients - 1]
        counts = (sent > opened) & (sent <= horizon)
        count = int(np.count_nonzero(counts))
        if count < LEAST_COUNTED * self.clients:
            return UNKNOWN
        # In a closed loop each end starts a request: of those that started after the horizon some are still out. The
        # rest of the clients have been out for longer than any request that ended.
        young = int(np.count_nonzero(ended > horizon)) - int(np.count_nonzero(sent > horizon))
        late = min(self.clients, max(0, self.clients - young))
        over = np.array(self.over)[counts].sum(axis=0)
        risk = RISK / len(self.shares)
        if MISSES in self.ends and any(
            anytime.surely_above(int(seen), count + late, share, risk)
            for seen, share in zip(over, self.shares, strict=True)
        ):
            return MISSES
        # That under 1% fail is not asked to be sure: it would take hundreds of requests without a failure.
        if (
            MEETS in self.ends
            and over[0] <= MOST_FAILED * count
            and all(
                anytime.surely_below(int(seen) + late, count + late, share, RISK)
                for seen, share in zip(over[1:], self.shares[1:], strict=True)
            )
        ):
            return MEETS
        return UNKNOWN


def _value(record: Mapping[str, Any], figure: str) -> float | None:
    if figure != "tpot":
        return record.get(f"{figure}_s")
    e2e, ttft, output = record.get("e2e_s"), record.get("ttft_s"), record.get("output_tokens")
    first = (record.get("event_tokens") or [1])[0]
    if e2e is None or ttft is None or output is None or output <= first:
        return None
    return float(e2e - ttft) / float(output - first)
