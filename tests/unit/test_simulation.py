"""What the statistics promise, checked by seeded simulation with known truth. The full table is `bench/simulate`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))

import batch_server  # noqa: E402
import simulation  # noqa: E402

from llmpar.stats import effects  # noqa: E402

TRIALS = 1000


def test_intervals_cover_the_truth_93_to_97_times_in_100() -> None:
    rows = list(simulation.coverage(TRIALS))
    assert len(rows) == 43
    assert [f"{row.what} {row.figure}: {row.covered:.3f}" for row in rows if not 0.93 <= row.covered <= 0.97] == []
    # Only tails are refused, and most even of those of correlated data are answered.
    assert all(row.given == 1.0 for row in rows if row.figure in ("mean", "p50", "rate"))
    assert all(row.given > 0.99 for row in rows if row.figure in ("p90", "p95"))
    assert all(row.given > 0.75 for row in rows)


@pytest.mark.parametrize(("clients", "requests", "trials"), [(24, 500, 12), (128, 1000, 4)])
def test_runs_of_a_batch_server_say_what_it_does_in_the_long_run(clients: int, requests: int, trials: int) -> None:
    scenario = batch_server.Scenario(requests, clients)
    found = batch_server.trials(scenario, trials)
    rows = {row.figure: row for row in batch_server.rows(scenario, found, batch_server.truth(scenario))}
    assert all(each["steady"] and not each["limited"] and not each["warnings"] for each in found)
    # Three standard errors of a share of 0.9 below it.
    least = 0.9 - 3 * (0.9 * 0.1 / trials) ** 0.5
    for figure in ("TTFT mean", "TTFT p50", "TTFT p90", "TPOT mean", "tokens/s"):
        row = rows[figure]
        assert abs(row.ratio - 1) <= 0.03 and row.covered >= least and row.given == 1.0, row
    # The burst of the first prompts, which all requests together still hold.
    assert rows["TTFT mean"].whole_ratio > 1.05


@pytest.mark.parametrize("fixed", [False, True])
def test_a_slow_launcher_is_named_and_a_quick_one_is_not(fixed: bool) -> None:
    for delay, limited in ((0.002, False), (0.4, True)):
        found = batch_server.trials(batch_server.Scenario(500, 128, fixed=fixed, delay_s=delay), 2)
        assert [each["limited"] for each in found] == [limited] * 2


def test_equal_answers_are_a_convoy_and_an_overload_is_not_steady() -> None:
    assert "convoy" in batch_server.trials(batch_server.Scenario(1000, 64, fixed=True), 1)[0]["warnings"]
    assert not batch_server.trials(batch_server.Scenario(1000, rate=1.2), 1)[0]["steady"]


def test_a_short_open_load_has_values_and_says_how_long_it_must_be() -> None:
    found = batch_server.summary(batch_server.Scenario(300, rate=0.7), 1)
    assert not found["window"]["steady"]
    wanted = re.search(r"; run longer: at least (\d+) requests, (\d+) s$", found["window"]["reason"])
    assert wanted and 1000 < int(wanted[1]) < 2000 and 30 < int(wanted[2]) < 90
    for figure in ("ttft_s", "e2e_s"):
        estimate = found["latency"][figure]["p50"]
        assert estimate["value"] > 0 and estimate["low"] is None and estimate["needed"] == int(wanted[1])


def test_equal_runs_are_called_the_same_or_not_told_apart() -> None:
    assert simulation.same_runs(300, sessions=3, pool=60)["any"] <= 0.05


def test_nights_in_which_nothing_changed() -> None:
    found = simulation.nights(300)
    assert all(share <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5 for share in found.values())


@pytest.fixture(scope="module")
def alarms() -> list[simulation.Alarm]:
    return list(simulation.alarms(1000))


def test_equal_sides_are_called_different_at_most_5_times_in_100(alarms: list[simulation.Alarm]) -> None:
    equal = [each for each in alarms if each.difference == 0]
    assert len(equal) == 20
    assert [f"{each.what} {each.different:.3f}" for each in equal if each.different > 0.05] == []
    # Not because nothing is ever called different: where noise exceeds the margin, the rate is near its bound.
    assert max(each.different for each in equal) > 0.03


def test_a_difference_of_the_margin_is_called_the_same_about_5_times_in_100(alarms: list[simulation.Alarm]) -> None:
    assert effects.MARGIN == 0.03
    found = [each for each in alarms if each.difference == 0.03]
    assert len(found) == 8
    assert all(
        each.verdicts["same"] <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5 and each.verdicts["slower"] == 0
        for each in found
    )


def test_5_per_cent_is_found_with_5_sessions_of_1_per_cent_noise(alarms: list[simulation.Alarm]) -> None:
    found = [each for each in alarms if (each.difference, each.sessions, each.noise) == (0.05, 5, 0.01)]
    assert len(found) == 4
    assert all(each.verdicts["faster"] > 0.9 and each.verdicts["slower"] == 0 for each in found)


def test_holm_controls_false_alarms_over_a_sweep() -> None:
    wrong = simulation.many_cells(200)
    assert wrong["holm"] <= 0.05 + 0.03 and wrong["none"] > 0.4


def test_the_interval_of_a_break_even_length_holds_the_true_one() -> None:
    import break_evens

    for sessions, shared in ((2, False), (3, False), (3, True)):
        row = break_evens.line(300, 2.2, 1.0, 0.02, sessions, shared)
        assert float(row[2].rstrip("%")) >= 91 and row[3] == "100%", row


def test_the_knee_is_among_the_loads_that_are_said() -> None:
    import sweep_simulation

    exact, held, loads = sweep_simulation.knees(200, sessions=3, noise=0.01, half=12.0)
    assert held >= 0.95 and 1 <= loads <= 4 and exact > 0.5
