"""Is a share below or above a bound: a test that may be looked at after every request, without erring more for it.

Of two hypotheses on one side of the bound each is mixed over the shares there (a beta density of 1/2 and 1/2, cut at
the bound). The ratio of that mixture's likelihood to the likelihood at the bound is a nonnegative supermartingale for
every share on the other side, so that by Ville's inequality it ever exceeds 1/risk with probability `risk` at most.

Sources: Ville, Étude critique de la notion de collectif (1939); Robbins, Annals of Mathematical Statistics 41 (1970)
(mixtures); Ramdas, Grünwald, Vovk and Shafer, Statistical Science 38 (2023) (a review).
"""

from __future__ import annotations

import math

from llmpar.stats import special

SHAPE = 0.5


def surely_below(over: int, count: int, bound: float, risk: float) -> bool:
    """Whether `over` of `count` show a share below the bound."""
    if not count or over >= bound * count:
        return False
    return _ratio(over, count, bound, below=True) >= -math.log(risk)


def surely_above(over: int, count: int, bound: float, risk: float) -> bool:
    """Whether `over` of `count` show a share above the bound."""
    if not count or over <= bound * count:
        return False
    return _ratio(over, count, bound, below=False) >= -math.log(risk)


def _ratio(over: int, count: int, bound: float, below: bool) -> float:
    """The logarithm of the mixture's likelihood over that at the bound."""
    tail = special.betainc if below else special.betaincc
    a, b = over + SHAPE, count - over + SHAPE
    mass, whole = float(tail(a, b, bound)), float(tail(SHAPE, SHAPE, bound))
    if mass <= 0:
        return -math.inf
    mixed = float(special.betaln(a, b) - special.betaln(SHAPE, SHAPE)) + math.log(mass) - math.log(whole)
    return mixed - over * math.log(bound) - (count - over) * math.log1p(-bound)
