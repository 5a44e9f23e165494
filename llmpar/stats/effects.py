"""Is one set of sessions faster than another, the same, or can nobody tell: the arithmetic of verdicts.

The unit is the server session: requests within one share its start, its memory layout and its machine's mood, so a
thousand of them say little about the next start. Values are compared as logarithms, since effects of interest are
ratios. docs/metrics.md holds the false alarm rates and powers that simulation gives.

Sources: Welch, Biometrika 34 (1947); Schuirmann, J. Pharmacokinetics 15 (1987) (two one-sided tests for "same"); Holm,
Scand. J. Statistics 6 (1979); Benjamini and Hochberg, JRSS B 57 (1995); Kalibera and Jones, ISMM 2013 (repeat at the
level that varies: the start); Mickey and Brown, Annals of Mathematical Statistics 37 (1966) (the bound on degrees of
freedom for sides of different size); Ernst, Statistical Science 19 (2004) (exact permutation tests).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
MARGIN = 0.03

CORRECTIONS = ("holm", "benjamini-hochberg", "none")
MOST_SPLITS = 20_000


@dataclass
class Effect:
    """The ratio a/b with its interval, the p-value of "no difference", and how they came about."""

    ratio: float
    low: float | None
    high: float | None
    p_value: float | None
    method: str
    freedom: float | None = None
    error: float | None = None  # standard error of the log ratio
    p_adjusted: float | None = None
    sessions_a: int = 0
    sessions_b: int = 0
    left_out: int = 0  # sessions that measured one side only, where those that measured both are paired


def welch(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Effect:
    """Ratio of geometric means of two independent sets of sessions, by Welch's t on logarithms.

    Where the sets are not of one size, the degrees of freedom are at most those of the smaller.

    With fewer than two sessions on either side there is no interval and no p-value.
    """
    x, y = np.log(np.asarray(a, dtype=float)), np.log(np.asarray(b, dtype=float))
    difference = float(x.mean() - y.mean())
    if len(x) < 2 or len(y) < 2:
        return Effect(math.exp(difference), None, None, None, "one-session")
    u, v = float(x.var(ddof=1)) / len(x), float(y.var(ddof=1)) / len(y)
    error = math.sqrt(u + v)
    freedom = (u + v) ** 2 / (u * u / (len(x) - 1) + v * v / (len(y) - 1)) if error > 0 else float(len(x) + len(y) - 2)
    if len(x) != len(y):
        # Where the side of fewer sessions is the noisier, Welch's test errs more often than it says; this bound never does.
        freedom = min(freedom, float(min(len(x), len(y)) - 1))
    return _effect(difference, error, freedom, "welch-log", confidence)


def paired(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Effect:
    """The same where each session measured both sides: Student's t on the differences of logarithms."""
    off = np.log(np.asarray(a, dtype=float)) - np.log(np.asarray(b, dtype=float))
    difference = float(off.mean())
    if len(off) < 2:
        return Effect(math.exp(difference), None, None, None, "one-session")
    return _effect(difference, float(off.std(ddof=1)) / math.sqrt(len(off)), len(off) - 1, "paired-log", confidence)


def _effect(difference: float, error: float, freedom: float, method: str, confidence: float) -> Effect:
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * error
    if error > 0:
        p_value = 2 * float(stdtr(freedom, -abs(difference) / error))
    else:
        p_value = 1.0 if difference == 0 else 0.0
    return Effect(
        math.exp(difference), math.exp(difference - half), math.exp(difference + half), p_value, method, freedom, error
    )


