"""Plans from a pilot's noise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from made import summary
from test_summary_docs import fields

from llmpar import cli, records
from llmpar.commands import plan as command
from llmpar.render import plans
from llmpar.stats import effects
from llmpar.verdicts import sample_size, verdict


def pilot(sigma: float, sessions: int = 3, cells: int = 4, within: float = 0.005, seed: int = 1) -> list[dict]:
    random = np.random.default_rng(seed)
    found = []
    for clients in range(1, cells + 1):
        for repeat in range(1, sessions + 1):
            one = summary(20.0 * math.exp(sigma * random.standard_normal()), load={"clients": clients}, repeat=repeat)
            value = one["throughput"]["output_tokens_per_s"]["wall"]["value"]
            one["throughput"]["output_tokens_per_s"] = {
                "wall": {"value": value, "low": None, "high": None},
                "steady": {
                    "value": value,
                    "low": value * math.exp(-1.959964 * within),
                    "high": value * math.exp(1.959964 * within),
                },
            }
            found.append(one)
    return found


def test_noise_is_pooled_over_cells_and_split_in_two() -> None:
    found = sample_size.noise(pilot(0.03, sessions=5, cells=40), "output_tokens_per_s")
    assert found is not None
    assert found.total == pytest.approx(0.03, rel=0.12) and found.within == pytest.approx(0.005, rel=0.01)
    assert found.freedom == 160 and found.upper > found.total and found.requests == 200


def test_the_upper_limit_holds_the_truth_as_often_as_it_says() -> None:
    above = 0
    for seed in range(300):
        found = sample_size.noise(pilot(0.03, sessions=3, cells=2, seed=seed), "output_tokens_per_s")
        assert found is not None
        above += found.upper > 0.03
    assert 0.73 < above / 300 < 0.87


def test_more_prompts_help_only_against_noise_within_sessions() -> None:
    own = sample_size.Noise("output_tokens_per_s", 0.05, 0.05, 10, 0.0499, 200, 1)
    starts = sample_size.Noise("output_tokens_per_s", 0.05, 0.05, 10, 0.001, 200, 1)
    helped = [each.sessions for each in sample_size.options(own, 0.05)]
    same = [each.sessions for each in sample_size.options(starts, 0.05)]
    assert all(isinstance(each, int) for each in [*helped, *same])
    assert helped[0] > 3 * helped[-1] and same[0] == same[-1]  # type: ignore[operator]
    chosen = sample_size.best(sample_size.options(starts, 0.05), 1)
    assert chosen is not None and chosen.requests == 50
    assert sample_size.best(sample_size.options(starts, 0.05), 150).requests == 200  # type: ignore[union-attr]


def test_an_error_within_sessions_above_the_total_does_not_raise_the_plan() -> None:
    """The h100 pilot: 14.9% within told, 1.1% between: 304 sessions of each side were asked for, where 3 do."""
    found = sample_size.Noise("output_tokens_per_s", 0.009, 0.011, 30, 0.149, 512, 5, start_s=93.0, cell_s=21.0)
    choices = sample_size.options(found, 0.05)
    chosen = sample_size.best(choices, 1)
    assert chosen is not None and (chosen.sessions, chosen.requests) == (3, 512)
    noises = [each.noise for each in choices]
    assert noises == pytest.approx([0.022, 0.011 * math.sqrt(2), 0.011, 0.011, 0.011, 0.011])
    assert sample_size.seen(found, 3) < 0.05  # type: ignore[operator]


def test_the_option_that_takes_the_least_time_is_chosen() -> None:
    noise = sample_size.Noise("output_tokens_per_s", 0.03, 0.03, 40, 0.028, 512, 5, start_s=93.0, cell_s=21.0)
    slow_start = sample_size.options(noise, 0.05)
    chosen = sample_size.best(slow_start, 1)
    assert chosen is not None and chosen.requests == 2048 and chosen.duration_s is not None
    assert chosen.duration_s == pytest.approx(2 * (chosen.sessions or 0) * (93.0 + 4 * 21.0))
    assert all(chosen.duration_s <= (each.duration_s or math.inf) for each in slow_start)
    noise.start_s = 0.1
    quick_start = sample_size.best(sample_size.options(noise, 0.05), 1)
    assert quick_start is not None and quick_start.requests < chosen.requests


def test_a_pilot_knows_the_time_of_a_start_and_of_a_cell() -> None:
    summaries = pilot(0.02, sessions=3, cells=2)
    for number, each in enumerate(summaries):
        each["server"]["ready_s"] = 90.0 + number
        each["session"] = f"s{each['cell']['repeat']}"
    found = sample_size.noise(summaries, "wall_s")
    assert found is not None and (found.start_s, found.cells_per_session) == (92.5, 2)
    assert found.cell_s == pytest.approx(20, rel=0.1)
    plan = sample_size.record(found, sample_size.options(found, 0.05), 0.05, 0.9)
    assert plan["duration_s"] == pytest.approx(2 * plan["sessions"] * (92.5 + found.cell_s * plan["requests"] / 200))
    assert "starts of 92.5 s" in plans.as_text(plan) and "for the 2 cells of a server session" in plans.as_text(plan)
    for each in summaries:
        each["server"]["ready_s"] = None
    running = sample_size.noise(summaries, "wall_s")
    assert running is not None and running.start_s is None
    plan = sample_size.record(running, sample_size.options(running, 0.05), 0.05, 0.9)
    assert "no server was launched" in plans.as_text(plan)


def test_a_plan_sees_what_it_promises() -> None:
    found = sample_size.Noise("output_tokens_per_s", 0.02, 0.02, 10, None, 200, 1)
    chosen = sample_size.best(sample_size.options(found, 0.05), 1)
    assert chosen is not None and chosen.sessions is not None
    random = np.random.default_rng(3)
    hits = sum(
        verdict.decide(
            effects.welch(
                (1.05 * np.exp(0.02 * random.standard_normal(chosen.sessions))).tolist(),
                np.exp(0.02 * random.standard_normal(chosen.sessions)).tolist(),
            ),
            True,
        )
        == "faster"
        for _ in range(600)
    )
    assert hits / 600 > 0.87
    smallest = sample_size.seen(found, chosen.sessions)
    assert smallest is not None and smallest <= 0.05


def test_percentiles_have_a_least_number_of_requests() -> None:
    assert sample_size.least_requests("ttft_p95_s") == 72 and sample_size.least_requests("ttft_p99_s") == 368
    assert sample_size.least_requests("output_tokens_per_s") == 1


def test_the_command_says_a_plan_or_asks_for_a_pilot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> int:
        return cli.run("llmpar-plan", command.main.command, list(arguments))  # type: ignore[attr-defined]

    Path("p.jsonl").write_bytes(b"".join(map(records.encode, pilot(0.02))))
    assert run("p.jsonl") == 0
    shown = capsys.readouterr().out
    assert (
        "output rate: server sessions differ by" in shown
        and "per side with" in shown
        and "requests per server session" in shown
    )
    assert run("p.jsonl", "--format", "json", "-o", "plan.json") == 0
    assert set(json.loads(Path("plan.json").read_bytes())) == fields("plan")
    Path("one.jsonl").write_bytes(b"".join(map(records.encode, pilot(0.02, sessions=1))))
    assert run("one.jsonl") == 6
    assert "REPEATS=3" in capsys.readouterr().err
    assert run("p.jsonl", "--figure", "nonsense") == 2
