"""How many server sessions a comparison needs, and what a number of them can detect."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from llmpar.stats import special
from llmpar.stats.effects import CONFIDENCE, MARGIN

QUANTILES = 64


def power_different(
    sigma: float, difference: float, count: int, margin: float = MARGIN, confidence: float = CONFIDENCE
) -> float:
    """How often `count` sessions a side (at least 2) find a true relative difference, by the rule of `decide`.

    `sigma`: standard deviation of logarithms between sessions. Both conditions at once: Welch's two-sided t rejects,
    and the estimate is beyond the margin. Exact for normal logarithms but for the integral over the two variances that
    are seen, which is a sum over quantiles.
    """
    shift, error = math.log1p(difference), sigma * math.sqrt(2 / count)
    beyond = np.maximum(error * _halves(count, 0.5 + confidence / 2), math.log1p(margin))
    return float(special.ndtr((shift - beyond) / error).mean())


def power_same(
    sigma: float, difference: float, count: int, margin: float = MARGIN, confidence: float = CONFIDENCE
) -> float:
    """How often `count` sessions a side (at least 2) say same of a true relative difference, likewise."""
    shift, error = math.log1p(difference), sigma * math.sqrt(2 / count)
    within = np.maximum(math.log1p(margin) - error * _halves(count, confidence), 0.0)
    return float((special.ndtr((within - shift) / error) - special.ndtr((-within - shift) / error)).mean())


@cache
def _halves(count: int, share: float) -> np.ndarray:
    """Half widths of Welch's interval, by Student's t at `share`, over the true standard error: equally likely ones."""
    variances = special.chdtri(count - 1, 1 - (np.arange(QUANTILES) + 0.5) / QUANTILES) / (count - 1)
    u, v = np.meshgrid(variances, variances)
    return np.sqrt((u + v) / 2) * special.stdtrit((count - 1) * (u + v) ** 2 / (u * u + v * v), share)


def sessions_needed(
    sigma: float,
    difference: float,
    wanted: float = 0.9,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
    most: int = 1000,
) -> int | None:
    """Sessions of each side that find a relative difference with a power of `wanted`; None where more than `most` are
    needed.

    A difference at or within the margin is none of practical meaning: there it is the sessions that find the sides the
    same.
    """
    if sigma <= 0:
        return 2
    chance = power_different if math.log1p(difference) > math.log1p(margin) * (1 + 1e-9) else power_same
    low, high = 1, 2
    while chance(sigma, difference, high, margin, confidence) < wanted:
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:  # power grows with every session
        middle = (low + high) // 2
        low, high = (low, middle) if chance(sigma, difference, middle, margin, confidence) >= wanted else (middle, high)
    return high
