"""Comparing two sides while the blocks of one fresh server session each come in: when to stop, and what to say.

After each block from the second to the last allowed one the two sides are compared by Student's t on logarithms with a
pooled variance. `different` and `same` each spend their 5% over all looks, by bounds on p that grow with the square
root of the look (between Pocock's constant bound and O'Brien and Fleming's late one; the constants were set by
simulation of normal logarithms and are checked by `bench/simulate`, section "decide", with a generator of its own).
A look that leaves less than a 10% chance of being told by the end says so: stopping there is optional and costs no
error. The intervals are repeated ones: those of all looks hold the true ratio at once with 95%, so that it does not
matter when a comparison stopped, and one excludes 1 only where p is low enough for `different`.

Sources: Pocock, Biometrika 64 (1977); Wang and Tsiatis, Biometrics 43 (1987) (bounds in a power of the look); Jennison
and Turnbull, J. R. Statist. Soc. B 51 (1989) (repeated confidence intervals); Schuirmann, J. Pharmacokinetics 15 (1987)
(two one-sided tests); Lachin, Statistics in Medicine 24 (2005) (futility).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmpar.stats import special
from llmpar.stats.effects import MARGIN
from llmpar.stats.power import power_different, power_same

MOST_BLOCKS = 12
FIRST_LOOK = 2
HOPELESS_FROM = 4
HOPELESS_CHANCE = 0.1
# Bounds on p at the last look of 12; an earlier look n has bound * sqrt(n / 12).
BOUND_DIFFERENT = 0.0137
BOUND_SAME = 0.0145


@dataclass(frozen=True)
class Noise:
    """What earlier server sessions of a host say of the spread between sessions: a standard deviation of logarithms and
    its degrees of freedom."""

    sigma: float
    freedom: float


@dataclass(frozen=True)
class Look:
    """Where a comparison stands after some blocks.

    `decision`: different, same, more (another block), hopeless (another block is unlikely to help), undecided (the last
    block is in). `ratio` is a/b; `low` and `high` are its repeated 95% interval, of 95% at each end alone where the
    decision is same (two one-sided tests), None from a single block.
    """

    decision: str
    blocks: int
    ratio: float
    low: float | None
    high: float | None
    p_different: float | None
    p_same: float | None
    sigma: float | None  # between server sessions, of logarithms
    chance: float | None  # of being told by the last block, at what is seen so far


def look(
    a: Sequence[float],
    b: Sequence[float],
    margin: float = MARGIN,
    most: int = MOST_BLOCKS,
    noise: Noise | None = None,
    family: int = 1,
) -> Look:
    """What the blocks so far allow to say. `a` and `b` hold one value above 0 for each block, in equal numbers.

    `family`: how many comparisons share the 5%. With `noise` its sum of squares and degrees of freedom join those of
    the blocks. Raises ValueError for sides of different length, no block, or a value that is not above 0.
    """
    if len(a) != len(b) or not a:
        raise ValueError("each block must have one value for each side")
    if min(*a, *b) <= 0:
        raise ValueError("values are compared as logarithms and must be above 0")
    blocks = len(a)
    x, y = np.log(np.asarray(a, dtype=float)), np.log(np.asarray(b, dtype=float))
    difference = float(x.mean() - y.mean())
    if blocks < FIRST_LOOK:
        return Look("more", blocks, math.exp(difference), None, None, None, None, None, None)
    squares = float(((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum())
    freedom = float(2 * blocks - 2)
    if noise is not None:
        squares, freedom = squares + noise.freedom * noise.sigma**2, freedom + noise.freedom
    sigma = math.sqrt(squares / freedom)
    error = sigma * math.sqrt(2 / blocks)
    bound = math.log1p(margin)
    if error > 0:
        p_different = 2 * float(special.stdtr(freedom, -abs(difference) / error))
        p_same = float(special.stdtr(freedom, -(bound - abs(difference)) / error))
    else:
        p_different = 1.0 if difference == 0 else 0.0
        p_same = 0.0 if abs(difference) < bound else 1.0
    # The constants are those of twelve blocks; fewer looks spend less, so a shorter plan errs less often, not more.
    grown = math.sqrt(min(blocks, MOST_BLOCKS) / MOST_BLOCKS) / family
    chance = _chance(sigma, abs(difference), most, margin, family)
    if abs(difference) > bound and p_different <= BOUND_DIFFERENT * grown:
        decision = "different"
    elif p_same <= BOUND_SAME * grown:
        decision = "same"
    elif blocks >= most:
        decision = "undecided"
    elif blocks >= HOPELESS_FROM and chance < HOPELESS_CHANCE:
        decision = "hopeless"
    else:
        decision = "more"
    beyond = BOUND_SAME if decision == "same" else BOUND_DIFFERENT / 2
    half = float(special.stdtrit(freedom, 1 - beyond * grown)) * error
    low, high = math.exp(difference - half), math.exp(difference + half)
    return Look(decision, blocks, math.exp(difference), low, high, p_different, p_same, sigma, chance)


def _chance(sigma: float, difference: float, most: int, margin: float, family: int = 1) -> float:
    """The chance that the look after `most` blocks says different or same, if the truth is what is seen now."""
    if sigma <= 0:
        return 1.0
    grown, relative = math.sqrt(min(most, MOST_BLOCKS) / MOST_BLOCKS) / family, math.expm1(difference)
    told = power_different(sigma, relative, most, margin, 1 - BOUND_DIFFERENT * grown)
    return min(1.0, told + power_same(sigma, relative, most, margin, 1 - BOUND_SAME * grown))


def blocks_needed(
    sigma: float, difference: float, wanted: float = 0.5, margin: float = MARGIN, most: int = 200
) -> int | None:
    """How many blocks a last look needs to have the chance `wanted` at a true relative difference; None beyond `most`.

    Says what a longer budget would buy. `sigma`: standard deviation of logarithms between server sessions.
    """
    for blocks in range(FIRST_LOOK, most + 1):
        if _chance(sigma, math.log1p(abs(difference)), blocks, margin) >= wanted:
            return blocks
    return None
