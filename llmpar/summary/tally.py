"""Streaming counts whose result does not depend on the order or the grouping of what was added.

Instants and durations are whole microseconds (records hold six decimals), so sums and counts are exact.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmpar.stats import intervals

SPLIT = 1 << 18  # durations from here up (262 ms) are counted sparsely
SLAB = 1 << 20  # gaps looked at in one go
LONGEST = (1 << 32) - 1  # microseconds of one gap, 71 minutes


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
    """Durations between events of many requests, kept one by one (4 bytes each) until the steady window is known.

    Each request has a run of `steps`: microseconds from its sending to its first event, then from event to event.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in ("sent", "lengths", "steps", "weights")}

    def add(self, sent: np.ndarray, lengths: np.ndarray, steps: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Requests sent at `sent` (int64 us) with `lengths` events each, and their steps (int64), one after the other.

        `weights`: tokens that each event carries, 1 where None. A gap before an event of k tokens counts k times, with
        a k-th of it.
        """
        filled = lengths > 0
        self._parts["sent"].append(sent[filled])
        self._parts["lengths"].append(lengths[filled].astype(np.int32))
        self._parts["steps"].append(np.minimum(steps, LONGEST).astype(np.uint32))
        self._parts["weights"].append(np.ones(0) if weights is None else weights.astype(np.uint32))

    def merge(self, other: Gaps) -> None:
        """Add all that the other holds."""
        for name, parts in other._parts.items():
            self._parts[name] += parts

    @property
    def empty(self) -> bool:
        """Whether there is no gap at all."""
        return not any(bool((lengths > 1).any()) for lengths in self._parts["lengths"])

    def distribution(
        self, low: int | None = None, high: int | None = None, batches: int = intervals.BATCHES
    ) -> dict[str, Any] | None:
        """n, extremes, mean and percentiles in seconds, with intervals from consecutive batches of requests.

        Only of gaps that end at an instant from `low` on and before `high` (us), where these are given.
        """
        return _distribution(self._slabs(low, high), batches)

    def _slabs(self, low: int | None, high: int | None) -> list[_Slab]:
        """Gaps in pieces of about SLAB: microseconds and weights of those that count, and of which request each is."""
        slabs: list[_Slab] = []
        held: list[int] = []
        size = 0
        for place, steps in enumerate(self._parts["steps"]):
            held.append(place)
            size += len(steps)
            if size >= SLAB or place == len(self._parts["steps"]) - 1:
                slab = self._slab(held, low, high)
                if slab is not None:
                    slabs.append(slab)
                held, size = [], 0
        return slabs

    def _slab(self, held: list[int], low: int | None, high: int | None) -> _Slab | None:
        sent, lengths, steps = (
            np.concatenate([self._parts[name][place] for place in held]) for name in ("sent", "lengths", "steps")
        )
        if not len(steps):
            return None
        weights = None
        if any(len(self._parts["weights"][place]) for place in held):
            weights = np.concatenate(
                [
                    self._parts["weights"][place]
                    if len(self._parts["weights"][place])
                    else np.ones(len(self._parts["steps"][place]), dtype=np.uint32)
                    for place in held
                ]
            ).astype(np.int64)
        lengths = lengths.astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        counted, own = np.ones(len(steps), dtype=bool), lengths - 1
        if low is not None and high is not None:
            ends = sent + np.add.reduceat(steps, starts, dtype=np.int64)
            whole = (sent >= low) & (ends < high)
            counted, own = np.repeat(whole, lengths), np.where(whole, own, 0)
            for request in np.flatnonzero(~whole & (ends >= low) & (sent < high)).tolist():
                part = slice(starts[request], starts[request] + lengths[request])
                instants = sent[request] + np.cumsum(steps[part], dtype=np.int64)
                counted[part] = (instants >= low) & (instants < high)
                own[request] = np.count_nonzero(counted[part][1:])
        counted[starts] = False
        if not own.any():
            return None
        durations = steps[counted].astype(np.int64)
        if weights is not None:
            weights = weights[counted]
            durations = (2 * durations + weights) // (2 * weights)
        return _Slab(sent[own > 0], own[own > 0], durations, weights)


@dataclass
class _Slab:
    """Gaps of some requests: when each was sent, how many gaps it has, the gaps (us) and how often each counts."""

    sent: np.ndarray
    lengths: np.ndarray
    durations: np.ndarray
    weights: np.ndarray | None

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum of each request's values (one for each gap, or one for all), times their weights."""
        starts = np.cumsum(self.lengths) - self.lengths
        return np.add.reduceat(values if self.weights is None else values * self.weights, starts, dtype=np.int64)


def _distribution(slabs: list[_Slab], batches: int) -> dict[str, Any] | None:
    if not slabs:
        return None
    exact = Exact()
    for slab in slabs:
        exact.add(slab.durations, slab.weights)
    histogram = exact.histogram()
    # Batches of about as many consecutive requests each; requests sent at one instant share theirs, whatever their
    # order.
    sent = np.concatenate([slab.sent for slab in slabs])
    place = np.searchsorted(np.sort(sent), sent)
    batch = place * batches // len(sent)

    def batched(values: list[np.ndarray]) -> np.ndarray:
        return np.bincount(batch, np.concatenate(values), minlength=batches)

    sizes = batched([slab.lengths if slab.weights is None else slab.sums(np.ones(1, np.int64)) for slab in slabs])
    used = sizes > 0
    below = {}
    for percent in intervals.PERCENTS:
        edge = histogram.percentile(percent)
        under = batched([slab.sums(slab.durations <= edge) for slab in slabs])
        below[percent] = (under[used], sizes[used])
    totals = batched([slab.sums(slab.durations) for slab in slabs])
    estimates = intervals.clustered(histogram, below, totals[used], sizes[used], len(sent))
    return None if estimates is None else intervals.scaled(estimates, 1e6)


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
