"""Noise borrowed over a sweep's cells, sides that were not measured side by side, and "same" over many cells."""

from __future__ import annotations

import math
from typing import Any

import made
import numpy as np
import pytest

from llmpar.render import verdicts as rendered
from llmpar.results import rows
from llmpar.stats import borrowed, effects, outliers
from llmpar.verdicts import claim_table, claims, pairs, times, verdict
from llmpar.verdicts.noise import Noise

RATE = "output_tokens_per_s"


def test_the_prior_finds_the_spread_of_variances() -> None:
    """Variances of 5 degrees of freedom, drawn around a scaled inverse chi-squared of 8 degrees and scale 4."""
    random = np.random.default_rng(1)
    true = 8 * 4.0 / random.chisquare(8, 20_000)
    seen = true * random.chisquare(5, 20_000) / 5
    found = borrowed.prior(seen.tolist(), [5] * len(seen))
    assert found is not None and found.freedom == pytest.approx(4, rel=0.1)  # half of 8
    assert found.variance == pytest.approx(4, rel=0.03)


def test_equal_variances_borrow_the_most_and_few_nothing() -> None:
    random = np.random.default_rng(2)
    seen = (random.chisquare(4, 5000) / 4).tolist()
    found = borrowed.prior(seen, [4] * len(seen))
    assert found is not None and found.freedom == borrowed.MOST and found.variance == pytest.approx(1, rel=0.05)
    assert borrowed.prior(seen[: borrowed.LEAST - 1], [4] * (borrowed.LEAST - 1)) is None
    assert borrowed.prior([0.0] * 50, [4] * 50) is None
    wild = (10.0 ** random.normal(0, 3, 5000)).tolist()
    found = borrowed.prior(wild, [4] * len(wild))
    assert found is not None and 0 < found.freedom < 0.5


@pytest.mark.parametrize("degrees", [1, 2, 4, 30])
def test_a_prior_exists_for_any_variances(degrees: int) -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        seen = (random.chisquare(degrees, borrowed.LEAST) * np.exp(random.normal(0, 2))).tolist()
        found = borrowed.prior(seen, [degrees] * len(seen))
        assert found is not None and 0 < found.freedom <= borrowed.MOST and 0 < found.variance < math.inf


def sweep(values: dict[tuple[str, int], list[float]], start: float = 1.79e9) -> list[dict[str, Any]]:
    """Summaries of (engine, clients) cells, wall seconds by session, each session of an engine one start."""
    return [
        made.summary(
            wall, server={"engine": engine}, load={"clients": clients}, repeat=session, varies=("engine", "clients")
        )
        for (engine, clients), walls in values.items()
        for session, wall in enumerate(walls, 1)
    ]


def twenty_cells(difference: float, sd: float, seed: int, sessions: int = 3) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return sweep(
        {
            (engine, clients): (20 * factor * np.exp(sd * random.standard_normal(sessions))).tolist()
            for clients in range(1, 21)
            for engine, factor in (("vllm", 1.0), ("tgi", 1 + difference))
        }
    )


def test_a_pair_borrows_from_the_cells_of_its_sweep() -> None:
    given = twenty_cells(0.1, 0.02, 4)
    records = verdict.verdict_records(pairs.by(given, ("engine",), "tgi"), ("wall_s",), cells=rows.group(given))
    assert {each["method"] for each in records} == {"moderated-welch-log"}
    borrowing = [each["verdict"] for each in records]
    welch = verdict.verdict_records(pairs.by(given, ("engine",), "tgi"), ("wall_s",), method="welch")
    assert borrowing.count("faster") == 20 and [each["verdict"] for each in welch].count("faster") < 15
    # A pair of a sweep of two cells has nobody to borrow from.
    alone = verdict.verdict_records(pairs.by(given[:6], ("engine",), "tgi"), ("wall_s",))
    assert [each["method"] for each in alone] == ["welch-log"]


