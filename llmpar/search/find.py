"""How many clients (or requests a second) a server carries within its objectives: the next cell, or the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpar.results import rows, words
from llmpar.search.levels import Step, ladder, next_step
from llmpar.verdicts import objectives

# Requests a cell needs so that its steady window holds enough of them: the ramp and the drain are a turn of all clients
# each.
TURNS = 6
LEAST_REQUESTS = 160
LEAST_HELD = 0.85  # of the clients, below which the load was not what was asked
MORE = 3  # times as many requests where a level needs them


@dataclass(frozen=True)
class Level:
    """One measured level: the summary of it that counts and what that says of all objectives together. `tries`: how
    many of its `cells` were measured for these objectives or whole."""

    level: float
    verdict: str
    summary: dict[str, Any]
    tries: int
    cells: int


def measured(summaries: Sequence[dict[str, Any]], axis: str, wanted: Mapping[str, float]) -> dict[float, Level]:
    """Levels that the summaries measure, by `axis` (clients or rate). Of several cells at one level one that settles it
    counts, else the one with the most requests."""
    levels: dict[float, Level] = {}
    for summary in summaries:
        level = ((summary.get("cell") or {}).get("load") or {}).get(axis)
        if level is None:
            continue
        verdict = verdict_of(summary, wanted)
        whole = not summary.get("ended_early") or _ended_for(summary, wanted)
        old = levels.get(float(level))
        tries, cells = (old.tries + whole, old.cells + 1) if old else (int(whole), 1)
        if old and (old.verdict != objectives.UNKNOWN, _size(old.summary)) > (
            verdict != objectives.UNKNOWN,
            _size(summary),
        ):
            verdict, summary = old.verdict, old.summary
        levels[float(level)] = Level(float(level), verdict, summary, tries, cells)
    return levels


def verdict_of(summary: dict[str, Any], wanted: Mapping[str, float]) -> str:
    """What a summary says. One that ended early for these objectives says what ended it: a test that allows for looking
    after every request, which the summary's own would not."""
    return str(summary["ended_early"]["verdict"]) if _ended_for(summary, wanted) else objectives.of_all(summary, wanted)


def _ended_for(summary: Mapping[str, Any], wanted: Mapping[str, float]) -> bool:
    """Whether these objectives ended a measurement early."""
    return bool((summary.get("ended_early") or {}).get("objectives") == dict(wanted))


def _size(summary: Mapping[str, Any]) -> int:
    return (summary.get("n") or {}).get("requests") or 0


def requests_for(axis: str, level: float, tries: int) -> int:
    """How many requests a cell at this level sends, the first time or again. One that may end early has those of the
    second time from the start."""
    turn = TURNS * level if axis == "clients" else 30 * level
    return int(max(LEAST_REQUESTS, turn)) * MORE ** max(0, tries)


def step(
    levels: Mapping[float, Level], axis: str, least: float, most: float, start: float | None, most_tries: int = 2
) -> Step:
    """What to measure next, or the answer."""
    return next_step(
        ladder(least, most, whole=axis == "clients"),
        {level: seen.verdict for level, seen in levels.items()},
        {level: seen.tries for level, seen in levels.items()},
        most_tries,
        start,
    )


def progress(levels: Mapping[float, Level], axis: str, level: float) -> str:
    """Progress of the search before `level` is measured: the highest level that meets the objectives and the lowest
    above it that does not."""
    best = max((level for level, seen in levels.items() if seen.verdict == objectives.MEETS), default=None)
    above = min(
        (level for level, seen in levels.items() if seen.verdict == objectives.MISSES and level > (best or 0)),
        default=None,
    )
    known = [f"{level:g} {word}" for level, word in ((best, "met"), (above, "missed")) if level is not None]
    text = f"next {words.plural(int(level), 'client') if axis == 'clients' else f'{level:g} requests/s'}"
    text += " again" if level in levels else ""
    return text + (f"; objectives: {', '.join(known)}" if known else "")


