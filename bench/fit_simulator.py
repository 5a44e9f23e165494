"""The constants of llmpar/simulate/step_time.FIT, found again on docs/results/h100 alone.

The cells of vLLM under GNU parallel without sharding, with speculation at the acceptance length that the engine told:
geometric means over sessions of the rate, mean TPOT and (with a tenth of the weight) mean TTFT; least squares of
logarithms. `python bench/fit_simulator.py`, half a minute.
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
from llmpar.simulate.batch import Limits
from llmpar.simulate.predict import LAUNCHES_PER_S, MAX_SEQUENCES, figures_of
from llmpar.simulate.scheduler import ClosedLoop, simulate

SUMMARIES = Path(__file__).resolve().parent.parent / "docs" / "results" / "h100" / "summaries.jsonl"
FIGURES = {"output_tokens_per_s": 1.0, "tpot_mean_s": 1.0, "ttft_mean_s": 0.1}
# Where each constant may lie.
BOUNDS = {
    "host_s": (1e-4, 1e-2),
    "kv_reached": (0.4, 1.0),
    "prompt_factor": (1.0, 3.0),
    "shared_factor": (1.0, 1.5),
    "draft_s": (1e-6, 1e-3),
    "front_s": (1e-4, 5e-2),
}
Cell = tuple[int, str | None, int, int]  # clients, KV bytes asked for, servers on the card, draft tokens


def measured() -> dict[Cell, tuple[int, float, np.ndarray]]:
    """Tokens that one server's KV cache holds, the acceptance length, and the figures."""
    values: dict[Cell, list[list[float]]] = defaultdict(list)
    capacity: dict[Cell, int] = {}
    accepted: dict[Cell, float] = {}
    for line in SUMMARIES.read_text().splitlines():
        summary: dict[str, Any] = json.loads(line)
        server, load = summary["cell"]["server"], summary["cell"]["load"]
        if server["engine"] != "vllm" or load["launcher"] != "parallel" or server.get("shards"):
            continue
        cell = (load["clients"], server.get("kv_bytes"), server.get("replicas") or 1, server.get("speculate") or 0)
        capacity[cell] = summary["engine"]["kv_capacity_tokens"] // cell[2]
        accepted[cell] = summary["engine"]["spec_tokens_per_step"] or 1.0
        latency = summary["latency"]
        values[cell].append(
            [
                summary["throughput"]["output_tokens_per_s"]["wall"]["value"],
                latency["tpot_s"]["mean"]["value"],
                latency["ttft_s"]["mean"]["value"],
            ]
        )
    return {
        cell: (capacity[cell], accepted[cell], np.exp(np.mean(np.log(rows), axis=0))) for cell, rows in values.items()
    }


def simulated(cell: Cell, kv_tokens: int, acceptance_length: float, fit: step_time.Fit) -> np.ndarray:
    """512 prompts as those sessions sent: 115 to 586 tokens, 357 on average, 200 tokens each answer."""
    clients, _, servers, drafts = cell
    limits = Limits(
        8192, MAX_SEQUENCES, kv_tokens, draft_tokens=drafts, tokens_per_step=min(acceptance_length, 1 + drafts)
    )
    prompts = np.clip(np.rint(np.random.default_rng(5).normal(356.5, 130, 512)), 115, 586).astype(int)
    step = step_time.StepTime(cards.card("h100"), models.load("vicuna-7b-v1.5"), fit, shared=servers > 1)
    run = simulate(
        prompts,
        np.full(512, 200),
        ClosedLoop(clients, LAUNCHES_PER_S, 0.001),
        step,
        limits,
        servers,
        servers > 1,
        front_s=fit.front_s,
    )
    figures = figures_of(run)
    return np.array([figures[name] for name in FIGURES])


def main() -> int:
    rows = measured()
    weights = np.array(list(FIGURES.values()))

    names = [field.name for field in dataclasses.fields(step_time.Fit)]

    def fitted(chosen: list[str], fit: step_time.Fit, drafts: bool) -> step_time.Fit:
        """The constants named, on the cells with or without speculation; the others stay as they are in `fit`."""
        cells = {cell: row for cell, row in rows.items() if bool(cell[3]) == drafts}

        def made(logs: np.ndarray) -> step_time.Fit:
            return dataclasses.replace(fit, **dict(zip(chosen, np.exp(logs).tolist(), strict=True)))

        def residuals(logs: np.ndarray) -> np.ndarray:
            errors = [
                np.log(simulated(cell, kv, length, made(logs)) / values) for cell, (kv, length, values) in cells.items()
            ]
            return np.concatenate([weights * error for error in errors])

        low, high = np.log([BOUNDS[name] for name in chosen]).T
        start = np.clip(np.log([getattr(step_time.FIT, name) for name in chosen]), low + 1e-6, high - 1e-6)
        return made(least_squares(residuals, start, diff_step=0.02, bounds=(low, high)).x)

    # Speculation second, and its own cost alone: its cells have one client count, which cannot carry the others.
    fit = fitted([name for name in names if name != "draft_s"], step_time.FIT, drafts=False)
    fit = fitted(["draft_s"], fit, drafts=True)
    fit = step_time.Fit(*(float(f"{value:.4g}") for value in dataclasses.astuple(fit)))
    print(f"found    {fit}\nshipped  {step_time.FIT}")
    print(
        "clients  KV bytes  servers  drafts   "
        + "   ".join(f"{name:>28}" for name in FIGURES)
        + "   (measured, fitted, error)"
    )
    for cell, (kv, length, values) in sorted(rows.items(), key=str):
        made = simulated(cell, kv, length, fit)
        print(
            f"{cell[0]:7}  {cell[1] or 'all':>8}  {cell[2]:7}  {cell[3]:6}   "
            + "   ".join(f"{a:10.4g} {b:10.4g} {100 * (b / a - 1):+5.0f}%" for a, b in zip(values, made, strict=True))
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
