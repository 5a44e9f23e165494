"""How often the statistics err, by simulation with known truth: coverage of intervals, false alarms and power of
verdicts.

`coverage(trials)` and `alarms(trials)` return rows for the tables of docs/metrics.md; seeded, so a run can be repeated.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from llmpar.stats import effects, intervals, order_statistics
from llmpar.stats.effects import CORRECTIONS, adjust, welch
from llmpar.summary import read, tally
from llmpar.summary.summariser import Summariser
from llmpar.verdicts import history, pairs, verdict

REQUESTS = 512
Z = {50: 0.0, 90: float(ndtri(0.9)), 95: float(ndtri(0.95)), 99: float(ndtri(0.99))}


@dataclass
class Row:
    """One line of a table: how often an interval that was given held the truth, and how often one was given."""

    what: str
    figure: str
    covered: float
    given: float
    trials: int


def autoregressive(random: np.random.Generator, count: int, correlation: float) -> np.ndarray:
    """A stationary Gaussian series of unit variance whose neighbours correlate."""
    from scipy.signal import lfilter

    noise = random.standard_normal(count + 200) * np.sqrt(1 - correlation**2)
    return lfilter([1.0], [1.0, -correlation], noise)[200:]


def _latencies(name: str, random: np.random.Generator) -> tuple[np.ndarray, Callable[[int], float], float]:
    """Values in the order of sending, the true percentiles, the true mean."""
    if name.startswith("correlated"):
        correlation, spread = float(name.rsplit(" ", 1)[-1]), 0.5
        count = 4 * REQUESTS if correlation > 0.7 else REQUESTS
        values = np.exp(spread * autoregressive(random, count, correlation))
    elif name == "heavy tail":
        spread = 1.0
        values = np.exp(spread * random.standard_normal(REQUESTS))
    elif name == "heavier tail":
        # Pareto of shape 3: the fourth moment, on which the error of a variance depends, does not exist.
        return random.random(REQUESTS) ** (-1 / 3), lambda percent: (1 - percent / 100) ** (-1 / 3), 1.5
    elif name == "all at once":
        spread = 1.0
        state = autoregressive(random, 4 * REQUESTS, 0.5)
        failed = autoregressive(random, 4 * REQUESTS, 0.9) > 1.5
        values = np.exp(spread * state)[~failed]
    elif name == "failures in bursts":
        # Failed requests have no latency; they come in bursts and leave holes in a correlated series.
        spread = 0.5
        state = autoregressive(random, REQUESTS, 0.5)
        failed = autoregressive(random, REQUESTS, 0.9) > 1.5
        values = np.exp(spread * state)[~failed]
    else:
        spread = 0.5
        values = np.exp(spread * random.standard_normal(REQUESTS))
    return values, lambda percent: float(np.exp(spread * Z[percent])), float(np.exp(spread * spread / 2))


# "All at once" is correlated, of a heavy tail and with failures in bursts.
LATENCIES = (
    "independent",
    "correlated 0.5",
    "correlated 0.8",
    "heavy tail",
    "heavier tail",
    "failures in bursts",
    "all at once",
)


def coverage(trials: int, seed: int = 1) -> Iterator[Row]:
    """Coverage of 95% intervals of means and percentiles, of inter-token latency and of rates."""
    for name in LATENCIES:
        random = np.random.default_rng([seed, len(name)])
        hits: dict[str, list[bool]] = {key: [] for key in ("mean", "p50", "p90", "p95", "p99")}
        for _ in range(trials):
            values, truth, mean = _latencies(name, random)
            found = intervals.distribution(values)
            assert found is not None
            for key, into in hits.items():
                estimate = found[key]
                if estimate.get("low") is not None:
                    into.append(estimate["low"] <= (mean if key == "mean" else truth(int(key[1:]))) <= estimate["high"])
        for key, into in hits.items():
            yield Row(name, key, float(np.mean(into)) if into else float("nan"), len(into) / trials, trials)
    yield from _gaps(trials, seed)
    yield from _rates(trials, seed)


def _requests(random: np.random.Generator, requests: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Sending times (us) and gaps (us, one row a request): each request has its own pace, and the engine its moods."""
    sent = 1_700_000_000_000_000 + np.cumsum(random.exponential(30_000, requests)).astype(np.int64)
    pace = np.exp(0.15 * autoregressive(random, requests, 0.8) + 0.1 * random.standard_normal(requests))
    gaps = pace[:, None] * random.gamma(4.0, 5_000, (requests, tokens))
    return sent, np.rint(gaps).astype(np.int64)


