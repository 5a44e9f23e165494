"""The shapes of records: which fields hold numbers, texts, lists and objects, as docs/records.md says.

Looked at where a record is read, so that what comes after may rely on it. Null passes everywhere, and so do fields that
have no shape here.
"""

from __future__ import annotations

import math
from typing import Any

DEEPEST = 100  # levels of nesting; what reads a record walks it
LATEST = 1e11  # epoch seconds, in the year 5138
LONGEST = 1e9  # seconds, 32 years
# Sizes of numbers whose powers and ratios still are numbers; no clock, counter or sensor goes beyond.
LARGEST, SMALLEST = 1e18, 1e-30

NUMBER, COUNT, INSTANT, DURATION = "a number", "a count", "an instant", "a duration"
TEXT, FLAG, PLAIN, ANY = "a text", "yes or no", "plain", ""
Shape = str | list[Any] | dict[str, Any]


def _of(shape: Shape, names: str) -> dict[str, Shape]:
    return dict.fromkeys(names.split(), shape)


ESTIMATE = _of(NUMBER, "value low high needed at_least at_most")
# Mean and percentiles by name, and plain numbers.
DISTRIBUTION = _of(ESTIMATE, "mean p50 p90 p95 p99") | _of(NUMBER, "min max") | {"n": COUNT}
RATE = {"wall": ESTIMATE, "steady": ESTIMATE}
SPREAD = _of(NUMBER, "min mean p50 p99 max") | {"n": COUNT}
BOUNDS = _of(NUMBER, "low high")
SAMPLED = _of(NUMBER, "mean max n")
LATENCIES = _of(DISTRIBUTION, "ttft_s itl_s event_latency_s tpot_s e2e_s effective_ttft_s effective_e2e_s")
# Why a figure is doubted: a code and the words; what to try, where anything helps.
REASON: dict[str, Any] = _of(TEXT, "code message try")
SAID = [REASON]
SETTINGS = {"*": PLAIN}

