"""Send times: what each process promises, whatever its seed."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmpar.client import arrivals

rates = st.floats(0.01, 1e4)
counts = st.integers(1, 300)
ALPHA = 1e-6  # of a test that fails by chance; the seeds are fixed besides


@given(st.sampled_from(arrivals.PROCESSES), counts, rates, st.integers(0, 2**63), st.floats(0.1, 10), rates)
def test_times_are_in_order_repeatable_and_scale_with_the_rate(process, count, rate, seed, shape, to):
    found = arrivals.offsets(process, count, rate, seed, shape, to)
    assert len(found) == count and found == sorted(found) and found[0] >= 0 and all(map(math.isfinite, found))
    assert arrivals.offsets(process, count, rate, seed, shape, to) == found
    twice = arrivals.offsets(process, count, 2 * rate, seed, shape, 2 * to)
    assert twice == pytest.approx([at / 2 for at in found], rel=1e-9, abs=1e-12)
    # A longer plan begins with the shorter one, but for a ramp, whose slope is spread over its length.
    if process != "ramp":
        assert arrivals.offsets(process, count + 5, rate, seed, shape, to)[:count] == found


@given(counts, rates)
def test_constant_is_even_and_starts_at_once(count, rate):
    assert arrivals.offsets("constant", count, rate) == [k / rate for k in range(count)]


@given(st.integers(2, 300), rates, rates)
def test_ramp_passes_the_integral_of_its_rate(count, rate, to):
    found = arrivals.offsets("ramp", count, rate, to=to)
    length = 2 * count / (rate + to)
    for k, at in enumerate(found):
        assert rate * at + (to - rate) * at * at / (2 * length) == pytest.approx(k, rel=1e-6, abs=1e-6)
    assert found[-1] < length
    gaps = np.diff(found)
    wrong = np.diff(gaps) * (1 if to > rate else -1)
    assert (wrong <= 1e-9 * length).all(), "gaps shrink where the rate rises"


@pytest.mark.parametrize("process,shape", [("poisson", 1.0), ("gamma", 1.0), ("gamma", 0.25), ("gamma", 4.0)])
def test_gaps_follow_their_distribution(process, shape):
    gaps = np.diff([0.0, *arrivals.offsets(process, 20000, 8.0, seed=3, shape=shape)])
    assert stats.kstest(gaps, "gamma", args=(shape, 0, 1 / (8 * shape))).pvalue > ALPHA
    assert gaps.mean() == pytest.approx(1 / 8, rel=6 / math.sqrt(shape * 20000))
    assert gaps.std() / gaps.mean() == pytest.approx(1 / math.sqrt(shape), rel=0.1)
    # Independent: the correlation of neighbours is within six standard errors of 0.
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 6 / math.sqrt(len(gaps))


def test_seeds_differ():
    assert arrivals.offsets("poisson", 5, 1, 1) != arrivals.offsets("poisson", 5, 1, 2)
    # The very numbers: a plan that was published can be drawn again.
    assert arrivals.offsets("poisson", 3, 1.0, 0) == pytest.approx([1.860607, 3.279236, 3.824949], abs=1e-6)


@given(st.lists(st.floats(0, 2e9), min_size=1, max_size=50))
def test_a_trace_is_sorted_and_starts_at_nought(times):
    found = arrivals.trace([f"{at!r},x\n" for at in times], "t")
    assert found == [at - min(times) for at in sorted(times)]
    scaled = arrivals.scaled(found, 5.0)
    if found[-1] > 0:
        assert (len(found) - 1) / scaled[-1] == pytest.approx(5.0)


@pytest.mark.parametrize(
    "lines,expected",
    [
        (
            ["TIMESTAMP,ContextTokens\n", "2023-11-16 18:17:03.9799600,4\n", "2023-11-16 18:17:04.0319600,3\n"],
            [0, 0.052],
        ),
        (["2023-11-16T18:00:00Z\n", "2023-11-16T20:00:01+02:00\n"], [0, 1]),
        (["Timestamp;Model\n", "45.5;x\n", "\n", "5;y\n"], [0, 40.5]),
        (["7\t3"], [0]),
        ([], []),
        (["header only\n"], []),
    ],
)
def test_traces_of_others(lines, expected):
    assert arrivals.trace(lines, "t") == pytest.approx(expected, abs=1e-6)


def test_a_bad_line_is_named():
    for bad in ("oops", "nan", "inf", "2023-13-45"):
        with pytest.raises(arrivals.BadTrace, match="cannot read 't' line 3"):
            arrivals.trace(["1\n", "2\n", f"{bad}\n"], "t")


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["llmpar-arrivals", *arguments], input=given, capture_output=True, text=True, timeout=60)


def test_command_writes_a_table_of_times_and_prompts():
    done = run("--rate", "10", "--process", "constant", "--start", "100", "-n", "5", "a", "b c", "ü")
    assert done.stdout == "100.000000\ta\n100.100000\tb c\n100.200000\tü\n100.300000\ta\n100.400000\tb c\n"
    assert (
        run("--rate", "10", "--start", "0", "--seed", "7", "a").stdout
        == run("--rate", "10", "--start", "0", "--seed", "7", "a").stdout
    )
    assert (
        run("--trace", "-", "--start", "0", "--rate", "2", "a", given="5\n6\n9\n").stdout
        == "0.000000\ta\n0.250000\ta\n1.000000\ta\n"
    )


@pytest.mark.parametrize(
    "arguments,code,words",
    [
        ([], 2, "no rate is given"),
        (["--rate", "1"], 2, "no prompt file is named"),
        (["--rate", "0", "p"], 2, "--rate"),
        (["--rate", "nan", "p"], 2, "finite"),
        (["--rate", "1", "a\tb"], 2, "holds a tab"),
        (["--rate", "1", "--start", "soon", "p"], 2, "'soon' is not an instant"),
        (["--trace", "none", "p"], 2, "cannot read 'none'"),
        (["--trace", "bad", "p"], 3, "line 2"),
        (["--trace", "-", "p"], 6, "holds no times"),
    ],
)
def test_command_says_what_is_wrong(arguments, code, words):
    Path("bad").write_text("1\nx\n")
    done = run(*arguments)
    assert done.returncode == code and words in done.stderr and done.stdout == "" and "Traceback" not in done.stderr


def test_json_lines_with_milliseconds():
    lines = ['{"timestamp": 27482, "input_length": 6955}\n', '{"timestamp": 30535, "hash_ids": [1]}\n']
    assert arrivals.trace(lines, "t") == pytest.approx([0.0, 3.053])
    for bad in ('{"timestamp": "x"}', '{"time": 1}', "{", '{"timestamp": NaN}', '{"timestamp": true}'):
        with pytest.raises(arrivals.BadTrace, match="line 2: no JSON object with a timestamp"):
            arrivals.trace([lines[0], bad], "t")
