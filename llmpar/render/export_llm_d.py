"""A summary as a benchmark report of llm-d-benchmark, schema version 0.2.1.

Schema: llmdbenchmark/analysis/benchmark_report/schema_v0_2_1.py of llm-d-benchmark at commit 8bc9f1dd (August 2026).
A report is JSON, which is YAML. Its figures are of the whole run, as those of the tools that llm-d converts: the
latencies of `latency_run`, the rates over wall seconds.
"""

from __future__ import annotations

import json
import time
from typing import Any

from llmpar.results import words

VERSION = "0.2.1"
PERCENTILES = ("p50", "p90", "p95", "p99")
LATENCIES = {
    "time_to_first_token": ("ttft_s", "s"),
    "time_per_output_token": ("tpot_s", "s/token"),
    "inter_token_latency": ("itl_s", "s/token"),
    "request_latency": ("e2e_s", "s"),
}
RATES = {
    "output_token_rate": ("output_tokens_per_s", "tokens/s"),
    "total_token_rate": ("total_tokens_per_s", "tokens/s"),
    "request_rate": ("requests_per_s", "queries/s"),
}
LABEL = "engine"  # what the report calls the one component, under test


def report(summary: dict[str, Any]) -> dict[str, Any]:
    """The report of one summary. What was not measured is left out, since the schema knows no null figure."""
    load, stack = _load(summary), _stack(summary)
    scenario = {name: part for name, part in (("stack", stack), ("load", load)) if part}
    return {
        "version": VERSION,
        "run": _run(summary),
        **({"scenario": scenario} if scenario else {}),
        "results": _without_none(
            {
                "request_performance": {
                    "aggregate": _without_none(
                        {
                            "requests": _requests(summary),
                            "latency": _latency(summary.get("latency_run") or summary.get("latency") or {}),
                            "throughput": _throughput(summary.get("throughput") or {}),
                        }
                    )
                },
                "observability": _observability(summary.get("engine") or {}, summary.get("gpu") or {}),
            }
        ),
    }


def line(summary: dict[str, Any]) -> bytes:
    """The report as one line of JSON."""
    return json.dumps(report(summary), allow_nan=False).encode() + b"\n"


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, {})}


def _run(summary: dict[str, Any]) -> dict[str, Any]:
    cell, provenance = summary.get("cell") or {}, summary.get("provenance") or {}
    hosts = (summary.get("client") or {}).get("hosts") or []
    start, end = summary.get("started_at"), summary.get("ended_at")
    wall = (summary.get("wall_s") or {}).get("value")
    return _without_none(
        {
            "uid": str(provenance.get("records_sha256") or summary.get("label") or "unknown")[:32],
            "eid": cell.get("sweep"),
            "cid": (summary.get("host") or {}).get("host"),
            "pid": hosts[0] if len(hosts) == 1 else None,
            "description": summary.get("label"),
            "time": _without_none(
                {"start": _instant(start), "end": _instant(end), "duration": None if wall is None else f"PT{wall:.6f}S"}
            ),
        }
    )


