"""The variance of a mean from batches of consecutive values, which need not be independent.

Sources: Schmeiser, Operations Research 30 (1982) (10 to 30 batches suffice); Tafazzoli et al., INFORMS J. Computing 23
(2011) (Skart: batch means corrected for what correlation is left between batches).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmpar.stats import special
from llmpar.stats.order_statistics import CONFIDENCE

# Between-batch variance that a chance of one in ten would give does not count as correlation; taking the larger of
# it and 1 always would make intervals of independent requests too wide.
GATE = 0.1


@dataclass
class Batched:
    """What batches of consecutive values say: `variance` of their overall mean, and with how many degrees of
    freedom."""

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
        correlated = variance > 0 and (
            independent <= 0 or bool(special.fdtrc(count - 1, 1e9, variance / independent) < GATE)
        )
    if squares > 0:
        # The sample autocorrelation of independent batches is about -1/count.
        lag = float((off[1:] * off[:-1]).sum()) / squares + 1 / count
        lag = min(max(lag, 0.0), 0.8)
        variance *= (1 + lag) / (1 - lag)
    return Batched(variance, count - 1, correlated)


def student(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The two-sided Student t factor."""
    return float(special.stdtrit(freedom, 0.5 + confidence / 2))
