"""How often `llmpar-next` answers rightly, and at what cost, on simulated batch servers with ramp, queue and drain.

The generator (llmpar.simulate.scheduler) knows nothing of the methods: it schedules requests step by step. Server
sessions differ by a factor of their own, and the machine drifts from one to the next.

    bench/search decide 2000       trials a row
    bench/search find 300
    bench/search best 100          random spaces of 30 candidates, each beside random search of the same time
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import tables

from llmpar.search import best, best_answer, decide, ending, find, levels
from llmpar.simulate.batch import Limits
from llmpar.simulate.scheduler import ClosedLoop, Run, gamma_lengths, simulate
from llmpar.stats import intervals, order_statistics
from llmpar.verdicts import objectives

Result = TypeVar("Result")
START_S = 93.0  # an engine's start, as measured on an H100


@dataclass(frozen=True)
class Server:
    """A batch server: seconds a step, and its limits."""

    base_s: float = 0.006
    kv_s: float = 1.6e-7
    prompt_s: float = 4e-5
    sequences: int = 256
    kv_tokens: int = 121_424


def spread(trial: Callable[[int], Result], seeds: Sequence[int]) -> list[Result]:
    """Trials over all cores; each draws from its own seed, so their number does not matter."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(trial, seeds))


def session_pace(random: np.random.Generator, spread: float) -> float:
    """What one start makes of all times: heavy tails (Student's t with 5 degrees of freedom), standard deviation
    `spread`."""
    return math.exp(spread * float(random.standard_t(5)) / math.sqrt(5 / 3))


def run(random: np.random.Generator, server: Server, clients: int, requests: int, pace: float = 1.0) -> Run:
    return serve(server, *lengths(random, requests), clients, pace)


