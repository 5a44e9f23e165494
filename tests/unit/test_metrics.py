"""Engines' metrics to canonical fields, and their reduction over a window."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpar.sampling import engine_figures, engine_metrics, scrape

WIRE = Path(__file__).resolve().parent.parent / "wire"


def sample_file(file: str) -> bytes:
    raw = (WIRE / file).read_bytes()
    return raw.partition(b"\r\n\r\n")[2] if raw.startswith(b"HTTP/") else raw


def known(found: dict) -> dict:
    return {key: value for key, value in found.items() if value is not None}


def test_vllm_of_today() -> None:
    assert known(engine_metrics.parse(sample_file("vllm-cpu/metrics_under_load_spec.txt"))) == {
        "running": 4,
        "waiting": 8,
        "kv_usage_ratio": 0.0039081582804103565,
        "kv_capacity_tokens": 256000,
        "preemptions_total": 0,
        "requests_total": 2,
        "prompt_tokens_total": 32,
        "generation_tokens_total": 1038,
        "spec_drafts_total": 18,
        "spec_draft_tokens_total": 64,
        "spec_accepted_tokens_total": 64,
        "prefix_queries_total": 32,
        "prefix_hits_total": 0,
        "queue_s_total": 0.00016439700084447395,
        "queue_requests_total": 2,
        "prefill_s_total": 1.4754179709998425,
        "decode_s_total": 0.15014284899916674,
        "counters_at_end": False,
    }


def test_llamacpp_counts_at_the_end_and_leaves_cached_tokens_out() -> None:
    assert known(engine_metrics.parse(sample_file("llamacpp/metrics_spec.txt"))) == {
        "running": 0,
        "waiting": 0,
        "prompt_tokens_total": 48,
        "generation_tokens_total": 72,
        "spec_drafts_total": 15,
        "spec_draft_tokens_total": 55,
        "spec_accepted_tokens_total": 55,
        "prefix_hits_total": 38,
        "prefix_queries_total": 48 + 38,
        "prefill_s_total": 0.220524,
        "decode_s_total": 0.890923,
        "counters_at_end": True,
    }
    loaded = engine_metrics.parse(sample_file("llamacpp/metrics_under_load.txt"))
    assert (loaded["running"], loaded["waiting"], loaded["generation_tokens_total"]) == (4, 4, 610)
    used, room = engine_metrics.slots(sample_file("llamacpp/slots_under_load.txt"))
    assert 0 < used < room and room % 512 == 0


def test_tgi_sums_of_histograms_and_reserved_tokens() -> None:
    found = engine_metrics.parse(sample_file("tgi/metrics.txt"))
    assert known(found) == {
        "running": 11,
        "waiting": 37,
        "kv_used_tokens": 43520,
        "requests_total": 101,
        "prompt_tokens_total": 812.5,
        "generation_tokens_total": 812.5,
        "spec_drafts_total": 9310,
        "spec_accepted_tokens_total": 6010,
        "queue_s_total": 812.5,
        "queue_requests_total": 101,
        "counters_at_end": True,
    }


def test_tgi_3_tells_what_is_reserved_and_not_of_how_much() -> None:
    found = known(engine_metrics.parse(sample_file("tgi-cpu/3.3.7_metrics.txt")))
    assert (found["running"], found["waiting"], found["kv_used_tokens"]) == (1, 0, 544)
    assert (found["requests_total"], found["generation_tokens_total"]) == (17, 514)
    assert (found["spec_drafts_total"], found["spec_accepted_tokens_total"]) == (515, 0)
    assert "kv_capacity_tokens" not in found


def test_a_document_without_the_engines_metrics_is_refused() -> None:
    for document in (sample_file("vllm/metrics.txt"), b"", b"<html>", b"{}", b"{", b'[{"iter":1}]', b"\xff\xfe"):
        with pytest.raises(ValueError):
            engine_metrics.parse(document)


@pytest.mark.parametrize("prefix", ["vllm", "aphrodite", "lmdeploy"])
def test_older_and_related_names(prefix: str) -> None:
    text = "\n".join(
        f'{prefix}:{name}{{model_name="m {{x}}"}} {value}'
        for name, value in (
            ("num_requests_running", "3.0"),
            ("num_requests_waiting", "2.0"),
            ("num_requests_swapped", "1.0"),
            ("gpu_cache_usage_perc", "0.5"),
            ("prompt_tokens_total", "10.0"),
            ("generation_tokens_total", "1e+06"),
        )
    )
    found = engine_metrics.parse(text.encode())
    swapped = 0 if prefix == "lmdeploy" else 1
    assert (found["running"], found["waiting"], found["kv_usage_ratio"]) == (3, 2 + swapped, 0.5)
    assert (found["generation_tokens_total"], found["counters_at_end"]) == (1000000, False)


def test_ranks_are_added_up_and_the_fullest_cache_counts() -> None:
    text = "".join(
        f'vllm:num_requests_running{{engine="{n}"}} {n}\nvllm:kv_cache_usage_perc{{engine="{n}"}} 0.{n}\n'
        f'vllm:cache_config_info{{engine="{n}",block_size="16",num_gpu_blocks="1000"}} 1.0\n'
        for n in range(1, 4)
    )
    found = engine_metrics.parse(text.encode())
    assert (found["running"], found["kv_usage_ratio"], found["kv_capacity_tokens"]) == (6, 0.3, 48000)


def test_not_a_number_is_not_measured() -> None:
    assert (
        engine_metrics.parse(b"vllm:num_requests_running 1\nvllm:kv_cache_usage_perc NaN\n")["kv_usage_ratio"] is None
    )


def test_lmdeploy_of_today() -> None:
    assert known(engine_metrics.parse(sample_file("lmdeploy/metrics.txt"))) == {
        "running": 0,
        "waiting": 0,
        "kv_usage_ratio": 0,
        "requests_total": 66,
        "prompt_tokens_total": 28782,
        "generation_tokens_total": 2058,
        "spec_drafts_total": 0,
        "spec_draft_tokens_total": 0,
        "spec_accepted_tokens_total": 0,
        "prefix_queries_total": 28782,
        "prefix_hits_total": 0,
        "queue_s_total": 0.6183600425720215,
        "queue_requests_total": 66,
        "prefill_s_total": 19.353236436843872,
        "decode_s_total": 17.59003472328186,
        "counters_at_end": False,
    }


def test_sglang_of_today() -> None:
    """It says an acceptance of 0 without any drafts, and how full the cache is in whole percents beside the share."""
    assert known(engine_metrics.parse(sample_file("sglang-cpu/metrics_under_load.txt"))) == {
        "running": 4,
        "waiting": 3,
        "kv_usage_ratio": 0.0007158717254935268,
        "kv_capacity_tokens": 1978008,
        "requests_total": 7,
        "prompt_tokens_total": 86,
        "generation_tokens_total": 70,
        "queue_s_total": 0.004769039998791413,
        "queue_requests_total": 11,
        "counters_at_end": True,
    }


def test_sglang_with_drafts_and_tensorrt() -> None:
    found = engine_metrics.parse(
        b"sglang:num_running_reqs 5\nsglang:num_queue_reqs 1\nsglang:token_usage 0.25\nsglang:spec_accept_rate 0.7\n"
        b"sglang:spec_accept_length 2.4\nsglang:num_retracted_requests_total 3\n"
        b"sglang:prompt_tokens_total 100\nsglang:cached_tokens_total 40\nsglang:max_total_num_tokens 9000\n"
    )
    assert (found["running"], found["waiting"], found["kv_usage_ratio"], found["spec_acceptance_ratio"]) == (
        5,
        1,
        0.25,
        0.7,
    )
    assert (found["prefix_queries_total"], found["prefix_hits_total"], found["kv_capacity_tokens"]) == (100, 40, 9000)
    assert found["preemptions_total"] == 3
    document = (
        b'[{"iter":1,"numActiveRequests":9,"kvCacheStats":{"maxNumBlocks":10,"usedNumBlocks":1}},'
        b'{"iter":2,"numActiveRequests":1,"numQueuedRequests":4,"kvCacheStats":{"maxNumBlocks":8,"usedNumBlocks":2,"tokensPerBlock":32}}]'
    )
    assert known(engine_metrics.parse(document)) == {
        "running": 1,
        "waiting": 4,
        "kv_usage_ratio": 0.25,
        "kv_capacity_tokens": 256,
    }
    assert known(engine_metrics.parse(b"[]")) == {}


def test_several_servers_are_one_view_unless_one_is_silent() -> None:
    one = engine_metrics.parse(
        b"vllm:num_requests_running 2\nvllm:kv_cache_usage_perc 0.2\nvllm:generation_tokens_total 10\n"
    )
    two = engine_metrics.parse(
        b"vllm:num_requests_running 3\nvllm:kv_cache_usage_perc 0.9\nvllm:generation_tokens_total 5\n"
    )
    both = engine_metrics.combine([one, two])
    assert (both["running"], both["kv_usage_ratio"], both["generation_tokens_total"], both["counters_at_end"]) == (
        5,
        0.9,
        15,
        False,
    )
    assert known(engine_metrics.combine([one, dict.fromkeys(engine_metrics.FIELDS)])) == {}
    assert known(engine_metrics.combine([])) == {}


def records(*points: tuple[float, dict]) -> list[dict]:
    return [{"kind": "engine", "v": 1, "at": at, "error": None, "replicas": [], **fields} for at, fields in points]


def test_reduction_over_a_window() -> None:
    samples = records(
        *(
            (
                float(second),
                {
                    "running": 4,
                    "waiting": second % 2,
                    "kv_usage_ratio": 1.0 if second >= 15 else 0.5,
                    "preemptions_total": max(0, second - 18),
                    "generation_tokens_total": 100 * second,
                    "prompt_tokens_total": 0,
                    "spec_drafts_total": 10 * second,
                    "spec_draft_tokens_total": 20 * second,
                    "spec_accepted_tokens_total": 15 * second,
                    "prefix_queries_total": 50 * second,
                    "prefix_hits_total": 10 * second,
                    "queue_s_total": 3.0 * second,
                    "queue_requests_total": 2 * second,
                    "cpu_s": 1.5 * second,
                    "rss_bytes": second,
                    "threads": 7,
                    "processes": 2,
                    "counters_at_end": False,
                },
            )
            for second in range(30)
        )
    )
    found = engine_figures.reduce(samples, 9.5, 20.5)
    assert found["samples"] == 11 and found["errors"] == 0
    assert found["running"] == {"mean": 4.0, "max": 4, "n": 11}
    assert found["waiting"]["mean"] == pytest.approx(5 / 11) and found["waiting_ratio"] == pytest.approx(5 / 11)
    assert found["kv_usage_ratio"]["max"] == 1.0 and found["kv_full_ratio"] == pytest.approx(6 / 11)
    assert found["preemptions"] == pytest.approx(2.5)  # 2 to the sample at 20, half of the next
    assert found["generation_tokens"] == pytest.approx(1100) and found["generation_tokens_per_s"] == pytest.approx(100)
    assert found["spec_acceptance_ratio"] == pytest.approx(0.75) and found["spec_tokens_per_step"] == pytest.approx(2.5)
    assert found["prefix_hit_ratio"] == pytest.approx(0.2) and found["queue_s_mean"] == pytest.approx(1.5)
    assert (
        found["cpu_cores_mean"] == pytest.approx(1.5)
        and found["rss_bytes_max"] == 20
        and found["pss_bytes_max"] is None
    )
    assert found["counter_resets"] == 0 and found["counters_at_end"] is False


def test_a_server_that_starts_anew_is_counted_on_and_said() -> None:
    samples = records(
        (0, {"generation_tokens_total": 100}),
        (1, {"generation_tokens_total": 200}),
        (2, {"generation_tokens_total": 30}),
        (3, {"generation_tokens_total": 50}),
    )
    found = engine_figures.reduce(samples, 0, 3)
    assert found["generation_tokens"] == pytest.approx(100 + 30 + 20) and found["counter_resets"] == 1


def test_servers_are_reduced_each_by_itself() -> None:
    def both(first: int, second: int | None) -> dict:
        silent = (
            {"url": "b", "error": "cannot connect"}
            if second is None
            else {"url": "b", "error": None, "generation_tokens_total": second}
        )
        return {
            "replicas": [{"url": "a", "error": None, "generation_tokens_total": first}, silent],
            "error": "b" if second is None else None,
        }

    samples = records((0, both(0, 1000)), (1, both(10, 1020)), (2, both(20, None)), (3, both(30, 5)), (4, both(40, 25)))
    found = engine_figures.reduce(samples, 0, 4)
    # b: 20, then over the gap a reset to 5, then 20.
    assert found["generation_tokens"] == pytest.approx(40 + 20 + 5 + 20) and found["counter_resets"] == 1
    assert found["errors"] == 1


def test_rates_are_over_the_time_that_was_sampled() -> None:
    samples = records(
        (5, {"generation_tokens_total": 0, "cpu_s": 0.0}), (7, {"generation_tokens_total": 200, "cpu_s": 1.0})
    )
    found = engine_figures.reduce(samples, 0, 100)
    assert found["generation_tokens_per_s"] == pytest.approx(100) and found["cpu_cores_mean"] == pytest.approx(0.5)


def test_nothing_sampled_is_nothing_measured() -> None:
    for samples in ([], records((1, {}), (2, {})), records((50, {"running": 1, "generation_tokens_total": 4}))):
        found = engine_figures.reduce(samples, 0, 10)
        assert {
            value
            for key, value in found.items()
            if key not in ("samples", "errors", "start_at", "end_at", "counter_resets")
        } == {None}


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1000)), min_size=2, max_size=20), st.floats(0.05, 0.95))
def test_growth_over_two_parts_is_growth_over_the_whole(steps: list[tuple[int, int]], where: float) -> None:
    at, total, points = 0, 0, []
    for pause, made in steps:
        at, total = at + pause, total + made
        points.append((float(at), {"generation_tokens_total": total}))
    start, end = points[0][0], points[-1][0]
    middle = start + where * (end - start)
    whole, left, right = (
        engine_figures.reduce(records(*points), low, high)["generation_tokens"]
        for low, high in ((start, end), (start, middle), (middle, end))
    )
    assert whole == pytest.approx(total - steps[0][1])
    assert left + right == pytest.approx(whole)


def test_tensorrts_prometheus_page() -> None:
    page = (
        b'trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 3.0\n'
        b'trtllm_num_requests_waiting{engine_type="trtllm",model_name="m"} 1.0\n'
        b'trtllm_request_success_total{engine_type="trtllm",finished_reason="stop",model_name="m"} 7.0\n'
        b'trtllm_request_success_total{engine_type="trtllm",finished_reason="cancelled",model_name="m"} 2.0\n'
        b'trtllm_prompt_tokens_total{engine_type="trtllm",model_name="m"} 100.0\n'
        b'trtllm_kv_cache_utilization{engine_type="trtllm",model_name="m"} 0.25\n'
    )
    assert known(engine_metrics.parse(page)) == {
        "running": 3,
        "waiting": 1,
        "kv_usage_ratio": 0.25,
        "requests_total": 7,
        "prompt_tokens_total": 100,
        "counters_at_end": True,
    }


def test_llamacpp_of_2024_tells_its_cache_use_itself() -> None:
    page = b"llamacpp:kv_cache_usage_ratio 0.375\nllamacpp:kv_cache_tokens 768\nllamacpp:requests_processing 2\n"
    found = known(engine_metrics.parse(page))
    assert found["kv_usage_ratio"] == 0.375 and found["running"] == 2


@pytest.mark.parametrize("there", [True, False])
def test_an_emptied_list_of_tensorrts_is_made_good_by_its_other_page(there: bool) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            page = b"[]" if self.path == "/metrics" else b"trtllm_num_requests_running 3.0\n"
            self.send_response(200 if there or self.path == "/metrics" else 404)
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reader = scrape.Server(f"http://127.0.0.1:{server.server_port}/metrics", None, 5.0)
        rows = [reader.read(), reader.read()]
        server.shutdown()
    assert [row["error"] for row in rows] == [None, None]
    assert [row["running"] for row in rows] == ([3, 3] if there else [None, None])
    assert asked.count("/prometheus/metrics") == (2 if there else 1), "a page that is missing is asked for once"
    assert "/slots" not in asked or there
