"""Summaries against a slow and obvious one, and their independence of order and split."""

from __future__ import annotations

import errno
import io
import json
import math
import pickle
import random
import tempfile
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_requests import START, failed, request

from llmpar import records
from llmpar.render import summaries
from llmpar.stats import intervals, order_statistics
from llmpar.summary import columns, read, spill, summariser, tally
from llmpar.summary import read as summary_read
from llmpar.summary.summariser import Summariser


def summarise(given_records: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    summariser = Summariser()
    read.feed_records(summariser, given_records)
    return summariser.summary(**options)


def micro(seconds: float) -> int:
    return round(seconds * 1e6)


# Slow and obvious: one list a figure, straight from the definitions of docs/metrics.md.
def reference(given_records: list[dict[str, Any]]) -> dict[str, Any]:
    ok = [each for each in given_records if each["status"] == "ok"]
    itl, event, tpot, good = [], [], [], 0
    for each in ok:
        times = [micro(at) for at in each["event_s"]]
        gaps = [max(after - before, 0) for before, after in zip(times, times[1:], strict=False)]
        event += gaps
        tokens = each["event_tokens"]
        if tokens is None:
            if abs(each["output_tokens"] - len(times)) <= max(1, each["output_tokens"] // 20):
                itl += gaps
        else:
            carried = 0
            for gap, count in zip(gaps, tokens[1:], strict=True):
                carried += gap
                if count:
                    itl += [math.floor(carried / count + 0.5)] * count
                    carried = 0
        if tokens is None and not abs(each["output_tokens"] - len(times)) <= max(1, each["output_tokens"] // 20):
            begun = max(each["output_tokens"] // len(times), 1) if times else 1
        else:
            begun = 1 if tokens is None or set(tokens) == {1} else tokens[0]
        if each["output_tokens"] - begun >= 1 and each["ttft_s"] is not None:
            tpot.append((micro(each["e2e_s"]) - micro(each["ttft_s"])) / 1e6 / (each["output_tokens"] - begun))
        good += each["ttft_s"] is not None and each["ttft_s"] <= 0.2
    ends = [micro(each["sent_at"]) + micro(each["e2e_s"]) for each in given_records]
    starts = [micro(each["sent_at"]) for each in given_records]
    wall = (max(ends) - min(micro(each["launched_at"]) for each in given_records)) / 1e6
    first, last = min(starts), max(starts)
    flying = sum(max(0, min(end, last) - max(start, first)) for start, end in zip(starts, ends, strict=True))
    return {
        "ttft_s": [each["ttft_s"] for each in ok if each["ttft_s"] is not None],
        "e2e_s": [each["e2e_s"] for each in ok],
        "itl_s": [gap / 1e6 for gap in itl],
        "event_latency_s": [gap / 1e6 for gap in event],
        "tpot_s": tpot,
        "wall_s": wall,
        "output": sum(each["output_tokens"] for each in ok),
        "good": good,
        "achieved": flying / (last - first) if last > first else None,
        "peak": max(sum(start <= at < end for start, end in zip(starts, ends, strict=True)) for at in starts),
    }


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    number, sent = draw(st.integers(0, 10**6)), draw(st.integers(0, 20_000_000)) / 1e6
    if draw(st.integers(0, 9)) == 0:
        return failed(number, sent, draw(st.sampled_from(["error", "timeout", "cancelled"])))
    gaps = draw(st.lists(st.integers(0, 400_000), min_size=1, max_size=8))
    events = tuple(sum(gaps[: place + 1]) / 1e6 for place in range(len(gaps)))
    kind = draw(st.sampled_from(["one", "one", "many", "unknown", "none"]))
    tokens: list[int] | None = [1] * len(events)
    if kind == "many":
        tokens = draw(st.lists(st.integers(0, 4), min_size=len(events), max_size=len(events)))
    elif kind != "one":
        tokens = None
    fields: dict[str, Any] = {}
    if kind == "unknown":
        fields["output_tokens"] = draw(st.integers(1, 20))
    if kind == "none":
        return request(
            number, sent, (), event_tokens=None, output_tokens=5, ttft_s=None, e2e_s=draw(st.integers(1, 10**6)) / 1e6
        )
    return request(number, sent, events, event_tokens=tokens, **fields)


@given(st.lists(requests(), min_size=1, max_size=40))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_summary_agrees_with_the_reference(made: list[dict[str, Any]]) -> None:
    found, wanted = summarise(made, objectives={"ttft": 0.2}), reference(made)
    for name in ("ttft_s", "e2e_s", "itl_s", "event_latency_s", "tpot_s"):
        values, figure = sorted(wanted[name]), found["latency_run"][name]
        if not values:
            assert figure is None, name
            continue
        assert figure["n"] == len(values)
        assert figure["min"] == pytest.approx(values[0], abs=1e-9) and figure["max"] == pytest.approx(
            values[-1], abs=1e-9
        )
        assert figure["mean"]["value"] == pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=1e-12)
        if name in ("ttft_s", "e2e_s", "tpot_s"):  # a failed request is infinitely long
            values += [math.inf] * sum(each["status"] in ("error", "timeout") for each in made)
        for percent in intervals.PERCENTS:
            estimate = figure[f"p{percent}"]
            value = values[order_statistics.rank(len(values), percent) - 1]
            if math.isinf(value):
                assert estimate["failed"] and estimate["value"] is None and estimate["high"] is None
                continue
            assert estimate["value"] == pytest.approx(value, abs=1e-9)
            enclosing = order_statistics.ranks(len(values), percent)
            if enclosing and math.isinf(values[enclosing[1] - 1]):
                assert estimate["low"] is None and estimate["high"] is None
                # The one-sided bound lies at a lower rank, which a time may still have.
                most = values[(order_statistics.one_sided_ranks(len(values), percent)[1] or len(values)) - 1]
                assert estimate["at_most"] == (None if math.isinf(most) else pytest.approx(most, abs=1e-9))
                continue
            assert (estimate["low"] is None) == (estimate["high"] is None) == (estimate["needed"] is not None)
            if estimate["low"] is not None:
                assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"]
            if name in ("ttft_s", "e2e_s", "tpot_s"):
                assert (estimate["low"] is None) == (enclosing is None)
                if enclosing:
                    assert estimate["low"] == pytest.approx(values[enclosing[0] - 1])
                    assert estimate["high"] == pytest.approx(values[enclosing[1] - 1])
                else:
                    assert estimate["needed"] == order_statistics.needed(percent)
    assert found["wall_s"]["value"] == pytest.approx(wanted["wall_s"], abs=1e-6)
    assert found["concurrency"]["peak"] == wanted["peak"]
    if wanted["achieved"] is None:
        assert found["concurrency"]["achieved"] is None
    else:
        assert found["concurrency"]["achieved"] == pytest.approx(wanted["achieved"])
    ok = found["n"]["ok"]
    if ok:
        assert found["tokens"]["output"] == wanted["output"]
        assert found["throughput"]["output_tokens_per_s"]["wall"]["value"] == pytest.approx(
            wanted["output"] / wanted["wall_s"]
        )
    assert found["goodput"]["met"] == wanted["good"]


def test_a_server_that_times_out_on_its_slowest_is_not_faster() -> None:
    """0.9% of timeouts leave p99 where it was; a percentile that lies among failures has no value and says so."""
    made = [request(number, number * 0.1, (0.1 + number * 1e-4,)) for number in range(2000)]
    whole = summarise(made)["latency_run"]["ttft_s"]
    cut = [failed(number, number * 0.1, "timeout") if number >= 1982 else each for number, each in enumerate(made)]
    summary = summarise(cut)
    figure = summary["latency_run"]["ttft_s"]
    assert figure["p99"]["value"] == whole["p99"]["value"] and figure["p50"]["value"] == whole["p50"]["value"]
    assert summary["latency_failures"] == "infinite" and figure["n"] == 1982
    many = [failed(number, number * 0.1, "timeout") if number % 10 == 0 else each for number, each in enumerate(made)]
    figure = summarise(many)["latency_run"]["ttft_s"]
    assert figure["p95"]["failed"] and figure["p95"]["value"] is None and figure["p50"]["value"] is not None


def test_the_hash_of_prompts_knows_their_shares() -> None:
    def hashes(short: int, long: int) -> dict[str, Any]:
        made = [
            request(number, number * 0.1, prompt_sha256=str(int(number < short)) * 64) for number in range(short + long)
        ]
        return summarise(made)["workload"]["prompts"]

    assert hashes(90, 10)["shares_sha256"] != hashes(10, 90)["shares_sha256"]
    assert hashes(90, 10)["shares_sha256"] == hashes(180, 20)["shares_sha256"]
    assert hashes(90, 10)["sha256"] == hashes(10, 90)["sha256"]


@given(st.lists(requests(), min_size=1, max_size=60), st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_bytes_do_not_depend_on_order_or_split(made: list[dict[str, Any]], shuffle: random.Random, parts: int) -> None:
    once = records.encode(summarise(made))
    mixed = list(made)
    shuffle.shuffle(mixed)
    summariser = Summariser()
    for part in range(parts):
        other = Summariser()
        lines = b"".join(records.encode(each) for each in mixed[part::parts])
        if part % 2:
            read.feed(summariser, io.BytesIO(lines), "x")
        else:
            read.feed(other, io.BytesIO(lines), "x")
            summariser.merge(other)
    assert records.encode(summariser.summary()) == once


@given(st.lists(requests(), min_size=1, max_size=60), st.integers(1, 5), st.integers(0, 3000))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_columns_in_a_file_give_the_same_bytes(made: list[dict[str, Any]], parts: int, held: int) -> None:
    once = records.encode(summarise(made))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "HELD_BYTES", held)
        patch.setattr(columns, "LEAST_BYTES", 0)
        filed = Summariser()
        for part in range(parts):
            other = filed.another()
            read.feed_records(other, made[part::parts])
            filed.merge(pickle.loads(pickle.dumps(other)))  # as from a process of its own
        assert records.encode(filed.summary()) == once
        assert held or filed.columns.spill is not None


def feed_lines(lines: bytes) -> Summariser:
    made = Summariser()
    read.feed(made, io.BytesIO(lines), "x")
    return made


@pytest.mark.parametrize(("lines", "counted"), [("A B", 1), ("AB", 1), ("A\n\n\nBC", 2)])
def test_two_records_in_a_line_are_one_that_was_torn(lines: str, counted: int) -> None:
    made = {ord(name): records.encode(request(number)).decode().strip() for number, name in enumerate("ABC")}
    found = feed_lines((lines.translate(made) + "\n").encode())
    assert found.torn == 1 and found.columns.counts.total() == counted


@pytest.mark.parametrize(
    ("length", "count"), [(1, 1), (1, 16), (15, 1), (15, 15), (15, 300), (16, 1), (16, 15), (16, 300), (70000, 2)]
)
def test_instants_of_lists_of_one_length_are_those_of_any(length: int, count: int) -> None:
    """Lists of one length are read by another way; whole numbers among them are numbers too."""
    instants = tuple(round(0.001 * place * (1 + place % 2), 6) if length < 100 else 1 for place in range(1, length + 1))
    alike = [request(n, n * 0.01, instants, event_tokens=[1] * length, output_tokens=length) for n in range(count)]
    longer = request(count, 3.0, (*instants, instants[-1] + 1), event_tokens=[1] * (length + 1))
    found = feed_lines(b"".join(map(records.encode, alike)))
    assert records.encode(found.summary()) == records.encode(summarise(alike))
    mixed = feed_lines(b"".join(map(records.encode, [*alike, longer])))
    steps = [part.steps.tolist() for each in (found, mixed) for part in each.columns.single._each()]
    assert steps[1][: len(steps[0])] == steps[0] and len(steps[1]) == len(steps[0]) + length + 1


def test_a_record_in_two_lines_is_none() -> None:
    broken = records.encode(request(2)).replace(b",", b",\n", 1)
    with pytest.raises(records.BadRecord, match=r"'x' line 3\b"):
        feed_lines(records.encode(request(1)) + broken)


@given(st.lists(requests(), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_spaces_in_a_record_mean_nothing(made: list[dict[str, Any]]) -> None:
    spaced = feed_lines(b"".join(json.dumps(each).encode() + b"\n" for each in made))
    assert records.encode(spaced.summary()) == records.encode(summarise(made))


@pytest.mark.parametrize("tokens", [[1, 1, 1], [1, "1"], [1, 1.5], [1, True], "1", {}, [1, -1], [1, 1 << 60]])
@pytest.mark.parametrize("status", ["ok", "error"])
def test_event_tokens_of_a_wrong_shape_are_no_tokens(tokens: Any, status: str) -> None:
    """Read by the chunk, and refused or made null as the line by line way does."""
    odd = failed(2, 1.0, "error") if status == "error" else request(2, 1.0)
    odd |= {"event_s": [0.1, 0.2], "event_tokens": tokens}
    assert_both_ways(odd)


@pytest.mark.parametrize("status", ["ok", "error"])
def test_instants_beyond_all_clocks_are_no_instants(status: str) -> None:
    odd = failed(2, 1.0, "error") if status == "error" else request(2, 1.0)
    assert_both_ways(odd | {"event_s": [0.1, 1e10], "event_tokens": [1, 1]})


def assert_both_ways(odd: dict[str, Any]) -> None:
    ways = []
    for lines in (records.encode(odd), records.encode(odd) + b'{"kind":"other","v":1}\n'):  # the second goes by line
        try:
            ways.append(records.encode(feed_lines(records.encode(request(1)) + lines).summary()))
        except records.BadRecord as error:
            ways.append(str(error).encode())
    assert ways[0] == ways[1]


def test_a_full_disk_is_told_with_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spill.os, "posix_fallocate", full)
    monkeypatch.setattr(columns, "HELD_BYTES", 0)
    with pytest.raises(OSError, match="No space left on device; TMPDIR") as told:
        summarise([request(1)])
    assert told.value.filename == tempfile.gettempdir()


def closed_loop(
    count: int, clients: int, seed: int = 1, events: int = 20, turnaround: float = 0.003, spread: int = 0
) -> list[dict[str, Any]]:
    """A run of `clients` clients, each sending its next request `turnaround` seconds after the last one ended.

    Answers are of `events` tokens, more or less by up to `spread`.
    """
    chance = random.Random(seed)
    free = [client * 0.02 for client in range(clients)]
    made = []
    for number in range(count):
        client = min(range(clients), key=free.__getitem__)
        times, at = [], 0.1
        for _ in range(events + (chance.randint(-spread, spread) if spread else 0)):
            at += chance.gammavariate(4, 0.005)
            times.append(round(at, 6))
        fields = {"sampling": {"max_tokens": events + spread}, "finish_reason": "stop"} if spread else {}
        made.append(request(number, round(free[client], 6), tuple(times), concurrency=clients, **fields))
        free[client] += times[-1] + turnaround
    return made


def test_a_steady_run_has_a_window_between_ramp_and_drain() -> None:
    found = summarise(closed_loop(400, 16, spread=10))
    window = found["window"]
    assert window["steady"] and window["ramp_s"] >= 0.2 and window["drain_s"] >= 0.2
    assert found["concurrency"]["steady"] == pytest.approx(16, rel=0.02)
    assert found["concurrency"]["ratio"] > 0.97
    rate = found["throughput"]["output_tokens_per_s"]
    assert rate["steady"]["low"] <= rate["steady"]["value"] <= rate["steady"]["high"]
    assert rate["steady"]["value"] > rate["wall"]["value"]
    assert window["ramp_s"] + window["duration_s"] + window["drain_s"] == pytest.approx(
        found["wall_s"]["value"], abs=0.02
    )
    assert not [each["code"] for each in found["warnings"]]


def test_latencies_are_of_the_requests_sent_in_the_window() -> None:
    made = closed_loop(400, 16, spread=10)
    # The first turn is a burst of prompts: its first tokens come a second late.
    for each in sorted(made, key=lambda each: each["sent_at"])[:16]:
        each["event_s"] = [round(at + 1.0, 6) for at in each["event_s"]]
        each["ttft_s"], each["e2e_s"] = each["event_s"][0], round(each["event_s"][-1] + 0.001, 6)
    found = summarise(made, objectives={"ttft": 0.5})
    low, high = found["window"]["start_at"], found["window"]["end_at"]
    inside = [each for each in made if low <= each["sent_at"] < high]
    whole = [each for each in inside if each["sent_at"] + each["e2e_s"] < high]
    latency = found["latency"]
    assert found["latency_over"] == "steady" and 200 < len(inside) < 390
    assert found["window"]["requests"] == len(inside) == latency["ttft_s"]["n"] == latency["e2e_s"]["n"]
    assert found["window"]["completed"] == len(whole) == latency["tpot_s"]["n"]
    assert latency["ttft_s"]["mean"]["value"] == pytest.approx(
        math.fsum(each["ttft_s"] for each in inside) / len(inside)
    )
    # Gaps count when they end within the window, whenever their request was sent.
    gaps = sum(low <= each["sent_at"] + at < high for each in made for at in each["event_s"][1:])
    assert latency["itl_s"]["n"] == gaps
    assert latency["ttft_s"]["p95"]["value"] < 0.2 < found["latency_run"]["ttft_s"]["max"]
    assert found["latency_run"]["ttft_s"]["n"] == 400
    assert found["goodput"]["met"] == 384
    assert found["goodput"]["steady"] == {"requests": len(inside), "met": len(inside), "ratio": 1.0}


def test_a_few_turns_give_values_but_no_interval_of_what_follows_the_engines_pace() -> None:
    for requests, few in ((100, True), (400, False)):  # 16 clients: about 3 and 20 turns between ramp and drain
        found = summarise(closed_loop(requests, 16, spread=10))
        assert found["window"]["steady"]
        for name in ("tpot_s", "e2e_s", "itl_s", "event_latency_s"):
            mean, p90 = found["latency"][name]["mean"], found["latency"][name]["p90"]
            assert mean["value"] > 0 and p90["value"] > 0
            assert (mean["low"] is None) == few and (p90["low"] is None) == few
            assert (p90["needed"] or 0) > found["window"]["requests"] if few else p90["needed"] is None
        assert found["latency"]["ttft_s"]["mean"]["low"] is not None


def test_a_run_without_a_window_has_the_latencies_of_all_requests() -> None:
    found = summarise(closed_loop(20, 8))
    assert not found["window"]["steady"] and found["latency_over"] == "run"
    assert found["latency"] == found["latency_run"] and found["latency"]["ttft_s"]["n"] == 20
    assert found["latency"]["ttft_s"]["p95"]["value"] is not None


@pytest.mark.parametrize("spread", [0, 10])
def test_clients_in_step_are_a_convoy(spread: int) -> None:
    found = summarise(closed_loop(600, 16, spread=spread))
    assert ("convoy" in codes(found)) == (spread == 0)
    assert (found["window"]["wave_ratio"] > 0.2) == (spread == 0)


def test_ttft_that_still_falls_is_a_convoy() -> None:
    made = closed_loop(600, 16, spread=10)
    for place, each in enumerate(made):
        early = 0.3 * (1 - place / 600)
        each["ttft_s"] = round(each["ttft_s"] + early, 6)
        each["e2e_s"] = max(each["e2e_s"], each["ttft_s"])
    found = summarise(made)
    assert found["window"]["ttft_drift_ratio"] < -0.3 and "convoy" in codes(found)


def test_time_per_token_leaves_out_the_tokens_of_the_first_event() -> None:
    # 120 tokens, 10 ms each; the first event brings 8 of them at once, as accepted drafts do.
    events = tuple(round(0.2 + 0.08 * place, 6) for place in range(15))
    made = [request(number, number * 0.1, events, event_tokens=[8] * 15, e2e_s=events[-1]) for number in range(30)]
    tpot = summarise(made)["latency_run"]["tpot_s"]
    assert tpot["mean"]["value"] == pytest.approx(0.01)
    # One event of all tokens: no token came after it.
    single = [request(number, number * 0.1, (0.2,), event_tokens=[8]) for number in range(3)]
    assert summarise(single)["latency"]["tpot_s"] is None


def test_counts_below_a_percentile_of_itl_are_exact() -> None:
    """Gaps that vary by less than a bin of a histogram would: the interval must be of the percentile's own share."""
    import numpy as np

    random = np.random.default_rng(3)
    hits, trials = 0, 60
    for _ in range(trials):
        gaps = tally.Gaps()
        steps = np.rint(random.normal(20_000, 10, (200, 51))).astype(np.int64)
        gaps.add(np.arange(200) * 10**6, np.full(200, 51), steps.reshape(-1))
        found = gaps.distribution()
        assert found is not None
        hits += found["p90"]["low"] <= 20_013 / 1e6 <= found["p90"]["high"]
        assert found["p90"]["high"] - found["p90"]["low"] < 3e-6
    assert hits / trials >= 0.85


def test_an_open_load_whose_queue_grows_is_not_steady() -> None:
    chance = random.Random(5)
    for growth, steady in ((0.0, True), (0.002, False)):
        at, made = 0.0, []
        for number in range(1500):
            at += chance.expovariate(40)
            first = round(0.05 + growth * at * 40, 6)
            times = tuple(round(first + 0.02 * (place + 1), 6) for place in range(10 + chance.randint(0, 10)))
            made.append(request(number, round(at, 6), times, scheduled_at=START + round(at, 6), concurrency=None))
        found = summarise(made)["window"]
        assert found["steady"] == steady, found["reason"]


def test_an_overloaded_open_run_has_no_steady_state() -> None:
    # 10 requests a second arrive, the server takes each 0.5 s longer than the one before.
    made = [request(number, number * 0.1, (0.1 + number * 0.5, 0.2 + number * 0.5)) for number in range(200)]
    found = summarise(made)
    assert not found["window"]["steady"] and found["window"]["reason"]
    assert found["throughput"]["output_tokens_per_s"]["steady"]["value"] is None
    assert "no_steady_state" in codes(found)


def test_throughput_that_falls_all_the_time_is_not_steady() -> None:
    made, at = [], 0.0
    for number in range(300):
        gap = 0.01 * (1 + number / 100)
        made.append(request(number, round(at, 6), tuple(round(gap * (place + 1), 6) for place in range(20))))
        at += 20 * gap + 0.001
    found = summarise(made)
    assert not found["window"]["steady"] and "throughput falls" in found["window"]["reason"]


def codes(found: dict[str, Any]) -> list[str]:
    return [each["code"] for each in found["warnings"]]


def test_each_warning_names_its_cause_and_what_to_try() -> None:
    base = closed_loop(100, 4)

    def changed(**fields: Any) -> list[str]:
        return codes(summarise([{**each, **fields} if place == 50 else each for place, each in enumerate(base)]))

    assert "failures" in codes(summarise([*base, failed(1000, 1.0)]))
    assert "cached_tokens" in changed(cached_tokens=8)
    assert "token_dispute" in changed(output_tokens=30)
    assert "tokens_unknown" in changed(output_tokens=None, event_tokens=None)
    assert "split_unknown" in changed(output_tokens=40, event_tokens=None)
    assert "clock_user" in changed(clock="user")
    assert "clock_step" in changed(ttft_s=-0.5)
    assert "retried" in changed(attempt=2)
    assert "mixed_engines" in changed(engine="other")
    assert "mixed_sampling" in changed(sampling={"max_tokens": 20, "temperature": 1.0})
    assert "mixed_clients" in changed(concurrency=5)
    assert "no_instants" in changed(sent_at=None, launched_at=None)
    assert "short_output" in changed(output_tokens=19, sampling={"max_tokens": 21})
    assert "short_output" not in changed(output_tokens=19, finish_reason="stop", sampling={"max_tokens": 20})
    found = summarise([*base, failed(1000, 1.0)])
    assert all(each["message"] and each["try"] for each in found["warnings"])


def test_prefix_cache_that_was_asked_for_is_no_warning() -> None:
    cell = {
        "kind": "cell",
        "v": 1,
        "id": "c",
        "sweep": "s",
        "session": "x",
        "server": {"prefix_cache": True},
        "load": {"clients": 4},
    }
    made = [{**each, "cached_tokens": 8} for each in closed_loop(50, 4)]
    assert "cached_tokens" in codes(summarise(made))
    found = summarise([*made, cell])
    assert "cached_tokens" not in codes(found) and found["label"] == "c" and found["session"] == "s/x"


@pytest.mark.parametrize(
    ("before", "during", "said"), [(0.02, 0.03, None), (0.4, 0.03, "just before"), (0.0, 0.5, "during")]
)
def test_others_on_the_machine_are_said(before: float, during: float, said: str | None) -> None:
    made = closed_loop(100, 4)
    start = min(each["sent_at"] for each in made)
    samples = [
        {"kind": "engine", "v": 1, "at": start + at, "other_cpu_ratio": during if at else before} for at in range(12)
    ]
    found = summarise([*made, *samples])
    messages = [each["message"] for each in found["warnings"] if each["code"] == "busy_host"]
    assert (said is None) == (messages == []) and (said is None or said in messages[0])


def test_low_concurrency_is_said() -> None:
    found = summarise(closed_loop(100, 4), clients=8)
    assert found["concurrency"]["ratio"] == pytest.approx(0.5, abs=0.02)
    assert "low_concurrency" in codes(found)
    assert next(each["try"] for each in found["warnings"] if each["code"] == "low_concurrency") == (
        "have each client take its next prompt itself (llmpar-request --queue)"
    )
    few = summarise(closed_loop(40, 4), clients=8)
    assert next(each["try"] for each in few["warnings"] if each["code"] == "low_concurrency").startswith(
        "send at least ten times as many prompts"
    )


def test_a_waiting_client_limits_what_it_stamps_itself() -> None:
    waiting = [{**each, "cpu_wait_s": 0.05} for each in closed_loop(100, 4)]
    kernel = summarise(waiting)
    user = summarise([{**each, "clock": "user"} for each in waiting])
    assert not kernel["client"]["limited"]
    assert {"ttft_s", "e2e_s"} <= set(user["client"]["limited"])
    assert "client_limited" in codes(user)


def test_a_client_that_waits_as_many_requests_fail_is_judged_by_the_same_percentiles() -> None:
    made = closed_loop(200, 4)
    refused = [failed(1000 + number, each["sent_at"]) for number, each in enumerate(made[:140])]
    # Most percentiles are among the failures, which no delay of the client explains.
    for wait, clock, limited in ((1e-6, "user", False), (0.05, "user", True)):
        answered = [{**each, "cpu_wait_s": wait, "clock": clock} for each in made[140:]]
        found = summarise(refused + answered)
        assert found["latency"]["ttft_s"]["p50"]["value"] is None
        assert ("ttft_s" in found["client"]["limited"]) == limited
    few = summarise(refused[:40] + [{**each, "cpu_wait_s": 1e-6, "clock": "user"} for each in made[40:]])
    assert few["latency"]["ttft_s"]["p50"]["value"] and "ttft_s" not in few["client"]["limited"]


@pytest.mark.parametrize("outcome", ["crashed", "out_of_memory", "bad_setting"])
def test_a_server_that_never_ran_makes_a_summary_without_figures(outcome: str) -> None:
    server = {"kind": "server", "v": 1, "outcome": outcome, "message": "no such kernel", "ready_s": None}
    found = summarise([server], objectives={"ttft": 1.0})
    assert found["n"]["requests"] == 0 and found["goodput"]["ratio"] is None
    (warning,) = found["warnings"]
    assert warning["code"] == (outcome if outcome == "out_of_memory" else "server_ended")
    assert "no such kernel" in warning["message"] and "no such kernel" in " ".join(summaries.summary(found).split())


def test_segments_joined_while_the_client_waited_limit_what_their_stamp_spoils() -> None:
    def joined(each: dict, count: int, wait: float) -> dict:
        """As a reader sees it that did not run until event `count` was there."""
        times = [each["event_s"][count - 1]] * count + each["event_s"][count:]
        return {**each, "event_s": times, "ttft_s": times[0], "cpu_wait_s": wait}

    made = closed_loop(100, 4)
    starved = summarise([joined(each, 2, 0.05) for each in made])["client"]["limited"]
    assert {"ttft_s", "itl_s"} <= set(starved) and "e2e_s" not in starved
    # An engine that sends in bursts: the same stamps, but the client ran.
    assert not summarise([joined(each, 2, 0.00001) for each in made])["client"]["limited"]


@pytest.mark.parametrize("requests", [40, 80, 400])
def test_launching_and_waiting_limit_throughput_by_their_share_of_a_turn(requests: int) -> None:
    # Turns of 0.5 s; the next request leaves its client late, by launching or by waiting for a slot.
    for delay, limited in ((0.005, False), (0.05, True), (0.25, True)):
        for launching in (True, False):
            made = closed_loop(requests, 8, turnaround=delay)
            if launching:
                made = [{**each, "launched_at": round(each["sent_at"] - delay, 6)} for each in made]
            found = summarise(made, clients=8)
            client = found["client"]
            assert client["turn_lost_ratio"] == pytest.approx(delay / (0.5 + delay), abs=0.03)
            assert client["turn_lost_over"] == found["latency_over"]
            assert client["turn_launch_ratio"] == pytest.approx(delay / (0.5 + delay) if launching else 0.0, abs=0.02)
            assert ({"output_tokens_per_s", "requests_per_s", "wall_s"} <= set(client["limited"])) == limited
            assert ("low_concurrency" in codes(found)) == limited and ("client_limited" in codes(found)) == limited


def test_without_a_client_count_the_launch_delay_alone_tells() -> None:
    made = [
        {**each, "launched_at": round(each["sent_at"] - 0.1, 6), "concurrency": None}
        for each in closed_loop(200, 4, turnaround=0.1)
    ]
    found = summarise(made)
    assert found["client"]["turn_lost_ratio"] is None
    assert "output_tokens_per_s" in found["client"]["limited"]
    # A process that serves a queue starts once; its start says nothing about a turn.
    assert not summarise([{**each, "launcher": "queue"} for each in made])["client"]["limited"]


def test_own_lateness_limits_effective_latencies() -> None:
    made = [
        {
            **each,
            "scheduled_at": each["sent_at"] - 0.2,
            "launched_at": each["sent_at"] - 1.0,
            "effective_ttft_s": each["ttft_s"] + 0.2,
            "effective_e2e_s": each["e2e_s"] + 0.2,
        }
        for each in closed_loop(100, 4)
    ]
    found = summarise(made)
    assert "effective_ttft_s" in found["client"]["limited"] and "ttft_s" not in found["client"]["limited"]


def test_goodput_counts_failures_as_missed_and_single_tokens_as_met() -> None:
    made = [request(0, 0.0, (0.1,)), request(1, 0.1, (0.1, 0.9)), request(2, 0.2, (0.1, 0.15)), failed(3, 0.3)]
    found = summarise(made, objectives={"ttft": 0.2, "tpot": 0.1})
    assert found["goodput"] == {"objectives": {"tpot_s": 0.1, "ttft_s": 0.2}, "met": 2, "ratio": 0.5, "steady": None}
    assert found["throughput"]["goodput_per_s"]["wall"]["value"] == pytest.approx(2 / found["wall_s"]["value"])


def test_speculation_is_counted_in_tokens_not_events() -> None:
    # 5 events, 17 tokens: gaps of 40 ms that carry 4 tokens are 10 ms a token.
    made = [
        request(number, number * 0.5, (0.1, 0.14, 0.18, 0.22, 0.26), event_tokens=[1, 4, 4, 4, 4])
        for number in range(30)
    ]
    found = summarise(made)
    assert found["latency_run"]["itl_s"]["n"] == 480 and found["latency_run"]["event_latency_s"]["n"] == 120
    assert found["latency"]["itl_s"]["mean"]["value"] == pytest.approx(0.01)
    assert found["latency"]["event_latency_s"]["mean"]["value"] == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"status": "great"}, "status"),
        ({"ttft_s": "fast"}, "ttft_s"),
        ({"event_s": [0.1, "x"]}, "event_s"),
        ({"event_tokens": [1]}, "event_tokens"),
        ({"prompt_sha256": "abc"}, "prompt_sha256"),
        ({"engine": {}}, "engine"),
        ({"error": "boom"}, "error"),
    ],
)
def test_a_bad_field_names_stream_line_and_field(line: dict[str, Any], message: str) -> None:
    lines = [orjson.dumps(request(number, number)) + b"\n" for number in range(3)]
    lines.insert(2, orjson.dumps(request(9, 9.0) | line) + b"\n")
    with pytest.raises(records.BadRecord, match=f"'r.jsonl' line 3.*{message}"):
        read.feed(summariser.Summariser(), io.BytesIO(b"".join(lines)), "r.jsonl")


