"""When a measurement has shown enough, what a search has spent, and what is refused before it is started."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from llmpar.search import budget, ending, find
from llmpar.serving import planner
from llmpar.stats import anytime
from llmpar.verdicts.objectives import MEETS, MISSES, UNKNOWN


def test_the_bound_is_crossed_early_but_seldom_at_the_edge() -> None:
    assert anytime.surely_below(0, 74, 0.05, 0.05) and not anytime.surely_below(0, 73, 0.05, 0.05)
    assert anytime.surely_above(2, 2, 0.05, 0.05) and not anytime.surely_above(1, 1, 0.05, 0.05)
    assert not anytime.surely_below(0, 0, 0.05, 0.05) and not anytime.surely_above(0, 0, 0.05, 0.05)
    draws = random.Random(5)
    crossed = {anytime.surely_below: 0, anytime.surely_above: 0}
    for _ in range(150):
        over, told = 0, set()
        for count in range(1, 400):
            over += draws.random() < 0.05
            told |= {test for test in crossed if test(over, count, 0.05, 0.05)}
        for test in told:
            crossed[test] += 1
    # 5% of 150 at most; beyond 14 has a chance of under 1%.
    assert all(0 < count <= 14 for count in crossed.values()), crossed


def loop(clients: int, slow: float, count: int, failing: float = 0.0, seed: int = 1) -> list[dict[str, Any]]:
    """Records of a closed loop in the order in which they end: a request takes 1 s, a slow one 3 s."""
    draws = random.Random(seed)
    free = [0.001 * client for client in range(clients)]
    made = []
    for _ in range(count):
        client = min(range(clients), key=lambda each: free[each])
        e2e = 3.0 if draws.random() < slow else 1.0 + 0.1 * draws.random()
        status = "error" if draws.random() < failing else "ok"
        made.append(
            {
                "kind": "request",
                "status": status,
                "sent_at": free[client],
                "e2e_s": e2e,
                "ttft_s": e2e / 2,
                "output_tokens": 11,
                "event_tokens": [1] * 11,
            }
        )
        free[client] += e2e
    return sorted(made, key=lambda record: record["sent_at"] + record["e2e_s"])


def ended(records: list[dict[str, Any]], clients: int, wanted: dict[str, float]) -> tuple[str, int]:
    judge = ending.Ending(wanted, clients)
    for number, record in enumerate(records, 1):
        judge.add(record)
        if (verdict := judge.verdict()) != UNKNOWN:
            return verdict, number
    return UNKNOWN, len(records)


@pytest.mark.parametrize(
    ("slow", "failing", "wanted", "verdict"),
    [
        (0.0, 0.0, {"e2e_p95_s": 2.0}, MEETS),
        (0.3, 0.0, {"e2e_p95_s": 2.0}, MISSES),
        (0.3, 0.0, {"e2e_p50_s": 2.0}, MEETS),
        (0.0, 0.2, {"e2e_p95_s": 2.0}, MISSES),
        (0.3, 0.0, {"e2e_p95_s": 4.0, "ttft_p90_s": 1.0}, MISSES),
        (0.3, 0.0, {"tpot_p95_s": 0.2}, MEETS),
        (0.3, 0.0, {"tpot_p95_s": 0.12}, MISSES),
    ],
)
def test_a_load_ends_as_soon_as_it_is_told(slow: float, failing: float, wanted: dict[str, float], verdict: str) -> None:
    records = loop(8, slow, 600, failing)
    told, count = ended(records, 8, wanted)
    assert told == verdict and 8 * (ending.TURNS + ending.LEAST_COUNTED) < count < 400


def test_a_load_whose_rate_is_wanted_ends_only_where_it_misses() -> None:
    for slow, verdict in ((0.0, UNKNOWN), (0.3, MISSES)):
        judge = ending.Ending({"e2e_p95_s": 2.0}, 8, (MISSES,))
        for record in loop(8, slow, 600):
            judge.add(record)
        assert judge.verdict() == verdict


def test_requests_that_are_out_for_long_are_not_taken_for_quick_ones() -> None:
    # Half of all clients hang in a request that ends after the rest: those that ended are all quick.
    quick = [record for record in loop(8, 0.0, 400)]
    judge = ending.Ending({"e2e_p95_s": 2.0}, 16)
    for record in quick:
        judge.add(record)
    assert judge.verdict() == UNKNOWN


def test_what_cannot_end_early_is_known() -> None:
    assert ending.possible({"ttft_p95_s": 1, "tpot_p99_s": 1, "e2e_p50_s": 1}, "queue")
    for metric in ("itl_p95_s", "ttft_mean_s", "effective_ttft_p95_s"):
        assert not ending.possible({metric: 1}, "queue")
    assert not ending.possible({"ttft_p95_s": 1}, "asyncio")


def cell(level: int, over_s: float, early: dict[str, Any] | None, requests: int = 100) -> dict[str, Any]:
    values = {key: {"value": over_s} for key in ("p50", "p90", "p95", "p99")}
    return {
        "kind": "summary",
        "v": 2,
        "cell": {"load": {"clients": level}},
        "n": {"requests": requests, "ok": requests},
        "latency": {"ttft_s": {"n": requests, "min": over_s, "max": over_s, **values}},
    } | ({"ended_early": early} if early else {})


def test_what_ended_a_measurement_stands_for_its_own_objectives_alone() -> None:
    wanted = {"ttft_p95_s": 0.5}
    early = {"verdict": MEETS, "objectives": wanted, "requests": 90}
    seen = find.measured([cell(8, 0.1, early, 40)], "clients", wanted)[8]
    assert (seen.verdict, seen.tries) == (MEETS, 1)
    # For another objective 40 requests are too few, and the level is measured for it.
    other = find.measured([cell(8, 0.1, early, 40)], "clients", {"ttft_p95_s": 0.2})[8]
    assert (other.verdict, other.tries, other.cells) == (UNKNOWN, 0, 1)
    step = find.step({8.0: other}, "clients", 1, 8, 8, most_tries=1)
    assert step.level == 8 and step.again
    both = find.measured([cell(8, 0.1, early, 40), cell(8, 0.1, None, 480)], "clients", {"ttft_p95_s": 0.2})[8]
    assert (both.verdict, both.tries, both.cells) == (MEETS, 1, 2)


def measured(session: str, started: float, ready: float, wall: float) -> dict[str, Any]:
    return {
        "cell": {"session": session},
        "server": {"started_at": started, "ready_s": ready},
        "ended_at": started + ready + wall + 1,
        "wall_s": {"value": wall},
        "n": {"requests": 100},
    }


def test_minutes_are_those_of_the_clock_without_pauses() -> None:
    cells = [
        (1, 8.0, True, measured("r1-k001", 1000, 60, 20)),
        (2, 8.0, True, measured("r1-k002", 1085, 60, 10)),  # 4 s after the first one's end
        (3, 8.0, True, measured("r1-k003", 9000, 60, 15)),  # the next day
    ]
    spent = budget.spent(cells)
    assert spent.seconds == pytest.approx(81 + 4 + 71 + 76)
    assert spent.start_s == pytest.approx(61)
    assert spent.cost(2, 8, 100, "r1-k002") == pytest.approx(10)
    assert spent.cost(4, 8, 100, "r1-k004") == pytest.approx(61 + 15), "of others the median"
    # Longer cells than a start takes tell less than another start.
    assert budget.requests_of(3, 8, spent, 1) == int(61 / 0.2) and budget.requests_of(1, 8, spent, 1) == 128
    # Twelve candidates in ten minutes: 25 s for each one's first cell, at least four turns of all clients.
    spent.cell_s = budget.cell_seconds(10, 12)
    assert spent.cell_s == 25 and budget.requests_of(1, 8, spent, 2) == 128, "20 s of 0.1 s each"
    assert budget.requests_of(1, 8, spent, 1) == 125 and budget.requests_of(1, 64, spent, 1) == 256
    assert budget.cell_seconds(None, 12) == float("inf")


def test_what_cannot_fit_is_refused_with_its_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "vocab_size": 32000,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "torch_dtype": "float16",
    }
    (tmp_path / "config.json").write_text(json.dumps(shape))
    monkeypatch.setattr(planner.gpu_memory, "gpu_memory", lambda: 16 << 30)
    server = {"engine": "vllm", "version": "0.33.0", "model": str(tmp_path), "dtype": "float16"}
    assert planner.refusal(server | {"max_total_tokens": 2000}) is None
    assert "12.6 GiB of weights, 2.0 GiB of KV cache" in str(planner.refusal(server | {"max_total_tokens": 4096}))
    assert planner.refusal(server | {"max_total_tokens": 4096, "quantize": "fp8"}) is None
    assert planner.refusal(server | {"max_total_tokens": 4096, "engine_args": "--kv-cache-dtype fp8"}) is None
    assert "8.0 GiB of KV cache" in str(planner.refusal(server | {"kv_bytes": "8GiB"}))
    assert planner.refusal(server | {"kv_bytes": "8GiB", "shards": 2}) is None
    assert "does not know --quantize" in str(planner.refusal(server | {"quantize": "eetq"}))
    assert "unknown engine" in str(planner.refusal({"engine": "nonsense"}))
