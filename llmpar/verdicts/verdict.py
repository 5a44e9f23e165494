"""Faster, slower, same or cannot tell: one pair of cells and one figure to one verdict record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llmpar.results import rows, words
from llmpar.stats import effects, outliers, power
from llmpar.stats.effects import CONFIDENCE, MARGIN, Effect, equivalent
from llmpar.verdicts import comparable, sentences, times
from llmpar.verdicts.noise import Cell, Noise
from llmpar.verdicts.pairs import Pair, Side

VERDICTS = ("faster", "slower", "same", "cannot tell", "not comparable")


def decide(effect: Effect, higher_is_better: bool, margin: float = MARGIN, confidence: float = CONFIDENCE) -> str:
    """faster, slower, same or cannot tell, from an effect whose p-values were corrected for how many comparisons there
    are.

    `same` goes first: a difference too small to matter is no news even when it is certain. Faster and slower need
    both: not explained by chance, and estimated beyond the margin.
    """
    if equivalent(effect, margin, confidence):
        return "same"
    p_value = effect.p_adjusted if effect.p_adjusted is not None else effect.p_value
    if p_value is None or p_value > 1 - confidence or abs(math.log(effect.ratio)) <= math.log1p(margin):
        return "cannot tell"
    return "faster" if (effect.ratio > 1) == higher_is_better else "slower"


def verdict_records(
    pairs: list[Pair],
    figures: tuple[str, ...],
    margin: float = effects.MARGIN,
    correction: str = "holm",
    method: str = "auto",
    allow: tuple[str, ...] = (),
    confidence: float = effects.CONFIDENCE,
    cells: Sequence[Cell] | None = None,
) -> list[dict[str, Any]]:
    """One verdict record for each pair and figure; p-values are corrected over all of them.

    `cells`: all cells that were measured, for the noise that pairs borrow; the sides of the pairs where it is None.
    """
    work = [(pair, figure) for pair in pairs for figure in figures]
    noise = Noise(cells if cells is not None else [side for pair in pairs for side in (pair.a, pair.b)])
    effects_found, reasons, noted = [], [], []
    for pair, figure in work:
        effect = noise.effect(pair.a, pair.b, figure, method, confidence)
        forbidding, allowed = parted([*comparable.differences(pair, figure), *not_side_by_side(pair, effect)], allow)
        effects_found.append(effect)
        reasons.append(forbidding)
        noted.append(allowed)
    effects.correct(
        [None if differ else effect for effect, differ in zip(effects_found, reasons, strict=True)], correction, margin
    )
    return [
        verdict_record(pair, figure, effect, differ, allowed, margin, correction, confidence, len(work))
        for (pair, figure), effect, differ, allowed in zip(work, effects_found, reasons, noted, strict=True)
    ]


def not_side_by_side(pair: Pair, effect: Effect | None) -> list[dict[str, str]]:
    """That the sides were measured at different times, unless each session measured both."""
    if effect is None or effect.method.endswith("paired-log"):
        return []
    when = times.apart(pair.a.summaries, pair.b.summaries)
    return [] if when is None else [{"code": "times", "message": f"not measured side by side: {when}"}]


def parted(differ: list[dict[str, str]], allow: tuple[str, ...]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Differences that forbid a comparison, and those that were allowed by name and are only said."""
    return [each for each in differ if each["code"] not in allow], [each for each in differ if each["code"] in allow]


def verdict_record(
    pair: Pair,
    figure: str,
    effect: effects.Effect | None,
    differ: list[dict[str, str]],
    allowed: list[dict[str, str]],
    margin: float,
    correction: str,
    confidence: float,
    family: int,
) -> dict[str, Any]:
    higher = not rows.lower_is_better(figure)
    reasons, needed = list(differ), None
    if any(each["code"] != "times" for each in differ):
        verdict = "not comparable"
    elif differ:
        verdict = "cannot tell"
    elif effect is None:
        verdict = "cannot tell"
        for side in (pair.a, pair.b):
            if not side.summaries:
                reasons.append(
                    {
                        "code": "missing",
                        "message": f"{side.label} has no such cell"
                        + (
                            f"; what differs besides: {', '.join(pair.follow)} (--by "
                            f"{' --by '.join((*pair.subject, *pair.follow))})"
                            if pair.follow
                            else ""
                        ),
                    }
                )
            elif not side.values(figure):
                many = side.needed(figure)
                reasons.append(
                    {
                        "code": "refused",
                        "message": f"{side.label} has no {words.title(figure)}"
                        + (f": it needs {many} requests" if many else ""),
                    }
                )
        if not reasons:
            reasons.append({"code": "refused", "message": f"no server session measured {figure} above 0 on both sides"})
    else:
        verdict = decide(effect, higher, margin, confidence)
        if verdict == "cannot tell":
            reasons.append(_why(pair, figure, effect, margin, confidence, family))
            if effect.error:
                sigma = effect.error / math.sqrt(sum(1 / len(side.values(figure)) for side in (pair.a, pair.b)))
                seen = abs(math.log(effect.ratio))
                # Sides that look alike are taken for equal: the seen difference would be one of noise.
                difference = math.expm1(seen) if seen > math.log1p(margin) else 0.0
                many = power.sessions_needed(sigma, difference, margin=margin, confidence=confidence)
                needed = None if many is None else {"sessions": many}
    reasons += allowed
    reasons += [*_partial(pair, figure, effect), *_few_failed(pair, reasons), *_outlying(pair, figure, margin)]
    if pair.own and effect is not None:
        reasons.append({"code": "own_settings", "message": sentences.own(pair.a.label, pair.b.label, pair.own)})
    weak = {"low_concurrency", "cached_tokens", "token_dispute", "clock_step", "no_steady_state", "mixed_sampling"}
    for side in (pair.a, pair.b):
        codes = sorted({each["code"] for summary in side.summaries for each in summary.get("warnings") or []} & weak)
        reasons += [{"code": code, "message": f"{side.label}: warning {code}"} for code in codes]
    record: dict[str, Any] = {
        "kind": "verdict",
        "v": 1,
        "figure": figure,
        "better": "higher" if higher else "lower",
        "verdict": verdict,
        "at": pair.at,
        "a": _side(pair.a, figure, effect),
        "b": _side(pair.b, figure, effect),
        "effect": _effect(effect, higher),
        "confidence": confidence,
        "margin_ratio": margin,
        "p_value": None if effect is None else effect.p_value,
        "p_adjusted": None if effect is None else effect.p_adjusted,
        "p_same": None if effect is None else effect.p_same,
        "method": None if effect is None else effect.method,
        "correction": correction,
        "reasons": reasons,
        "needed": needed,
    }
    record["sentence"] = sentences.sentence(record)
    return record


