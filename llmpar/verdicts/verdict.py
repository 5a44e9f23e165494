"""Faster, slower, same or cannot tell: one pair of cells and one figure to one verdict record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from llmpar.engines import ENGINES
from llmpar.results import rows, words, workload
from llmpar.stats import effects, outliers, power
from llmpar.stats.effects import CONFIDENCE, MARGIN, Effect, equivalent
from llmpar.verdicts import sentences, times
from llmpar.verdicts.noise import Cell, Noise
from llmpar.verdicts.pairs import Pair, Side

VERDICTS = ("faster", "slower", "same", "cannot tell", "not comparable")

# What two sides must share unless it is what is compared or is allowed by name.
CHECKS = ("prompts", "sampling", "model", "versions", "host", "failures", "outputs", "times", "latency_over")
OUTPUT_DIFFERENCE = 0.03
LENGTH_BOUND = ("wall_s", "e2e", "effective_e2e", "requests_per_s", "goodput_per_s")


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


def _one(values: Iterable[Any]) -> str:
    return " and ".join(sorted({str(value) for value in values}))


def version(summary: dict[str, Any]) -> str | None:
    """The engine's version: of the server record, else of the package that the host record lists for it."""
    server = summary.get("server") or {}
    known = server.get("version")
    if known is None:
        packages = ((summary.get("host") or {}).get("software") or {}).get("packages") or {}
        engine = str(server.get("engine") or summary["workload"].get("engine"))
        names = ENGINES[engine].packages if engine in ENGINES else (engine,)
        known = next((packages[name] for name in names if name in packages), None)
    return None if known is None else str(known)


def differences(pair: Pair, figure: str) -> list[dict[str, str]]:
    """Why two sides cannot be compared, as `{"code", "message"}`; codes are those of CHECKS and `client_limited`."""
    a, b, reasons = pair.a.summaries, pair.b.summaries, []

    def differ(code: str, what: str, values: tuple[list[Any], list[Any]], compared: tuple[str, ...] = ()) -> None:
        known = [[value for value in side if value not in (None, "", [])] for side in values]
        if (
            all(known)
            and {str(value) for value in known[0]} != {str(value) for value in known[1]}
            and not (set(compared) & set(pair.subject))
        ):
            reasons.append({"code": code, "message": f"{what}: {_one(known[0])} against {_one(known[1])}"})

    # Summaries before version 2 know only the set of prompts, not the shares in which they were sent.
    shares = all("shares_sha256" in each["workload"]["prompts"] for each in (*a, *b))

    def short(summary: dict[str, Any]) -> str | None:
        prompts = summary["workload"]["prompts"]
        sha256 = prompts.get("shares_sha256" if shares else "sha256")
        return None if sha256 is None else f"{prompts.get('distinct')} prompts ({sha256[:8]})"

    differ(
        "prompts",
        "prompt sets differ",
        ([short(each) for each in a], [short(each) for each in b]),
        ("prompts", "count"),
    )
    asked = [[workload.sampling(each) for each in side] for side in (a, b)]
    for name in workload.NAMES:
        values = tuple([each.get(name) for each in side] for side in asked)
        differ(
            "sampling",
            f"sampling differs in {name}",
            (values[0], values[1]),
            (name, "sampling_seed" if name == "seed" else name),
        )
    differ(
        "model",
        "models differ",
        ([_model(each) for each in a], [_model(each) for each in b]),
        ("model", "engine", "quantize"),
    )
    differ(
        "versions",
        "engine versions differ",
        ([version(each) for each in a], [version(each) for each in b]),
        ("version", "engine"),
    )
    differ(
        "host", "hosts differ", ([rows.where(each) for each in a], [rows.where(each) for each in b]), ("host", "gpus")
    )
    for side in (pair.a, pair.b):
        failed, requests = _failed(side)
        if failed > rows.MOST_FAILED * requests:
            reasons.append({"code": "failures", "message": f"{failed} of {requests} requests of {side.label} failed"})
        name = figure.removesuffix("_steady")
        limited = sorted(
            {item for each in side.summaries for item in each["client"].get("limited") or () if _concerns(item, name)}
        )
        if limited:
            reasons.append(
                {"code": "client_limited", "message": f"the client limits {', '.join(limited)} of {side.label}"}
            )
    reasons += _latency_over(pair, figure)
    if figure.startswith(LENGTH_BOUND):
        lengths = [
            [
                each["tokens"]["output"] / each["n"]["ok"]
                for each in side
                if each["tokens"].get("output") and each["n"]["ok"]
            ]
            for side in (a, b)
        ]
        if all(lengths):
            means = [math.fsum(each) / len(each) for each in lengths]
            if abs(math.log(means[0] / means[1])) > math.log1p(OUTPUT_DIFFERENCE) and not {
                "max_tokens",
                "prompts",
            } & set(pair.subject):
                reasons.append(
                    {
                        "code": "outputs",
                        "message": f"outputs differ in length: {means[0]:.1f} against {means[1]:.1f} tokens",
                    }
                )
    return reasons


def _latency_over(pair: Pair, figure: str) -> list[dict[str, str]]:
    """That a latency is of the steady window in some summaries and of the whole run, ramp included, in others."""
    if rows.path(figure)[0] != "latency":
        return []
    have = [each for each in (*pair.a.summaries, *pair.b.summaries) if rows.reading(each, figure).value is not None]
    steady = sum(rows.latency_over(each) == "steady" for each in have)
    if not 0 < steady < len(have):
        return []
    message = (
        f"{words.title(figure)} is of the steady window in {steady} of {len(have)} summaries and of the whole run in "
        f"the others; compare {figure}_run"
    )
    return [{"code": "latency_over", "message": message}]


def _concerns(limited: str, figure: str) -> bool:
    return figure.startswith(limited.removesuffix("_s") + "_") or figure == limited


def _model(summary: dict[str, Any]) -> Any:
    model = summary["workload"].get("model")
    return model.rsplit("/", 1)[-1] if isinstance(model, str) else model


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
        forbidding, allowed = parted([*differences(pair, figure), *not_side_by_side(pair, effect)], allow)
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
    counted = [(side.label, *_failed(side)) for side in (pair.a, pair.b)]
    return [
        {"code": "failures", "message": f"{failed} of {requests} requests of {label} failed"}
        for label, failed, requests in counted
        if failed
    ]


def _failed(side: Side) -> tuple[int, int]:
    """Requests of a side that did not end ok, and all of them."""
    requests = sum(each["n"]["requests"] for each in side.summaries)
    return requests - sum(each["n"]["ok"] for each in side.summaries), requests


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
