"""Ratios between cells: intervals hold the truth as often as they say, paired or not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmpar.stats.effects import effect

TRIALS = 1000


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("sessions", [3, 5])
def test_interval_holds_the_truth_as_often_as_it_says(paired: bool, sessions: int):
    random = np.random.default_rng(7)
    truth, held = 0.95, 0
    for _ in range(TRIALS):
        shared = random.normal(0, 0.05, sessions) if paired else np.zeros(sessions)
        a = {str(index): 10 * truth * math.exp(shared[index] + random.normal(0, 0.01)) for index in range(sessions)}
        other = range(sessions) if paired else range(100, 100 + sessions)
        b = {str(name): 10 * math.exp(shared[index] + random.normal(0, 0.01)) for index, name in enumerate(other)}
        one = effect(a, b)
        assert one.method == ("paired-log" if paired else "welch-log")
        held += one.low <= truth <= one.high
    # Three standard errors of a binomial share; Welch is a little wide with few sessions.
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / TRIALS) <= held / TRIALS <= 0.985


def test_turning_the_sides_turns_the_interval():
    a, b = {"1": 10.0, "2": 11.0}, {"3": 20.0, "4": 19.0, "5": 21.0}
    one, other = effect(a, b), effect(b, a)
    assert one.ratio == pytest.approx(1 / other.ratio)
    assert (one.low, one.high) == (pytest.approx(1 / other.high), pytest.approx(1 / other.low))


def test_too_few_sessions_give_no_interval_and_zero_no_ratio():
    assert effect({"1": 10.0}, {"1": 20.0}).low is None
    assert effect({"1": 10.0}, {"1": 20.0}).ratio == pytest.approx(0.5)
    assert effect({}, {"1": 20.0}) is None
    assert effect({"1": 0.0}, {"1": 20.0}) is None


def test_wider_confidence_is_wider():
    a, b = {"1": 10.0, "2": 11.0, "3": 10.5}, {"4": 20.0, "5": 19.0, "6": 21.0}
    wide, usual = effect(a, b, confidence=0.99), effect(a, b)
    assert wide.low < usual.low < usual.high < wide.high