def lengths(random: np.random.Generator, requests: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and output tokens of requests."""
    return random.integers(115, 587, requests), gamma_lengths(random, requests, mean=100, shape=2)


def serve(server: Server, prompts: np.ndarray, outputs: np.ndarray, clients: int, pace: float) -> Run:
    return simulate(
        prompts,
        outputs,
        ClosedLoop(clients=clients, launches_per_s=140, send_delay_s=0.002),
        step_time=lambda batch: (
            pace * (server.base_s + server.kv_s * batch.kv_tokens + server.prompt_s * batch.prompt_tokens)
        ),
        limits=Limits(token_budget=8192, max_sequences=server.sequences, kv_tokens=server.kv_tokens),
    )


def run_until(
    random: np.random.Generator,
    server: Server,
    clients: int,
    requests: int,
    pace: float,
    wanted: Mapping[str, float],
    ends: Collection[str] = (objectives.MEETS, objectives.MISSES),
) -> tuple[Run, dict[str, Any] | None]:
    """A run that ends as llmpar-until ends it, looked at ten times a turn, and the closing record."""
    prompts, outputs = lengths(random, requests)
    made = serve(server, prompts, outputs, clients, pace)
    judge = ending.Ending(wanted, clients, ends)
    values = {
        "ttft": made.first_token_s - made.sent_s,
        "tpot": (made.end_s - made.first_token_s) / np.maximum(1, made.output_tokens - 1),
    }
    over = np.array([values[figure] > most for figure, _, most in judge.limits]).T
    for place, index in enumerate(np.argsort(made.end_s), 1):
        judge.take(float(made.sent_s[index]), float(made.end_s[index]), [False, *map(bool, over[index])])
        if place % max(1, clients // 10) == 0 and (verdict := judge.verdict()) != objectives.UNKNOWN:
            sent = int(np.count_nonzero(made.sent_s <= made.end_s[index]))
            if sent == requests:
                break
            return serve(server, prompts[:sent], outputs[:sent], clients, pace), {
                "verdict": verdict,
                "objectives": dict(wanted),
                "requests": place,
            }
    return made, None


def figures(made: Run) -> tuple[np.ndarray, np.ndarray, float]:
    """TTFT and TPOT of requests sent between ramp and drain, and output tokens a second there."""
    ttft = made.first_token_s - made.sent_s
    tpot = (made.end_s - made.first_token_s) / np.maximum(1, made.output_tokens - 1)
    first = np.sort(made.end_s)[min(len(ttft) - 1, int(np.count_nonzero(made.sent_s <= made.first_token_s.min())) + 1)]
    last = made.sent_s.max()
    inside = (made.sent_s >= min(first, last * 0.5)) & (made.sent_s <= last)
    done = (made.end_s >= min(first, last * 0.5)) & (made.end_s <= last)
    span = last - min(first, last * 0.5)
    rate = (
        float(made.output_tokens[done].sum() / span) if span > 0 else float(made.output_tokens.sum() / made.end_s.max())
    )
    return ttft[inside], tpot[inside], rate


def summary(made: Run, cell: Mapping[str, Any], ready_s: float = START_S) -> dict[str, Any]:
    """What the search reads of a summary: counts, percentiles with one-sided bounds, rates."""
    ttft, tpot, rate = figures(made)
    latency = {name: distribution(values) for name, values in (("ttft_s", ttft), ("tpot_s", tpot)) if len(values)}
    wall = float(made.end_s.max())
    return {
        "kind": "summary",
        "cell": dict(cell),
        "session": cell.get("session"),
        "n": {"requests": len(made.sent_s), "ok": len(made.sent_s)},
        "latency": latency,
        "wall_s": {"value": wall},
        "throughput": {
            "output_tokens_per_s": {
                "wall": {"value": float(made.output_tokens.sum()) / wall},
                "steady": {"value": rate},
            }
        },
        "server": {"ready_s": ready_s, "outcome": "ok"},
    }


def distribution(values: np.ndarray) -> dict[str, Any]:
    """Percentiles by nearest rank, as a summary has them."""
    ordered = np.sort(values)
    count = len(ordered)
    known = {f"p{p}": {"value": float(ordered[order_statistics.rank(count, p) - 1])} for p in intervals.PERCENTS}
    return {"n": count, "min": float(ordered[0]), "max": float(ordered[-1]), **known}


def truth(
    random: np.random.Generator, server: Server, wanted: Mapping[str, float], ladder: list[float]
) -> dict[float, tuple[float, bool]]:
    """Rate and whether the objectives hold, at each level, from a long run."""
    known = {}
    for level in ladder:
        ttft, tpot, rate = figures(run(random, server, int(level), max(1500, int(10 * level))))
        values = {"ttft_p95_s": ttft, "tpot_p95_s": tpot}
        good = all(np.quantile(values[metric], 0.95) <= most_s for metric, most_s in wanted.items())
        known[level] = (rate, good)
    return known


def simulate_decide(trials: int) -> str:
    """False verdicts and blocks, sessions with heavy tails and a drift that both sides of a block share in part."""
    random = np.random.default_rng(5)
    server = Server()
    rows = []
    for spread in (0.005, 0.01, 0.02, 0.05):
        for difference in (0.0, 0.05, 0.10):
            told, blocks_used = {"different": 0, "same": 0, "wrong sign": 0, "interval misses": 0}, []
            for trial in range(trials):
                drift, values = 0.0, {side: {} for side in decide.SIDES}
                blocks = decide.Blocks(values, [], [])
                look = None
                while look is None or look.decision == "more":
                    block, side = decide.next_cell(blocks, trial)
                    drift = 0.7 * drift + 0.5 * spread * float(random.standard_normal())
                    pace = session_pace(random, spread) * math.exp(drift) * (1 + difference if side == "b" else 1)
                    values[side][block] = (
                        float(run(random, server, 64, 300, pace).end_s.max()) if trials <= 50 else pace
                    )
                    look = decide.latest_look(blocks)
                told["different"] += look.decision == "different"
                told["same"] += look.decision == "same"
                told["wrong sign"] += look.decision == "different" and look.ratio > 1 and difference > 0
                told["interval misses"] += not look.low <= 1 / (1 + difference) <= look.high
                blocks_used.append(look.blocks)
            rows.append(
                [
                    f"{spread:.1%}",
                    f"{difference:.0%}",
                    *(f"{told[key] / trials:.1%}" for key in told),
                    f"{np.mean(blocks_used):.1f}",
                ]
            )
    header = ["between sessions", "true difference", "different", "same", "wrong sign", "interval misses", "blocks"]
    return tables.table(header, rows)


@dataclass(frozen=True)
class Found:
    """One search for the most clients: steps of the ladder between the answer and the truth (above 0: too high), cells,
    requests and seconds of load."""

    off: int
    cells: int
    requests: int
    seconds: float


def search_clients(seed: int, ends: bool = True) -> Found:
    """A random server and random objectives; the server session has a pace of its own, the truth is of the mean one.
    `ends`: a measurement ends as soon as it is decided."""
    random = np.random.default_rng([7, seed])
    ladder = levels.ladder(1, 512)
    server = random_server(random)
    wanted = objectives.parse(f"ttft-p95<{random.choice([200, 500, 1000])}ms tpot-p95<{random.choice([20, 30, 50])}ms")
    true = Truth(server, wanted, ladder, seed).highest()
    pace = session_pace(random, 0.01)
    summaries: list[dict[str, Any]] = []
    while True:
        seen = find.measured(summaries, "clients", wanted)
        step = find.step(seen, "clients", 1, 512, 8, most_tries=1 if ends else 2)
        if step.level is None:
            place = ladder.index(step.best) if step.best else -1
            requests = sum(each["n"]["requests"] for each in summaries)
            seconds = sum(each["wall_s"]["value"] for each in summaries)
            return Found(place - true, len(summaries), requests, seconds)
        tries = seen[step.level].tries if step.level in seen else 0
        count = find.requests_for("clients", step.level, 1 if ends else tries)
        level, closing = int(step.level), None
        if ends:
            made, closing = run_until(random, server, level, count, pace, wanted)
        else:
            made = run(random, server, level, count, pace)
        cell = {"id": f"c{level}", "session": "find", "load": {"clients": level}}
        summaries.append(summary(made, cell) | ({"ended_early": closing} if closing else {}))


def find_row(name: str, found: list[Found]) -> list[str]:
    """The line of the table of simulate_find."""
    off, cells = (np.array([getattr(each, name) for each in found]) for name in ("off", "cells"))
    return [
        name,
        f"{len(found)}",
        f"{np.mean(off == 0):.0%}",
        f"{np.mean(np.abs(off) <= 1):.1%}",
        f"{np.mean(off > 0):.0%}",
        f"{np.mean(cells):.1f}",
        f"{np.percentile(cells, 5):.0f} to {np.percentile(cells, 95):.0f}",
        f"{np.mean([each.requests for each in found]):.0f}",
        f"{np.mean([each.seconds for each in found]):.0f}",
    ]


FIND_HEAD = [
    "measurements",
    "servers",
    "exact",
    "within one step",
    "too high",
    "cells",
    "5 to 95% of searches",
    "requests a search",
    "seconds of load",
]


def simulate_find(trials: int) -> str:
    """Random servers and objectives: how far the answer is from the truth, in steps of the ladder, and in how many
    cells."""
    rows = []
    for name, ends in (("whole", False), ("end early", True)):
        rows.append(find_row(name, spread(partial(search_clients, ends=ends), range(trials))))
    return tables.table(FIND_HEAD, rows)


def random_server(random: np.random.Generator) -> Server:
    return Server(
        base_s=0.006 * math.exp(0.35 * random.standard_normal()),
        kv_s=1.6e-7 * math.exp(0.35 * random.standard_normal()),
        prompt_s=4e-5 * math.exp(0.25 * random.standard_normal()),
        sequences=int(random.choice([16, 32, 64, 128, 256])),
        kv_tokens=int(random.choice([30_000, 60_000, 121_424])),
    )


def race(
    random: np.random.Generator, servers: list[Server], question: best.Question, noise: float
) -> tuple[dict[str, Any], float]:
    """One search over a space; the answer record and the seconds it took."""
    candidates = [best.Candidate(number, {"number": number}, f"k{number}") for number in range(len(servers))]
    paces: dict[str, float] = {}
    summaries: list[dict[str, Any]] = []
    while True:
        now = [
            replace(candidate, levels={}, final={}, final_missed=0, intervals={}, joules={}) for candidate in candidates
        ]
        spent = best.gather(now, summaries, question.objectives)
        step = best.state(now, question, spent)
        if step.cell is None:
            return best_answer.answer(now, step, question, spent), spent.seconds
        cell = step.cell
        pace = paces.setdefault(cell.server_session, session_pace(random, noise))
        server, level, closing = servers[cell.candidate.number], int(cell.level), None
        if cell.held_out or not question.objectives:
            made = run(random, server, level, cell.count, pace)
        else:
            made, closing = run_until(
                random, server, level, cell.count, pace, question.objectives, (objectives.MISSES,)
            )
        record = summary(made, {"id": cell.name, "session": cell.server_session})
        summaries.append(record | ({"ended_early": closing} if closing else {}))


def random_search(
    random: np.random.Generator, servers: list[Server], question: best.Question, noise: float, seconds: float
) -> tuple[int, float] | None:
    """Random candidates at random levels, one start each, 512 requests, for the same seconds; the best seen within the
    objectives."""
    spent, top = 0.0, None
    while spent < seconds:
        number, level = int(random.integers(len(servers))), float(random.choice(question.levels))
        made = run(random, servers[number], int(level), 512, session_pace(random, noise))
        seen = summary(made, {})
        spent += START_S + float(made.end_s.max())
        rate = seen["throughput"]["output_tokens_per_s"]["steady"]["value"]
        if best.verdict_by_value(seen, question.objectives) == objectives.MEETS and (top is None or rate > top[2]):
            top = (number, level, rate)
    return None if top is None else top[:2]


@dataclass(frozen=True)
class Space:
    """What one search of a random space gave, and random search of the same time beside it: shares of the true best's
    rate (0: nothing chosen), whether what was chosen meets the objectives in truth, minutes."""

    share: float
    kept: bool
    random_share: float
    minutes: float


def search_space(seed: int, noise: float) -> Space | None:
    """A random space of 30 candidates, searched; None where no candidate meets the objectives at any level."""
    random = np.random.default_rng([11, seed])
    servers = [random_server(random) for _ in range(30)]
    question = best.Question(objectives.parse("ttft-p95<1s tpot-p95<50ms"), 8, 256, seed=seed)
    known = [Truth(server, question.objectives, question.levels, seed) for server in servers]
    top = max(each.best() for each in known)
    if top <= 0:
        return None
    random = np.random.default_rng([12, seed, round(1000 * noise)])
    record, seconds = race(random, servers, question, noise)
    chosen = record["best"]
    rate, good = known[chosen["settings"]["number"]].at(chosen["clients"]) if chosen else (0.0, False)
    other = random_search(random, servers, question, noise, seconds)
    peer = known[other[0]].at(other[1])[0] if other else 0.0
    return Space(rate / top, good, peer / top, seconds / 60)


class Truth:
    """What one server does in the long run, each level run when it is first asked for."""

    def __init__(self, server: Server, wanted: Mapping[str, float], ladder: list[float], seed: int) -> None:
        self.server, self.wanted, self.ladder, self.seed = server, wanted, ladder, seed
        self.known: dict[float, tuple[float, bool]] = {}

    def at(self, level: float) -> tuple[float, bool]:
        """The rate at a level, and whether the objectives hold there."""
        if level not in self.known:
            random = np.random.default_rng([14, self.seed, int(level)])
            self.known |= truth(random, self.server, self.wanted, [level])
        return self.known[level]

    def highest(self) -> int:
        """The place on the ladder of the highest level within the objectives, by bisection; -1: none."""
        low, high = -1, len(self.ladder)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.at(self.ladder[middle])[1] else (low, middle)
        return low

    def best(self) -> float:
        """The best rate within the objectives: at the highest level that meets them, or the one below it, where KV
        blocks run out."""
        place = self.highest()
        return max((self.at(level)[0] for level in self.ladder[max(place - 1, 0) : place + 1]), default=0.0)


def equal_space(seed: int) -> bool:
    """Eight equal candidates: whether the final calls one worse than another."""
    random = np.random.default_rng([13, seed])
    record, _ = race(random, [Server()] * 8, best.Question({}, 8, 128, seed=seed), 0.01)
    return any("leader_ratio" in entry for entry in record["worse"])


def best_row(noise: float, found: list[Space]) -> list[str]:
    """A line of the table of simulate_best."""
    shares, peers = (np.array([getattr(each, name) for each in found]) for name in ("share", "random_share"))
    return [
        f"{noise:.0%}",
        f"{len(found)}",
        f"{np.median(shares):.3f}",
        f"{np.percentile(shares, 10):.3f}",
        f"{np.mean(shares >= 0.97):.0%}",
        f"{np.mean([each.kept for each in found]):.0%}",
        f"{np.median(peers):.3f}",
        f"{np.mean(peers >= 0.97):.0%}",
        f"{np.median([each.minutes for each in found]):.0f}",
    ]


BEST_HEAD = [
    "between sessions",
    "spaces",
    "share of the best: median",
    "worst tenth",
    "at least 97%",
    "within the objectives",
    "random search: median",
    "at least 97%",
    "minutes",
]


def simulate_best(trials: int) -> str:
    """Random spaces of 30 candidates: the true rate of what is chosen over the true best's, beside random search."""
    rows = []
    for noise in (0.01, 0.02):
        found = spread(partial(search_space, noise=noise), range(trials))
        rows.append(best_row(noise, [space for space in found if space]))
    told = sum(spread(equal_space, range(trials)))
    return tables.table(BEST_HEAD, rows) + (
        f"\nEight equal candidates: one is called worse than another by the final in {told / trials:.1%} of "
        f"{trials} searches.\n"
    )


def main(what: str, trials: str) -> None:
    print({"decide": simulate_decide, "find": simulate_find, "best": simulate_best}[what](int(trials)))


if __name__ == "__main__":
    main(*sys.argv[1:])
