"""Summaries to verdicts: which cells stand against which, whether they may be compared, and what to say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from llmpar import compare, compare_words, series, workload

# What two sides must share unless it is what is compared or is allowed by name.
CHECKS = ("prompts", "sampling", "model", "versions", "host", "failures", "outputs")
MOST_FAILED = 0.01
OUTPUT_DIFFERENCE = 0.03
# Settings that follow from others or name things, not what the engine did.
IGNORED = ("timeout_s", "warmup", "host", "sampling_seed")
LENGTH_BOUND = ("wall_s", "e2e", "effective_e2e", "requests_per_s", "goodput_per_s")
PACKAGES = {"llamacpp": "xllamacpp", "aphrodite": "aphrodite-engine", "mii": "deepspeed-mii", "trtllm": "tensorrt-llm"}


@dataclass
class Side:
    """One side of a pair: the summaries of its cell, by session."""

    label: str
    summaries: list[dict[str, Any]] = field(default_factory=list)

    def values(self, figure: str) -> dict[str, float]:
        """The figure in each session; the geometric mean where one session measured the cell several times."""
        found: dict[str, list[float]] = {}
        for summary in self.summaries:
            value = series.reading(summary, figure).value
            if value is not None and value > 0:
                found.setdefault(str(summary.get("session")), []).append(value)
        return {session: each[0] if len(each) == 1 else math.exp(math.fsum(map(math.log, each)) / len(each))
                for session, each in sorted(found.items())}

    def cells(self) -> list[str]:
        return sorted({str(summary["label"]) for summary in self.summaries if summary.get("label")})

    def needed(self, figure: str) -> int | None:
        """How many requests the figure would need, where it was refused."""
        counts = [series.reading(summary, figure).needed for summary in self.summaries]
        return max((count for count in counts if count), default=None)


@dataclass
class Pair:
    """A contender, a baseline, and what they share that other pairs do not."""

    at: dict[str, Any]
    a: Side
    b: Side
    subject: tuple[str, ...]  # the settings that are compared
    follow: tuple[str, ...] = ()  # settings that differ with them in all cells, and so leave the sides without a common one
    own: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # an engine's own settings, of A and of B


def settings(summary: dict[str, Any]) -> dict[str, Any]:
    """Settings that tell cells apart; without a cell, what the records say of themselves."""
    found = {key: value for key, value in series.settings(summary).items() if key not in IGNORED}
    if not summary.get("cell"):
        found = {"engine": summary["workload"].get("engine"), "clients": summary["concurrency"].get("asked")}
    for key, value in found.items():
        if isinstance(value, list | dict):
            found[key] = str(value)
    return found


def against(contenders: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> list[Pair]:
    """Pairs of equal cells of two sets. Settings in which the sets as wholes differ are what is compared."""
    sides = [[settings(summary) for summary in each] for each in (contenders, baseline)]
    names = sorted({name for side in sides for each in side for name in each})
    subject = tuple(name for name in names if {each.get(name) for each in sides[0]} != {each.get(name) for each in sides[1]})
    if len({_key(each, ()) for each in sides[0]}) > 1 or len({_key(each, ()) for each in sides[1]}) > 1:
        # Sweeps of different extent are compared where they meet.
        subject = tuple(name for name in subject if not (
            {each.get(name) for each in sides[0]} & {each.get(name) for each in sides[1]}))
    cells: dict[tuple[Any, ...], Pair] = {}
    for place, (side, found) in enumerate(zip(sides, (contenders, baseline), strict=True)):
        for each, summary in zip(side, found, strict=True):
            key = _key(each, subject)
            if key not in cells:
                cells[key] = Pair({name: value for name, value in each.items() if name not in subject}, Side(""), Side(""), subject)
            pair = cells[key]
            chosen = pair.b if place else pair.a
            chosen.label = chosen.label or _label(each, subject, "baseline" if place else "candidate")
            chosen.summaries.append(summary)
    return told_apart(list(cells.values()))


def by(summaries: list[dict[str, Any]], names: tuple[str, ...], base: str | None) -> list[Pair]:
    """Each value of one or more settings against the base value (the first seen unless told), cell by cell.

    An engine brings its own server settings (version, model, quantisation, flags): those of which each engine has one are
    compared with it, and are told of.
    """
    found = [settings(summary) for summary in summaries]
    values = [_label(each, names, "unset") for each in found]
    follow = _following(found, names, values)
    server = {name for summary in summaries for name in (summary.get("cell") or {}).get("server") or {}} if "engine" in names else set()
    brought = tuple(name for name in follow if name in server)
    subject, told = (*names, *brought), (*names, *(name for name in brought if name == "version"))
    groups: dict[tuple[Any, ...], dict[str, Side]] = {}
    shared: dict[tuple[Any, ...], dict[str, Any]] = {}
    first: dict[str, dict[str, Any]] = {}  # settings of each value's first cell
    for summary, each, value in zip(summaries, found, values, strict=True):
        first.setdefault(value, each)
        key = _key(each, subject)
        shared[key] = {name: setting for name, setting in each.items() if name not in subject}
        groups.setdefault(key, {}).setdefault(value, Side(_label(each, told, "unset"))).summaries.append(summary)
    if not first:
        return []
    chosen = base if base is not None else values[0]
    matching = next((value for value in first if value == chosen or chosen in value.replace(",", " ").split()), None)
    if matching is None:
        raise ValueError(f"no summary has the base value '{chosen}'; there are {', '.join(first)}")
    others = tuple(name for name in follow if name not in server)
    pairs = []
    for key, sides in groups.items():
        for value in first:
            if value != matching and value in sides:
                mine, its = first[value], first[matching]
                own = {name: (mine.get(name), its.get(name)) for name in brought if name not in told and mine.get(name) != its.get(name)}
                pairs.append(Pair(dict(shared[key]), sides[value], sides.get(matching, Side(_label(its, told, "unset"))), subject, others, own))
    return told_apart(pairs)


def _following(found: list[dict[str, Any]], names: tuple[str, ...], values: list[str]) -> tuple[str, ...]:
    """Settings that follow from `names`, whose values in each cell are `values`: one for each of theirs, and not the same for all."""
    follow = []
    for name in sorted({name for each in found for name in each} - set(names)):
        beside: dict[str, set[str]] = {}
        for value, each in zip(values, found, strict=True):
            beside.setdefault(value, set()).add(str(each.get(name)))
        if all(len(each) == 1 for each in beside.values()) and len(set.union(*beside.values())) > 1:
            follow.append(name)
    return tuple(follow)


def _key(each: dict[str, Any], without: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(sorted(((name, str(value)) for name, value in each.items() if name not in without)))


def _label(each: dict[str, Any], subject: tuple[str, ...], otherwise: str) -> str:
    return ", ".join(compare_words.where(name, each.get(name)) for name in subject) if subject else otherwise


def told_apart(pairs: list[Pair]) -> list[Pair]:
    """Leave in `at` only what tells the pairs apart; `clients` always, since everybody asks for it; in that order."""
    names = {name for pair in pairs for name in pair.at}
    vary = {name for name in names if len({str(pair.at.get(name)) for pair in pairs}) > 1} | {"clients"}
    for pair in pairs:
        pair.at = {name: value for name, value in sorted(pair.at.items()) if name in vary and value is not None}
    return sorted(pairs, key=lambda pair: [(name, series.by_size(value)) for name, value in pair.at.items()])


def _one(values: Iterable[Any]) -> str:
    return " and ".join(sorted({str(value) for value in values}))


def version(summary: dict[str, Any]) -> str | None:
    """The engine's version: of the server record, else of the package that the host record lists for it."""
    server = summary.get("server") or {}
    found = server.get("version")
    if found is None:
        packages = ((summary.get("host") or {}).get("software") or {}).get("packages") or {}
        engine = str(server.get("engine") or summary["workload"].get("engine"))
        found = packages.get(PACKAGES.get(engine, engine))
    return None if found is None else str(found)