def answer(levels: Mapping[float, Level], done: Step, axis: str, wanted: Mapping[str, float]) -> dict[str, Any]:
    """The answer record: the highest level within the objectives, its figures and bounds, and the share of the best
    rate."""
    rates = {level: rate for level, seen in levels.items() if (rate := _rate(seen.summary)) is not None}
    best = levels.get(done.best) if done.best is not None else None
    top = max(rates.values(), default=None)
    rate_there = rates.get(done.best) if done.best is not None else None
    return {
        "kind": "answer",
        "v": 1,
        "question": "find",
        "axis": axis,
        "objectives": dict(wanted),
        "best": done.best,
        "above": done.above,
        "unsure": list(done.unsure),
        "contradictions": list(done.contradictions),
        "figures": _figures(best.summary, wanted) if best else {},
        "output_tokens_per_s": rate_there,
        "share_of_best_rate": rate_there / top if rate_there and top else None,
        "held": _held(best.summary) if best else None,
        "cells": [
            {"level": level, "verdict": seen.verdict, "requests": (seen.summary.get("n") or {}).get("requests")}
            for level, seen in sorted(levels.items())
        ],
    }


def _figures(summary: dict[str, Any], wanted: Mapping[str, float]) -> dict[str, Any]:
    return {
        metric: {"value": rows.reading(summary, metric).value, "at_most": objectives.at_most(summary, metric)}
        for metric in wanted
    }


def _held(summary: Mapping[str, Any]) -> float | None:
    """Requests that were out at a time, in the steady window where there is one."""
    concurrency = summary.get("concurrency") or {}
    value = concurrency.get("steady") or concurrency.get("achieved")
    return float(value.get("value") or 0) if isinstance(value, Mapping) else value


def _rate(summary: Mapping[str, Any]) -> float | None:
    rates = (summary.get("throughput") or {}).get("output_tokens_per_s") or {}
    for kind in ("steady", "wall"):
        value = (rates.get(kind) or {}).get("value")
        if value is not None:
            return float(value)
    return None


def sentence(record: Mapping[str, Any]) -> str:
    """The answer in a line or two."""
    noun = "clients" if record["axis"] == "clients" else "requests/s"
    wanted = ", ".join(
        f"{words.title(metric)} ≤ {words.goal(metric, most)}" for metric, most in record["objectives"].items()
    )
    if record["best"] is None:
        lowest = record["cells"][0]["level"] if record["cells"] else 0
        sure = "does not meet" if lowest not in record["unsure"] else "was not shown to meet"
        return f"even {lowest:g} {noun} {sure} {wanted}\n"
    figures = ", ".join(
        f"{words.title(metric)} {words.quantity(metric, figure['value'])}, at most "
        f"{words.quantity(metric, figure['at_most'])}"
        for metric, figure in record["figures"].items()
        if figure["value"] is not None
    )
    text = f"up to {record['best']:g} {noun} meet it ({figures}); "
    if record["above"] is None:
        text += "no higher level was tried"
    elif record["above"] in record["unsure"]:
        text += f"{record['above']:g} are too close to call"
    else:
        text += f"{record['above']:g} do not"
    if record["share_of_best_rate"] is not None:
        text += (
            f"; {words.quantity('output_tokens_per_s', record['output_tokens_per_s'])}, "
            f"{words.percent(record['share_of_best_rate'])}% of the best rate measured"
        )
    if record["axis"] == "clients" and record["held"] and record["held"] < LEAST_HELD * record["best"]:
        text += (
            f"\nnote: only {record['held']:.1f} of {record['best']:g} clients had a request in flight at a time: "
            "the load host was the limit, and the server may serve fewer than this says"
        )
    if record["contradictions"]:
        odd = ", ".join(f"{level:g}" for level in record["contradictions"])
        text += f"\nnote: {odd} {noun} missed it although {record['best']:g} met it: measure again on a quieter machine"
    return text + "\n"
