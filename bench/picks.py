"""How often llmpar-pick wrongly says that a cell of the batch server meets or misses an objective near the truth."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import batch_server
import numpy as np
from batch_server import Scenario

from llmpar.results.rows import Row
from llmpar.verdicts import objectives, pick

SCENARIOS = (Scenario(500, 24), Scenario(1000, 128))
FIGURES = {"TTFT p95": "ttft_p95_s", "TPOT p95": "tpot_p95_s"}
# Objectives over the truth, and which answers are shown: at 1 both are wrong.
SHOWN = (
    (0.9, "misses", "right"),
    (0.97, "meets", "wrong"),
    (1.0, "meets", "wrong"),
    (1.0, "misses", "wrong"),
    (1.03, "misses", "wrong"),
    (1.1, "meets", "right"),
)
STATES = (objectives.MEETS, objectives.MISSES, objectives.UNKNOWN)


def _run(task: tuple[Scenario, int]) -> dict[str, Any]:
    scenario, number = task
    return {**batch_server.summary(scenario, 5000 + number), "session": f"session {number}"}


def states(runs: list[dict[str, Any]], sessions: int, metric: str, most: float, trials: int) -> dict[str, float]:
    """The share of rows of so many server sessions, drawn from `runs`, that pick puts into each state."""
    random = np.random.default_rng([sessions, trials])
    counts = dict.fromkeys(STATES, 0)
    for trial in range(trials):
        chosen = [trial % len(runs)] if sessions == 1 else random.permutation(len(runs))[:sessions].tolist()
        row = Row("cell", "sweep", "cell", "host", {}, {}, [runs[number] for number in chosen])
        counts[pick.judge([row], {metric: most}, {})[0].state] += 1
    return {state: count / trials for state, count in counts.items()}


def table(rounds: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    """Shares of rows that meet, miss and cannot be told, by SLO over truth."""
    names = [f"{slo:g} × truth: {state} ({right})" for slo, state, right in SHOWN]
    yield f"| load, requests, lengths | sessions | objective | {' | '.join(names)} |\n|---|---:|---|" + "---:|" * len(
        names
    )
    for scenario in SCENARIOS:
        runs = list(pool.map(_run, [(scenario, number) for number in range(rounds)], chunksize=4))
        true = batch_server.truth(scenario)
        for sessions in (1, 3) if rounds >= 3 else (1,):
            for name, metric in FIGURES.items():
                cells = [
                    f"{states(runs, sessions, metric, slo * true[name], 10 * rounds)[state]:.0%}"
                    for slo, state, _ in SHOWN
                ]
                yield f"| {scenario} | {sessions} | {name} | {' | '.join(cells)} |"
