"""Samples joined to a summary, and causes named."""

from __future__ import annotations

from typing import Any

import pytest

from llmpar.summary import causes, join


def engine(at: float, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "engine",
        "v": 1,
        "at": at,
        "error": None,
        "running": 10,
        "waiting": 0,
        "kv_usage_ratio": 0.4,
        "replicas": [],
        **fields,
    }


def gpu(at: float, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "gpu",
        "v": 1,
        "at": at,
        "host": "h",
        "gpu": 0,
        "uuid": "g",
        "mig": None,
        "missed": 0,
        "error": None,
        "energy_counter_j": 100.0 * at,
        "power_w": 100.0,
        "gpu_util_ratio": 0.9,
        "clock_limits": [],
        **fields,
    }


def joined(
    gpus: list[dict[str, Any]], engines: list[dict[str, Any]], steady: bool = True, **settings: Any
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "server": {"settings": settings},
        "window": {"steady": steady, "start_at": 2.0, "end_at": 8.0},
        "started_at": 1.0,
        "ended_at": 9.0,
        "gpu": None,
        "engine": None,
        "joined": None,
    }
    join.join(summary, gpus, engines, lambda start, end: round(50 * (end - start)))
    return summary


def codes(summary: dict[str, Any]) -> list[str]:
    return [cause["code"] for cause in summary["joined"]["causes"]]


def test_energy_per_token_is_of_the_same_window() -> None:
    found = joined([gpu(at / 10) for at in range(101)], [])
    assert found["joined"]["energy_per_output_token_j"] == pytest.approx(600 / 300)
    assert found["joined"]["energy_per_output_token_resolution_j"] == pytest.approx(10 / 300)
    assert (found["joined"]["over"], found["joined"]["output_tokens"]) == ("steady", 300)
    whole = joined([gpu(at / 10) for at in range(101)], [], steady=False)
    assert (whole["joined"]["over"], whole["joined"]["output_tokens"]) == ("run", 400)
    assert whole["gpu"]["energy_j"] == pytest.approx(800)


def test_nothing_sampled_joins_nothing() -> None:
    assert joined([], [])["joined"] is None


def test_a_full_cache_with_requests_waiting_is_named() -> None:
    samples = [engine(at, kv_usage_ratio=0.99 if at > 4 else 0.5, waiting=7 if at > 4 else 0) for at in range(10)]
    found = joined([], samples)
    assert codes(found) == ["kv_cache_full"]
    assert "99% full while up to 7 requests waited" in found["joined"]["causes"][0]["message"]


@pytest.mark.parametrize("kv, waiting, named", [(0.99, 0, []), (0.5, 7, ["requests_waited"]), (None, 7, [])])
def test_neither_alone_is_a_full_cache(kv: float | None, waiting: int, named: list[str]) -> None:
    assert codes(joined([], [engine(at, kv_usage_ratio=kv, waiting=waiting) for at in range(10)])) == named


@pytest.mark.parametrize(
    "running, limit, named", [(64, 64, "sequences_full"), (64, 256, "requests_waited"), (64, None, "requests_waited")]
)
def test_a_full_batch_is_named_only_where_the_limit_is_reached(running: int, limit: int | None, named: str) -> None:
    samples = [engine(at, kv_usage_ratio=0.5, waiting=7, running=running) for at in range(10)]
    (cause,) = causes.engine_causes({}, samples, limit)
    assert cause["code"] == named
    assert ("max sequences" in cause["message"]) == (named == "sequences_full")


def test_the_limit_on_sequences_is_that_of_all_servers() -> None:
    full = [engine(at, kv_usage_ratio=0.5, waiting=7, running=16) for at in range(10)]
    assert codes(joined([], full, max_sequences=8, replicas=2)) == ["sequences_full"]
    assert codes(joined([], full, max_sequences=9, replicas=2)) == ["requests_waited"]


def test_what_lies_outside_the_window_names_nothing() -> None:
    assert (
        codes(joined([], [engine(at, kv_usage_ratio=0.99, waiting=7 if at in (0, 1, 9) else 0) for at in range(10)]))
        == []
    )


@pytest.mark.parametrize(
    "limit, code", [("power_cap", "power_limited"), ("software_thermal", "thermal_limited"), ("idle", None)]
)
def test_clock_limits_are_named(limit: str, code: str | None) -> None:
    samples = [gpu(at / 10, clock_limits=[limit] if at % 2 else []) for at in range(101)]
    assert codes(joined(samples, [])) == ([code] if code else [])


