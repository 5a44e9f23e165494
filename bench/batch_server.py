"""Runs of a simulated batch server through llmpar-summarise, against what the same server does in the long run.

The generator is llmpar.simulate's scheduler (chunked prefill, token budget, closed and open loops, launch rate), which
knows nothing of windows or intervals. Its step time is near vLLM's on an H100 with a 7B model in float16.
`rows(trials)` yields the table of docs/metrics.md; seeded, so a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from llmpar.simulate.batch import Batch, Limits
from llmpar.simulate.scheduler import ClosedLoop, OpenLoop, gamma_lengths, simulate
from llmpar.summary import read
from llmpar.summary.summariser import Summariser

START = 1_700_000_000.0
TOKENS = 200
LAUNCHES_PER_S = 140  # GNU parallel's
CAPACITY_PER_S = 35.6  # requests: 256 sequences in the batch and never a free place
FIGURES = {
    "TTFT mean": ("latency", "ttft_s", "mean"),
    "TTFT p50": ("latency", "ttft_s", "p50"),
    "TTFT p90": ("latency", "ttft_s", "p90"),
    "TTFT p95": ("latency", "ttft_s", "p95"),
    "TPOT mean": ("latency", "tpot_s", "mean"),
    "TPOT p95": ("latency", "tpot_s", "p95"),
    "ITL p95": ("latency", "itl_s", "p95"),
    "tokens/s": ("throughput", "output_tokens_per_s", "steady"),
}


@dataclass(frozen=True)
class Scenario:
    """One way to load the server. `rate`: open loop, share of its capacity; `delay_s`: from launch to first byte."""

    requests: int
    clients: int = 0
    rate: float = 0.0
    fixed: bool = False
    delay_s: float = 0.002

    def __str__(self) -> str:
        load = f"{self.clients} clients" if self.clients else f"{self.rate:g} × capacity"
        lengths = "fixed" if self.fixed else "gamma"
        delay = f", {self.delay_s:g} s to launch" if self.delay_s > 0.01 else ""
        return f"{load}, {self.requests}, {lengths}{delay}"


def step_time(batch: Batch) -> float:
    """Seconds of one step: weights read once, and each sequence's and prompt token's own share."""
    return 0.0068 + 1.0e-7 * batch.kv_tokens + 2.5e-5 * batch.prompt_tokens + 2.0e-5 * batch.sequences


def summary(scenario: Scenario, seed: int) -> dict[str, Any]:
    """What llmpar-summarise says of one run."""
    random = np.random.default_rng(seed)
    count = scenario.requests
    prompts = random.integers(115, 587, count)
    outputs = np.full(count, TOKENS) if scenario.fixed else gamma_lengths(random, count, TOKENS, 2)
    load: ClosedLoop | OpenLoop
    if scenario.clients:
        load = ClosedLoop(scenario.clients, LAUNCHES_PER_S, scenario.delay_s)
    else:
        load = OpenLoop(np.cumsum(random.exponential(1 / (scenario.rate * CAPACITY_PER_S), count)))
    run = simulate(prompts, outputs, load, step_time, Limits())
    made = []
    for request in range(count):
        times = np.round(run.token_times(request) - run.sent_s[request], 6).tolist()
        made.append(
            {
                "kind": "request",
                "v": 1,
                "status": "ok",
                "launched_at": round(START + float(run.launched_s[request]), 6),
                "sent_at": round(START + float(run.sent_s[request]), 6),
                "scheduled_at": None if scenario.clients else round(START + float(run.launched_s[request]), 6),
                "ttft_s": times[0],
                "e2e_s": times[-1],
                "event_s": times,
                "event_tokens": [1] * len(times),
                "output_tokens": len(times),
                "prompt_tokens": int(prompts[request]),
                "clock": "kernel",
                "concurrency": scenario.clients or None,
                "attempt": 1,
            }
        )
    summariser = Summariser()
    read.feed_records(summariser, made)
    return summariser.summary()


def estimates(found: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """The figures of FIGURES; None where the whole latency was not measured."""
    return {name: (found[a][b] or {}).get(c) for name, (a, b, c) in FIGURES.items()}


def truth(scenario: Scenario, runs: int = 8) -> dict[str, float]:
    """Long-run values: means over long runs, each without its first and last fifth."""
    return _truth(replace(scenario, requests=0), runs)


@cache
def _truth(scenario: Scenario, runs: int) -> dict[str, float]:
    found = [_long_run(scenario, seed) for seed in range(runs)]
    return {name: float(np.mean([each[name] for each in found])) for name in FIGURES}


def _long_run(scenario: Scenario, seed: int) -> dict[str, float]:
    random = np.random.default_rng([seed, 99])
    count = max(60 * scenario.clients, 12_000)
    prompts = random.integers(115, 587, count)
    outputs = np.full(count, TOKENS) if scenario.fixed else gamma_lengths(random, count, TOKENS, 2)
    load: ClosedLoop | OpenLoop
    if scenario.clients:
        load = ClosedLoop(scenario.clients, LAUNCHES_PER_S, scenario.delay_s)
    else:
        load = OpenLoop(np.cumsum(random.exponential(1 / (scenario.rate * CAPACITY_PER_S), count)))
    run = simulate(prompts, outputs, load, step_time, Limits())
    low, high = np.quantile(run.sent_s, [0.2, 0.8])
    inside = (run.sent_s >= low) & (run.sent_s < high)
    ttft = (run.first_token_s - run.sent_s)[inside]
    several = inside & (outputs > 1)
    tpot = (run.end_s - run.first_token_s)[several] / (outputs[several] - 1)
    # Of every gap once: the tokens of all requests of the stretch, whatever their length.
    gaps = np.concatenate([np.diff(run.token_times(request)) for request in np.flatnonzero(several)[:4000]])
    tokens = 0
    for request in np.flatnonzero((run.sent_s < high) & (run.end_s >= low)):
        times = run.token_times(request)
        tokens += int(np.count_nonzero((times >= low) & (times < high)))
    return {
        "TTFT mean": float(ttft.mean()),
        "TTFT p50": float(np.quantile(ttft, 0.5)),
        "TTFT p90": float(np.quantile(ttft, 0.9)),
        "TTFT p95": float(np.quantile(ttft, 0.95)),
        "TPOT mean": float(tpot.mean()),
        "TPOT p95": float(np.quantile(tpot, 0.95)),
        "ITL p95": float(np.quantile(gaps, 0.95)),
        "tokens/s": tokens / float(high - low),
    }


@dataclass
class Row:
    """One figure of one scenario over all trials: median value over truth, coverage where given, how often given."""

    scenario: Scenario
    figure: str
    ratio: float
    covered: float
    given: float
    whole_ratio: float
    trials: int


CLOSED = [
    *(Scenario(requests, clients) for clients in (24, 128, 256) for requests in (500, 1000, 2000)),
    *(Scenario(requests, clients, fixed=True) for clients in (24, 128, 256) for requests in (500, 2000)),
]
OPEN = [
    *(Scenario(requests, rate=0.7) for requests in (500, 1000, 2000)),
    *(Scenario(requests, rate=rate) for rate in (0.9, 1.0, 1.05) for requests in (2000, 8000)),
    Scenario(2000, rate=1.2),
]
SLOW = [
    Scenario(requests, 128, fixed=fixed, delay_s=delay)
    for delay in (0.1, 0.4, 0.8, 1.6)
    for requests in (500, 2000)
    for fixed in (False, True)
]


def _trial(task: tuple[Scenario, int]) -> dict[str, Any]:
    scenario, seed = task
    found = summary(scenario, seed)
    whole = {
        name: (found["latency_run"][b] or {})[c]["value"] if a == "latency" else found[a][b]["wall"]["value"]
        for name, (a, b, c) in FIGURES.items()
    }
    return {
        "steady": found["window"]["steady"],
        "reason": found["window"]["reason"],
        "estimates": estimates(found),
        "whole": whole,
        "limited": "output_tokens_per_s" in found["client"]["limited"],
        "warnings": [each["code"] for each in found["warnings"]],
    }


def trials(scenario: Scenario, count: int, pool: ProcessPoolExecutor | None = None) -> list[dict[str, Any]]:
    """`count` runs of a scenario, in order of their seeds."""
    tasks = [(scenario, 1000 + number) for number in range(count)]
    return list(pool.map(_trial, tasks, chunksize=4)) if pool else list(map(_trial, tasks))


def rows(scenario: Scenario, found: list[dict[str, Any]], known: dict[str, float]) -> Iterator[Row]:
    """The scenario's figures, from its trials and its truth."""
    for name, true in known.items():
        values, hits = [], []
        for each in found:
            estimate = each["estimates"][name]
            if not each["steady"] or estimate is None or estimate["value"] is None:
                continue
            values.append(estimate["value"] / true)
            if estimate["low"] is not None:
                hits.append(estimate["low"] <= true <= estimate["high"])
        whole = [each["whole"][name] / true for each in found if each["whole"][name] is not None]
        yield Row(
            scenario,
            name,
            float(np.median(values)) if values else float("nan"),
            float(np.mean(hits)) if hits else float("nan"),
            len(hits) / len(found),
            float(np.median(whole)) if whole else float("nan"),
            len(found),
        )