def _gaps(trials: int, seed: int) -> Iterator[Row]:
    random = np.random.default_rng([seed, 77])
    _, many = _requests(random, 60_000, 32)
    ordered = np.sort(many.reshape(-1))
    truth = {
        f"p{percent}": ordered[order_statistics.rank(len(ordered), percent) - 1] / 1e6 for percent in intervals.PERCENTS
    }
    truth["mean"] = float(many.mean()) / 1e6
    hits: dict[str, list[bool]] = {key: [] for key in ("mean", "p50", "p90", "p95", "p99")}
    for _ in range(trials):
        sent, gaps = _requests(random, REQUESTS, 32)
        held = tally.Gaps()
        held.add(sent, np.full(REQUESTS, 32), gaps.reshape(-1))
        found = held.distribution()
        assert found is not None
        for key, into in hits.items():
            if found[key].get("low") is not None:
                into.append(found[key]["low"] <= truth[key] <= found[key]["high"])
    for key, into in hits.items():
        yield Row(
            "ITL, gaps within requests and requests correlated", key, float(np.mean(into)), len(into) / trials, trials
        )


def _rates(trials: int, seed: int) -> Iterator[Row]:
    for name, correlation, spread in (
        ("rate, independent steps", 0.0, 0.1),
        ("rate, correlated steps 0.9", 0.9, 0.1),
        ("rate, bursts", 0.8, 0.5),
    ):
        random = np.random.default_rng([seed, 99, int(10 * correlation)])
        truth = 40.0 * float(np.exp(spread * spread / 2))
        hits = []
        for _ in range(trials):
            level = 40.0 * np.exp(spread * autoregressive(random, 1000, correlation))
            found = intervals.rate(random.poisson(level), 1.0)
            hits.append(found["low"] <= truth <= found["high"])
        yield Row(name, "rate", float(np.mean(hits)), 1.0, trials)


def closed_loop(
    random: np.random.Generator, count: int, clients: int = 16, events: int = 20, pace_of_session: float = 1.0
) -> dict[str, Any]:
    """The summary of a run in which each client sends its next request when the last one ended.

    The engine's pace wanders (correlation 0.8 from one fifth of a second to the next), so neighbours correlate.
    `pace_of_session`: what this start of the server makes of all times.
    """
    mood = pace_of_session * np.exp(0.1 * autoregressive(random, 10_000, 0.8))
    free = [(1_700_000_000 + client * 0.02, client) for client in range(clients)]
    made = []
    for _ in range(count):
        at, client = heapq.heappop(free)
        pace = mood[min(int((at - 1_700_000_000) * 5), len(mood) - 1)]
        gaps = random.gamma(4.0, 0.005 * pace, events)
        gaps[0] += 0.1 * pace * np.exp(0.3 * random.standard_normal())
        times = np.round(np.cumsum(gaps), 6).tolist()
        made.append(
            {
                "kind": "request",
                "v": 1,
                "status": "ok",
                "sent_at": round(at, 6),
                "launched_at": round(at, 6),
                "ttft_s": times[0],
                "e2e_s": times[-1],
                "event_s": times,
                "event_tokens": [1] * events,
                "output_tokens": events,
                "prompt_tokens": 10,
                "clock": "kernel",
                "concurrency": clients,
                "attempt": 1,
            }
        )
        heapq.heappush(free, (at + times[-1] + 0.003, client))
    summariser = Summariser()
    read.feed_records(summariser, made)
    return summariser.summary()


@dataclass
class Alarm:
    """How often each verdict came out of `trials` pairs."""

    what: str
    sessions: int
    noise: float
    difference: float
    verdicts: dict[str, float]
    trials: int

    @property
    def different(self) -> float:
        return self.verdicts["faster"] + self.verdicts["slower"]


Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
# Deviations of the two sides' sessions, in units of the noise.
NOISES: dict[str, Draw] = {
    "normal noise": lambda random, size: (random.standard_normal(size), random.standard_normal(size)),
    "heavy-tailed noise (t, 3 degrees)": lambda random, size: (
        random.standard_t(3, size) / np.sqrt(3),
        random.standard_t(3, size) / np.sqrt(3),
    ),
    "side b twice as noisy": lambda random, size: (random.standard_normal(size), 2 * random.standard_normal(size)),
    "side a twice as noisy, b with twice the sessions": lambda random, size: (
        2 * random.standard_normal(size),
        random.standard_normal(2 * size),
    ),
}
# Sessions, noise, true difference; 3% is the margin itself.
CASES = (
    (2, 0.05, 0.0),
    (3, 0.01, 0.0),
    (3, 0.05, 0.0),
    (5, 0.01, 0.0),
    (5, 0.05, 0.0),
    (3, 0.01, 0.03),
    (5, 0.01, 0.03),
    (3, 0.01, 0.05),
    (5, 0.01, 0.05),
    (5, 0.03, 0.05),
)


