"""compare, claims, pick and report: one rule from server sessions to ratio, interval and verdict."""

from __future__ import annotations

import copy
from typing import Any

import made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpar.results import rows, words
from llmpar.stats import effects
from llmpar.verdicts import best, claim_table, claims, pairs, pick, verdict

RATE = "output_tokens_per_s"
VALUES = st.dictionaries(st.integers(1, 6), st.floats(5.0, 50.0), min_size=1, max_size=6)


def summaries(clients: int, walls: dict[int, float]) -> list[dict[str, Any]]:
    return [made.summary(wall, load={"clients": clients}, repeat=session) for session, wall in walls.items()]


def answers(a: dict[int, float], b: dict[int, float], figure: str) -> dict[str, Any]:
    """(ratio, low, high) of 8 over 16 clients by each of the commands' rules, and the verdict of compare."""
    given = [*summaries(8, a), *summaries(16, b)]
    (record,) = verdict.verdict_records(pairs.by(copy.deepcopy(given), ("clients",), "16"), (figure,))
    effect = record["effect"]
    (claim,) = claim_table.parse(
        "id\tsweep\tsentence\tmetric\ta\tb\texpect\tstated\tnote\n"
        f"c\tclients\ts\t{figure}\tclients=8\tclients=16\tA<B\t-\t-\n",
        "t",
    )
    (comparison,) = claims.evaluate(claim, rows.group(given))["comparisons"]
    first, second = pick.judge(rows.group(given), {}, {})
    return {
        "compare": (effect["ratio"], effect["low"], effect["high"]),
        "claims": (comparison["ratio"], comparison["low"], comparison["high"]),
        "pick": second.against_best,
        "picked": first.row.settings["clients"],
        "report": best.answer(rows.group(given)),
        "verdict": record["verdict"],
        "outcome": comparison["outcome"],
    }


def turned(low: float | None) -> float | None:
    return None if low is None else 1 / low


@settings(max_examples=150, deadline=None)
@given(VALUES, VALUES)
def test_four_commands_give_one_answer(a: dict[int, float], b: dict[int, float]) -> None:
    rate, wall = answers(a, b, RATE), answers(a, b, "wall_s")
    for each in (rate, wall):
        assert each["compare"] == each["claims"]
    # Every run has the same tokens: a ratio of rates is the turned ratio of wall times.
    ratio, low, high = rate["compare"]
    assert (1 / ratio, turned(high), turned(low)) == pytest.approx(wall["compare"])
    against = rate["pick"]
    mine = (against.ratio, against.low, against.high)
    assert mine == pytest.approx((ratio, low, high) if rate["picked"] == 16 else (1 / ratio, turned(high), turned(low)))
    # claims says "A<B" of wall seconds: supported needs the interval below 1, contradicted the other way or the same.
    if wall["outcome"] == claims.SUPPORTED:
        assert wall["verdict"] in ("faster", "same", "cannot tell") and wall["compare"][2] < 1
    if wall["verdict"] in ("slower", "same"):
        assert wall["outcome"] == claims.CONTRADICTED
    ratio, low, high = wall["compare"]
    if low is None:
        assert "told apart" in wall["report"] or "One server session each" in wall["report"]
    elif "times as long" in wall["report"] and "told apart" not in wall["report"]:
        slow = words.ratio(ratio, low, high) if ratio > 1 else words.ratio(1 / ratio, 1 / high, 1 / low)
        assert slow in wall["report"]
    else:
        assert low <= 1 <= high


def test_the_same_six_sessions_have_one_ratio() -> None:
    a, b = {1: 20.0, 2: 22.0, 3: 20.5}, {1: 21.0, 2: 23.2, 4: 19.0}
    said = answers(a, b, "wall_s")
    assert said["compare"] == said["claims"] == pytest.approx((0.9503, 0.9252, 0.9762), abs=1e-3)
    assert said["pick"].ratio == pytest.approx(0.9503, abs=1e-3)
    assert said["pick"].left_out == 2


def test_sessions_that_measured_both_sides_are_paired_where_they_are_the_most() -> None:
    shared = {"1": 10.0, "2": 12.0}
    assert effects.effect({**shared, "3": 11.0}, shared).method == "paired-log"
    few = effects.effect({**shared, "3": 11.0, "4": 10.5}, {**shared, "5": 9.0, "6": 10.0})
    assert (few.method, few.sessions_a, few.left_out) == ("welch-log", 4, 0)
    # Nobody knows whether sessions without a name are the same.
    assert effects.effect({"": 10.0}, {"": 20.0}).method == "one-session"
    assert effects.effect({}, shared) is None and effects.effect({"1": 0.0}, shared) is None
    assert effects.effect({"7": 1.0}, shared, "paired") is None


def test_what_is_left_out_is_said() -> None:
    given = [*summaries(8, {1: 20.0, 2: 22.0, 3: 20.5}), *summaries(16, {1: 21.0, 2: 23.2, 4: 19.0})]
    (record,) = verdict.verdict_records(pairs.by(given, ("clients",), "16"), ("wall_s",))
    assert "2 server sessions measured one side only: left out" in [each["message"] for each in record["reasons"]]


def test_machines_of_one_name_and_the_same_words_are_two_hosts() -> None:
    def of(memory: int, clients: int) -> dict[str, Any]:
        summary = made.summary(gpus=("NVIDIA H100",), load={"clients": clients})
        return summary | {"host": summary["host"] | {"gpus": [{"name": "NVIDIA H100", "memory_bytes": memory}]}}

    given = [of(80 << 30, 8), of(79 << 30, 8), of(80 << 30, 16)]
    first, second, third = rows.group(given)
    assert first.host == third.host != second.host
    assert first.host.endswith(", machine 1)") and second.host.endswith(", machine 2)")


def test_pods_of_one_node_are_one_row_and_its_sessions_repeats() -> None:
    given = [made.summary(repeat=repeat) for repeat in (1, 2, 3)]
    for number, each in enumerate(given):
        # As llmpar-doctor writes it with LLMPAR_HOST=n1, in pods that boot and live apart.
        each["host"] = {"host": "n1", "gpus": [], "boot": f"pod-{number}", "at": 1.79e9 + number}
    (row,) = rows.group(given)
    assert row.host == "n1" and len({each["session"] for each in row.summaries}) == 3


def test_the_best_is_not_one_that_another_surely_beats() -> None:
    # 8 clients have the lower mean, over a server session that 16 clients do not share.
    said = answers({3: 6.0, 5: 6.0}, {1: 8.0, 3: 5.0, 5: 5.0}, "wall_s")
    assert "Least wall seconds: clients 16, 6.00 s; the next, clients 8, takes 1.20" in said["report"]
    assert "told apart" not in said["report"]
    assert "Over the server sessions that they share, the knee is at 16 clients." in said["report"]