def differences(pair: Pair, figure: str) -> list[dict[str, str]]:
    """Why two sides cannot be compared, as `{"code", "message"}`; codes are those of CHECKS and `client_limited`."""
    a, b, found = pair.a.summaries, pair.b.summaries, []

    def differ(code: str, what: str, values: tuple[list[Any], list[Any]], compared: tuple[str, ...] = ()) -> None:
        known = [[value for value in side if value not in (None, "", [])] for side in values]
        if all(known) and {str(value) for value in known[0]} != {str(value) for value in known[1]} and not (
                set(compared) & set(pair.subject)):
            found.append({"code": code, "message": f"{what}: {_one(known[0])} against {_one(known[1])}"})

    def short(summary: dict[str, Any]) -> str | None:
        sha256 = summary["workload"]["prompts"]["sha256"]
        return None if sha256 is None else f"{summary['workload']['prompts']['distinct']} prompts ({sha256[:8]})"

    differ("prompts", "prompt sets differ", ([short(each) for each in a], [short(each) for each in b]), ("prompts", "count"))
    asked = [[workload.sampling(each) for each in side] for side in (a, b)]
    for name in workload.NAMES:
        values = tuple([each.get(name) for each in side] for side in asked)
        differ("sampling", f"sampling differs in {name}", (values[0], values[1]), (name, "sampling_seed" if name == "seed" else name))
    differ("model", "models differ", ([_model(each) for each in a], [_model(each) for each in b]), ("model", "engine", "quantize"))
    differ("versions", "engine versions differ", ([version(each) for each in a], [version(each) for each in b]), ("version", "engine"))
    differ("host", "hosts differ", ([_host(each) for each in a], [_host(each) for each in b]), ("host", "gpus"))
    for side in (pair.a, pair.b):
        requests = sum(each["n"]["requests"] for each in side.summaries)
        failed = requests - sum(each["n"]["ok"] for each in side.summaries)
        if failed > MOST_FAILED * requests:
            found.append({"code": "failures", "message": f"{failed} of {requests} requests of {side.label} failed"})
        name = figure.removesuffix("_steady")
        limited = sorted({item for each in side.summaries for item in each["client"]["limited"] if _concerns(item, name)})
        if limited:
            found.append({"code": "client_limited", "message": f"the client limits {', '.join(limited)} of {side.label}"})
    if figure.startswith(LENGTH_BOUND):
        lengths = [[each["tokens"]["output"] / each["n"]["ok"] for each in side if each["tokens"]["output"] and each["n"]["ok"]]
                   for side in (a, b)]
        if all(lengths):
            means = [math.fsum(each) / len(each) for each in lengths]
            if abs(math.log(means[0] / means[1])) > math.log1p(OUTPUT_DIFFERENCE) and not {"max_tokens", "prompts"} & set(pair.subject):
                found.append({"code": "outputs", "message": f"outputs differ in length: {means[0]:.1f} against {means[1]:.1f} tokens"})
    return found