def test_every_command_borrows_the_same() -> None:
    given = twenty_cells(0.05, 0.02, 5)
    grouped = rows.group(given)
    records = verdict.verdict_records(pairs.by(given, ("engine",), "tgi"), ("wall_s",), cells=grouped)
    (claim,) = claim_table.parse(
        "id\tsweep\tsentence\tmetric\ta\tb\texpect\tstated\tnote\nc\tclients\ts\twall_s\tengine=vllm\tengine=tgi\tA<B\t-\t-\n",
        "t",
    )
    claimed = claims.evaluate(claim, grouped)["comparisons"]
    assert len(claimed) == len(records) == 20
    by_clients = {each["at"]["clients"]: each for each in records}
    for each in claimed:
        effect = by_clients[each["at"]["clients"]]["effect"]
        assert (each["ratio"], each["low"], each["high"]) == (effect["ratio"], effect["low"], effect["high"])
    # Cells of another sweep lend nothing.
    other = Noise(
        [*grouped, *rows.group([made.summary(1.0 + 9 * number, sweep="x", repeat=number) for number in (1, 2)])]
    )
    pair = pairs.by(given, ("engine",), "tgi")[0]
    first = by_clients[pair.at["clients"]]["effect"]
    assert other.effect(pair.a, pair.b, "wall_s").ratio == first["ratio"]  # type: ignore[union-attr]
    assert other.effect(pair.a, pair.b, "wall_s").low == first["low"]  # type: ignore[union-attr]


def test_same_is_corrected_for_many_cells() -> None:
    effect = effects.effect({"1": 100.0, "2": 101.0, "3": 99.0}, {"4": 100.0, "5": 101.0, "6": 99.5})
    assert effect is not None
    alone = effects.same_p_value(effect)
    assert alone is not None and 0.005 < alone < 0.05 and verdict.decide(effect, True) == "same"
    family = [effect, *(effects.effect({"1": 100.0, "2": 130.0}, {"3": 100.0, "4": 70.0}) for _ in range(19))]
    effects.correct(family, "holm")
    assert effect.p_same == pytest.approx(20 * alone) and verdict.decide(effect, True) == "cannot tell"


DAY = 86_400.0


def at(summaries: list[dict[str, Any]], start: float) -> list[dict[str, Any]]:
    for number, each in enumerate(summaries):
        each["started_at"], each["ended_at"] = start + 600 * number, start + 600 * number + 20
        each["session"] += f"@{start}"
    return summaries


def evening(engine: str, factor: float, start: float) -> list[dict[str, Any]]:
    return at(sweep({(engine, 8): [20.0 * factor, 20.1 * factor, 19.9 * factor]}), start)


def test_sides_measured_on_different_evenings_are_never_faster() -> None:
    tonight, last_week = evening("vllm", 1.0, 1.79e9), evening("tgi", 1.2, 1.79e9 - 7 * DAY)
    given = pairs.against(tonight, last_week)
    (record,) = verdict.verdict_records(given, ("wall_s",))
    assert record["verdict"] == "cannot tell" and record["effect"]["ratio"] == pytest.approx(1 / 1.2)
    assert "not measured side by side: 2026-09-21" in record["sentence"] and "2026-09-14" in record["sentence"]
    (allowed,) = verdict.verdict_records(given, ("wall_s",), allow=("times",))
    assert allowed["verdict"] == "faster"
    assert [each["code"] for each in allowed["reasons"]] == ["times"]


def test_one_evening_and_nights_in_turn_are_side_by_side() -> None:
    one, other = evening("vllm", 1.0, 1.79e9), evening("tgi", 1.2, 1.79e9 + 3600)
    assert times.apart(one, other) is None
    nights_a = [each for night in range(3) for each in evening("vllm", 1.0, 1.79e9 + night * DAY)]
    nights_b = [each for night in range(3) for each in evening("tgi", 1.0, 1.79e9 + night * DAY + 3600)]
    assert times.apart(nights_a, nights_b) is None
    assert times.apart(nights_a, evening("tgi", 1.0, 1.79e9 + 5 * DAY)) is not None
    for each in one:
        each["started_at"] = None
    assert times.apart(one, evening("tgi", 1.0, 0.0)) is None


def test_a_claim_over_two_weeks_cannot_tell() -> None:
    given = rows.group([*evening("vllm", 1.0, 1.79e9), *evening("tgi", 1.2, 1.79e9 - 7 * DAY)])
    (claim,) = claim_table.parse(
        "id\tsweep\tsentence\tmetric\ta\tb\texpect\tstated\tnote\nc\tclients\ts\twall_s\tengine=vllm\tengine=tgi\tA<B\t-\t-\n",
        "t",
    )
    record = claims.evaluate(claim, given)
    assert record["verdict"] == "cannot tell" and "not measured side by side" in record["comparisons"][0]["reasons"][0]


def test_an_outlying_session_is_named() -> None:
    given = sweep({("vllm", 8): [20.0, 20.1, 19.9, 20.05, 23.0], ("tgi", 8): [21.0, 21.1, 20.9, 21.05, 21.2]})
    (record,) = verdict.verdict_records(pairs.by(given, ("engine",), "tgi"), ("wall_s",))
    (named,) = [each["message"] for each in record["reasons"] if each["code"] == "outlier"]
    assert "vllm-r5'" in named or "r5'" in named
    assert "of vllm is unlike the others: 23 s, 1.1 times theirs" in named.replace("23.0 s", "23 s")
    alike = sweep({("vllm", 8): [20.0, 20.1, 19.9], ("tgi", 8): [21.0, 21.1, 20.9]})
    (record,) = verdict.verdict_records(pairs.by(alike, ("engine",), "tgi"), ("wall_s",))
    assert "outlier" not in [each["code"] for each in record["reasons"]]


