"""Which stretch of a series is steady, and whether a series drifts.

Sources: White, Simulation 69 (1997) and White, Cobb and Spratt, Winter Simulation Conference 2000 (MSER-5: groups of
five, the cut with the least squared standard error of the mean); docs/metrics.md says what was changed and why.
"""

from __future__ import annotations

import math

import numpy as np

from llmpar.stats import batch_means, intervals

GROUP = 5
LEAST_GROUPS = 10
LEVEL = 0.5  # a stretch whose mean is below this share of the series' own level is idle time, or a straggler's


def span(series: np.ndarray, floor: float, first: int = 0, last: int | None = None) -> tuple[int, int] | None:
    """The stretch [start, end) of a series that is the steadiest for its length, within [first, last); None: too short.

    Both cuts at once: groups of five values are averaged, and of all stretches of at least LEAST_GROUPS groups the one
    is taken whose mean has the least relative squared standard error, (variance / mean² + floor²) / length. `floor`:
    deviations under this share of the mean are no transient; without it a series that hardly varies would be cut to
    the stretch that varies least. Stretches below LEVEL of the series' level (its mean weighted by itself) do not
    count: one straggler in flight for long is steady too.
    """
    last = len(series) if last is None else last
    groups = (last - first) // GROUP
    if groups < LEAST_GROUPS or not series.any():
        return None
    means = series[first : first + groups * GROUP].reshape(groups, GROUP).mean(axis=1).astype(float)
    level = float((series * series).sum() / series.sum())
    total = np.concatenate([[0.0], np.cumsum(means)])
    squares = np.concatenate([[0.0], np.cumsum(means * means)])
    length = (np.arange(groups + 1)[None, :] - np.arange(groups + 1)[:, None]).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (total[None, :] - total[:, None]) / length
        variance = np.maximum((squares[None, :] - squares[:, None]) / length - mean * mean, 0.0)
        error = (variance / (mean * mean) + floor * floor) / length
    error[~((length >= LEAST_GROUPS) & (mean >= LEVEL * level))] = np.inf
    best = int(np.argmin(error))
    start, end = divmod(best, groups + 1)
    if not math.isfinite(float(error[start, end])):
        return None
    return first + start * GROUP, first + end * GROUP


def drift(values: np.ndarray, level: float = 0.99) -> float:
    """Relative change of a series from its start to its end by a straight line; 0 where chance (1 − `level`) explains
    it.

    Over ten batches. Chance is what a parabola leaves, so that a bend is not taken for noise; where that is correlated
    from batch to batch, the line's error is widened for it.
    """
    batches = intervals.BATCHES // 2
    size = len(values) // batches
    if size == 0 or not values.any():
        return 0.0
    sums = values[: batches * size].reshape(batches, size).sum(axis=1).astype(float)
    place = np.arange(batches) - (batches - 1) / 2
    bend = place * place - float((place * place).mean())
    off = sums - sums.mean()
    slope = float((place * off).sum() / (place * place).sum())
    rest = off - slope * place - float((bend * off).sum() / (bend * bend).sum()) * bend
    squares = float((rest * rest).sum())
    error = math.sqrt(squares / (batches - 3) / float((place * place).sum()))
    if squares > 0:
        # Residuals of a fit to so few batches correlate by about -3/batches of themselves.
        lag = min(max(float((rest[1:] * rest[:-1]).sum()) / squares + 3 / batches, 0.0), 0.8)
        error *= math.sqrt((1 + lag) / (1 - lag))
    if abs(slope) <= batch_means.student(batches - 3, level) * error:
        return 0.0
    return slope * batches / float(sums.mean())


def unevenness(values: np.ndarray) -> float:
    """How much the level of a series differs from tenth to tenth: their standard deviation over their mean, less what
    the values' own scatter explains."""
    batches = intervals.BATCHES // 2
    if len(values) < 2 * batches or not values.any():
        return 0.0
    parts = np.array_split(values.astype(float), batches)
    means = np.array([part.mean() for part in parts])
    chance = float(np.mean([part.var(ddof=1) / len(part) for part in parts]))
    return math.sqrt(max(float(means.var(ddof=1)) - chance, 0.0)) / float(values.mean())
