"""Estimates with honest intervals: percentiles, means, rates of correlated requests.

Everything is 95% and two-sided unless told otherwise. Values come in the order in which the requests were sent, since
neighbours in time share the engine's state and are not independent. docs/metrics.md says why each method was taken and
what simulation shows about it.

Sources: Hahn and Meeker, Statistical Intervals (1991), 5.2 (order statistics); Korn and Graubard, Survey Methodology 24
(1998) (binomial intervals with an effective sample size); Woodruff, JASA 47 (1952) (percentiles through the interval of
the distribution function); Schmeiser, Operations Research 30 (1982) (10 to 30 batches suffice); Tafazzoli et al.,
INFORMS J. Computing 23 (2011) (Skart: batch means corrected for what correlation is left between batches).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmpar.stats.batch_means import batched, student
from llmpar.stats.order_statistics import CONFIDENCE, needed, one_sided, one_sided_ranks, rank, ranks, shares

BATCHES = 20
LEAST_BATCHES = 5
PERCENTS = (50, 90, 95, 99)


def _batch_starts(n: int, batches: int) -> np.ndarray:
    """First positions of consecutive, nearly equal batches of n values."""
    return np.arange(batches) * n // batches


def mean(values: np.ndarray, batches: int | None = None) -> dict[str, Any]:
    """The mean of times with a t interval from the values, or from batches of neighbours where those are correlated.

    `batches`: of values that are known to correlate over as long as one of so many; None: 20, if a test of those shows
    correlation.
    """
    n = len(values)
    if n == 0:
        return {"value": None, "needed": 1}
    value = float(values.sum()) / n
    if n < 3:
        return {"value": value, "low": None, "high": None}
    off = values - value
    scatter = float((off * off).sum()) / (n - 1) / n
    width = student(n - 1) * math.sqrt(scatter)
    if n >= 5 * (batches or BATCHES):
        starts = _batch_starts(n, batches or BATCHES)
        sizes = np.diff(np.append(starts, n)).astype(float)
        estimate = batched(np.add.reduceat(values, starts), sizes, None if batches else scatter)
        if estimate and estimate.correlated:
            width = max(width, student(estimate.freedom) * math.sqrt(estimate.variance))
    return {"value": value, "low": max(0.0, value - width), "high": value + width}


def percentile(values: np.ndarray, ordered: np.ndarray, percent: int, batches: int | None = None) -> dict[str, Any]:
    """A percentile by nearest rank, with what order statistics say of it.

    `values` as sent, `ordered` the same values sorted, at least one. Where batches of neighbours show correlation, the
    number of values counts only as many independent ones as would know the share below it that well. The value is
    always given; see `bounded` for the rest. `batches` as for `mean`.
    """
    n = len(ordered)
    value = float(ordered[rank(n, percent) - 1])
    effective = float(n)
    if n >= 5 * (batches or BATCHES):
        below = (values <= value).astype(float)
        share = float(below.sum()) / n
        independent = share * (1 - share) / n
        starts = _batch_starts(n, batches or BATCHES)
        sizes = np.diff(np.append(starts, n)).astype(float)
        scatter = batched(np.add.reduceat(below, starts), sizes, None if batches else independent)
        if scatter and scatter.correlated and independent > 0 and scatter.variance > independent:
            effective = n * independent / scatter.variance * (student(1e9) / student(scatter.freedom)) ** 2

    enclosing, (least, most) = ranks(n, percent), one_sided_ranks(n, percent)
    if effective < n:
        between, alone = shares(percent, effective), one_sided(percent, effective)
        enclosing = None if enclosing is None or between is None else _wider(enclosing, between, n)
        if between is None or alone[1] is None:
            sections = _sectioned(values, value, percent)
            if sections is not None:
                return sections
        least = None if least is None or alone[0] is None else _wider((least, n), (alone[0], 1.0), n)[0]
        most = None if most is None or alone[1] is None else _wider((1, most), (0.0, alone[1]), n)[1]
    low, high = (None, None) if enclosing is None else (float(ordered[place - 1]) for place in enclosing)
    at_least = None if least is None else float(ordered[least - 1])
    at_most = None if most is None else float(ordered[most - 1])
    lacking = None if enclosing is not None else max(math.ceil(needed(percent) * n / effective), n + 1)
    return bounded(value, low, high, at_least, at_most, lacking)


def _sectioned(values: np.ndarray, value: float, percent: int) -> dict[str, Any] | None:
    """A percentile's estimate from how the percentiles of ten consecutive sections scatter about it; None: too few
    values.

    For values of which whole stretches lie above the percentile, so that the share below it says little about where
    it is. Each section needs three values above its percentile and three below.
    """
    sections, share = BATCHES // 2, percent / 100
    if len(values) // sections * min(share, 1 - share) < 3:
        return None
    parts = np.array_split(values, sections)
    own = np.array([np.partition(part, rank(len(part), percent) - 1)[rank(len(part), percent) - 1] for part in parts])
    if not np.isfinite(own).all():
        return None
    estimate = batched(own - value, np.ones(sections))
    if estimate is None:
        return None
    error = math.sqrt(estimate.variance + float((own - value).mean()) ** 2)
    width, alone = student(estimate.freedom) * error, student(estimate.freedom, 2 * CONFIDENCE - 1) * error
    return bounded(value, max(0.0, value - width), value + width, max(0.0, value - alone), value + alone)


def _wider(between: tuple[int, int], share: tuple[float, float], n: int) -> tuple[int, int]:
    """The wider at each end of two pairs of ranks, the second given as shares of n values."""
    return min(between[0], max(1, math.floor(share[0] * n))), max(between[1], min(n, math.ceil(share[1] * n)))


def bounded(
    value: float,
    low: float | None,
    high: float | None,
    at_least: float | None,
    at_most: float | None,
    lacking: int | None = None,
) -> dict[str, Any]:
    """A percentile's estimate: `low` and `high` of the two-sided interval, or neither and how many values it `needed`.

    `at_least` and `at_most` are one-sided bounds, each true with 95% by itself; they exist from fewer values.
    """
    return {"value": value, "low": low, "high": high, "at_least": at_least, "at_most": at_most, "needed": lacking}


def coherent(figures: dict[str, Any]) -> dict[str, Any]:
    """A distribution in which no percentile has an interval, or needs fewer values for one, where a lower one has
    none."""
    lacking = 0
    for percent in PERCENTS:
        estimate = figures[f"p{percent}"]
        lacking = max(lacking, estimate["needed"] or 0)
        if lacking:
            estimate.update(low=None, high=None, needed=lacking)
    return figures


def distribution(values: np.ndarray, batches: int | None = None) -> dict[str, Any] | None:
    """n, extremes, mean and percentiles of values in the order of sending; None where there are none. `batches` as for
    `mean`.

    The values are times: no interval reaches below 0. Requests that failed are infinitely long: they count in
    percentiles, and in nothing else. A percentile or bound that is infinite is None; such a percentile has `failed`.
    """
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return None
    ordered = np.sort(values)
    result: dict[str, Any] = {
        "n": len(finite),
        "min": float(finite.min()),
        "max": float(finite.max()),
        "mean": mean(finite, batches),
    }
    for percent in PERCENTS:
        result[f"p{percent}"] = percentile(values, ordered, percent, batches)
    coherent(result)
    for percent in PERCENTS if len(finite) < len(values) else ():
        estimate = result[f"p{percent}"]
        if math.isinf(estimate["value"]):
            estimate.update(needed=None, failed=True)
        if any(estimate[end] is not None and math.isinf(estimate[end]) for end in ("low", "high")):
            estimate.update(low=None, high=None)
        estimate.update({name: None for name, end in estimate.items() if isinstance(end, float) and math.isinf(end)})
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

    def up_to(self, value: float) -> int:
        """How many values there are at or below one."""
        place = int(np.searchsorted(self.values, value, side="right"))
        return int(self.cumulated[place - 1]) if place else 0

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
    (Korn and Graubard), which the histogram turns into values (Woodruff). With fewer than 5 batches or 20 clusters
    there are no intervals. `needed` counts clusters.
    """
    if histogram.total == 0:
        return None
    value = histogram.mean()
    result: dict[str, Any] = {
        "n": histogram.total,
        "min": float(histogram.values[0]),
        "max": float(histogram.values[-1]),
    }
    enough = len(sizes) >= LEAST_BATCHES and clusters >= BATCHES
    estimate = batched(sums, sizes) if enough else None
    if estimate:
        width = student(estimate.freedom) * math.sqrt(estimate.variance)
        result["mean"] = {"value": value, "low": max(0.0, value - width), "high": value + width}
    else:
        result["mean"] = {"value": value, "low": None, "high": None}
    for percent in PERCENTS:
        name, at = f"p{percent}", histogram.percentile(percent)
        if not enough:
            result[name] = bounded(at, None, None, None, None, max(BATCHES, clusters + 1))
            continue
        under, all_of = below[percent]
        share = float(under.sum()) / float(all_of.sum())
        scatter = batched(under, all_of)
        independent = share * (1 - share)
        effective = float(histogram.total)
        if scatter is not None and scatter.variance > 0 and independent > 0:
            known = independent / scatter.variance * (student(1e9) / student(scatter.freedom)) ** 2
            effective = min(known, effective)
        least, most = one_sided(percent, effective)
        bounds = (
            None if least is None else min(at, histogram.at(least)),
            None if most is None else max(at, histogram.at(most)),
        )
        between = shares(percent, effective)
        if between is None:
            lacking = max(math.ceil(clusters * needed(percent) / max(effective, 1.0)), clusters + 1)
            result[name] = bounded(at, None, None, *bounds, lacking)
        else:
            low, high = min(at, histogram.at(between[0])), max(at, histogram.at(between[1]))
            result[name] = bounded(at, low, high, *bounds)
    return coherent(result)


