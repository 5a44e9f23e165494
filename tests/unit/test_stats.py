"""Percentiles, intervals, batches and MSER-5 against slow and obvious versions of themselves."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpar.stats import intervals


def binomial_at_most(count: int, n: int, percent: int) -> Fraction:
    share = Fraction(percent, 100)
    return sum((math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count + 1)), Fraction(0))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.sampled_from(intervals.PERCENTS))
def test_nearest_rank_is_the_smallest_value_with_that_share_at_or_below(values: list[int], percent: int) -> None:
    ordered = sorted(values)
    wanted = next(
        each for each in ordered if sum(1 for value in values if value <= each) * 100 >= percent * len(values)
    )
    assert ordered[intervals.rank(len(values), percent) - 1] == wanted


@pytest.mark.parametrize("percent", intervals.PERCENTS)
@pytest.mark.parametrize("n", [5, 6, 7, 35, 36, 71, 72, 100, 367, 368, 401])
def test_order_statistics_cover_by_exact_binomial_sums(n: int, percent: int) -> None:
    found = intervals.ranks(n, percent)
    exists = 1 - Fraction(percent, 100) ** n >= Fraction(39, 40)
    assert (found is not None) == exists == (n >= intervals.needed(percent))
    if found:
        low, high = found
        covers = binomial_at_most(high - 1, n, percent) - binomial_at_most(low - 1, n, percent)
        assert covers >= Fraction(19, 20)
        assert 1 <= low < high <= n
        # No narrower one by a rank on either side covers enough.
        assert covers - (binomial_at_most(low, n, percent) - binomial_at_most(low - 1, n, percent)) < Fraction(19, 20)
        assert covers - (binomial_at_most(high - 1, n, percent) - binomial_at_most(high - 2, n, percent)) < Fraction(
            19, 20
        )


def test_needed_is_what_the_text_table_says() -> None:
    assert [intervals.needed(percent) for percent in intervals.PERCENTS] == [6, 36, 72, 368]


def test_too_few_values_are_refused_with_the_number_needed() -> None:
    found = intervals.distribution(np.arange(1.0, 31.0))
    assert found is not None
    assert found["p50"]["value"] == 15.0
    assert found["p90"] == {"value": None, "needed": 36}
    assert found["p99"] == {"value": None, "needed": 368}
    assert intervals.distribution(np.zeros(0)) is None


def test_mean_of_few_independent_values_has_students_interval() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = intervals.mean(values)
    half = 3.182446305284263 * values.std(ddof=1) / 2
    assert found["value"] == 4.0
    assert found["low"] == pytest.approx(4 - half) and found["high"] == pytest.approx(4 + half)
    assert intervals.mean(values[:2]) == {"value": 1.5, "low": None, "high": None}


def test_correlated_values_count_for_fewer() -> None:
    random = np.random.default_rng(3)
    steps = np.repeat(random.standard_normal(20), 50) + 0.01 * random.standard_normal(1000)
    shuffled = random.permutation(steps)

    def width(estimate: dict) -> float:
        return estimate["high"] - estimate["low"]

    blocks, mixed = intervals.distribution(steps), intervals.distribution(shuffled)
    assert blocks is not None and mixed is not None
    assert blocks["p50"]["value"] == mixed["p50"]["value"]
    assert width(blocks["mean"]) > 4 * width(mixed["mean"])
    assert width(blocks["p50"]) > 4 * width(mixed["p50"])
    assert blocks["p99"]["value"] is None and blocks["p99"]["needed"] > 1000
    assert mixed["p99"]["value"] is not None


@given(st.lists(st.integers(0, 1000), min_size=50, max_size=200))
@settings(max_examples=60)
def test_mser5_is_the_least_error_of_the_mean_by_brute_force(series: list[int]) -> None:
    means = [Fraction(sum(series[start : start + 5]), 5) for start in range(0, len(series) - len(series) % 5, 5)]

    def error(cut: int) -> Fraction:
        rest = means[cut:]
        mean = sum(rest, Fraction(0)) / len(rest)
        return sum(((each - mean) ** 2 for each in rest), Fraction(0)) / len(rest) ** 2

    errors = [error(cut) for cut in range(len(means) - 5)]
    found = intervals.mser5(np.array(series, dtype=float))
    if found is None:
        # Floating point may break an exact tie between a cut in the first half and one in the second.
        assert min(errors[len(means) // 2 + 1 :], default=Fraction(0)) <= min(errors[: len(means) // 2 + 1]) + Fraction(
            1, 10**6
        )
    else:
        assert found % 5 == 0 and found // 5 <= len(means) // 2
        assert float(errors[found // 5] - min(errors)) <= 1e-6


def test_mser5_cuts_a_ramp_and_refuses_a_slope() -> None:
    random = np.random.default_rng(1)
    ramp = np.concatenate([np.linspace(0, 128, 100), 128 + random.standard_normal(900)])
    found = intervals.mser5(ramp)
    assert found is not None and 90 <= found <= 115
    assert intervals.mser5(np.arange(1000.0)) is None
    assert intervals.mser5(np.ones(20)) is None


def test_mser5_with_a_floor_leaves_small_variations_alone() -> None:
    # One dip in a flat series: the stretch after it varies less, but nothing was ever starting up.
    series = np.full(1000, 8.0)
    series[600:605] = 7.5
    assert intervals.mser5(series[::-1]) == 400 and intervals.mser5(series[::-1], 0.1) == 0
    ramp = np.concatenate([np.linspace(0, 8, 100), np.full(900, 8.0)])
    found = intervals.mser5(ramp, 0.1)
    assert found is not None and 60 <= found <= 100


def test_rate_is_counts_over_time_and_has_no_interval_from_few_steps() -> None:
    counts = np.array([3, 5] * 50)
    found = intervals.rate(counts, 0.5)
    assert found["value"] == 8.0 and found["low"] <= 8.0 <= found["high"]
    assert intervals.rate(counts[:10], 0.5) == {"value": 8.0, "low": None, "high": None}
    assert intervals.rate(np.zeros(0, dtype=int), 0.5)["value"] is None


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 5)), min_size=1, max_size=50))
def test_histogram_is_a_sorted_list(pairs: list[tuple[int, int]]) -> None:
    counts: dict[int, int] = {}
    for value, count in pairs:
        counts[value] = counts.get(value, 0) + count
    values = sorted(counts)
    histogram = intervals.Histogram(np.array(values), np.array([counts[value] for value in values]))
    plain = sorted(value for value, count in pairs for _ in range(count))
    assert histogram.total == len(plain)
    assert histogram.mean() == sum(plain) / len(plain)
    for percent in intervals.PERCENTS:
        assert histogram.percentile(percent) == plain[intervals.rank(len(plain), percent) - 1]
