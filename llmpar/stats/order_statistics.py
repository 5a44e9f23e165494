"""Percentiles of independent values: nearest ranks, and the ranks or shares that enclose them with confidence.

Free of any distribution: the number of values at or below a percentile is binomial. Sources: Hahn and Meeker,
Statistical Intervals (1991), 5.2; Korn and Graubard, Survey Methodology 24 (1998), for an effective number of values.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from llmpar.stats import special

CONFIDENCE = 0.95


def rank(n: int, percent: int) -> int:
    """Nearest rank (1 … n) of a percentile among n values: the smallest with at least that share at or below it."""
    return max(1, -(-n * percent // 100))


def needed(percent: int, confidence: float = CONFIDENCE) -> int:
    """The least number of independent values for which the percentile has a two-sided interval.

    The largest value lies above the percentile except with probability p**n, which must be no more than half of what
    the confidence leaves; for low percentiles the smallest value, likewise.
    """
    share = percent / 100
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(share, 1 - share)))


def ranks(n: int, percent: int, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Ranks (from 1) of the order statistics that enclose a percentile of n independent values, or None.

    Distribution-free: the number of values at or below the percentile is binomial.
    """
    if n < needed(percent, confidence):
        return None
    low, high, first, below = _tails(n, percent, (1 - confidence) / 2)
    if low < 1 or high > n:
        return None
    # Counts are whole, so this covers more than asked; give up the outer ranks while what is left still covers enough.
    while low + 1 < high:
        covers = [
            (float(below[upper - 1 - first] - below[lower - 1 - first]), lower, upper)
            for lower, upper in ((low + 1, high), (low, high - 1))
            if lower > first and upper - 1 - first < len(below)
        ]
        covers = [each for each in covers if each[0] >= confidence]
        if not covers:
            break
        _, low, high = min(covers)
    return low, high


def _tails(n: int, percent: int, tail: float) -> tuple[int, int, int, np.ndarray]:
    """The largest rank l with P(count <= l - 1) <= tail and the smallest u with P(count <= u - 1) >= 1 - tail.

    `count` is the number of n values at or below the percentile; l may be 0 and u n + 1, which no value has. With them
    the probabilities of at most `first`, first + 1, … values.
    """
    first, below = _cumulated(n, percent)
    low = first + int(np.searchsorted(below, tail, side="right"))
    return low, first + int(np.searchsorted(below, 1 - tail, side="left")) + 1, first, below


@functools.lru_cache(maxsize=64)  # figures of one run have the same few numbers of values
def _cumulated(n: int, percent: int) -> tuple[int, np.ndarray]:
    """A count from which on, and the probabilities that so many of n values or fewer are at or below the
    percentile."""
    share = percent / 100
    near, far = n * share, 10 * math.sqrt(n * share * (1 - share)) + 10
    first = max(0, int(near - far))
    return first, special.bdtr(np.arange(first, min(n, int(near + far)) + 1), n, share)


def one_sided_ranks(n: int, percent: int, confidence: float = CONFIDENCE) -> tuple[int | None, int | None]:
    """Ranks of the order statistics at or below and at or above which the percentile lies, each alone; None for none.

    The upper one of p95 exists from 59 values, of p99 from 299.
    """
    low, high, _, _ = _tails(n, percent, 1 - confidence)
    return low if low >= 1 else None, high if high <= n else None


def shares(percent: int, effective: float, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Shares (0 … 1) whose order statistics enclose a percentile known from `effective` independent values."""
    if effective < needed(percent, confidence):
        return None
    tail, count = (1 - confidence) / 2, percent / 100 * effective
    low = float(special.betaincinv(count, effective - count + 1, tail))
    high = float(special.betaincinv(count + 1, max(effective - count, 1e-9), 1 - tail))
    return low, high


def one_sided(percent: int, effective: float, confidence: float = CONFIDENCE) -> tuple[float | None, float | None]:
    """The same for `effective` independent values, as shares (0 … 1): the limits of Clopper and Pearson, one-sided."""
    tail, share = 1 - confidence, percent / 100
    count = share * effective
    low = float(special.betaincinv(count, effective - count + 1, tail)) if (1 - share) ** effective <= tail else None
    high = float(special.betaincinv(count + 1, effective - count, 1 - tail)) if share**effective <= tail else None
    return low, high