def test_an_idle_gpu_is_named() -> None:
    assert codes(joined([gpu(at / 10, gpu_util_ratio=0.2) for at in range(101)], [])) == ["gpu_idle"]


@pytest.mark.parametrize(
    "busy,took,named", [(0.7, 0.21, ["gpu_idle", "frontend_slow"]), (0.7, 0.02, ["gpu_idle"]), (0.97, 0.21, [])]
)
def test_a_gpu_that_waits_for_the_engines_http_is_told_from_one_that_waits_for_else(
    busy: float, took: float, named: list[str]
) -> None:
    load = [gpu(at / 10, gpu_util_ratio=busy) for at in range(101)]
    found = joined(load, [engine(at, running=256, scrape_s=took if at != 3 else 0.01) for at in range(10)])
    assert codes(found) == named
    if "frontend_slow" in named:
        assert "took 0.21 s" in found["joined"]["causes"][-1]["message"]


def test_slow_metrics_of_an_idle_engine_or_of_two_samples_name_nothing() -> None:
    load = [gpu(at / 10, gpu_util_ratio=0.5) for at in range(101)]
    assert codes(joined(load, [engine(at, running=0, scrape_s=0.5) for at in range(10)])) == ["gpu_idle"]
    assert codes(joined(load, [engine(at, running=9 if at in (4, 5) else 0, scrape_s=0.5) for at in range(10)])) == [
        "gpu_idle"
    ]


def test_queue_time_is_split_from_compute() -> None:
    counted = {
        "queue_s_total": 0.5,
        "queue_requests_total": 1,
        "prefill_s_total": 0.25,
        "decode_s_total": 2.0,
        "requests_total": 1,
    }
    samples = [
        engine(at, replicas=[{"url": "u", **{name: each * at for name, each in counted.items()}}]) for at in range(11)
    ]
    found = joined([], samples)["joined"]
    assert (found["queue_s_mean"], found["prefill_s_mean"], found["decode_s_mean"]) == (
        pytest.approx(0.5),
        pytest.approx(0.25),
        pytest.approx(2.0),
    )


def summary(clients: int, *found: str) -> dict[str, Any]:
    return {"concurrency": {"asked": clients}, "joined": {"causes": [{"code": code, "message": ""} for code in found]}}


def test_from_which_client_count_on() -> None:
    rows = [
        summary(128, "kv_cache_full", "power_limited"),
        summary(24),
        summary(64, "kv_cache_full"),
        summary(24, "gpu_idle"),
    ]
    assert causes.onsets(rows) == [
        {"code": "kv_cache_full", "clients": [64, 128], "from": 64, "sentence": "KV cache full from 64 clients on"},
        {
            "code": "power_limited",
            "clients": [128],
            "from": 128,
            "sentence": "GPU clocks held down by the power limit from 128 clients on",
        },
    ]


def test_what_holds_several_groups_back_is_said_once() -> None:
    groups = {
        "a": [summary(8, "power_limited"), summary(16, "power_limited", "kv_cache_full")],
        "b": [summary(8, "power_limited"), summary(16, "power_limited")],
    }
    assert causes.held(groups) == [
        "GPU clocks held down by the power limit at every client count",
        "a: KV cache full from 16 clients on",
    ]
    assert causes.held({"a": groups["b"], "b": groups["b"], "c": [summary(8), summary(16)]}) == [
        "a, b: GPU clocks held down by the power limit at every client count"
    ]
    assert causes.held({"": groups["b"]}) == ["GPU clocks held down by the power limit at every client count"]


def test_a_cause_that_comes_and_goes_has_no_onset() -> None:
    rows = [summary(1, "gpu_idle"), summary(2), summary(4, "gpu_idle")]
    assert causes.onsets(rows) == [
        {"code": "gpu_idle", "clients": [1, 4], "from": None, "sentence": "GPU waited for work at 1, 4 clients"}
    ]


def test_a_cause_everywhere_and_none() -> None:
    assert (
        causes.onsets([summary(1, "gpu_idle"), summary(2, "gpu_idle")])[0]["sentence"]
        == "GPU waited for work at every client count"
    )
    assert causes.onsets([{"concurrency": {"asked": 4}, "joined": None}]) == []
