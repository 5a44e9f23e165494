"""Good files of every kind, for tests/soak/files.py to change."""

from __future__ import annotations

from typing import Any

from tests.unit import made, made_requests

TABLE = b"engine\tclients\tmax_tokens\tspeculate\nllamacpp\t1,2\t8\t-\n# a comment\nllamacpp\t4\t8\t1\n"
CARDS = b"engine\tmodel\tcard\tclients\tcount\tmax_tokens\nvllm\tllama-2-7b\t4090\t1,2\t4\t4\n"
SHAREGPT = [
    {"id": "a", "conversations": [{"from": "human", "value": "hello there"}, {"from": "gpt", "value": "hi"}]},
    {
        "id": "b",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "so"}]},
            {"role": "assistant", "content": "yes"},
        ],
    },
]
VLLM = {
    "date": "20260131-120100",
    "model_id": "m",
    "num_prompts": 3,
    "max_concurrency": 2,
    "duration": 2.0,
    "request_throughput": 1.5,
    "input_lens": [10, 10, 10],
    "output_lens": [3, 3, 0],
    "ttfts": [0.1, 0.2, 0.0],
    "itls": [[0.01, 0.02], [0.01, 0.01], []],
    "start_times": [5000.0, 5000.1, 5000.2],
    "generated_texts": ["a b c", "d e f", ""],
    "errors": ["", "", "Bad Gateway"],
}
GUIDELLM = {
    "benchmarks": [
        {
            "config": {"strategy": {"type_": "concurrent", "streams": 2}},
            "requests": {
                "successful": [
                    {
                        "info": {
                            "timings": {"request_start": 100.0, "request_end": 101.0, "first_token_iteration": 100.2}
                        },
                        "request_args": "p",
                        "output": "text",
                        "prompt_tokens": 3,
                        "output_metrics": {"total_tokens": 5},
                    }
                ]
                * 2,
                "errored": [{"request_start_time": 100.0, "request_end_time": 100.5, "error": "no"}],
                "incomplete": [],
            },
        }
    ]
}
CONFIG = {
    "num_attention_heads": 32,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
    "torch_dtype": "float16",
    "head_dim": 128,
}
METRICS = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
# TYPE vllm:request_success counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 9.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 6.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 100.0
vllm:generation_tokens_total{engine="0",model_name="m"} 1.5e+03
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0
"""
LOG = (
    b"INFO 01-31 12:00:00 api_server.py:1] starting\n\x1b[32mWARNING\x1b[0m: pinned memory\n"
    b'Traceback (most recent call last):\n  File "x", line 1\ntorch.OutOfMemoryError: CUDA out of memory\n'
)


def samples() -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Request records, GPU and engine samples beside them, and the single records of a cell."""
    requests = [made_requests.request(number, number * 0.25) for number in range(40)]
    requests.append(made_requests.failed(41, 3.0))
    at = made_requests.START
    beside: list[dict[str, Any]] = []
    for tick in range(12):
        beside.append(
            {
                "kind": "gpu",
                "v": 1,
                "at": at + tick,
                "host": "h",
                "gpu": 0,
                "uuid": "GPU-1",
                "mig": None,
                "missed": 0,
                "error": None,
                "power_w": 200.0 + tick,
                "power_source": "instant",
                "energy_counter_j": 1000.0 + 200 * tick,
                "gpu_util_ratio": 0.9,
                "sm_clock_mhz": 1800,
                "clock_limits": ["power_cap"],
                "memory_used_bytes": 8 << 30,
                "memory_total_bytes": 48 << 30,
                "processes": [{"pid": 5, "memory_bytes": 1 << 30, "engine": True}],
                "engine_memory_bytes": 1 << 30,
                "pcie_tx_bytes": 1000 * tick,
                "read_s": 0.001,
            }
        )
        one = {
            "running": 4,
            "waiting": 1,
            "kv_usage_ratio": 0.5,
            "kv_capacity_tokens": 1000,
            "preemptions_total": tick,
            "requests_total": tick,
            "generation_tokens_total": 100 * tick,
            "prompt_tokens_total": 50 * tick,
            "queue_s_total": 0.1 * tick,
            "queue_requests_total": tick,
            "prefill_s_total": 0.2 * tick,
            "spec_drafts_total": tick,
            "spec_draft_tokens_total": 3 * tick,
            "spec_accepted_tokens_total": 2 * tick,
            "counters_at_end": True,
        }
        beside.append(
            {
                "kind": "engine",
                "v": 1,
                "at": at + tick,
                "host": "h",
                "scrape_s": 0.01,
                "missed": 0,
                "error": None,
                **one,
                "processes": 2,
                "cpu_s": 1.0 * tick,
                "rss_bytes": 1 << 30,
                "threads": 8,
                "other_cpu_ratio": 0.05,
                "replicas": [{"url": "a", "error": None, **one}, {"url": "b", "error": None, **one}],
            }
        )
    summary = made.summary()
    server = {
        "kind": "server",
        "v": 1,
        "engine": "fake",
        "title": "Fake",
        "version": "1",
        "runtime": "local",
        "api": "openai-completions",
        "model": "m",
        "settings": {"engine_args": ["-t", "2"]},
        "defaults": {},
        "gpus": [0],
        "commands": ["server --port 1"],
        "notes": [],
        "base_url": "http://h:1",
        "urls": ["http://h:1"],
        "metrics_urls": [],
        "pids": [1],
        "started_at": at - 9,
        "ended_at": at + 99,
        "ready_s": 3.0,
        "probe": None,
        "outcome": "ok",
        "message": None,
        "logs": ["engine.log"],
        "model_file": None,
    }
    host = {
        "kind": "host",
        "v": 1,
        "at": at,
        "host": "h",
        "cpu": "x",
        "cpus": 8,
        "cpus_usable": 8,
        "cgroup": {"cpus": 2.0, "memory_bytes": None},
        "memory_bytes": 1 << 36,
        "load_1min": 0.1,
        "virtual": None,
        "gpus": [{"index": 0, "name": "NVIDIA H100", "uuid": "GPU-1", "memory_bytes": 80 << 30, "used": True}],
        "software": {"python": "3.11", "packages": {"click": "8"}, "tools": {}, "commit": None},
    }
    clock = {
        "kind": "clock",
        "v": 1,
        "at": at,
        "host": "h",
        "against": "g",
        "offset_s": 0.01,
        "error_s": 0.001,
        "rtt_s": 0.002,
    }
    return requests, beside, {"cell": summary["cell"], "server": server, "host": host, "clock": clock}
