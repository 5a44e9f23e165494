"""Streaming counts whose result does not depend on the order or the grouping of what was added.

Instants and durations are whole microseconds (records hold six decimals), so sums and counts are exact.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np

from llmpar.stats import intervals

SPLIT = 1 << 18  # durations from here up (262 ms) are counted sparsely
BLOCKS = 128  # stretches of time into which requests are grouped while reading
MANTISSA = 7  # coarse bins: exact to 128 us, then 1/128 wide


def coarse(durations: np.ndarray) -> np.ndarray:
    """Bin numbers of microsecond durations (int64, from 0), each at most 1/128 of its value wide; ascending with it."""
    try:
        return _table().take(durations)
    except IndexError:
        return _coarse(durations)


@cache
def _table() -> np.ndarray:
    return _coarse(np.arange(SPLIT))


def _coarse(durations: np.ndarray) -> np.ndarray:
    shifted = (durations + 1).astype(np.float64).view(np.int64) >> (52 - MANTISSA)
    return shifted - (1023 << MANTISSA)


COARSE_BINS = 42 << MANTISSA  # to 2**42 us, 50 days


class Exact:
    """Exact counts of microsecond durations: dense where they are short, sparse where they are long."""

    def __init__(self) -> None:
        self.dense = np.zeros(SPLIT, dtype=np.int64)
        self.sparse: dict[int, int] = {}

    def add(self, durations: np.ndarray, weights: np.ndarray | None) -> None:
        """Durations (int64, not negative) and how often each counts (int64; once where None)."""
        if len(durations) and int(durations.max()) >= SPLIT:
            long = durations >= SPLIT
            values = durations[long]
            times = np.ones(len(values), dtype=np.int64) if weights is None else weights[long]
            for value, count in zip(values.tolist(), times.tolist(), strict=True):
                self.sparse[value] = self.sparse.get(value, 0) + count
            durations = durations[~long]
            weights = None if weights is None else weights[~long]
        counts = np.bincount(durations, weights)
        self.dense[: len(counts)] += counts if weights is None else counts.astype(np.int64)

    def merge(self, other: Exact) -> None:
        """Add all that the other holds."""
        self.dense += other.dense
        for value, count in other.sparse.items():
            self.sparse[value] = self.sparse.get(value, 0) + count

    def histogram(self) -> intervals.Histogram:
        short = np.flatnonzero(self.dense)
        long = np.array(sorted(self.sparse), dtype=np.int64)
        return intervals.Histogram(
            np.concatenate([short, long]),
            np.concatenate(
                [self.dense[short], np.array([self.sparse[value] for value in long.tolist()], dtype=np.int64)]
            ),
        )


class Timeline:
    """Sums over time in bins of 2**shift microseconds, aligned to the epoch, at most `limit` of them (a power of two).

    When the span outgrows the limit, neighbouring bins are merged. The shift that results depends on the first and
    last instant only, and so does every sum, whatever came in between and in which order. Bins lie in a ring, at
    their number modulo the limit, so that a span may grow at either end and nothing moves.
    """

    def __init__(self, limit: int, width: int = 1) -> None:
        self.limit, self.shift = limit, 0
        self.low, self.high = -1, -1
        self.ring = np.zeros((limit, width), dtype=np.int64)

    def cover(self, low: int, high: int) -> None:
        """Make room for the instants low … high (microseconds)."""
        if self.low < 0:
            self.low, self.high = low, low
        low, high, shift = min(low, self.low), max(high, self.high), self.shift
        while (high >> shift) - (low >> shift) >= self.limit:
            shift += 1
        if shift != self.shift:
            old = np.arange(self.low >> self.shift, (self.high >> self.shift) + 1)
            ring = np.zeros_like(self.ring)
            np.add.at(ring, (old >> (shift - self.shift)) % self.limit, self.ring[old % self.limit])
            self.ring, self.shift = ring, shift
        self.low, self.high = low, high

    def places(self, instants: np.ndarray) -> np.ndarray:
        """Where instants (int64 microseconds within what is covered) lie in the ring."""
        return (instants >> self.shift) & (self.limit - 1)

    def add(self, places: np.ndarray, weights: np.ndarray | None) -> None:
        """Add weights (int64; 1 where None) at flat places: place * width + column."""
        flat = self.ring.reshape(-1)
        counts = np.bincount(places, weights)
        flat[: len(counts)] += counts if weights is None else counts.astype(np.int64)

    def merge(self, other: Timeline) -> None:
        """Add all that the other, of equal limit and width, holds; the other is stretched to the same bins."""
        if other.low < 0:
            return
        other = copy.copy(other)  # its ring is replaced, not changed, when it is stretched
        self.cover(other.low, other.high)
        other.cover(self.low, self.high)
        self.ring += other.ring

    @property
    def sums(self) -> np.ndarray:
        """The sums in order of time, from `start` on: one row a bin."""
        if self.low < 0:
            return self.ring[:0]
        return self.ring[np.arange(self.low >> self.shift, (self.high >> self.shift) + 1) % self.limit]

    @property
    def start(self) -> int:
        """The instant at which the first bin begins, in microseconds."""
        return (self.low >> self.shift) << self.shift

    @property
    def step(self) -> int:
        """The length of a bin in microseconds."""
        return 1 << self.shift


class Gaps:
    """Durations between events of many requests: exact counts in all, coarse ones by the time of their request."""

    def __init__(self) -> None:
        self.exact = Exact()
        self.bins = Timeline(BLOCKS, COARSE_BINS)
        self.totals = Timeline(BLOCKS, 3)  # microseconds, gaps, requests
        self.requests = 0

    def add(
        self,
        sent: np.ndarray,
        lengths: np.ndarray,
        durations: np.ndarray,
        weights: np.ndarray | None = None,
        fillers: np.ndarray | None = None,
    ) -> None:
        """Durations of requests sent at `sent` (int64 us), `lengths` of them for each request, counting `weights` times.

        `fillers` says how many of each request's durations are 0 and only fill a place: they are not counted.
        """
        if not len(durations):
            return
        low, high = int(sent.min()), int(sent.max())
        self.bins.cover(low, high)
        self.totals.cover(low, high)
        filled = 0 if fillers is None else int(fillers.sum())
        self.exact.add(durations, weights)
        self.exact.dense[0] -= filled
        blocks = self.bins.places(sent)
        if bool((blocks == blocks[0]).all()):
            counts = np.bincount(coarse(durations), weights)
            row = self.bins.ring[blocks[0]]
            row[: len(counts)] += counts.astype(np.int64)
            row[0] -= filled
        else:
            self.bins.add(np.repeat(blocks * COARSE_BINS, lengths) + coarse(durations), weights)
            if fillers is not None:
                np.subtract.at(self.bins.ring[:, 0], blocks, fillers)
        own = lengths if fillers is None else lengths - fillers
        self.requests += int(np.count_nonzero(own))
        self.totals.add(blocks * 3, _sums(durations if weights is None else durations * weights, lengths))
        self.totals.add(blocks * 3 + 1, own if weights is None else _sums(weights, lengths))
        self.totals.add(blocks * 3 + 2, (own > 0).astype(np.int64))

    def merge(self, other: Gaps) -> None:
        """Add all that the other holds."""
        self.exact.merge(other.exact)
        self.bins.merge(other.bins)
        self.totals.merge(other.totals)
        self.requests += other.requests

    def distribution(self) -> dict[str, Any] | None:
        """n, extremes, mean and percentiles in seconds, with intervals from consecutive blocks of requests."""
        histogram = self.exact.histogram()
        if not histogram.total:
            return None
        # Consecutive bins are pooled into batches of about as many requests each.
        sums = self.totals.sums
        asked = np.cumsum(sums[:, 2])
        batch = np.minimum((asked - sums[:, 2]) * intervals.BATCHES // max(int(asked[-1]), 1), intervals.BATCHES - 1)
        starts = np.flatnonzero(np.diff(batch, prepend=-1))
        totals = np.add.reduceat(sums, starts, axis=0).astype(float)
        bins, below = self.bins.sums, {}
        for percent in intervals.PERCENTS:
            edge = int(coarse(np.array([histogram.percentile(percent)], dtype=np.int64))[0]) + 1
            under = bins[:, :edge].sum(axis=1)
            below[percent] = (np.add.reduceat(under, starts).astype(float), totals[:, 1])
        found = intervals.clustered(histogram, below, totals[:, 0], totals[:, 1], self.requests)
        return None if found is None else intervals.scaled(found, 1e6)


def _sums(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The sum of each stretch of consecutive values, of `lengths` values (int64, 0 too)."""
    sums = np.zeros(len(lengths), dtype=np.int64)
    filled = lengths > 0  # reduceat takes the next value for an empty stretch
    sums[filled] = np.add.reduceat(values, (np.cumsum(lengths) - lengths)[filled])
    return sums


def in_flight(starts: np.ndarray, ends: np.ndarray, start: int, step: int, count: int) -> np.ndarray:
    """Request-microseconds in flight within each of `count` bins from `start`: int64, exact."""
    edges = start + step * np.arange(count + 1, dtype=np.int64)

    def before(instants: np.ndarray) -> np.ndarray:
        """For each edge, the sum over instants before it of (edge - instant)."""
        ordered = np.sort(instants)
        cumulated = np.concatenate([[0], np.cumsum(ordered - start)])
        places = np.searchsorted(ordered, edges, side="left")
        return places * (edges - start) - cumulated[places]

    return np.diff(before(starts) - before(ends))


def peak(starts: np.ndarray, ends: np.ndarray) -> int:
    """The most requests in flight at one instant; one that ends when another starts does not overlap it."""
    if not len(starts):
        return 0
    instants = np.concatenate([starts, ends])
    change = np.concatenate([np.ones(len(starts), dtype=np.int64), -np.ones(len(ends), dtype=np.int64)])
    return int(np.cumsum(change[np.lexsort((change, instants))]).max())
