"""The constants of llmpar/simulate/step_time.FIT, found again on docs/results/h100 alone.

The cells of vLLM under GNU parallel without speculation and sharding: geometric means over sessions of the rate, mean TPOT
and (with a tenth of the weight) mean TTFT; least squares of logarithms. `python bench/fit_simulator.py`, half a minute.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from llmpar.simulate import cards, models, step_time
from llmpar.simulate.predict import LAUNCHES_PER_S, MAX_SEQUENCES, figures_of
from llmpar.simulate.scheduler import ClosedLoop, Limits, simulate

SUMMARIES = Path(__file__).resolve().parent.parent / "docs" / "results" / "h100" / "summaries.jsonl"
FIGURES = {"output_tokens_per_s": 1.0, "tpot_mean_s": 1.0, "ttft_mean_s": 0.1}
# Where each constant may lie.
BOUNDS = {
    "host_s": (1e-4, 1e-2),
    "kv_reached": (0.4, 1.0),
    "prompt_factor": (1.0, 3.0),
    "shared_factor": (1.0, 1.5),
    "front_s": (1e-4, 5e-2),
}
Cell = tuple[int, str | None, int]  # clients, KV bytes asked for, servers on the card


def measured() -> dict[Cell, tuple[int, np.ndarray]]:
    """Tokens that one server's KV cache holds, and the figures."""
    values: dict[Cell, list[list[float]]] = defaultdict(list)
    capacity: dict[Cell, int] = {}
    for line in SUMMARIES.read_text().splitlines():
        summary: dict[str, Any] = json.loads(line)
        server, load = summary["cell"]["server"], summary["cell"]["load"]
        if (
            server["engine"] != "vllm"
            or load["launcher"] != "parallel"
            or server.get("speculate")
            or server.get("shards")
        ):
            continue
        cell = (load["clients"], server.get("kv_bytes"), server.get("replicas") or 1)
        capacity[cell] = summary["engine"]["kv_capacity_tokens"] // cell[2]
        latency = summary["latency"]
        values[cell].append([summary["throughput"]["output_tokens_per_s"]["wall"]["value"],
                             latency["tpot_s"]["mean"]["value"], latency["ttft_s"]["mean"]["value"]])  # fmt: skip
    return {cell: (capacity[cell], np.exp(np.mean(np.log(rows), axis=0))) for cell, rows in values.items()}


def simulated(cell: Cell, kv_tokens: int, fit: step_time.Fit) -> np.ndarray:
    """512 prompts as those sessions sent: 115 to 586 tokens, 357 on average, 200 tokens each answer."""
    clients, _, servers = cell
    prompts = np.clip(np.rint(np.random.default_rng(5).normal(356.5, 130, 512)), 115, 586).astype(int)
    step = step_time.StepTime(cards.card("h100"), models.load("vicuna-7b-v1.5"), fit, shared=servers > 1)
    run = simulate(prompts, np.full(512, 200), ClosedLoop(clients, LAUNCHES_PER_S, 0.001), step, Limits(8192, MAX_SEQUENCES, kv_tokens),
                   servers, servers > 1, front_s=fit.front_s)  # fmt: skip
    figures = figures_of(run)
    return np.array([figures[name] for name in FIGURES])


def main() -> int:
    rows = measured()
    weights = np.array(list(FIGURES.values()))

    def residuals(logs: np.ndarray) -> np.ndarray:
        fit = step_time.Fit(*np.exp(logs))
        return np.concatenate(
            [weights * np.log(simulated(cell, kv, fit) / values) for cell, (kv, values) in rows.items()]
        )

    low, high = np.log([BOUNDS[field.name] for field in dataclasses.fields(step_time.Fit)]).T
    start = np.clip(np.log(dataclasses.astuple(step_time.FIT)), low + 1e-6, high - 1e-6)
    found = least_squares(residuals, start, diff_step=0.02, bounds=(low, high))
    fit = step_time.Fit(*(float(f"{value:.4g}") for value in np.exp(found.x)))
    print(f"found    {fit}\nshipped  {step_time.FIT}")
    print(
        "clients  KV bytes  servers   " + "   ".join(f"{name:>28}" for name in FIGURES) + "   (measured, fitted, error)"
    )
    for cell, (kv, values) in sorted(rows.items(), key=str):
        made = simulated(cell, kv, fit)
        print(f"{cell[0]:7}  {cell[1] or 'all':>8}  {cell[2]:7}   " +
              "   ".join(f"{a:10.4g} {b:10.4g} {100 * (b / a - 1):+5.0f}%" for a, b in zip(values, made, strict=True)))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