def permutation(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Effect:
    """Welch's interval with the exact p-value of its statistic over all ways to deal the sessions out.

    With three sessions each p cannot fall below 0.1, with four below 0.029: the price of assuming no distribution.
    Above 20,000 ways a seeded sample of them is taken.
    """
    found = welch(a, b, confidence)
    if found.p_value is None:
        return found
    pooled = np.log(np.concatenate([np.asarray(a, dtype=float), np.asarray(b, dtype=float)]))
    size, many = len(a), len(pooled)
    if math.comb(many, size) <= MOST_SPLITS:
        chosen = np.array(list(itertools.combinations(range(many), size)))
        mask = np.zeros((len(chosen), many), dtype=bool)
        np.put_along_axis(mask, chosen, True, axis=1)
    else:
        random = np.random.default_rng(0)
        mask = random.permuted(np.tile(np.arange(many) < size, (MOST_SPLITS, 1)), axis=1)
        mask[0] = np.arange(many) < size
    left = np.where(mask, pooled, np.nan)
    right = np.where(mask, np.nan, pooled)
    spread = np.sqrt(np.nanvar(left, axis=1, ddof=1) / size + np.nanvar(right, axis=1, ddof=1) / (many - size))
    apart = np.abs(np.nanmean(left, axis=1) - np.nanmean(right, axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(spread > 0, apart / spread, np.where(apart > 0, np.inf, 0.0))
    mine = (
        math.inf
        if found.error == 0 and found.ratio != 1
        else (abs(math.log(found.ratio)) / found.error if found.error else 0.0)
    )
    found.p_value = float(np.mean(statistic >= mine * (1 - 1e-9)))
    found.method = "permutation"
    return found


def adjust(p_values: Sequence[float | None], correction: str) -> list[float | None]:
    """p-values corrected for how many there are; None stays None and does not count.

    `holm` bounds the chance of any false alarm, `benjamini-hochberg` the share of false ones among alarms.
    """
    places = [place for place, p_value in enumerate(p_values) if p_value is not None]
    if correction == "none" or not places:
        return list(p_values)
    raw = np.array([p_values[place] for place in places], dtype=float)
    order, many = np.argsort(raw, kind="stable"), len(raw)
    if correction == "holm":
        stepped = np.maximum.accumulate(raw[order] * (many - np.arange(many)))
    else:
        stepped = np.minimum.accumulate((raw[order] * many / (np.arange(many) + 1))[::-1])[::-1]
    adjusted = np.empty(many)
    adjusted[order] = np.minimum(stepped, 1.0)
    result: list[float | None] = [None] * len(p_values)
    for place, p_value in zip(places, adjusted.tolist(), strict=True):
        result[place] = p_value
    return result


def equivalent(effect: Effect, margin: float = MARGIN, confidence: float = CONFIDENCE) -> bool:
    """Whether the ratio is within 1/(1+margin) … 1+margin: both one-sided tests reject, each at 1 - confidence."""
    if effect.error is None or effect.freedom is None:
        return False
    half = float(stdtrit(effect.freedom, confidence)) * effect.error
    bound = math.log1p(margin)
    return abs(math.log(effect.ratio)) + half < bound


def effect(
    a: Mapping[str, float], b: Mapping[str, float], method: str = "auto", confidence: float = CONFIDENCE
) -> Effect | None:
    """The ratio of `a` over `b`, values by server session: the one rule that every command compares by.

    `auto` pairs the sessions that measured both sides, where there are two or more of them and they are over half of
    each side's, and leaves out the others; else it is Welch's t over all sessions. A session without a name ("") is
    never paired. None where a side has no value, where a value is not above 0, or where `paired` finds no pair.
    """
    if not a or not b or min(*a.values(), *b.values()) <= 0:
        return None
    both = sorted((set(a) & set(b)) - {""})
    if method == "paired" or (method == "auto" and len(both) >= 2 and 2 * len(both) > max(len(a), len(b))):
        if not both:
            return None
        found = paired([a[name] for name in both], [b[name] for name in both], confidence)
        found.sessions_a = found.sessions_b = len(both)
        found.left_out = len(set(a) ^ set(b))
        return found
    test = permutation if method == "permutation" else welch
    found = test(list(a.values()), list(b.values()), confidence)
    found.sessions_a, found.sessions_b = len(a), len(b)
    return found


def described(found: Effect | None) -> dict[str, Any]:
    """`ratio`, `low`, `high` and `method` as claim and pick records hold them; `method` only where there is an interval."""
    if found is None:
        return {"ratio": None, "low": None, "high": None, "method": None}
    return {
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "method": None if found.low is None else found.method,
    }