def test_what_is_not_utf8_is_no_record_whatever_its_neighbours() -> None:
    lines = [orjson.dumps(request(number, number * 0.1)) + b"\n" for number in range(4)]
    broken = lines[1].replace(b'"status":', b'"text":"\xff","status":')
    assert broken != lines[1]
    for given_lines in ([broken], [lines[0], broken, *lines[2:]]):
        found = Summariser()
        read.feed(found, io.BytesIO(b"".join(given_lines)), "r.jsonl")
        assert found.torn == 1 and sum(found.columns.counts.values()) == len(given_lines) - 1


def test_missing_fields_unknown_fields_and_other_kinds_pass() -> None:
    least = {"kind": "request", "v": 1, "status": "ok", "sent_at": START, "e2e_s": 1.0, "new_field": [1]}
    found = summarise([least, {"kind": "novel", "v": 9}])
    assert found["n"]["ok"] == 1 and found["latency"]["ttft_s"] is None and found["latency"]["e2e_s"]["n"] == 1


def test_a_torn_last_line_is_dropped_and_counted() -> None:
    data = orjson.dumps(request(1)) + b"\n" + orjson.dumps(request(2))[:100]
    found = feed_lines(data).summary()
    assert found["n"]["requests"] == 1 and found["n"]["torn_lines"] == 1 and "torn_lines" in codes(found)


