"""Percentiles, intervals, batches and the steady span against slow and obvious versions of themselves."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpar.stats import intervals, order_statistics, steady


def binomial_at_most(count: int, n: int, percent: int) -> Fraction:
    share = Fraction(percent, 100)
    return sum((math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count + 1)), Fraction(0))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.sampled_from(intervals.PERCENTS))
def test_nearest_rank_is_the_smallest_value_with_that_share_at_or_below(values: list[int], percent: int) -> None:
    ordered = sorted(values)
    wanted = next(
        each for each in ordered if sum(1 for value in values if value <= each) * 100 >= percent * len(values)
    )
    assert ordered[order_statistics.rank(len(values), percent) - 1] == wanted


@pytest.mark.parametrize("percent", intervals.PERCENTS)
@pytest.mark.parametrize("n", [5, 6, 7, 35, 36, 71, 72, 100, 367, 368, 401])
def test_order_statistics_cover_by_exact_binomial_sums(n: int, percent: int) -> None:
    found = order_statistics.ranks(n, percent)
    exists = 1 - Fraction(percent, 100) ** n >= Fraction(39, 40)
    assert (found is not None) == exists == (n >= order_statistics.needed(percent))
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
    assert [order_statistics.needed(percent) for percent in intervals.PERCENTS] == [6, 36, 72, 368]


def test_too_few_values_keep_the_value_and_say_how_many_an_interval_needs() -> None:
    found = intervals.distribution(np.arange(1.0, 31.0))
    assert found is not None
    assert found["p50"]["value"] == 15.0 and found["p50"]["needed"] is None
    assert found["p90"] == {"value": 27.0, "low": None, "high": None, "at_least": 24.0, "at_most": 30.0, "needed": 36}
    assert found["p99"] == {"value": 30.0, "low": None, "high": None, "at_least": 29.0, "at_most": None, "needed": 368}
    assert intervals.distribution(np.zeros(0)) is None


@pytest.mark.parametrize("percent", intervals.PERCENTS)
@pytest.mark.parametrize("n", [3, 4, 5, 28, 29, 30, 58, 59, 60, 150, 298, 299, 300])
def test_one_sided_bounds_hold_by_exact_binomial_sums(n: int, percent: int) -> None:
    low, high = order_statistics.one_sided_ranks(n, percent)
    # 59 values suffice for p95: the largest lies below it only with probability 0.95 ** 59.
    assert (high is not None) == (1 - Fraction(percent, 100) ** n >= Fraction(19, 20))
    assert (low is not None) == (1 - Fraction(100 - percent, 100) ** n >= Fraction(19, 20))
    if high is not None:
        assert binomial_at_most(high - 1, n, percent) >= Fraction(19, 20) > binomial_at_most(high - 2, n, percent)
    if low is not None:
        assert binomial_at_most(low - 1, n, percent) <= Fraction(1, 20) < binomial_at_most(low, n, percent)
    # As shares of an effective number of values: not the same, but near.
    for rank, share in zip((low, high), order_statistics.one_sided(percent, n), strict=True):
        assert (rank is None) == (share is None)
        assert rank is None or share is None or abs(share * n - rank) <= 3


@given(st.lists(st.floats(0, 100), min_size=1, max_size=500), st.booleans())
@settings(max_examples=60)
def test_a_higher_percentile_never_needs_fewer_values_and_no_interval_reaches_below_0(
    values: list[float], ordered: bool
) -> None:
    # In ascending order neighbours are as correlated as can be.
    found = intervals.distribution(np.array(sorted(values) if ordered else values))
    assert found is not None
    estimates = [found[f"p{percent}"] for percent in intervals.PERCENTS]
    needs = [each["needed"] or 0 for each in estimates]
    assert needs == sorted(needs)
    assert all(need > len(values) for need in needs if need)
    assert found["mean"]["low"] is None or found["mean"]["low"] >= 0
    for each in estimates:
        bounds = [each[name] for name in ("low", "at_least", "value", "at_most", "high") if each[name] is not None]
        assert bounds == sorted(bounds) and bounds[0] >= 0


def test_mean_of_few_independent_values_has_students_interval() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = intervals.mean(values)
    half = 3.182446305284263 * values.std(ddof=1) / 2
    assert found["value"] == 4.0
    assert found["low"] == max(0, 4 - half) and found["high"] == pytest.approx(4 + half)
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
    assert blocks["p99"]["low"] is None and blocks["p99"]["needed"] > 1000
    assert blocks["p99"]["value"] == mixed["p99"]["value"] and mixed["p99"]["low"] is not None


@given(st.lists(st.integers(0, 1000), min_size=50, max_size=90), st.sampled_from([0, Fraction(1, 10)]))
@settings(max_examples=40, deadline=None)
def test_the_steady_span_has_the_least_relative_error_by_brute_force(series: list[int], floor: Fraction) -> None:
    means = [Fraction(sum(series[start : start + 5]), 5) for start in range(0, len(series) - len(series) % 5, 5)]
    level = Fraction(sum(each * each for each in series), max(sum(series), 1))

    def error(start: int, end: int) -> Fraction | None:
        part = means[start:end]
        mean = sum(part, Fraction(0)) / len(part)
        if not mean or mean < level / 2:
            return None
        variance = sum(((each - mean) ** 2 for each in part), Fraction(0)) / len(part)
        return (variance / mean**2 + floor**2) / len(part)

    errors = {
        (start, end): found
        for start in range(len(means))
        for end in range(start + 10, len(means) + 1)
        if (found := error(start, end)) is not None
    }
    chosen = steady.span(np.array(series), float(floor))
    if chosen is None:
        assert not errors or sum(series) == 0
        return
    start, end = chosen[0] // 5, chosen[1] // 5
    assert chosen == (5 * start, 5 * end)
    assert float(errors[start, end] - min(errors.values())) <= 1e-9


def test_the_steady_span_leaves_ramp_drain_and_stragglers_out() -> None:
    random = np.random.default_rng(1)
    level = 128 + random.standard_normal(900)
    series = np.concatenate([np.linspace(0, 128, 100), level, np.linspace(128, 2, 60), np.full(940, 1.0)])
    found = steady.span(series, 0.1)
    assert found is not None and 85 <= found[0] <= 105 and 990 <= found[1] <= 1010
    within = steady.span(series, 0.1, 200, 700)
    assert within == (200, 700)
    assert steady.span(np.zeros(1000), 0.1) is None
    assert steady.span(np.ones(40), 0.1) is None


def test_one_dip_does_not_cut_a_flat_series() -> None:
    series = np.full(1000, 8.0)
    series[600:605] = 7.5
    least = steady.span(series, 0.0)
    assert least is not None and (least[1] <= 600 or least[0] >= 605)
    assert steady.span(series, 0.1) == (0, 1000)


def test_drift_is_a_change_beyond_chance() -> None:
    noise = np.random.default_rng(1).poisson(100, 500)
    assert steady.drift(noise) == 0.0
    falling = np.random.default_rng(1).poisson(np.linspace(120, 80, 500))
    assert steady.drift(falling) == pytest.approx(-0.4, abs=0.05)
    assert steady.drift(falling[::-1]) == pytest.approx(0.4, abs=0.05)
    assert steady.drift(np.zeros(500)) == 0.0 and steady.drift(np.ones(5)) == 0.0


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
        assert histogram.percentile(percent) == plain[order_statistics.rank(len(plain), percent) - 1]


def test_unevenness_is_of_the_level_and_not_of_the_values() -> None:
    random = np.random.default_rng(3)
    tailed = np.exp(1.5 * random.standard_normal(500))  # standard deviation 2.9 times the mean
    assert steady.unevenness(tailed) < 0.3
    queue = np.ones(500)
    queue[200:300] = 5.0
    assert steady.unevenness(queue) == pytest.approx(1.6 / 1.8 * np.sqrt(10 / 9))
    assert steady.unevenness(np.zeros(100)) == steady.unevenness(np.ones(5)) == 0.0