def _concerns(limited: str, figure: str) -> bool:
    return figure.startswith(limited.removesuffix("_s") + "_") or figure == limited


def _model(summary: dict[str, Any]) -> Any:
    model = summary["workload"].get("model")
    return model.rsplit("/", 1)[-1] if isinstance(model, str) else model


def _host(summary: dict[str, Any]) -> str | None:
    name, gpus = series.host_of(summary), series.gpus_of(summary)
    return ", ".join([name, *gpus]) if name else None


def effect(pair: Pair, figure: str, method: str = "auto", confidence: float = compare.CONFIDENCE) -> compare.Effect | None:
    """The figure's ratio between the sides by session; None where a side has no value.

    `auto`: paired where each session measured both sides (as cells of one server start do), else Welch.
    """
    a, b = pair.a.values(figure), pair.b.values(figure)
    if not a or not b:
        return None
    together = set(a) == set(b) and "None" not in a
    if method == "paired" or (method == "auto" and together):
        both = sorted(set(a) & set(b))
        if not both:
            return None
        return compare.paired([a[session] for session in both], [b[session] for session in both], confidence)
    test = compare.permutation if method == "permutation" else compare.welch
    return test(list(a.values()), list(b.values()), confidence)


def verdicts(pairs: list[Pair], figures: tuple[str, ...], margin: float = compare.MARGIN, correction: str = "holm",
             method: str = "auto", allow: tuple[str, ...] = (), confidence: float = compare.CONFIDENCE) -> list[dict[str, Any]]:
    """One verdict record for each pair and figure; p-values are corrected over all of them."""
    work = [(pair, figure) for pair in pairs for figure in figures]
    effects, reasons, noted = [], [], []
    for pair, figure in work:
        differ, allowed = parted(differences(pair, figure), allow)
        reasons.append(differ)
        noted.append(allowed)
        effects.append(effect(pair, figure, method, confidence) if pair.a.summaries and pair.b.summaries else None)
    p_values = [None if each is None or differ else each.p_value for each, differ in zip(effects, reasons, strict=True)]
    adjusted = compare.adjust(p_values, correction)
    records = []
    for (pair, figure), found, differ, allowed, p_adjusted in zip(work, effects, reasons, noted, adjusted, strict=True):
        if found is not None:
            found.p_adjusted = p_adjusted
        records.append(verdict_record(pair, figure, found, differ, allowed, margin, correction, confidence, len(work)))
    return records


