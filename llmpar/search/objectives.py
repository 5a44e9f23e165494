"""Service-level objectives as text, and what a summary says of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import bdtr, bdtrc

from llmpar.search.levels import MEETS, MISSES, OPEN
from llmpar.stats import intervals

RISK = 0.05
FIGURES = ("ttft", "tpot", "itl", "e2e", "effective_ttft", "effective_e2e")
UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0}
_FORM = re.compile(r"([a-z0-9_-]+?)[-_](p50|p90|p95|p99|mean)\s*(?:<=|<|≤)\s*([0-9]*\.?[0-9]+)\s*(us|ms|s|)")


@dataclass(frozen=True)
class Objective:
    """A latency figure and the most it may be. `metric` is named as in llmpar-plot: ttft_p95_s."""

    figure: str  # ttft_s
    statistic: str  # p95
    most_s: float

    @property
    def metric(self) -> str:
        return f"{self.figure[:-2]}_{self.statistic}_s"


def parse(text: str) -> tuple[Objective, ...]:
    """Objectives of `ttft-p95<500ms tpot-p95<50ms`. Raises ValueError with the part that is not one."""
    parts = re.sub(r"\s*(<=|<|≤)\s*", r"\1", text).replace(",", " ").split()
    if not parts:
        raise ValueError("no objective is given; one looks like ttft-p95<500ms")
    objectives = []
    for part in parts:
        match = _FORM.fullmatch(part.lower())
        figure = match[1].replace("-", "_") if match else ""
        if match is None or figure not in FIGURES:
            raise ValueError(
                f"'{part}' is not an objective: FIGURE-STATISTIC<TIME, as ttft-p95<500ms; figures are "
                f"{', '.join(FIGURES)}, statistics p50, p90, p95, p99 and mean"
            )
        objectives.append(Objective(figure + "_s", match[2], float(match[3]) * UNITS_S[match[4]]))
    return tuple(objectives)


@dataclass(frozen=True)
class Judgement:
    """One objective against one summary: meets, misses or open, the value seen and its one-sided 95% bounds, in
    seconds."""

    objective: Objective
    verdict: str
    value_s: float | None
    at_most_s: float | None
    at_least_s: float | None
    needed: int | None  # requests from which the bounds exist


def judge(summary: Mapping[str, Any], objective: Objective) -> Judgement:
    """One objective on one summary. An objective on a percentile is one on a share of requests: p95 < 500 ms says that
    95% of requests take less. It meets where so few requests were over as a server at the edge would show in 5% of runs
    at most, and misses where so many were (binomial; Clopper and Pearson, Biometrika 26, 1934). Counts are read off the
    percentiles: below p99 and the largest value if they are within, above the percentiles that are not. Requests of one
    run correlate, which bench/search covers with a server that queues.
    """
    distribution = (summary.get("latency") or {}).get(objective.figure) or {}
    figure = distribution.get(objective.statistic) or {}
    value, upper, lower = figure.get("value"), figure.get("at_most"), figure.get("at_least")
    verdict = OPEN
    if objective.statistic == "mean":
        upper, lower = figure.get("high"), figure.get("low")
        if upper is not None and upper <= objective.most_s:
            verdict = MEETS
        elif lower is not None and lower > objective.most_s:
            verdict = MISSES
    elif count := distribution.get("n") or 0:
        fewest, most = over(distribution, count, objective.most_s)
        rare = 1 - int(objective.statistic[1:]) / 100
        if bdtr(most, count, rare) <= RISK:
            verdict = MEETS
        elif fewest and bdtrc(fewest - 1, count, rare) <= RISK:
            verdict = MISSES
    return Judgement(objective, verdict, value, upper, lower, figure.get("needed"))


def over(distribution: Mapping[str, Any], count: int, limit_s: float) -> tuple[int, int]:
    """The least and the most requests that can have been over a limit, by the percentiles of `count` values."""
    ranks = {1: distribution.get("min"), count: distribution.get("max")}
    for percent in intervals.PERCENTS:
        ranks[intervals.rank(count, percent)] = (distribution.get(f"p{percent}") or {}).get("value")
    within = [rank for rank, value in ranks.items() if value is not None and value <= limit_s]
    beyond = [rank for rank, value in ranks.items() if value is not None and value > limit_s]
    return count - min(beyond, default=count + 1) + 1, count - max(within, default=0)


MOST_FAILED = 0.01


def judge_all(summary: Mapping[str, Any], objectives: Sequence[Objective]) -> tuple[str, list[Judgement]]:
    """The verdict on all objectives together, and each one. Over 1% failed requests are a miss, whatever the others
    took."""
    judgements = [judge(summary, objective) for objective in objectives]
    counts = summary.get("n") or {}
    requests = counts.get("requests") or 0
    verdicts = {judgement.verdict for judgement in judgements}
    if not requests or requests - (counts.get("ok") or 0) > MOST_FAILED * requests or MISSES in verdicts:
        return MISSES, judgements
    return (MEETS if verdicts == {MEETS} else OPEN), judgements