def _instant(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _length(distribution: dict[str, Any] | None) -> dict[str, Any] | None:
    """`{"n", "min", "max", "mean", "p50"}` of tokens as statistics."""
    if not distribution or distribution.get("mean") is None:
        return None
    return {
        "units": "count",
        **{name: distribution[name] for name in ("mean", "min", "max", "p50") if distribution.get(name) is not None},
    }


def _requests(summary: dict[str, Any]) -> dict[str, Any]:
    n, tokens = summary.get("n") or {}, summary.get("tokens") or {}
    return _without_none(
        {
            "total": int(n.get("requests") or 0),
            "failures": int(n.get("error") or 0) + int(n.get("timeout") or 0),
            "incomplete": int(n.get("cancelled") or 0),
            "input_length": _length(tokens.get("prompt_per_request")),
            "output_length": _length(tokens.get("output_per_request")),
        }
    )


def _latency(latencies: dict[str, Any]) -> dict[str, Any]:
    made = {}
    for name, (ours, unit) in LATENCIES.items():
        latency = latencies.get(ours) or {}
        mean = (latency.get("mean") or {}).get("value")
        if mean is None:
            continue
        values = {key: latency.get(key) for key in ("min", "max")}
        values |= {key: (latency.get(key) or {}).get("value") for key in PERCENTILES}
        made[name] = {"units": unit, "mean": mean, **{key: value for key, value in values.items() if value is not None}}
    return made


def _throughput(throughput: dict[str, Any]) -> dict[str, Any]:
    made = {}
    for name, (ours, unit) in RATES.items():
        value = ((throughput.get(ours) or {}).get("wall") or {}).get("value")
        if value is not None:
            made[name] = {"units": unit, "mean": value}
    if {"total_token_rate", "output_token_rate"} <= set(made):
        made["input_token_rate"] = {
            "units": "tokens/s",
            "mean": made["total_token_rate"]["mean"] - made["output_token_rate"]["mean"],
        }
    return made


def _observability(engine: dict[str, Any], gpu: dict[str, Any]) -> dict[str, Any] | None:
    aggregate = {}
    for name, told, unit in (
        ("running_requests", engine.get("running"), "count"),
        ("waiting_requests", engine.get("waiting"), "count"),
        ("kv_cache_usage", engine.get("kv_usage_ratio"), "fraction"),
        ("power_consumption", gpu.get("power_w"), "Watts"),
    ):
        if isinstance(told, dict) and told.get("mean") is not None:
            aggregate[name] = {
                "units": unit,
                **{key: told[key] for key in ("mean", "min", "max") if told.get(key) is not None},
            }
    if (hits := engine.get("prefix_hit_ratio")) is not None:
        aggregate["cache_hit_rate"] = {"units": "fraction", "mean": hits}
    return {"components": [{"component_label": LABEL, "aggregate": aggregate}]} if aggregate else None


def _load(summary: dict[str, Any]) -> dict[str, Any] | None:
    """What was sent; none where nobody knows how long the prompts were, which the schema asks for."""
    tokens, cell = summary.get("tokens") or {}, summary.get("cell") or {}
    prompt = _length(tokens.get("prompt_per_request"))
    if prompt is None:
        return None
    asked, n = tokens.get("output_asked"), (summary.get("n") or {}).get("ok")
    settings = cell.get("load") or {}
    given = (summary.get("concurrency") or {}).get("asked")
    return {
        "metadata": _without_none({"cfg_id": cell.get("settings_sha256")}),
        "standardized": _without_none(
            {
                "tool": "llmpar",
                "tool_version": str((summary.get("provenance") or {}).get("llmpar") or "unknown"),
                "source": "unknown",
                "input_seq_len": _sequence(prompt["mean"], prompt.get("min"), prompt.get("max")),
                "output_seq_len": _sequence(asked / n, None, None) if asked and n else None,
                "rate_qps": settings.get("rate") or None,
                "concurrency": given,
            }
        ),
        "native": {"config": settings or None},
    }


def _sequence(mean: float, least: int | None, most: int | None) -> dict[str, Any]:
    fixed = least is not None and least == most
    made = {"distribution": "fixed" if fixed else "other", "value": mean, "min": least, "max": most}
    return {name: value for name, value in made.items() if value is not None}


def _stack(summary: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The engine: by the schema's own component where the GPUs are known, else by a generic one."""
    server, host, cell = summary.get("server") or {}, summary.get("host") or {}, summary.get("cell") or {}
    engine = server.get("engine") or (summary.get("workload") or {}).get("engine")
    if not isinstance(engine, str):
        return None
    settings = server.get("settings") or cell.get("server") or {}
    model = server.get("model") or (summary.get("workload") or {}).get("model")
    version = str(server.get("version") or "unknown")
    gpus = [gpu for gpu in host.get("gpus") or [] if not server.get("gpus") or gpu.get("index") in server["gpus"]]
    replicas, shards = int(settings.get("replicas") or 1), int(settings.get("shards") or 1)
    standardized: dict[str, Any]
    if gpus and isinstance(model, str):
        standardized = {
            "kind": "inference_engine",
            "tool": engine,
            "tool_version": version,
            "role": "replica",
            "replicas": replicas,
            "model": {"name": model},
            "accelerator": {
                "model": str(gpus[0].get("name")),
                "count": shards,  # of one replica
                "parallelism": {"tp": shards},
            },
        }
    else:
        standardized = {"kind": "generic", "tool": engine, "tool_version": version}
        standardized |= _without_none(
            {"model": ", ".join(words.names(model)) or None, "cpu": host.get("cpu"), "replicas": replicas}
        )
    return [
        {
            "metadata": {"label": LABEL, "cfg_id": str(cell.get("settings_sha256") or engine)},
            "standardized": standardized,
            "native": _without_none({"config": settings}),
        }
    ]
