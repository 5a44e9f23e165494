"""What the statistics promise, checked by seeded simulation with known truth. The full table is `bench/simulate`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))

import simulation  # noqa: E402

TRIALS = 400
# Three standard errors of a share of 0.95 over 400 trials around the promised 93 to 97 %.
SLACK = 3 * (0.95 * 0.05 / TRIALS) ** 0.5


def test_intervals_cover_the_truth_93_to_97_times_in_100() -> None:
    rows = list(simulation.coverage(TRIALS))
    assert len(rows) == 33
    wrong = [f"{row.what} {row.figure}: {row.covered:.3f}" for row in rows if not 0.93 - SLACK <= row.covered <= 0.97 + SLACK]
    assert not wrong
    # Over all kinds of data together chance is small, so the promise holds as it stands.
    assert 0.93 <= sum(row.covered for row in rows) / len(rows) <= 0.97
    # Only tails of correlated data are refused, and most even of those are answered.
    assert all(row.given == 1.0 for row in rows if row.figure in ("mean", "p50", "p90", "rate"))
    assert all(row.given > 0.6 for row in rows)


@pytest.fixture(scope="module")
def alarms() -> list[simulation.Alarm]:
    return list(simulation.alarms(1000))


def test_equal_sides_are_called_different_at_most_5_times_in_100(alarms: list[simulation.Alarm]) -> None:
    equal = [each for each in alarms if each.difference == 0]
    assert len(equal) == 9
    assert [f"{each.what} {each.different:.3f}" for each in equal if each.different > 0.05] == []


def test_5_per_cent_is_found_with_5_sessions_of_1_per_cent_noise(alarms: list[simulation.Alarm]) -> None:
    found = [each for each in alarms if (each.difference, each.sessions, each.noise) == (0.05, 5, 0.01)]
    assert len(found) == 3
    assert all(each.verdicts["faster"] > 0.9 and each.verdicts["slower"] == 0 for each in found)


def test_holm_controls_false_alarms_over_a_sweep() -> None:
    wrong = simulation.many_cells(200)
    assert wrong["holm"] <= 0.05 + 0.03 and wrong["none"] > 0.4
