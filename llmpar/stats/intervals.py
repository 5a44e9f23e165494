"""Estimates with honest intervals: percentiles, means, rates of correlated requests; the steady part of a run.

Everything is 95 % and two-sided unless told otherwise. Values come in the order in which the requests were sent, since
neighbours in time share the engine's state and are not independent. docs/metrics.md says why each method was taken and
what simulation shows about it.

Sources: Hahn and Meeker, Statistical Intervals (1991), 5.2 (order statistics); Korn and Graubard, Survey Methodology 24
(1998) (binomial intervals with an effective sample size); Woodruff, JASA 47 (1952) (percentiles through the interval of
the distribution function); Schmeiser, Operations Research 30 (1982) (10 to 30 batches suffice); Tafazzoli et al.,
INFORMS J. Computing 23 (2011) (Skart: batch means corrected for what correlation is left between batches);
White, Simulation 69 (1997) and White, Cobb and Spratt, WSC 2000 (MSER-5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import bdtr, betaincinv, fdtrc, stdtrit

CONFIDENCE = 0.95
BATCHES = 20
PERCENTS = (50, 90, 95, 99)
# Between-batch variance that a chance of one in ten would give does not count as correlation; taking the larger of
# it and 1 always would make intervals of independent requests too wide.
GATE = 0.1


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
    tail, share = (1 - confidence) / 2, percent / 100
    near, far = n * share, 10 * math.sqrt(n * share * (1 - share)) + 10
    first = max(0, int(near - far))
    below = bdtr(np.arange(first, min(n, int(near + far)) + 1), n, share)  # P(at most k values lie below)
    low = first + int(np.searchsorted(below, tail, side="right"))  # largest rank l with P(count <= l - 1) <= tail
    high = (
        first + int(np.searchsorted(below, 1 - tail, side="left")) + 1
    )  # smallest u with P(count <= u - 1) >= 1 - tail
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


def shares(percent: int, effective: float, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Shares (0 … 1) whose order statistics enclose a percentile known from `effective` independent values."""
    if effective < needed(percent, confidence):
        return None
    tail, count = (1 - confidence) / 2, percent / 100 * effective
    low = float(betaincinv(count, effective - count + 1, tail))
    high = float(betaincinv(count + 1, max(effective - count, 1e-9), 1 - tail))
    return low, high


@dataclass
class Batched:
    """What batches of consecutive values say: `variance` of their overall mean, and with how many degrees of freedom."""

    variance: float
    freedom: float
    correlated: bool


def batched(sums: np.ndarray, sizes: np.ndarray, independent: float | None = None) -> Batched | None:
    """Variance of the ratio total(sums)/total(sizes) from consecutive batches (float arrays of one length, at least 2).

    Deviations from the overall ratio stand for the batches (a ratio estimator), so batches may differ in size. What
    correlation is left between neighbours widens the variance as in Skart. With `independent`, the variance that the
    ratio would have were the values independent, the batches are tested against it, and `correlated` says whether
    they vary more than chance allows.
    """
    count, total = len(sums), float(sizes.sum())
    if count < 2 or total <= 0:
        return None
    ratio = float(sums.sum()) / total
    off = sums - ratio * sizes
    squares = float((off * off).sum())
    variance = squares * count / (count - 1) / total**2
    correlated = True
    if independent is not None:
        correlated = variance > 0 and (independent <= 0 or bool(fdtrc(count - 1, 1e9, variance / independent) < GATE))
    if squares > 0:
        # The sample autocorrelation of independent batches is about -1/count.
        lag = float((off[1:] * off[:-1]).sum()) / squares + 1 / count
        lag = min(max(lag, 0.0), 0.8)
        variance *= (1 + lag) / (1 - lag)
    return Batched(variance, count - 1, correlated)


