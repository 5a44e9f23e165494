"""Streaming counts whose result does not depend on the order or the grouping of what was added.

Instants and durations are whole microseconds (records hold six decimals), so sums and counts are exact.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from llmpar.stats import intervals
from llmpar.summary.spill import Spill, Stored

SPLIT = 1 << 18  # durations from here up (262 ms) are counted sparsely
LONGEST = (1 << 32) - 1  # microseconds of one gap, 71 minutes


class Exact:
    """Exact counts of microsecond durations: dense where they are short, sparse where they are long."""

    def __init__(self) -> None:
        self.dense = np.zeros(SPLIT, dtype=np.int64)
        self._long: list[intervals.Histogram] = []

    def add(self, durations: np.ndarray, weights: np.ndarray | None) -> None:
        """Durations (int64, not negative) and how often each counts (int64; once where None)."""
        if len(durations) and int(durations.max()) >= SPLIT:
            long = durations >= SPLIT
            values = durations[long]
            self._long.append(_counted(values, np.ones(len(values), np.int64) if weights is None else weights[long]))
            if sum(len(each.values) for each in self._long[1:]) > len(self._long[0].values) + SPLIT:
                self._long = [_summed(self._long)]
            durations = durations[~long]
            weights = None if weights is None else weights[~long]
        counts = np.bincount(durations, weights)
        self.dense[: len(counts)] += counts if weights is None else counts.astype(np.int64)

    def merge(self, other: Exact) -> None:
        """Add all that the other holds."""
        self.dense += other.dense
        self._long += other._long

    def histogram(self) -> intervals.Histogram:
        short = np.flatnonzero(self.dense)
        shorter = intervals.Histogram(short, self.dense[short])
        return _summed([shorter, *self._long]) if self._long else shorter


def _counted(values: np.ndarray, counts: np.ndarray) -> intervals.Histogram:
    """Values in whatever order to a histogram."""
    found, places = np.unique(values, return_inverse=True)
    return intervals.Histogram(found, np.bincount(places, counts, minlength=len(found)).astype(np.int64))


def _summed(histograms: list[intervals.Histogram]) -> intervals.Histogram:
    return _counted(
        np.concatenate([each.values for each in histograms]), np.concatenate([each.counts for each in histograms])
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
    """Durations between events of many requests, kept one by one (4 bytes each) until the steady window is known.

    Each request has a run of `steps`: microseconds from its sending to its first event, then from event to event.
    """

    def __init__(self) -> None:
        self._parts: list[_Steps] = []
        self.held = 0  # bytes in memory

    def add(self, sent: np.ndarray, lengths: np.ndarray, steps: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Requests sent at `sent` (int64 us) with `lengths` events each, and their steps (int64), one after the other.

        `weights`: tokens that each event carries, 1 where None. A gap before an event of k tokens counts k times, with
        a k-th of it.
        """
        filled = lengths > 0
        sent, lengths, steps = sent[filled], lengths[filled].astype(np.int64), np.minimum(steps, LONGEST)
        if not len(lengths):
            return
        ends = sent + np.add.reduceat(steps, np.cumsum(lengths) - lengths)
        narrow = None if weights is None else weights.astype(np.uint32)
        self._parts.append(_Steps(sent, ends, lengths.astype(np.int32), steps.astype(np.uint32), narrow))
        self.held += self._parts[-1].nbytes

    def merge(self, other: Gaps) -> None:
        """Add all that the other holds."""
        self._parts += other._parts
        self.held += other.held

    def store(self, spill: Spill) -> None:
        """Put what is in memory into a file."""
        parts: list[_Steps] = []
        for stored, group in groupby(self._parts, lambda part: isinstance(part.steps, Stored)):
            some = list(group)
            parts += some if stored else [_Steps.joined(some).stored(spill)]
        self._parts, self.held = parts, 0

    def _each(self) -> Iterator[_Steps]:
        """All parts, in memory one at a time."""
        return (part.loaded() for part in self._parts)

    @property
    def empty(self) -> bool:
        """Whether there is no gap at all."""
        return not any(bool((part.lengths > 1).any()) for part in self._each())

    def distribution(
        self, low: int | None = None, high: int | None = None, batches: int = intervals.BATCHES
    ) -> dict[str, Any] | None:
        """n, extremes, mean and percentiles in seconds, with intervals from consecutive batches of requests.

        Only of gaps that end at an instant from `low` on and before `high` (us), where these are given.
        """
        sent = [part.sent[part.gaps(low, high) > 0] for part in self._each()]
        ordered = np.sort(np.concatenate(sent)) if sent else np.zeros(0)
        if not len(ordered):
            return None
        # Batches of about as many consecutive requests each; requests sent at one instant share theirs, whatever their
        # order. A batch's edge: the last instant of the batch before.
        edges = ordered[-(-np.arange(1, batches) * len(ordered) // batches) - 1]
        exact = [Exact() for _ in range(batches)]
        for part in self._each():
            part.count(exact, edges, low, high)
        estimates = _clustered(exact, len(ordered))
        return None if estimates is None else intervals.scaled(estimates, 1e6)


@dataclass
class _Steps:
    """Steps of some requests, and when each request was sent and its last event came (us); in memory, or all
    stored."""

    sent: Any
    ends: Any
    lengths: Any
    steps: Any
    weights: Any

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in vars(self).values() if each is not None)

    @classmethod
    def joined(cls, parts: list[_Steps]) -> _Steps:
        columns = [[getattr(part, name) for part in parts] for name in ("sent", "ends", "lengths", "steps", "weights")]
        return cls(*(None if column[0] is None else np.concatenate(column) for column in columns))

    def stored(self, spill: Spill) -> _Steps:
        return _Steps(*(None if each is None else spill.put(each) for each in vars(self).values()))

    def loaded(self) -> _Steps:
        return _Steps(*(each.array() if isinstance(each, Stored) else each for each in vars(self).values()))

    def gaps(self, low: int | None, high: int | None) -> np.ndarray:
        """How many gaps of each request end at an instant from `low` on and before `high`; all of them for None."""
        if low is None or high is None:
            return self.lengths - 1
        whole = (self.sent >= low) & (self.ends < high)
        own = np.where(whole, self.lengths - 1, 0)
        for request, counted in self._across(low, high):
            own[request] = np.count_nonzero(counted[1:])
        return own

    def _across(self, low: int, high: int) -> Iterator[tuple[int, np.ndarray]]:
        """Each request that is partly within low … high, and which of its events are."""
        whole = (self.sent >= low) & (self.ends < high)
        partly = np.flatnonzero(~whole & (self.ends >= low) & (self.sent < high)).tolist()
        starts = np.cumsum(self.lengths, dtype=np.int64) - self.lengths if partly else self.lengths
        for request in partly:
            steps = self.steps[starts[request] : starts[request] + self.lengths[request]]
            instants = self.sent[request] + np.cumsum(steps, dtype=np.int64)
            yield request, (instants >= low) & (instants < high)

    def count(self, exact: list[Exact], edges: np.ndarray, low: int | None, high: int | None) -> None:
        """Count the gaps that `gaps` tells of in the batches of their requests; `edges`: the last instant of each batch
        but the last."""
        own = self.gaps(low, high)
        if not own.any():
            return
        starts = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        counted = np.ones(len(self.steps), dtype=bool)
        if low is not None and high is not None:
            counted = np.repeat((self.sent >= low) & (self.ends < high), self.lengths)
            for request, within in self._across(low, high):
                counted[starts[request] : starts[request] + self.lengths[request]] = within
        counted[starts] = False
        durations = self.steps[counted].astype(np.int64)
        weights = None if self.weights is None else self.weights[counted].astype(np.int64)
        if weights is not None:
            durations = (2 * durations + weights) // (2 * weights)
        batch = np.searchsorted(edges, self.sent)
        first, last = int(batch.min()), int(batch.max())
        if first == last:
            exact[first].add(durations, weights)
            return
        of_gap = np.repeat(batch.astype(np.min_scalar_type(last)), own)
        for place in range(first, last + 1):
            mine = of_gap == place
            exact[place].add(durations[mine], None if weights is None else weights[mine])


def _clustered(exact: list[Exact], clusters: int) -> dict[str, Any] | None:
    """What these batches of gaps say together, with intervals from their differences."""
    used = [histogram for each in exact if (histogram := each.histogram()).total]
    whole = exact[0]
    for each in exact[1:]:
        whole.merge(each)
    histogram = whole.histogram()
    sizes = np.array([each.total for each in used], dtype=float)
    below = {}
    for percent in intervals.PERCENTS:
        edge = histogram.percentile(percent)
        below[percent] = (np.array([each.up_to(edge) for each in used], dtype=float), sizes)
    totals = np.array([int(np.dot(each.values, each.counts)) for each in used], dtype=float)
    return intervals.clustered(histogram, below, totals, sizes, clusters)


def in_flight(starts: np.ndarray, ends: np.ndarray, start: int, step: int, count: int) -> np.ndarray:
    """Request-microseconds in flight within each of `count` bins from `start`: int64, exact. Instants ascend."""
    edges = start + step * np.arange(count + 1, dtype=np.int64)

    def before(instants: np.ndarray) -> np.ndarray:
        """For each edge, the sum over instants before it of (edge - instant)."""
        cumulated = np.concatenate([[0], np.cumsum(instants - start)])
        places = np.searchsorted(instants, edges, side="left")
        return places * (edges - start) - cumulated[places]

    return np.diff(before(starts) - before(ends))


def peak(starts: np.ndarray, ends: np.ndarray) -> int:
    """The most requests in flight at one instant, both ascending; one that ends when another starts does not overlap
    it."""
    if not len(starts):
        return 0
    return int((np.searchsorted(starts, starts, side="right") - np.searchsorted(ends, starts, side="right")).max())