def _partial(pair: Pair, figure: str, effect: effects.Effect | None) -> list[dict[str, str]]:
    """Sessions whose values do not count, or that have none."""
    reasons = []
    if effect is not None and effect.left_out:
        measured = (
            "1 server session measured" if effect.left_out == 1 else f"{effect.left_out} server sessions measured"
        )
        reasons.append({"code": "left_out", "message": f"{measured} one side only: left out"})
    for side in (pair.a, pair.b):
        sessions = {rows.session_of(summary) for summary in side.summaries}
        known = len(side.values(figure))
        if 0 < known < len(sessions):
            message = f"{known} of {len(sessions)} server sessions of {side.label} have {figure}"
            reasons.append({"code": "refused", "message": message})
    return reasons


def _few_failed(pair: Pair, reasons: list[dict[str, str]]) -> list[dict[str, str]]:
    """Failures that forbid nothing; they have no latency that could be compared, so they are said beside every
    verdict."""
    if any(each["code"] == "failures" for each in reasons):
        return []
    counted = [(side.label, *comparable.failed(side)) for side in (pair.a, pair.b)]
    return [
        {"code": "failures", "message": f"{failed} of {requests} requests of {label} failed"}
        for label, failed, requests in counted
        if failed
    ]


def _outlying(pair: Pair, figure: str, margin: float) -> list[dict[str, str]]:
    """Server sessions that are unlike the others of their side by more than the margin."""
    values = [side.values(figure) for side in (pair.a, pair.b)]
    if any(value <= 0 for side in values for value in side.values()):
        return []
    return [
        {
            "code": "outlier",
            "message": f"server session '{session}' of {(pair.a, pair.b)[place].label} is unlike the others: "
            f"{words.quantity(figure, values[place][session])}, {words.number(ratio, 2)} times theirs; look at its log "
            "before trusting either",
        }
        for place, session, ratio in outliers.outlying(values)
        if abs(math.log(ratio)) > math.log1p(margin)
    ]


def _why(
    pair: Pair, figure: str, effect: effects.Effect, margin: float, confidence: float, family: int
) -> dict[str, str]:
    if effect.p_value is None:
        unknown = any(summary.get("session") is None for side in (pair.a, pair.b) for summary in side.summaries)
        return {
            "code": "one_session",
            "message": "one server session does not show how sessions differ; measure at least three"
            + (" and name them (llmpar-summarise --session)" if unknown else ""),
        }
    p_adjusted = effect.p_value if effect.p_adjusted is None else effect.p_adjusted
    if p_adjusted <= 1 - confidence:
        return {
            "code": "within_margin",
            "message": f"the difference is significant but may be smaller than the {margin:.0%} margin",
        }
    if effect.p_value <= 1 - confidence:
        return {"code": "many_comparisons", "message": f"one of {family} comparisons may look like this by chance"}
    return {"code": "noise", "message": "server sessions differ among themselves as much as the sides do"}


def _side(side: Side, figure: str, effect: effects.Effect | None) -> dict[str, Any]:
    """A side as the record holds it; `value` is of the sessions that count, where some are left out."""
    by_session = side.values(figure)
    counted = by_session
    if effect is not None and effect.left_out and effect.sessions_shared:
        counted = {session: by_session[session] for session in effect.sessions_shared}
    known = [value for value in counted.values() if value > 0]
    mean = math.exp(math.fsum(map(math.log, known)) / len(known)) if known and len(known) == len(counted) else None
    return {
        "label": side.label,
        "sessions": len(counted),
        "values": list(by_session.values()),
        "value": mean,
        "cells": side.cells(),
    }


def _effect(effect: effects.Effect | None, higher: bool) -> dict[str, Any] | None:
    if effect is None:
        return None
    turned = (
        [effect.ratio, effect.low, effect.high]
        if higher
        else [
            1 / effect.ratio,
            None if effect.high is None else 1 / effect.high,
            None if effect.low is None else 1 / effect.low,
        ]
    )
    return {
        "ratio": effect.ratio,
        "low": effect.low,
        "high": effect.high,
        "speedup": turned[0],
        "speedup_low": turned[1],
        "speedup_high": turned[2],
    }
