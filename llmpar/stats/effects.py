"""Is one set of server sessions faster than another, the same, or can it not be known: the arithmetic of verdicts.

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

from llmpar.stats import special
from llmpar.stats.borrowed import Borrowed, Prior, moderated

CONFIDENCE = 0.95
MARGIN = 0.03
NOTHING = Borrowed()

CORRECTIONS = ("holm", "benjamini-hochberg", "none")
MOST_SPLITS = 20_000
LARGEST = 690.0


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
    p_same: float | None = None  # of "they differ by the margin or more", corrected like p_adjusted
    sessions_a: int = 0
    sessions_b: int = 0
    sessions_shared: tuple[str, ...] = ()  # those that are paired
    left_out: int = 0  # sessions that measured one side only, where those that measured both are paired


def welch(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE, prior: Prior | None = None) -> Effect:
    """Ratio of geometric means of two independent sets of sessions, by Welch's t on logarithms.

    Where the sets are not of one size, the degrees of freedom are at most those of the smaller, and nothing is
    borrowed:
    a common variance does not forgive sides of different size and noise. `prior`: of a cell's variance, for sets of one
    size.

    With fewer than two sessions on either side there is no interval and no p-value.
    """
    x, y = np.log(np.asarray(a, dtype=float)), np.log(np.asarray(b, dtype=float))
    difference = float(x.mean() - y.mean())
    if len(x) < 2 or len(y) < 2:
        return Effect(math.exp(difference), None, None, None, "one-session")
    u, v = float(x.var(ddof=1)) / len(x), float(y.var(ddof=1)) / len(y)
    freedom = (u + v) ** 2 / (u * u / (len(x) - 1) + v * v / (len(y) - 1)) if u + v > 0 else float(len(x) + len(y) - 2)
    if len(x) != len(y):
        # Where the side of fewer sessions is the noisier, Welch's test errs more often than it says; this bound never
        # does.
        freedom = min(freedom, float(min(len(x), len(y)) - 1))
    elif prior is not None:
        # A side whose noise looks small by luck makes both a wide difference and a freedom too high: the other pairs
        # know how uneven the sides are.
        freedom = min(freedom, prior.balance * (2 * len(x) - 2))
        variance, freedom = moderated((u + v) * len(x) / 2, freedom, prior)
        return _effect(difference, math.sqrt(2 * variance / len(x)), freedom, "moderated-welch-log", confidence)
    return _effect(difference, math.sqrt(u + v), freedom, "welch-log", confidence)


def paired(
    a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE, prior: Prior | None = None
) -> Effect:
    """The same where each session measured both sides: Student's t on the differences of logarithms.

    `prior`: of the variance of such differences; it counts from three sessions on, since one degree of freedom of a
    pair's own is too little to notice that the pair is not like the others.
    """
    off = np.log(np.asarray(a, dtype=float)) - np.log(np.asarray(b, dtype=float))
    difference = float(off.mean())
    if len(off) < 2:
        return Effect(math.exp(difference), None, None, None, "one-session")
    borrows = prior is not None and len(off) > 2
    variance, freedom = moderated(float(off.var(ddof=1)), len(off) - 1, prior if borrows else None)
    method = "moderated-paired-log" if borrows else "paired-log"
    return _effect(difference, math.sqrt(variance / len(off)), freedom, method, confidence)


def _effect(difference: float, error: float, freedom: float, method: str, confidence: float) -> Effect:
    half = float(special.stdtrit(freedom, 0.5 + confidence / 2)) * error
    if error > 0:
        p_value = 2 * float(special.stdtr(freedom, -abs(difference) / error))
    else:
        p_value = 1.0 if difference == 0 else 0.0
    # One degree of freedom of wild sessions reaches beyond what a float can hold.
    low, high = (math.exp(min(max(end, -LARGEST), LARGEST)) for end in (difference - half, difference + half))
    return Effect(math.exp(difference), low, high, p_value, method, freedom, error)


def permutation(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Effect:
    """Welch's interval with the exact p-value of its statistic over all ways to deal the sessions out.

    With three sessions each p cannot fall below 0.1, with four below 0.029: the price of assuming no distribution.
    Above 20,000 ways a seeded sample of them is taken.
    """
    unpermuted = welch(a, b, confidence)
    if unpermuted.p_value is None:
        return unpermuted
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
        if unpermuted.error == 0 and unpermuted.ratio != 1
        else (abs(math.log(unpermuted.ratio)) / unpermuted.error if unpermuted.error else 0.0)
    )
    unpermuted.p_value = float(np.mean(statistic >= mine * (1 - 1e-9)))
    unpermuted.method = "permutation"
    return unpermuted


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


def same_p_value(effect: Effect, margin: float = MARGIN) -> float | None:
    """The p-value of "they differ by the margin or more": the larger of two one-sided tests; None without an
    interval."""
    if effect.error is None or effect.freedom is None:
        return None
    beyond = abs(math.log(effect.ratio)) - math.log1p(margin)
    if effect.error == 0:
        return 0.0 if beyond < 0 else 1.0
    return float(special.stdtr(effect.freedom, beyond / effect.error))


def equivalent(effect: Effect, margin: float = MARGIN, confidence: float = CONFIDENCE) -> bool:
    """Whether the ratio is within 1/(1+margin) … 1+margin: both one-sided tests reject, each at 1 - confidence.

    Of several pairs, where `correct` has corrected their p-values.
    """
    p_value = effect.p_same if effect.p_same is not None else same_p_value(effect, margin)
    return p_value is not None and p_value < 1 - confidence


def correct(found: Sequence[Effect | None], correction: str, margin: float = MARGIN) -> None:
    """Correct the p-values of effects, of difference and of sameness alike, for how many there are."""
    different = adjust([None if effect is None else effect.p_value for effect in found], correction)
    same = adjust([None if effect is None else same_p_value(effect, margin) for effect in found], correction)
    for effect, p_different, p_same in zip(found, different, same, strict=True):
        if effect is not None:
            effect.p_adjusted, effect.p_same = p_different, p_same


def effect(
    a: Mapping[str, float],
    b: Mapping[str, float],
    method: str = "auto",
    confidence: float = CONFIDENCE,
    borrowed: Borrowed = NOTHING,
) -> Effect | None:
    """The ratio of `a` over `b`, values by server session: the one rule that every command compares by.

    `auto` pairs the sessions that measured both sides, where there are two or more of them and they are over half of
    each side's, and leaves out the others; else it is Welch's t over all sessions. A session without a name ("") is
    never paired. `borrowed`: what other cells say of the noise (verdicts.noise); only `auto` uses it. None where a side
    has no value, where a value is not above 0, or where `paired` finds no pair.
    """
    if not a or not b or min(*a.values(), *b.values()) <= 0:
        return None
    if method != "auto":
        borrowed = NOTHING
    both = pairable(a, b)
    if method == "paired" or (method == "auto" and both):
        both = both or shared(a, b)
        if not both:
            return None
        result = paired([a[name] for name in both], [b[name] for name in both], confidence, borrowed.paired)
        result.sessions_a = result.sessions_b = len(both)
        result.sessions_shared = tuple(both)
        result.left_out = len(set(a) ^ set(b))
        return result
    values = list(a.values()), list(b.values())
    if method == "permutation":
        result = permutation(*values, confidence)
    else:
        result = welch(*values, confidence, borrowed.between)
    result.sessions_a, result.sessions_b = len(a), len(b)
    return result


def shared(a: Mapping[str, float], b: Mapping[str, float]) -> list[str]:
    """The named sessions that measured both sides."""
    return sorted((set(a) & set(b)) - {""})


def pairable(a: Mapping[str, float], b: Mapping[str, float]) -> list[str]:
    """The same, where they are enough for a comparison within sessions, else none."""
    both = shared(a, b)
    return both if len(both) >= 2 and 2 * len(both) > max(len(a), len(b)) else []


def described(effect: Effect | None) -> dict[str, Any]:
    """`ratio`, `low`, `high` and `method` as claim and pick records hold them; `method` only where there is an
    interval."""
    if effect is None:
        return {"ratio": None, "low": None, "high": None, "method": None}
    return {
        "ratio": effect.ratio,
        "low": effect.low,
        "high": effect.high,
        "method": None if effect.low is None else effect.method,
    }