CELL: dict[str, Shape] = _of(TEXT, "id sweep session settings_sha256") | {
    "repeat": COUNT,
    "varies": SETTINGS,
    "server": SETTINGS,
    "load": SETTINGS
    | _of(COUNT, "clients count skip take max_tokens prompt_tokens warmup")
    | _of(NUMBER, "rate shape timeout_s duration_s prefix_ratio"),
}
SERVER: dict[str, Shape] = _of(TEXT, "engine title version runtime api model base_url outcome message") | {
    "settings": {"*": ANY},
    "defaults": {"*": ANY},
    "gpus": [COUNT],
    "commands": [TEXT],
    "notes": [TEXT],
    "urls": [TEXT],
    "metrics_urls": [TEXT],
    "pids": [COUNT],
    "logs": [TEXT],
    "started_at": INSTANT,
    "ended_at": INSTANT,
    "ready_s": NUMBER,
    "startup": _of(NUMBER, "spawn_s weights_s compile_s graphs_s first_token_s other_s"),
    "probe": _of(PLAIN, "status text") | _of(NUMBER, "output_tokens waited_s"),
    "model_file": _of(NUMBER, "size_bytes") | {"name": TEXT, "modified_at": INSTANT},
}
HOST: dict[str, Shape] = (
    _of(TEXT, "host hostname name kernel machine distribution boot virtual cpu cpu_governor clock_source driver cuda")
    | _of(NUMBER, "cpu_mhz_max memory_bytes load_1min open_files_limit processes_limit")
    | {
        "at": INSTANT,
        "cpus": COUNT,
        "cpus_usable": COUNT,
        "cgroup": _of(NUMBER, "cpus memory_bytes"),
        "gpus": [_of(NUMBER, "memory_bytes power_limit_w power_max_w") | _of(TEXT, "name uuid pci") | {"used": FLAG}],
        "gpus_reason": TEXT,
        "software": {"python": TEXT, "packages": SETTINGS, "tools": SETTINGS, "commit": TEXT},
    }
)
_GAUGES = (
    "power_w memory_used_bytes memory_total_bytes engine_memory_bytes pcie_tx_bytes_per_s pcie_rx_bytes_per_s "
    "nvlink_tx_bytes_per_s nvlink_rx_bytes_per_s gpu_util_ratio memory_util_ratio sm_util_ratio sm_occupancy_ratio "
    "tensor_ratio tensor_hmma_ratio tensor_imma_ratio dram_ratio fp16_ratio fp32_ratio sm_clock_mhz memory_clock_mhz "
    "temperature_c memory_temperature_c"
)
_COUNTERS = (
    "kv_capacity_tokens preemptions_total requests_total prompt_tokens_total generation_tokens_total "
    "spec_drafts_total spec_draft_tokens_total spec_accepted_tokens_total spec_acceptance_ratio prefix_queries_total "
    "prefix_hits_total queue_s_total queue_requests_total prefill_s_total decode_s_total running waiting kv_usage_ratio"
)
SUMMARY: dict[str, Shape] = _of(TEXT, "label session latency_failures latency_over") | {
    "cell": CELL,
    "n": _of(COUNT, "requests ok error timeout cancelled retried torn_lines"),
    "failures": {"*": COUNT},
    "finish": {"*": COUNT},
    "started_at": INSTANT,
    "ended_at": INSTANT,
    "wall_s": ESTIMATE,
    "window": _of(NUMBER, "duration_s ramp_s drain_s requests completed ttft_drift_ratio wave_ratio")
    | _of(INSTANT, "start_at end_at")
    | {"steady": FLAG, "reason": TEXT, "method": TEXT},
    "conversations": _of(COUNT, "n complete later_turns")
    | _of(SPREAD | {"p95": NUMBER}, "turns_per_conversation duration_s think_s")
    | {
        "turns": [
            _of(COUNT, "turn n ok")
            | _of(SPREAD | {"p95": NUMBER}, "ttft_s e2e_s")
            | _of(NUMBER, "prompt_tokens_mean cached_ratio")
        ]
    },
    "models": [
        _of(COUNT, "n ok output_tokens")
        | _of(SPREAD | {"p95": NUMBER}, "ttft_s tpot_s e2e_s")
        | {"model": TEXT, "output_tokens_per_s": NUMBER}
    ],
    "prefix": _of(NUMBER, "asked_ratio achieved_ratio engine_ratio") | {"source": TEXT},
    "latency": LATENCIES,
    "latency_run": LATENCIES,
    "throughput": _of(RATE, "output_tokens_per_s total_tokens_per_s requests_per_s goodput_per_s"),
    "goodput": _of(NUMBER, "met ratio") | {"objectives": {"*": NUMBER}, "steady": _of(NUMBER, "requests met ratio")},
    "concurrency": _of(NUMBER, "achieved ratio steady wall") | _of(COUNT, "asked peak"),
    "tokens": _of(NUMBER, "prompt output cached output_asked disputed short unknown_split")
    | {"sources": {"*": COUNT}, "output_per_request": SPREAD, "prompt_per_request": SPREAD},
    "client": _of(NUMBER, "turn_lost_ratio turn_launch_ratio")
    | _of(SPREAD, "cpu_wait_s launch_delay_s lateness_s")
    | {
        "limited": [TEXT],
        "turn_lost_over": TEXT,
        "clock": {"*": COUNT},
        "launchers": {"*": COUNT},
        "hosts": [TEXT],
        "clocks": [_of(TEXT, "host against") | _of(NUMBER, "offset_s moved_s error_s readings")],
        "crossing": _of(BOUNDS, "wall_s output_tokens_per_s requests_per_s concurrency") | {"error_s": NUMBER},
    },
    "workload": {
        "prompts": {"distinct": COUNT, "sha256": TEXT, "shares_sha256": TEXT},
        "sampling": {"*": ANY},
        "sampling_sha256": TEXT,
    },
    "series": {"start_at": INSTANT, "step_s": NUMBER, "in_flight": [NUMBER], "output_tokens_per_s": [NUMBER]},
    "server": SERVER,
    "host": HOST,
    "gpu": _of(SAMPLED, _GAUGES)
    | _of(NUMBER, "gpus instances samples errors missed step_s energy_j energy_resolution_j counter_resets")
    | {"gaps": _of(NUMBER, "n longest_s"), "clock_limits": {"*": NUMBER}, "power_source": TEXT, "energy_source": TEXT},
    "engine": _of(SAMPLED, "running waiting kv_usage_ratio")
    | _of(INSTANT, "start_at end_at")
    | _of(
        NUMBER,
        "samples errors kv_full_ratio waiting_ratio kv_capacity_tokens preemptions requests prompt_tokens "
        "generation_tokens spec_drafts prefill_s decode_s prompt_tokens_per_s generation_tokens_per_s "
        "spec_acceptance_ratio spec_tokens_per_step prefix_hit_ratio queue_s_mean cpu_cores_mean rss_bytes_max "
        "pss_bytes_max threads_max processes_max counter_resets other_cpu_ratio other_cpu_before_ratio",
    ),
    "joined": _of(
        NUMBER,
        "output_tokens energy_per_output_token_j energy_per_output_token_resolution_j queue_s_mean prefill_s_mean "
        "decode_s_mean",
    )
    | _of(INSTANT, "start_at end_at")
    | {"over": TEXT, "acceptance_length": _of(NUMBER, "forced observed"), "causes": SAID},
    "ended_early": {"verdict": TEXT, "objectives": {"*": NUMBER}, "requests": COUNT},
    "warnings": SAID,
    "provenance": {"llmpar": TEXT, "confidence": NUMBER, "options": {"*": ANY}, "records_sha256": TEXT},
}
_SIDE = {"label": TEXT, "sessions": COUNT, "values": [NUMBER], "value": NUMBER, "cells": [TEXT]}
SHAPES: dict[str, dict[str, Shape]] = {
    "summary": SUMMARY,
    "cell": CELL,
    "server": SERVER,
    "host": HOST,
    "verdict": _of(TEXT, "figure better verdict method correction sentence")
    | _of(NUMBER, "confidence margin_ratio")
    | {
        "at": SETTINGS,
        "a": _SIDE,
        "b": _SIDE,
        "effect": _of(NUMBER, "ratio low high speedup speedup_low speedup_high"),
        "reasons": SAID,
        "needed": {"sessions": COUNT},
        "history": {
            "nights": [{"session": TEXT, "started_at": INSTANT, "value": NUMBER}],
            "pinned": COUNT,
            "change_points": [_of(COUNT, "index spoken_index") | {"label": TEXT, "ratio": NUMBER}],
        },
    },
    "gpu": _of(NUMBER, _GAUGES + " pcie_tx_bytes pcie_rx_bytes nvlink_tx_bytes nvlink_rx_bytes missed")
    | _of(NUMBER, "power_instant_w power_average_w energy_counter_j gpm_s read_s")
    | _of(TEXT, "host uuid power_source")
    | {
        "at": INSTANT,
        "gpu": COUNT,
        "mig": _of(COUNT, "instance gpu_instance compute_instance"),
        "error": _of(TEXT, "type message"),
        "clock_limits": [TEXT],
        "processes": [{"pid": COUNT, "memory_bytes": NUMBER, "engine": FLAG}],
        "unsupported": [TEXT],
    },
    "engine": _of(NUMBER, _COUNTERS + " scrape_s missed processes cpu_s rss_bytes pss_bytes threads other_cpu_ratio")
    | {
        "at": INSTANT,
        "host": TEXT,
        "error": TEXT,
        "counters_at_end": FLAG,
        "replicas": [_of(NUMBER, _COUNTERS) | {"url": TEXT, "error": TEXT, "counters_at_end": FLAG}],
    },
    "ended": {"verdict": TEXT, "objectives": {"*": NUMBER}, "requests": COUNT},
    "clock": {"at": INSTANT, "host": TEXT, "against": TEXT} | _of(DURATION, "offset_s error_s rtt_s"),
    "card": _of(TEXT, "name title table_model torch")
    | _of(
        NUMBER, "memory_bytes bandwidth_bytes_per_s tensor_flops measured_bandwidth_bytes_per_s measured_tensor_flops"
    )
    | _of([NUMBER], "tokens dense_ms head_tokens head_ms"),
    "manifest": {"at": INSTANT, "llmpar": TEXT, "files": COUNT, "host": [TEXT], "prompts": {"*": TEXT}},
    "file": {"path": TEXT, "bytes": COUNT, "sha256": TEXT, "records": COUNT, "command": [TEXT]},
    "prompt": _of(TEXT, "name sha256 token_source source source_id") | _of(COUNT, "bytes tokens output_tokens"),
}
# Fields without which a record says nothing that its readers could use.
NEEDED = {
    "summary": ("n.requests", "n.ok", "tokens", "client", "workload.prompts"),
    "gpu": ("at",),
    "engine": ("at",),
    "file": ("path", "sha256"),
    "prompt": ("name", "sha256", "tokens"),
    "verdict": ("figure", "verdict", "a", "b", "sentence"),
}
# Which command writes the record anew.
WRITERS = {
    "summary": "llmpar-summarise rewrites it from its records",
    "cell": "llmpar-cells rewrites it from the table",
    "server": "llmpar-serve writes it; measure again",
    "host": "llmpar-doctor --host rewrites it",
    "verdict": "llmpar-compare rewrites it from its summaries",
    "card": "llmpar-calibrate rewrites it",
    "manifest": "llmpar-manifest rewrites it",
    "file": "llmpar-manifest rewrites it",
    "prompt": "llmpar-prompts --index rewrites it",
    "clock": "llmpar-clock rewrites it",
}