def test_sessions_that_are_alike_are_seldom_named() -> None:
    random = np.random.default_rng(6)
    for sizes in ((3, 3), (5, 5), (3, 5)):
        named = 0
        for _ in range(1500):
            sides = [dict(enumerate(np.exp(0.05 * random.standard_normal(size)))) for size in sizes]
            named += bool(outliers.outlying(sides))
        assert named / 1500 < 0.02  # 1% is promised


def test_few_failures_are_said_beside_the_verdict() -> None:
    given = sweep({("vllm", 8): [20.0, 20.1, 19.9], ("tgi", 8): [24.0, 24.1, 23.9]})
    for each in given[:3]:
        each["n"] |= {"ok": 199, "timeout": 1}
    (record,) = verdict.verdict_records(pairs.by(given, ("engine",), "tgi"), ("wall_s",))
    assert record["verdict"] == "faster"
    assert "note: 3 of 600 requests of vllm failed" in rendered.text([record])
    assert "3 of 600 requests of vllm failed" in rendered.markdown([record])


def test_a_latency_speaks_in_its_own_direction_with_both_values() -> None:
    def latencies(clients: int, values: tuple[float, ...]) -> list[dict[str, Any]]:
        return [made.summary(20.0, load={"clients": clients}, repeat=n, ttft=value) for n, value in enumerate(values)]

    given = [*latencies(1, (0.182, 0.183, 0.181)), *latencies(2, (0.346, 0.347, 0.345))]
    (record,) = verdict.verdict_records(pairs.by(given, ("clients",), "1"), ("ttft_p50_s",))
    assert record["verdict"] == "slower"
    assert record["sentence"].startswith(
        "2 clients is slower than 1 client in TTFT p50: 346 ms against 182 ms, 1.9 times as long (1.9 to 1.9 times, "
    )
    (turned,) = verdict.verdict_records(pairs.by(given, ("clients",), "2"), ("ttft_p50_s",))
    assert "182 ms against 346 ms, 0.53 times as long" in turned["sentence"]
    (few,) = verdict.verdict_records(pairs.by([given[0], given[3]], ("clients",), "1"), ("ttft_p50_s",))
    assert "346 ms against 182 ms, 1.9 times as long" in few["sentence"] and "−" not in few["sentence"]
    close = [*latencies(1, (0.2, 0.201, 0.199)), *latencies(2, (0.22, 0.221, 0.219))]
    (record,) = verdict.verdict_records(pairs.by(close, ("clients",), "1"), ("ttft_p50_s",))
    assert "220 ms against 200 ms, 10% longer (" in record["sentence"]


def test_an_unknown_setting_lists_those_there_are() -> None:
    given = sweep({("vllm", 8): [20.0], ("tgi", 8): [24.0]})
    with pytest.raises(ValueError, match="no cell has a setting 'speed'.*these differ: engine"):
        pairs.by(given, ("speed",), None)
    with pytest.raises(ValueError, match="did you mean launcher"):
        pairs.by(given, ("launchr",), None)


def test_an_interval_wider_than_a_float_is_still_one() -> None:
    effect = effects.effect({"1": 1e-90, "2": 1e90}, {"3": 1e-90, "4": 1e90})
    assert effect is not None and effect.low is not None and effect.high is not None
    assert 0 < effect.low < 1e-200 and 1e200 < effect.high < math.inf


def test_sides_of_uneven_noise_are_known_from_the_other_pairs() -> None:
    assert borrowed.balance([]) == borrowed.balance([1.0, -1.0]) == 1.0
    assert abs(borrowed.balance([math.log(16.0)] * 3) - 17**2 / (2 * (1 + 16**2))) < 1e-12
    a, b = [1.0, 1.01, 0.99, 1.02, 0.98], [1.1, 1.12, 1.09, 1.11, 1.08]
    even, uneven = (effects.welch(a, b, prior=borrowed.Prior(1e-4, 1.0, share)) for share in (1.0, 0.55))
    assert uneven.freedom is not None and even.freedom is not None
    assert abs(uneven.freedom - (1.0 + 0.55 * 8)) < 1e-9 < even.freedom - uneven.freedom