def student(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The two-sided Student t factor."""
    return float(stdtrit(freedom, 0.5 + confidence / 2))


def _batch_starts(n: int) -> np.ndarray:
    """First positions of BATCHES consecutive, nearly equal batches of n values."""
    return np.arange(BATCHES) * n // BATCHES


def mean(values: np.ndarray) -> dict[str, Any]:
    """The mean with a t interval from the values, or from batches of neighbours where those are correlated."""
    n = len(values)
    if n == 0:
        return {"value": None, "needed": 1}
    value = float(values.sum()) / n
    if n < 3:
        return {"value": value, "low": None, "high": None}
    off = values - value
    scatter = float((off * off).sum()) / (n - 1) / n
    width = student(n - 1) * math.sqrt(scatter)
    if n >= 5 * BATCHES:
        starts = _batch_starts(n)
        sizes = np.diff(np.append(starts, n)).astype(float)
        found = batched(np.add.reduceat(values, starts), sizes, scatter)
        if found and found.correlated:
            width = max(width, student(found.freedom) * math.sqrt(found.variance))
    return {"value": value, "low": value - width, "high": value + width}


def percentile(values: np.ndarray, ordered: np.ndarray, percent: int) -> dict[str, Any]:
    """A percentile by nearest rank, between order statistics; refused where no such interval exists.

    `values` as sent, `ordered` the same values sorted. Where batches of neighbours show correlation, the number of
    values counts only as many independent ones as would know the share below it that well.
    """
    n = len(ordered)
    enclosing = ranks(n, percent)
    if enclosing is None:
        return {"value": None, "needed": needed(percent)}
    value = float(ordered[rank(n, percent) - 1])
    low, high = enclosing
    if n >= 5 * BATCHES:
        below = (values <= value).astype(float)
        share = float(below.sum()) / n
        independent = share * (1 - share) / n
        starts = _batch_starts(n)
        sizes = np.diff(np.append(starts, n)).astype(float)
        found = batched(np.add.reduceat(below, starts), sizes, independent)
        if found and found.correlated and independent > 0 and found.variance > independent:
            spread = (student(1e9) / student(found.freedom)) ** 2
            effective = n * independent / found.variance * spread
            between = shares(percent, effective)
            if between is None:
                return {"value": None, "needed": math.ceil(needed(percent) * n / effective)}
            low = min(low, max(1, math.floor(between[0] * n)))
            high = max(high, min(n, math.ceil(between[1] * n)))
    return {"value": value, "low": float(ordered[low - 1]), "high": float(ordered[high - 1])}


def distribution(values: np.ndarray) -> dict[str, Any] | None:
    """n, extremes, mean and percentiles of values in the order of sending; None where there are none."""
    if len(values) == 0:
        return None
    ordered = np.sort(values)
    result: dict[str, Any] = {
        "n": len(values),
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
        "mean": mean(values),
    }
    for percent in PERCENTS:
        result[f"p{percent}"] = percentile(values, ordered, percent)
    return result


@dataclass
class Histogram:
    """Exact counts of whole numbers: `values` ascending, `counts` of each (both int64)."""

    values: np.ndarray
    counts: np.ndarray

    def at(self, share: float) -> float:
        """The value of nearest rank at a share of 0 … 1."""
        total = self.total
        wanted = min(max(math.ceil(share * total), 1), total)
        return float(self.values[int(np.searchsorted(self.cumulated, wanted))])

    def percentile(self, percent: int) -> float:
        return float(self.values[int(np.searchsorted(self.cumulated, rank(self.total, percent)))])

    def __post_init__(self) -> None:
        self.cumulated = np.cumsum(self.counts)
        self.total = int(self.cumulated[-1]) if len(self.counts) else 0

    def mean(self) -> float:
        return int(np.dot(self.values, self.counts)) / self.total


def clustered(
    histogram: Histogram,
    below: dict[int, tuple[np.ndarray, np.ndarray]],
    sums: np.ndarray,
    sizes: np.ndarray,
    clusters: int,
) -> dict[str, Any] | None:
    """A distribution of many values that come in clusters (the gaps of one request), from batches of clusters.

    `histogram`: all values, exactly. `sums`, `sizes`: total and number of values in each consecutive batch of clusters.
    `below[percent]`: for each batch, the number of values at or below that percentile, and of all values.
    `clusters`: how many clusters (requests) there are. The share below a percentile gets an interval from the batches
    (Korn and Graubard), which the histogram turns into values (Woodruff). With fewer than 10 batches or 20 clusters the
    intervals do not exist: means keep their value, percentiles are refused. `needed` counts clusters.
    """
    if histogram.total == 0:
        return None
    value = histogram.mean()
    result: dict[str, Any] = {
        "n": histogram.total,
        "min": float(histogram.values[0]),
        "max": float(histogram.values[-1]),
    }
    enough = len(sizes) >= BATCHES // 2 and clusters >= BATCHES
    found = batched(sums, sizes) if enough else None
    if found:
        width = student(found.freedom) * math.sqrt(found.variance)
        result["mean"] = {"value": value, "low": value - width, "high": value + width}
    else:
        result["mean"] = {"value": value, "low": None, "high": None}
    for percent in PERCENTS:
        name, at = f"p{percent}", histogram.percentile(percent)
        if not enough:
            result[name] = {"value": None, "needed": max(BATCHES, clusters + 1)}
            continue
        under, all_of = below[percent]
        share = float(under.sum()) / float(all_of.sum())
        scatter = batched(under, all_of)
        independent = share * (1 - share)
        if scatter is None or scatter.variance <= 0 or independent <= 0:
            effective = float(histogram.total)
        else:
            effective = min(
                independent / scatter.variance * (student(1e9) / student(scatter.freedom)) ** 2, float(histogram.total)
            )
        between = shares(percent, effective)
        if between is None:
            result[name] = {"value": None, "needed": math.ceil(clusters * needed(percent) / max(effective, 1.0))}
        else:
            result[name] = {
                "value": at,
                "low": min(at, histogram.at(between[0])),
                "high": max(at, histogram.at(between[1])),
            }
    return result


def scaled(found: dict[str, Any], divisor: float) -> dict[str, Any]:
    """A distribution in another unit: every value divided, counts kept."""

    def turn(item: Any) -> Any:
        return None if item is None else item / divisor

    result: dict[str, Any] = {}
    for key, item in found.items():
        if isinstance(item, dict):
            result[key] = {name: inner if name == "needed" else turn(inner) for name, inner in item.items()}
        else:
            result[key] = item if key == "n" else turn(item)
    return result


def rate(counts: np.ndarray, step_s: float) -> dict[str, Any]:
    """A rate per second from counts in consecutive steps of equal length, with an interval by batch means.

    Steps are pooled into 20 batches (10 where there are fewer than 40 steps); under 20 steps there is no interval.
    """
    steps = len(counts)
    if steps == 0:
        return {"value": None, "needed": None}
    value = int(counts.sum()) / (steps * step_s)
    batches = BATCHES if steps >= 2 * BATCHES else BATCHES // 2
    if steps < BATCHES:
        return {"value": value, "low": None, "high": None}
    size = steps // batches
    sums = counts[steps - batches * size :].reshape(batches, size).sum(axis=1).astype(float)
    found = batched(sums, np.full(batches, size * step_s))
    if found is None:
        return {"value": value, "low": None, "high": None}
    width = student(found.freedom) * math.sqrt(found.variance)
    return {"value": value, "low": max(0.0, value - width), "high": value + width}


def mser5(series: np.ndarray, floor: float = 0.0) -> int | None:
    """How many leading values of a series belong to its start-up, by MSER-5: a multiple of 5, or None for "all of it".

    Groups of five values are averaged; the cut is where the squared standard error of the mean of the rest is least.
    A least value in the second half means that the series has not settled (White, Cobb and Spratt). `floor`: deviations
    of this share of the mean are added to every remainder's own, so that a series which hardly varies is not cut to
    the stretch that varies least.
    """
    groups = len(series) // 5
    if groups < 10:
        return None
    means = series[: groups * 5].reshape(groups, 5).mean(axis=1)
    left = np.arange(groups, 0, -1).astype(float)
    total = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum((means * means)[::-1])[::-1]
    mean = total / left
    error = (np.maximum(squares / left - mean * mean, 0.0) + (floor * mean) ** 2) / left
    # The last few groups have a small error by chance alone.
    cut = int(np.argmin(error[: groups - 5]))
    return None if cut > groups // 2 else cut * 5