def fault(record: dict[str, Any]) -> str | None:
    """What is wrong with the shape of a record of a known version, and what to do; None for a good one."""
    kind = record["kind"]
    shape = SHAPES.get(kind)
    if _too_deep(record):
        return f"{kind} record nested deeper than {DEEPEST} levels"
    if shape is None:
        return None
    wrong = _object(record, shape, "")
    if wrong is None and (missing := next((name for name in NEEDED.get(kind, ()) if _without(record, name)), None)):
        wrong = f"without '{missing}'"
    if wrong is None:
        return None
    remedy = WRITERS.get(kind)
    return f"{kind} record {wrong}" + (f"; {remedy}" if remedy else "")


def _without(record: dict[str, Any], name: str) -> bool:
    value: Any = record
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value is None


def _object(value: dict[str, Any], shape: dict[str, Any], path: str) -> str | None:
    every = shape.get("*")
    for key, item in value.items():
        wanted = shape.get(key, every)
        if wanted and item is not None and (wrong := _at(item, wanted, f"{path}{key}")):
            return wrong
    return None


def _at(value: Any, shape: Shape, path: str) -> str | None:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return _other(path, value, "an object")
        if shape is REASON and (value.get("code") is None or value.get("message") is None):
            return f"whose '{path}' has no code or no message"
        return _object(value, shape, f"{path}.")
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _other(path, value, "a list")
        inside = (_at(item, shape[0], f"{path}[{place}]") for place, item in enumerate(value))
        return next(filter(None, inside), None)
    if shape == TEXT:
        return None if isinstance(value, str) else _other(path, value, TEXT)
    if shape == FLAG:
        return None if isinstance(value, bool) else _other(path, value, FLAG)
    if shape == PLAIN and isinstance(value, str | bool):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _other(path, value, "a number, a text or yes or no" if shape == PLAIN else "a number")
    if not math.isfinite(value) or abs(value) > LARGEST or 0 < abs(value) < SMALLEST:
        return f"whose '{path}' is {value:g}, which is out of range"
    if shape == COUNT and (value < 0 or value != int(value)):
        return f"whose '{path}' is {value:g}, not a count"
    if shape == INSTANT and not 0 <= value <= LATEST:
        return f"whose '{path}' is {value:g}, not an instant in seconds since 1970"
    if shape == DURATION and abs(value) > LONGEST:
        return f"whose '{path}' is {value:g} s, which no clock says"
    return None


def _other(path: str, value: Any, wanted: str) -> str:
    words = {dict: "an object", list: "a list", str: "a text", bool: "yes or no", type(None): "null"}
    return f"whose '{path}' is {words.get(type(value), 'a number')}, not {wanted}"


def _too_deep(value: Any) -> bool:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            return True
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, dict | list)
        ]
    return False