def parted(differ: list[dict[str, str]], allow: tuple[str, ...]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Differences that forbid a comparison, and those that were allowed by name and are only said."""
    return [each for each in differ if each["code"] not in allow], [each for each in differ if each["code"] in allow]


def verdict_record(pair: Pair, figure: str, found: compare.Effect | None, differ: list[dict[str, str]], allowed: list[dict[str, str]],
                   margin: float, correction: str, confidence: float, family: int) -> dict[str, Any]:
    higher = not series.lower_is_better(figure)
    reasons, needed = list(differ), None
    if differ:
        verdict = "not comparable"
    elif found is None:
        verdict = "cannot tell"
        for side in (pair.a, pair.b):
            if not side.summaries:
                reasons.append({"code": "missing", "message": f"{side.label} has no such cell" + (
                    f"; what differs besides: {', '.join(pair.follow)} (--by {' --by '.join((*pair.subject, *pair.follow))})" if pair.follow else "")})
            elif not side.values(figure):
                many = side.needed(figure)
                reasons.append({"code": "refused", "message": f"{side.label} has no {figure}" + (
                    f": it needs {many} requests" if many else "")})
    else:
        verdict = compare.decide(found, higher, margin, confidence)
        if verdict == "cannot tell":
            reasons.append(_why(pair, figure, found, margin, confidence, family))
            if found.error:
                sigma = found.error / math.sqrt(sum(1 / len(side.values(figure)) for side in (pair.a, pair.b)))
                seen = abs(math.log(found.ratio))
                # Sides that look alike are taken for equal: the seen difference would be one of noise.
                difference = math.expm1(seen) if seen > math.log1p(margin) else 0.0
                many = compare.sessions_needed(sigma, difference, margin=margin, confidence=confidence)
                needed = None if many is None else {"sessions": many}
    reasons += allowed
    if pair.own and found is not None:
        reasons.append({"code": "own_settings", "message": compare_words.own(pair.a.label, pair.b.label, pair.own)})
    weak = {"low_concurrency", "cached_tokens", "token_dispute", "clock_step", "no_steady_state", "mixed_sampling"}
    for side in (pair.a, pair.b):
        codes = sorted({each["code"] for summary in side.summaries for each in summary.get("warnings") or []} & weak)
        reasons += [{"code": code, "message": f"{side.label} warns of {code.replace('_', ' ')}"} for code in codes]
    record: dict[str, Any] = {
        "kind": "verdict", "v": 1, "figure": figure, "better": "higher" if higher else "lower", "verdict": verdict, "at": pair.at,
        "a": _side(pair.a, figure), "b": _side(pair.b, figure), "effect": _effect(found, higher), "confidence": confidence,
        "margin_ratio": margin, "p_value": None if found is None else found.p_value,
        "p_adjusted": None if found is None else found.p_adjusted, "method": None if found is None else found.method,
        "correction": correction, "reasons": reasons, "needed": needed}
    record["sentence"] = compare_words.sentence(record)
    return record


def _why(pair: Pair, figure: str, found: compare.Effect, margin: float, confidence: float, family: int) -> dict[str, str]:
    if found.p_value is None:
        unknown = any(summary.get("session") is None for side in (pair.a, pair.b) for summary in side.summaries)
        return {"code": "one_session", "message": "one server session is no measure of how sessions differ; measure at least three"
                + (" and name them (llmpar-summarise --session)" if unknown else "")}
    p_adjusted = found.p_value if found.p_adjusted is None else found.p_adjusted
    if p_adjusted <= 1 - confidence:
        return {"code": "within_margin", "message": f"the difference is real, but nobody can tell whether it exceeds {margin:.0%}"}
    if found.p_value <= 1 - confidence:
        return {"code": "many_comparisons", "message": f"one of {family} comparisons may look like this by chance"}
    return {"code": "noise", "message": "sessions differ among themselves as much as the sides do"}


def _side(side: Side, figure: str) -> dict[str, Any]:
    values = list(side.values(figure).values())
    mean = math.exp(math.fsum(map(math.log, values)) / len(values)) if values else None
    return {"label": side.label, "sessions": len(values), "values": values, "value": mean, "cells": side.cells()}


def _effect(found: compare.Effect | None, higher: bool) -> dict[str, Any] | None:
    if found is None:
        return None
    turned = [found.ratio, found.low, found.high] if higher else [
        1 / found.ratio, None if found.high is None else 1 / found.high, None if found.low is None else 1 / found.low]
    return {"ratio": found.ratio, "low": found.low, "high": found.high, "speedup": turned[0], "speedup_low": turned[1],
            "speedup_high": turned[2]}
