"""Noise borrowed from other cells: what a sweep's variances say of one of them, as a prior.

A pair of cells estimates the spread of its server sessions from 2 to 8 degrees of freedom, while the other cells of the
sweep know it too. Smyth's moderated t (Statistical Applications in Genetics and Molecular Biology 3, 2004) takes the
cells' true variances for draws from a scaled inverse chi-squared distribution, whose two parameters come from the mean
and the variance of the logarithms of the variances that were seen. With few cells the second is known badly, and the
full prior errs in up to 13 of 100 sweeps; half of its degrees of freedom, at most 6, keeps the promise
(docs/metrics.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmpar.stats import special

# Fewer variances than this say too little of how variances differ.
LEAST = 10
PART, MOST = 0.5, 6.0


@dataclass(frozen=True)
class Prior:
    """A variance and the degrees of freedom that it counts for.

    `balance`: how even the noise of the two sides is over all pairs, 1 for even, 0.5 where it is all of one side: the
    share of a pair's degrees of freedom that Welch and Satterthwaite's formula leaves.
    """

    variance: float
    freedom: float
    balance: float = 1.0


@dataclass(frozen=True)
class Borrowed:
    """Priors of one figure: of a cell's variance between sessions, and of that of differences within sessions."""

    between: Prior | None = None
    paired: Prior | None = None


def prior(variances: Sequence[float], freedom: Sequence[int]) -> Prior | None:
    """The prior of variances that were seen with so many degrees of freedom each (at least 1); None for fewer than
    LEAST.

    Variances of 0 are left out: they are of figures that are counted, not measured.
    """
    known = [(value, degrees) for value, degrees in zip(variances, freedom, strict=True) if value > 0]
    if len(known) < LEAST:
        return None
    half = np.array([degrees for _, degrees in known]) / 2
    logs = np.log([value for value, _ in known]) - special.psi(half) + np.log(half)
    mean = float(logs.mean())
    spread = float(logs.var(ddof=1) - special.polygamma(1, half).mean())
    # trigamma falls from 1/x² at 0 to 1/x at infinity: no more spread than chance gives is an infinite prior.
    if spread <= float(special.polygamma(1, MOST / PART / 2)):
        return Prior(math.exp(mean) if spread <= 1e-6 else _location(mean, _freedom(spread)), MOST)
    degrees = _freedom(spread)
    return Prior(_location(mean, degrees), PART * degrees)


def balance(log_ratios: Sequence[float]) -> float:
    """`Prior.balance` from the logarithms of the variance of one side over the other's, one a pair."""
    if not log_ratios:
        return 1.0
    ratio = math.exp(min(math.fsum(log_ratios) / len(log_ratios), 300.0))
    return (1 + ratio) ** 2 / (2 * (1 + ratio * ratio))


def _freedom(spread: float) -> float:
    """Twice the inverse of trigamma at `spread`, above 0: Newton's method on 1/trigamma, which is convex and nearly
    linear, so that it converges from below (Smyth 2004, appendix)."""
    half = 0.5 + 1 / spread
    for _ in range(50):
        trigamma = float(special.polygamma(1, half))
        step = trigamma * (1 - trigamma / spread) / float(special.polygamma(2, half))
        half += step
        if -step < 1e-10 * half:
            break
    return 2 * half


def _location(mean: float, degrees: float) -> float:
    return math.exp(mean + float(special.psi(degrees / 2)) - math.log(degrees / 2))


def moderated(variance: float, freedom: float, found: Prior | None) -> tuple[float, float]:
    """A variance and its degrees of freedom, with those of the prior."""
    if found is None:
        return variance, freedom
    total = found.freedom + freedom
    return (found.freedom * found.variance + freedom * variance) / total, total