def alarms(trials: int, seed: int = 1) -> Iterator[Alarm]:
    """Verdicts on pairs with a known difference between sides and a known noise between sessions."""
    for what, draw in NOISES.items():
        for sessions, noise, difference in CASES:
            random = np.random.default_rng([seed, sessions, int(1000 * noise), int(1000 * difference)])
            counts = dict.fromkeys(verdict.VERDICTS, 0)
            for _ in range(trials):
                a, b = (noise * each for each in draw(random, sessions))
                effect = effects.welch(np.exp(a + np.log1p(difference)).tolist(), np.exp(b).tolist())
                counts[verdict.decide(effect, True)] += 1
            yield Alarm(
                what, sessions, noise, difference, {name: count / trials for name, count in counts.items()}, trials
            )


COMPARED = ("output_tokens_per_s", "ttft_p95_s", "tpot_p50_s", "e2e_mean_s")


def same_runs(
    trials: int, sessions: int = 5, noise: float = 0.05, requests: int = 200, pool: int = 200, seed: int = 1
) -> dict[str, float]:
    """Equal sides through the whole path: runs, their summaries, verdicts on several figures at once.

    How often each figure alone was called different, and (`any`) whether one of them was. Sessions are drawn from a
    pool of runs that differ in their pace; each pair takes its own from it.
    """
    random = np.random.default_rng([seed, sessions, 9])
    runs = [
        closed_loop(random, requests, clients=8, pace_of_session=float(np.exp(noise * random.standard_normal())))
        for _ in range(pool)
    ]
    for number, each in enumerate(runs):
        each["session"] = f"session {number}"
    wrong = dict.fromkeys((*COMPARED, "any"), 0)
    for _ in range(trials):
        chosen = random.permutation(pool)[: 2 * sessions]
        sides = [
            pairs.Side(name, [runs[number] for number in part])
            for name, part in (("a", chosen[:sessions]), ("b", chosen[sessions:]))
        ]
        found = verdict.verdict_records([pairs.Pair({}, *sides, ())], COMPARED)
        alarm = [each["figure"] for each in found if each["verdict"] in ("faster", "slower")]
        for figure in alarm:
            wrong[figure] += 1
        wrong["any"] += bool(alarm)
    return {name: count / trials for name, count in wrong.items()}


def nights(trials: int, count: int = 14, noise: float = 0.05, seed: int = 1) -> dict[str, float]:
    """History of nights among which nothing changed: how often the newest is called different, or a change is seen."""
    random = np.random.default_rng([seed, count, 7])
    run = closed_loop(random, 200, clients=8)
    different = changed = 0
    for _ in range(trials):
        series = []
        for night, value in enumerate(100.0 * np.exp(noise * random.standard_normal(count + 1))):
            rates = {
                "wall": {"value": float(value), "low": None, "high": None},
                "steady": {"value": None, "needed": None},
            }
            series.append(
                {
                    **run,
                    "session": f"night {night}",
                    "started_at": 1.7e9 + 86_400 * night,
                    "throughput": {**run["throughput"], "output_tokens_per_s": rates},
                }
            )
        (found,) = history.verdicts(series, ("output_tokens_per_s",), count)
        different += found["verdict"] in ("faster", "slower")
        changed += bool(found["history"]["change_points"])
    return {"newest different": different / trials, "a change among the others": changed / trials}


def many_cells(trials: int, cells: int = 20, sessions: int = 5, noise: float = 0.05, seed: int = 1) -> dict[str, float]:
    """The chance of any false alarm over a sweep of equal cells, with each correction."""
    random = np.random.default_rng([seed, cells])
    wrong = dict.fromkeys(CORRECTIONS, 0)
    for _ in range(trials):
        effects = [
            welch(
                np.exp(noise * random.standard_normal(sessions)).tolist(),
                np.exp(noise * random.standard_normal(sessions)).tolist(),
            )
            for _ in range(cells)
        ]
        for correction in CORRECTIONS:
            for effect, adjusted in zip(effects, adjust([each.p_value for each in effects], correction), strict=True):
                effect.p_adjusted = adjusted
            wrong[correction] += any(verdict.decide(each, True) in ("faster", "slower") for each in effects)
    return {name: count / trials for name, count in wrong.items()}
