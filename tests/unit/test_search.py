"""Objectives, blocks and races: what llmpar-next decides from summaries."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmpar.commands import next as command
from llmpar.search import best, best_answer, decide, find, questions, spaces
from llmpar.stats import sequential
from llmpar.verdicts import objectives
from llmpar.verdicts.objectives import MEETS, MISSES, UNKNOWN


def summary(count: int = 400, p95: float = 0.1, top: float | None = None, **more: Any) -> dict[str, Any]:
    """A summary whose TTFT is `p95` up to p95, `top` above."""
    top = p95 if top is None else top
    values = {"p50": p95, "p90": p95, "p95": p95, "p99": top}
    ttft = {"n": count, "min": p95, "max": top, **{key: {"value": value} for key, value in values.items()}}
    rates = {"output_tokens_per_s": {"wall": {"value": 100.0}, "steady": {"value": 110.0}}}
    return {
        "kind": "summary",
        "v": 2,
        "n": {"requests": count, "ok": count},
        "latency": {"ttft_s": ttft},
        "throughput": rates,
        **more,
    }


def test_objectives_are_read_with_units() -> None:
    wanted = objectives.parse("ttft-p95<500ms, tpot_p99 <= 0.05 e2e-mean<2s")
    assert wanted == {"ttft_p95_s": 0.5, "tpot_p99_s": 0.05, "e2e_mean_s": 2.0}
    for text in ("", "ttft<500ms", "speed-p95<3", "ttft-p95<fast", "ttft-p95<0ms", "ttft-p95"):
        with pytest.raises(ValueError, match="objective"):
            objectives.parse(text)


@pytest.mark.parametrize(
    ("count", "p95", "top", "verdict"),
    [
        (59, 0.1, None, MEETS),  # no request of 59 is over: the least count for p95
        (58, 0.1, None, UNKNOWN),
        (400, 0.6, None, MISSES),
        (400, 0.1, 0.6, UNKNOWN),  # between 1% and 5% may be over
        (3000, 0.1, 0.6, UNKNOWN),
        (0, 0.1, None, UNKNOWN),
    ],
)
def test_an_objective_is_judged_as_a_share_of_requests(count: int, p95: float, top: float | None, verdict: str) -> None:
    assert objectives.of_session(summary(count, p95, top), "ttft_p95_s", 0.5) == verdict


def test_failures_beyond_one_percent_are_a_miss() -> None:
    wanted = objectives.parse("ttft-p95<500ms")
    assert objectives.of_all(summary(400), wanted) == MEETS
    assert objectives.of_all(summary(400) | {"n": {"requests": 400, "ok": 395}}, wanted) == MISSES


def test_find_answers_with_the_level_its_figures_and_the_next_one() -> None:
    wanted = objectives.parse("ttft-p95<500ms")
    made = [
        summary(p95=0.01 * clients, cell={"id": f"c{clients}", "load": {"clients": clients}})
        for clients in (8, 16, 32, 48, 64)
    ]
    levels = find.measured(made, "clients", wanted)
    step = find.step(levels, "clients", 8, 64, 8)
    assert (step.level, step.best, step.above) == (None, 48, 64)
    text = find.sentence(find.answer(levels, step, "clients", wanted))
    assert (
        text.startswith("up to 48 clients meet it (TTFT p95 480 ms")
        and "64 do not" in text
        and "100% of the best" in text
    )


def block(number: int, side: str, wall: float) -> dict[str, Any]:
    return {"cell": {"id": decide.cell_id(number, side)}, "wall_s": {"value": wall}, "server": {"ready_s": 60.0}}


def test_decide_stops_as_soon_as_it_is_told() -> None:
    made: list[dict[str, Any]] = []
    while True:
        blocks = decide.gather(made, "wall_s")
        look = decide.latest_look(blocks)
        if look is not None and look.decision != "more":
            break
        number, side = decide.next_cell(blocks, seed=3)
        made.append(block(number, side, (20.0 if side == "a" else 23.0) * (1 + 0.002 * (number % 3))))
    assert look.decision == "different" and look.blocks == 2
    record = decide.answer(blocks, look, "wall_s", {"a": "vllm", "b": "tgi"}, 0.03, None)
    assert (
        decide.sentence(record).startswith("vllm is better than tgi: wall time 20")
        and record["seconds_per_block"] > 120
    )


def test_blocks_alternate_in_random_order_and_each_has_both_sides() -> None:
    orders = [decide.order(number, 1) for number in range(1, 40)]
    assert all(set(order) == {"a", "b"} for order in orders) and len(set(orders)) == 2
    assert orders == [decide.order(number, 1) for number in range(1, 40)]


def test_no_two_cells_of_a_search_are_announced_by_the_same_line() -> None:
    """A block has a cell of each side, and a final one of each finalist."""
    made: list[dict[str, Any]] = []
    lines = []
    while len(made) < 6:
        record, line = questions.ask_decide(made, {}, ("engine=vllm", "engine=tgi"), "wall_s", 0.03, None, 1)
        number, side = decide.next_cell(decide.gather(made, "wall_s"), 1)
        assert record["id"] == decide.cell_id(number, side) and line.startswith(
            f"block {number} of at most 12, side {side.upper()}"
        )
        lines.append(line)
        made.append(block(number, side, 20.0 + random.Random(len(made)).gauss(0, 2)))
    assert len(set(lines)) == 6
    lines = []
    _, cells = race([100.0, 101.0, 99.0, 80.0], best.Question({}, 8, 64), lines=lines)
    assert len(set(lines)) == len(lines) == cells and lines[0].startswith("round 1: 4 of 4 candidates left")
    assert sum(line.startswith("final of 3, block 1, next k") for line in lines) == 3


def test_find_says_which_level_comes_next_and_what_is_known() -> None:
    assert find.progress({}, "clients", 1.0) == "next 1 client"
    levels = {level: find.Level(level, verdict, {}, 1, 1) for level, verdict in ((4.0, MEETS), (8.0, MISSES))}
    assert find.progress(levels, "clients", 6.0) == "next 6 clients; objectives: 4 met, 8 missed"
    assert find.progress(levels, "rate", 4.0) == "next 4 requests/s again; objectives: 4 met, 8 missed"


def test_equal_sides_are_same_and_noisy_ones_hopeless() -> None:
    assert sequential.look([20.0, 20.02, 19.99], [20.01, 20.0, 20.0]).decision == "same"
    noisy = sequential.look([20.0, 27.0, 18.0, 24.0], [22.0, 19.0, 26.0, 21.0])
    assert noisy.decision == "hopeless" and noisy.chance is not None and noisy.chance < 0.1
    with pytest.raises(ValueError, match="above 0"):
        sequential.look([1.0, 0.0], [1.0, 1.0])


def test_an_interval_excludes_equality_only_where_the_look_may_call_the_sides_different() -> None:
    pairs = [([20.0, 20.4], [21.0, 21.3]), ([20.0, 20.1], [23.0, 23.1]), ([20.0, 20.3, 19.8], [20.9, 21.0, 20.6])]
    for a, b in pairs:
        for family in (1, 2):
            look = sequential.look(a, b, family=family)
            assert look.low is not None and look.high is not None and look.p_different is not None
            bound = sequential.BOUND_DIFFERENT * math.sqrt(look.blocks / sequential.MOST_BLOCKS) / family
            assert (look.high < 1) == (look.p_different < bound)
    same = sequential.look([20.0, 20.02, 19.99], [20.01, 20.0, 20.0])
    assert same.low is not None and same.high is not None and 1 / 1.03 < same.low < 1 < same.high < 1.03


def race(
    rates: list[float], question: best.Question, failing: tuple[int, ...] = (), lines: list[str] | None = None
) -> tuple[dict[str, Any], int]:
    """A whole search over servers whose rate at any level is given; what it answers, and in how many cells. `lines`
    collects the progress before each cell."""
    noise = random.Random(1)
    candidates = [best.Candidate(number, {"number": number}, f"k{number}") for number in range(len(rates))]
    made: list[dict[str, Any]] = []
    while len(made) < 500:
        for candidate in candidates:
            candidate.levels, candidate.final, candidate.final_missed, candidate.failure = {}, {}, 0, None
        spent = best.gather(candidates, made, question.objectives)
        state = best.state(candidates, question, spent)
        if state.cell is None:
            return best_answer.answer(candidates, state, question, spent), len(made)
        if lines is not None:
            lines.append(best_answer.progress(candidates, state, question, spent))
        number = state.cell.candidate.number
        rate = 0.0 if number in failing else rates[number] * noise.gauss(1, 0.005)
        warned = [{"code": "out_of_memory", "message": "no memory"}] if number in failing else []
        made.append(
            {
                "cell": {"id": state.cell.name, "session": state.cell.server_session},
                "n": {"requests": 100, "ok": 100},
                "wall_s": {"value": 10.0},
                "throughput": {"output_tokens_per_s": {"wall": {"value": rate}, "steady": {"value": rate}}},
                "server": {"ready_s": 60.0} | ({"message": "no memory"} if warned else {}),
                "warnings": warned,
            }
        )
    raise AssertionError("the search does not end")


def test_best_finds_the_best_and_names_what_failed_and_what_is_worse() -> None:
    record, cells = race([100, 120, 150, 90, 80, 130, 70, 60, 110], best.Question({}, 8, 64), failing=(8,))
    assert record["best"]["label"] == "k2" and record["best"]["server_sessions"] >= 2
    assert [entry["label"] for entry in record["failed"]] == ["k8"] and record["failed"][0]["why"] == "no memory"
    assert {entry["label"] for entry in record["worse"]} == {"k0", "k1", "k3", "k4", "k5", "k6", "k7"} and not record[
        "tied"
    ]
    assert cells < 30
    text = best_answer.sentence(record)
    assert text.startswith("k2, 64 clients: 1") and "this one did not run: k8 [no memory]" in text


def test_equal_candidates_cannot_be_told_apart() -> None:
    record, _ = race([100.0] * 5, best.Question({}, 8, 64))
    assert record["best"] is not None and len(record["tied"]) == 2
    assert all("leader_ratio" not in entry for entry in record["worse"]), "what left early was never compared in blocks"


def test_the_budget_ends_the_race_with_what_is_known() -> None:
    record, cells = race([100, 120, 150, 90], best.Question({}, 8, 64, minutes=3))
    assert cells == 2 and record["minutes_spent"] <= 3 and len(record["unmeasured"]) == 2


def test_the_command_plans_answers_and_refuses(tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(command.main.command, list(arguments))  # type: ignore[attr-defined]

    done = run("find", "--slo", "ttft-p95<500ms", "--set", "engine=vllm model=m", "--write", "run")
    assert (
        done.stdout.strip() == "c0008" and json.loads(Path("run/c0008/cell.json").read_text())["server"]["model"] == "m"
    )
    assert "CELLS := c0008" in Path("run/cells.mk").read_text()
    done = run("decide", "--a", "speculate=0", "--b", "speculate=2", "--set", "engine=vllm model=m")
    cell = json.loads(done.stdout)
    assert cell["id"] == cell["session"] and cell["id"][:4] == "b01-" and cell["server"]["speculate"] in (0, 2)
    Path("space.tsv").write_text("engine\tmodel\tspeculate\tclients\nvllm\tm\t0,2\t8\nmii\tm\t2\t8\n")
    cell = json.loads(run("best", "--space", "space.tsv", "--most", "32").stdout)
    assert cell["id"] == "r1-k001-c0032" and cell["load"]["clients"] == 32 and "until_missed" not in cell["load"]
    cell = json.loads(run("best", "--space", "space.tsv", "--most", "32", "--slo", "ttft-p95<1s  tpot-p95<50ms").stdout)
    assert cell["load"]["until_missed"] == "ttft-p95<1s tpot-p95<50ms"
    cell = json.loads(run("best", "--space", "space.tsv", "--most", "32", "--slo", "ttft-mean<1s").stdout)
    assert "until_missed" not in cell["load"], "a mean is not a share of requests"


@pytest.mark.parametrize(
    ("arguments", "labels"),
    [
        (["--a 1 -t 1", "--a 1 -t 2"], ["-t 1", "-t 2"]),
        (["--a 1 -b 2", "--a 1"], ["-b 2", "vllm"]),
        (["--a 1 -b 2", "--c"], ["--a 1 -b 2", "--c"]),
        (["--a 1", None], ["--a 1", "vllm"]),
    ],
)
def test_labels_leave_out_the_options_that_all_candidates_begin_with(
    arguments: list[str | None], labels: list[str]
) -> None:
    rows = [{"engine": "vllm", "model": "m"} | ({"engine_args": each} if each else {}) for each in arguments]
    assert [candidate.label for candidate in spaces.candidates(rows, "space", {})[0]] == labels


def test_candidates_that_failed_for_one_cause_are_told_together() -> None:
    entries = [{"label": "a", "why": "x"}, {"label": "b", "why": "y"}, {"label": "c", "why": "x"}, {"label": "d"}]
    assert best_answer._entries(entries) == ["a, c [x]", "b [y]", "d"]


def test_a_level_that_was_ended_early_misses_whatever_its_few_requests_say() -> None:
    wanted = objectives.parse("ttft-p95<500ms")
    seen = summary(400) | {"ended_early": {"verdict": objectives.MISSES, "objectives": wanted, "requests": 20}}
    assert best.verdict_by_value(seen, wanted) == objectives.MISSES
    assert best.verdict_by_value(seen, objectives.parse("ttft-p95<600ms")) == objectives.MEETS, "of other objectives"


def fields_of(root: Path, question: str) -> set[str]:
    """Names in the first column of the question's table in the reference of `answer` records."""
    section = (root / "docs" / "records.md").read_text().split("## answer, version 1\n")[1].split("\n## ")[0]
    table = section.split(f"| field of `{question}` |")[1].split("\n\n")[0]
    return {name for row in re.findall(r"^\| (`[^|]*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}


def test_answers_have_the_fields_of_the_reference(root: Path) -> None:
    wanted = objectives.parse("ttft-p95<500ms")
    levels = find.measured([summary(400, cell={"id": "c8", "load": {"clients": 8}})], "clients", wanted)
    found = find.answer(levels, find.step(levels, "clients", 8, 8, 8), "clients", wanted)
    blocks = decide.gather([block(n, side, 20.0) for n in (1, 2) for side in decide.SIDES], "wall_s")
    look = sequential.look([20.0, 20.1], [23.0, 23.1])
    decided = decide.answer(blocks, look, "wall_s", {"a": "x", "b": "y"}, 0.03, 5)
    best_of, _ = race([100, 150], best.Question({}, 8, 8))
    for answer in (found, decided, best_of):
        assert answer["kind"] == "answer" and set(answer) == fields_of(root, answer["question"])


def test_a_longer_budget_is_advised_only_within_the_last_block() -> None:
    walls = {"a": [11.9, 16.8, 12.2], "b": [15.3, 13.7, 24.0]}
    blocks = decide.gather([block(n, side, walls[side][n - 1]) for n in (1, 2, 3) for side in decide.SIDES], "wall_s")
    look = sequential.look(walls["a"], walls["b"])
    assert look.decision == "more"
    record = decide.answer(blocks, look, "wall_s", {"a": "x", "b": "y"}, 0.03, 3)
    text = decide.sentence(record)
    assert record["decision"] == "out of time" and record["blocks_needed"] is None
    assert text.startswith("cannot tell x from y") and "longer cells or a quieter machine" in text
