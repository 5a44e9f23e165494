"""How many clients (or requests a second) a server carries within its objectives: the next cell, or the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpar.search.levels import Step, ladder, next_step
from llmpar.search.objectives import Judgement, Objective, judge_all

# Requests a cell needs so that its steady window holds enough of them: the ramp and the drain are a turn of all clients
# each.
TURNS = 6
LEAST_REQUESTS = 160
LEAST_HELD = 0.85  # of the clients, below which the load was not what was asked
MORE = 3  # times as many requests when a level is measured again


@dataclass(frozen=True)
class Level:
    """One measured level: the summary that settles it, or the longest one, and what it says."""

    level: float
    verdict: str
    judgements: list[Judgement]
    summary: Mapping[str, Any]
    tries: int


def measured(summaries: Sequence[Mapping[str, Any]], axis: str, objectives: Sequence[Objective]) -> dict[float, Level]:
    """Levels that the summaries measure, by `axis` (clients or rate). Of several cells at one level the one with the
    most requests counts."""
    levels: dict[float, Level] = {}
    for summary in summaries:
        level = ((summary.get("cell") or {}).get("load") or {}).get(axis)
        if level is None:
            continue
        verdict, judgements = judge_all(summary, objectives)
        old = levels.get(float(level))
        tries = old.tries + 1 if old else 1
        size = (summary.get("n") or {}).get("requests") or 0
        if old and size < ((old.summary.get("n") or {}).get("requests") or 0):
            verdict, judgements, summary = old.verdict, old.judgements, old.summary
        levels[float(level)] = Level(float(level), verdict, judgements, summary, tries)
    return levels


def requests_for(axis: str, level: float, tries: int) -> int:
    """How many requests a cell at this level sends, the first time or again."""
    turn = TURNS * level if axis == "clients" else 30 * level
    return int(max(LEAST_REQUESTS, turn)) * MORE ** max(0, tries)


def step(
    levels: Mapping[float, Level], axis: str, least: float, most: float, start: float | None, most_tries: int = 2
) -> Step:
    """What to measure next, or the answer."""
    return next_step(
        ladder(least, most, whole=axis == "clients"),
        {level: found.verdict for level, found in levels.items()},
        {level: found.tries for level, found in levels.items()},
        most_tries,
        start,
    )


def answer(levels: Mapping[float, Level], done: Step, axis: str, objectives: Sequence[Objective]) -> dict[str, Any]:
    """The answer record: the highest level within the objectives, its figures and bounds, and the share of the best
    rate."""
    rates = {level: rate for level, found in levels.items() if (rate := _rate(found.summary)) is not None}
    best = levels.get(done.best) if done.best is not None else None
    top = max(rates.values(), default=None)
    mine = rates.get(done.best) if done.best is not None else None
    return {
        "kind": "answer",
        "v": 1,
        "question": "find",
        "axis": axis,
        "objectives": {objective.metric: objective.most_s for objective in objectives},
        "best": done.best,
        "above": done.above,
        "unsure": list(done.unsure),
        "contradictions": list(done.contradictions),
        "figures": {
            judged.objective.metric: {"value": judged.value_s, "at_most": judged.at_most_s}
            for judged in (best.judgements if best else [])
        },
        "output_tokens_per_s": mine,
        "share_of_best_rate": mine / top if mine and top else None,
        "held": _held(best.summary) if best else None,
        "cells": [
            {"level": level, "verdict": found.verdict, "requests": (found.summary.get("n") or {}).get("requests")}
            for level, found in sorted(levels.items())
        ],
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
    wanted = ", ".join(f"{title(metric)} ≤ {duration(most)}" for metric, most in record["objectives"].items())
    if record["best"] is None:
        lowest = record["cells"][0]["level"] if record["cells"] else 0
        sure = "does not meet" if lowest not in record["unsure"] else "was not shown to meet"
        return f"even {lowest:g} {noun} {sure} {wanted}\n"
    figures = ", ".join(
        f"{title(metric)} {duration(figure['value'])}, at most {duration(figure['at_most'])}"
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
            f"; {record['output_tokens_per_s']:.0f} tokens/s, {record['share_of_best_rate'] * 100:.0f}% of the "
            "best rate seen"
        )
    if record["axis"] == "clients" and record["held"] and record["held"] < LEAST_HELD * record["best"]:
        text += (
            f"\nnote: only {record['held']:.1f} of {record['best']:g} clients had a request out at a time: the load "
            "host was the "
            "limit, and the server may carry fewer than this says"
        )
    if record["contradictions"]:
        odd = ", ".join(f"{level:g}" for level in record["contradictions"])
        text += f"\nnote: {odd} {noun} missed it although {record['best']:g} met it: measure again on a quieter machine"
    return text + "\n"


def title(metric: str) -> str:
    """`ttft_p95_s` as `p95 TTFT`."""
    name, statistic = metric.removesuffix("_s").rsplit("_", 1)
    words = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E"}
    return f"{statistic} {' '.join(words.get(word, word) for word in name.split('_'))}"


def duration(seconds: float | None) -> str:
    """Milliseconds below a second, else seconds."""
    if seconds is None:
        return "unknown"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