def test_a_file_read_in_parts_gives_the_same_bytes(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in closed_loop(300, 8)))
    monkeypatch.setattr(summary_read.os, "sched_getaffinity", lambda pid: {0, 1, 2})
    found = []
    for part, held in ((1 << 40, 1 << 40), (1000, 1 << 40), (1000, 5000)):
        monkeypatch.setattr(read, "PART_BYTES", part)
        monkeypatch.setattr(columns, "HELD_BYTES", held)
        summariser = Summariser()
        read.feed_file(summariser, str(path))
        found.append(records.encode(summariser.summary()))
    assert found[0] == found[1] == found[2]
    with path.open("ab") as stream:
        stream.write(b"{}\n" + orjson.dumps(request(1)) + b"\n")
    with pytest.raises(records.BadRecord, match="line 301"):
        read.feed_file(Summariser(), str(path))


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**6)), min_size=1, max_size=50), st.integers(1, 8))
def test_requests_in_flight_by_step_add_up(spans: list[tuple[int, int]], steps: int) -> None:
    import numpy as np

    starts = np.array([start for start, _ in spans])
    ends = starts + np.array([length for _, length in spans])
    first, step = int(starts.min()), max(1, -(-(int(ends.max()) - int(starts.min())) // steps))
    found = tally.in_flight(np.sort(starts), np.sort(ends), first, step, steps)
    wanted = [
        sum(
            max(0, min(int(end), first + (place + 1) * step) - max(int(start), first + place * step))
            for start, end in zip(starts, ends, strict=True)
        )
        for place in range(steps)
    ]
    assert found.tolist() == wanted


def test_table_says_from_how_many_clients_on_the_kv_cache_is_full() -> None:
    from llmpar.render import summaries

    cells = []
    for clients in (4, 8, 16):
        cell = {
            "kind": "cell",
            "v": 1,
            "id": f"c{clients}",
            "sweep": "s",
            "session": "x",
            "repeat": 1,
            "varies": {"clients": clients},
            "server": {"engine": "fake"},
            "load": {"clients": clients},
        }
        made = closed_loop(100, clients)
        full = clients >= 8
        samples = [
            {
                "kind": "engine",
                "v": 1,
                "at": made[0]["sent_at"] + 0.1 * tick,
                "running": 4,
                "waiting": 3 if full else 0,
                "kv_usage_ratio": 0.99 if full else 0.5,
            }
            for tick in range(80)
        ]
        cells.append(summarise([*made, cell, *samples]))
    assert "KV cache full from 8 clients on\n" in summaries.table(cells)
    gpu = [
        {
            "kind": "gpu",
            "v": 1,
            "at": made[0]["sent_at"] + 0.1 * tick,
            "gpu": 0,
            "error": None,
            "energy_counter_j": 30.0 * tick,
            "gpu_util_ratio": 0.93,
            "tensor_ratio": 0.2,
            "memory_used_bytes": 30 << 30,
            "clock_limits": ["power_cap"],
        }
        for tick in range(80)
    ]
    single = summaries.summary(summarise([*made, cell, *samples, *gpu]))
    assert "J per output token (from the energy counter, to " in single
    assert "GPU: busy 93%, tensor cores 20%, peak memory 30.0 GiB" in single
    assert "engine: KV cache at most 99%, waiting on average 3.00" in single
    assert "the power limit held the clocks down 100% of the time" in single
    assert "KV cache 99% full while up to 3 requests waited" in single


def test_text_and_table_say_what_a_person_asks() -> None:
    from llmpar.render import summaries

    cells = []
    for clients in (4, 8):
        cell = {
            "kind": "cell",
            "v": 1,
            "id": f"c{clients}",
            "sweep": "s",
            "session": "x",
            "repeat": 1,
            "varies": {"clients": clients},
            "server": {"engine": "fake"},
            "load": {"clients": clients},
        }
        cells.append(summarise([*closed_loop(100, clients), cell]))
    shown = summaries.table(cells)
    lines = shown.splitlines()
    header = next(number for number, line in enumerate(lines) if line.split()[:2] == ["clients", "wall"])
    assert lines[0].startswith("fake · m")
    assert lines[header + 1].split()[0] == "4" and lines[header + 2].split()[0] == "8"
    assert "*" not in shown, "one server session of each proves no winner"
    needed = max(cell["latency"]["tpot_s"]["p95"]["needed"] or 0 for cell in cells)
    assert needed > 100 and f"needs at least in the steady window: TPOT p95 {needed}." in " ".join(shown.split())
    single = summaries.summary(json.loads(records.encode(cells[0])))
    assert "100 requests (100 ok)" in single and "TTFT" in single and " (needs 368)" in single
