"""Picking cells: objectives, prices, the Pareto front, and no answer where there is none."""

from __future__ import annotations

import json
import subprocess

import made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpar import records, sizes
from llmpar.results import rows
from llmpar.results.rows import across, group
from llmpar.verdicts import pick


def judged(summaries, objectives=None, prices=None, sure=False):
    return pick.judge(rows.group(summaries), objectives or {}, prices or {}, sure)


def cell(clients: int, wall: float, ttft: float = 0.1, **more) -> dict:
    return made.summary(wall, load={"clients": clients}, ttft=ttft, **more)


def test_order_is_by_rate_and_by_cost_with_prices():
    slow, quick = cell(1, 20.0, host="cheap"), cell(2, 10.0, host="dear")
    assert [choice.row.host for choice in judged([slow, quick])] == ["dear", "cheap"]
    priced = judged([slow, quick], prices={"cheap": 1.0, "dear": 4.0})
    assert [choice.row.host for choice in priced] == ["cheap", "dear"]
    # 10 000 tokens in 20 s at 1.0 an hour: 1/3600 a second, 500 tokens a second
    assert priced[0].cost.value == pytest.approx(1.0 / 3600 / 500 * 1e6)
    assert priced[0].cost.low < priced[0].cost.value < priced[0].cost.high


def test_a_gpu_has_its_price_as_often_as_it_is_used():
    gpus = ("NVIDIA H100 80GB HBM3",)
    one = made.summary(10.0, gpus=gpus)
    two = made.summary(10.0, gpus=gpus, server={"replicas": 2}, varies=("replicas",))
    both = made.summary(10.0, gpus=gpus, server={"replicas": 2, "gpus": "0"}, varies=("replicas", "gpus"))
    prices = [pick.price(row, {"h100": 2.5}) for row in rows.group([one, two, both])]
    assert prices == [2.5, 5.0, 2.5]  # two replicas on the one GPU cost one
    assert pick.price(rows.group([one])[0], {"": 3.0}) == 3.0
    assert pick.price(rows.group([one])[0], {"A6000": 3.0}) is None


def test_objectives_bar_and_say_why():
    choices = judged([cell(1, 20.0, 0.1), cell(8, 10.0, 0.9)], {"ttft_p95_s": 0.5})
    assert [choice.ranked for choice in choices] == [True, False]
    assert choices[1].reasons == ["ttft_p95_s is 1.44, above 0.5"]


def test_unknown_is_not_unmet():
    few = judged([cell(1, 20.0, tails=False)], {"ttft_p95_s": 0.5})[0]
    assert few.unknown and few.reasons == ["ttft_p95_s needs 100 values"]
    assert judged([cell(1, 20.0)], {"memory_bytes": 1e9})[0].reasons == ["memory_bytes was not measured"]


def test_the_intervals_end_counts_only_when_asked():
    at_the_edge = cell(1, 20.0, 0.1)  # p95 0.16, to 0.1632
    assert judged([at_the_edge], {"ttft_p95_s": 0.161})[0].edge == ["ttft_p95_s"]
    assert not judged([at_the_edge], {"ttft_p95_s": 0.161}, sure=True)[0].ranked
    assert judged([at_the_edge], {"ttft_p95_s": 0.17}, sure=True)[0].ranked


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"limited": ("ttft_s",)}, "limited by the client: ttft_s"), ({"failed": 20}, "20 of 200 requests failed")],
)
def test_never_ranked(options, reason):
    choice = judged([cell(1, 1.0, **options), cell(2, 20.0)])[1]
    assert not choice.ranked and choice.reasons == [reason]


def test_the_front_holds_what_nothing_beats_in_everything():
    choices = judged([cell(1, 20.0, 0.05), cell(2, 15.0, 0.1), cell(4, 16.0, 0.2), cell(8, 10.0, 0.4)])
    assert {choice.row.settings["clients"] for choice in choices if choice.front} == {1, 2, 8}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12, unique=True))
def test_front_is_what_is_not_dominated(points):
    choices = judged(
        [made.summary(wall, ttft=ttft / 10, load={"clients": index + 1}) for index, (wall, ttft) in enumerate(points)]
    )
    for choice in choices:
        wall, ttft = points[choice.row.settings["clients"] - 1]
        beaten = any(w <= wall and t <= ttft and (w, t) != (wall, ttft) for w, t in points)
        assert choice.front is not beaten


def run(root, *arguments: str, given: bytes) -> subprocess.CompletedProcess:
    return subprocess.run([str(root / "bin" / "llmpar-pick"), *arguments], input=given, capture_output=True, timeout=60)


def test_command(root):
    given = b"".join(records.encode(summary) for summary in made.study())
    said = run(root, "--ttft-p95", "1.2", "--price", "H100=2.5", given=given)
    assert said.returncode == 0, said.stderr
    assert said.stdout.decode().splitlines()[1].split()[:4] == ["1", "speculate:", "speculate", "2"]
    assert "cost per million" in said.stdout.decode()
    lines = [
        json.loads(line) for line in run(root, "--ttft-p95", "1.2", "--format", "json", given=given).stdout.splitlines()
    ]
    assert [line["place"] for line in lines] == [*range(1, 11), None, None, None, None]
    none = run(root, "--ttft-p95", "0.001", given=given)
    assert (none.returncode, none.stdout.decode().splitlines()[0]) == (5, "no cell meets them: ttft_p95_s ≤ 0.001")
    unknown = run(root, "--memory", "20GiB", given=given)
    assert (unknown.returncode, unknown.stdout.decode().splitlines()[0]) == (6, "too little data to say")
    assert run(root, "--price", "free", given=given).returncode == 2
    assert run(root, "--memory", "much", given=given).returncode == 2
    assert run(root, given=b"").returncode == 6


def test_other_work_is_said(root):
    mixed = [cell(1, 20.0), made.summary(10.0, load={"clients": 2}, prompts="q" * 64)]
    said = run(root, given=b"".join(records.encode(summary) for summary in mixed)).stdout.decode()
    assert "not given the same work" in said


def test_an_objective_missed_is_an_answer_whatever_else_is_unknown():
    rows = group([made.summary(10, ttft=1.0)])  # memory was not measured
    (choice,) = pick.judge(rows, {"ttft_p95_s": 0.5, "memory_bytes": 2**30}, {})
    assert not choice.ranked and not choice.unknown
    (choice,) = pick.judge(rows, {"ttft_p95_s": 5.0, "memory_bytes": 2**30}, {})
    assert not choice.ranked and choice.unknown


def test_no_interval_reaches_below_nothing():
    one = across([1.0, 30.0])
    assert one.low == 0.0 and one.high is not None and one.high > 30
    rows = group([made.summary(wall, repeat=repeat) for repeat, wall in enumerate((1.0, 30.0), 1)])
    (choice,) = pick.judge(rows, {}, {"": 1.0})
    assert (
        choice.cost.value is not None
        and choice.cost.high is None
        and choice.cost.low is not None
        and choice.cost.low > 0
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8GiB", 8 << 30),
        ("24 GB", 24e9),
        ("1.5k", 1500.0),
        (7, 7.0),
        (".5GiB", None),
        ("5.", None),
        ("1.2.3", None),
        ("-1", None),
        ("", None),
        ("GiB", None),
    ],
)
def test_a_size_is_a_whole_number_or_a_decimal_one_with_its_unit(text, value):
    assert sizes.quantity(text) == value