def scaled(figures: dict[str, Any], divisor: float) -> dict[str, Any]:
    """A distribution in another unit: every value divided, counts kept."""

    def turn(item: Any) -> Any:
        return None if item is None else item / divisor

    result: dict[str, Any] = {}
    for key, item in figures.items():
        if isinstance(item, dict):
            result[key] = {name: inner if name == "needed" else turn(inner) for name, inner in item.items()}
        else:
            result[key] = item if key == "n" else turn(item)
    return result


def rate(counts: np.ndarray, step_s: float, most: int = BATCHES) -> dict[str, Any]:
    """A rate per second from counts in consecutive steps of equal length, with an interval by batch means.

    Steps are pooled into 20 batches (10 where there are fewer than 40 steps), at most `most`; under 20 steps there is
    no interval.
    """
    steps = len(counts)
    if steps == 0:
        return {"value": None, "needed": None}
    value = int(counts.sum()) / (steps * step_s)
    batches = min(BATCHES if steps >= 2 * BATCHES else BATCHES // 2, most)
    if steps < BATCHES:
        return {"value": value, "low": None, "high": None}
    size = steps // batches
    sums = counts[steps - batches * size :].reshape(batches, size).sum(axis=1).astype(float)
    estimate = batched(sums, np.full(batches, size * step_s))
    if estimate is None:
        return {"value": value, "low": None, "high": None}
    width = student(estimate.freedom) * math.sqrt(estimate.variance)
    return {"value": value, "low": max(0.0, value - width), "high": value + width}
