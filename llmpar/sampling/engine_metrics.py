"""Engines' own metrics to canonical fields, and samples of them reduced to figures over a window. No I/O.

docs/wire.md has the table of names; the sources are the engines' documentation and code as cited there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

# Canonical field -> sample names, the first that is there wins. Several series of one name (data-parallel ranks,
# reasons) are added up, but for the fields in _HIGHEST.
NAMES: dict[str, tuple[str, ...]] = {
    "running": (
        "vllm:num_requests_running",
        "aphrodite:num_requests_running",
        "lmdeploy:num_requests_running",
        "sglang:num_running_reqs",
        "llamacpp:requests_processing",
        "tgi_batch_current_size",
        "ctranslate2:num_requests_running",
    ),
    "waiting": (
        "vllm:num_requests_waiting",
        "aphrodite:num_requests_waiting",
        "lmdeploy:num_requests_waiting",
        "sglang:num_queue_reqs",
        "llamacpp:requests_deferred",
        "tgi_queue_size",
        "ctranslate2:num_requests_waiting",
    ),
    "swapped": ("vllm:num_requests_swapped", "aphrodite:num_requests_swapped"),
    "kv_usage_ratio": (
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "aphrodite:kv_cache_usage_perc",
        "aphrodite:gpu_cache_usage_perc",
        "lmdeploy:gpu_cache_usage_perc",
        "sglang:token_usage",
    ),
    "kv_used_tokens": ("tgi_batch_current_max_tokens",),
    "kv_capacity_tokens": ("sglang:max_total_num_tokens",),
    "preemptions_total": (
        "vllm:num_preemptions_total",
        "aphrodite:num_preemptions_total",
        "sglang:num_retracted_reqs_total",
    ),
    "requests_total": (
        "vllm:request_success_total",
        "aphrodite:request_success_total",
        "lmdeploy:request_success_total",
        "sglang:num_requests_total",
        "tgi_request_success",
    ),
    "prompt_tokens_total": (
        "vllm:prompt_tokens_total",
        "aphrodite:prompt_tokens_total",
        "lmdeploy:prompt_tokens_total",
        "sglang:prompt_tokens_total",
        "llamacpp:prompt_tokens_total",
        "tgi_request_input_length_sum",
        "ctranslate2:prompt_tokens_total",
    ),
    "generation_tokens_total": (
        "vllm:generation_tokens_total",
        "aphrodite:generation_tokens_total",
        "lmdeploy:generation_tokens_total",
        "sglang:generation_tokens_total",
        "llamacpp:tokens_predicted_total",
        "tgi_request_generated_tokens_sum",
        "ctranslate2:generation_tokens_total",
    ),
    "spec_drafts_total": (
        "vllm:spec_decode_num_drafts_total",
        "aphrodite:spec_decode_num_drafts_total",
        "lmdeploy:spec_decode_num_drafts_total",
        "llamacpp:spec_decode_num_drafts_total",
        "tgi_request_skipped_tokens_count",
    ),
    "spec_draft_tokens_total": (
        "vllm:spec_decode_num_draft_tokens_total",
        "aphrodite:spec_decode_num_draft_tokens_total",
        "lmdeploy:spec_decode_num_draft_tokens_total",
        "llamacpp:spec_decode_num_draft_tokens_total",
    ),
    "spec_accepted_tokens_total": (
        "vllm:spec_decode_num_accepted_tokens_total",
        "aphrodite:spec_decode_num_accepted_tokens_total",
        "lmdeploy:spec_decode_num_accepted_tokens_total",
        "llamacpp:spec_decode_num_accepted_tokens_total",
        "tgi_request_skipped_tokens_sum",
    ),
    "spec_acceptance_ratio": ("sglang:spec_accept_rate",),
    "prefix_queries_total": (
        "vllm:prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_queries_total",
        "aphrodite:prefix_cache_queries_total",
        "aphrodite:gpu_prefix_cache_queries_total",
    ),
    "prefix_hits_total": (
        "vllm:prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits_total",
        "aphrodite:prefix_cache_hits_total",
        "aphrodite:gpu_prefix_cache_hits_total",
        "sglang:cached_tokens_total",
        "llamacpp:prompt_tokens_cached_total",
    ),
    "queue_s_total": (
        "vllm:request_queue_time_seconds_sum",
        "aphrodite:request_queue_time_seconds_sum",
        "sglang:queue_time_seconds_sum",
        "tgi_request_queue_duration_sum",
    ),
    "queue_requests_total": (
        "vllm:request_queue_time_seconds_count",
        "aphrodite:request_queue_time_seconds_count",
        "sglang:queue_time_seconds_count",
        "tgi_request_queue_duration_count",
    ),
    "prefill_s_total": (
        "vllm:request_prefill_time_seconds_sum",
        "aphrodite:request_prefill_time_seconds_sum",
        "llamacpp:prompt_seconds_total",
    ),
    "decode_s_total": (
        "vllm:request_decode_time_seconds_sum",
        "aphrodite:request_decode_time_seconds_sum",
        "llamacpp:tokens_predicted_seconds_total",
    ),
}
_CACHE_INFO = ("vllm:cache_config_info", "aphrodite:cache_config_info")
_PREFIXES = ("vllm:", "aphrodite:", "lmdeploy:", "sglang:", "llamacpp:", "tgi_", "ctranslate2:")
_HIGHEST = {"kv_usage_ratio", "spec_acceptance_ratio"}
# Whose token counters move only when a request ends; vLLM's and Aphrodite's move with each step.
_AT_END = {"llamacpp:": True, "tgi_": True, "sglang:": True, "vllm:": False, "aphrodite:": False, "ctranslate2:": False}
_COUNTS = {"running", "waiting", "kv_capacity_tokens"}

FIELDS = (
    "running",
    "waiting",
    "kv_usage_ratio",
    "kv_capacity_tokens",
    "preemptions_total",
    "requests_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "spec_drafts_total",
    "spec_draft_tokens_total",
    "spec_accepted_tokens_total",
    "spec_acceptance_ratio",
    "prefix_queries_total",
    "prefix_hits_total",
    "queue_s_total",
    "queue_requests_total",
    "prefill_s_total",
    "decode_s_total",
    "counters_at_end",
)
COUNTERS = tuple(field for field in FIELDS if field.endswith("_total"))
_WANTED = re.compile(
    r"^(?:"
    + "|".join(
        sorted(
            {re.escape(name) for names in NAMES.values() for name in names} | {re.escape(name) for name in _CACHE_INFO}
        )
    )
    + r")(?:_total)?[ {].*$",
    re.M,
)


def parse(document: bytes) -> dict[str, Any]:
    """The canonical fields in one engine's metrics: Prometheus text, or TensorRT-LLM's JSON list of iterations.

    All of FIELDS are there, None where the engine does not tell, and `kv_used_tokens` where it tells that instead of a
    ratio. Raises ValueError for a document that is neither or holds no known metric.
    """
    if document.lstrip()[:1] in (b"[", b"{"):
        return _iterations(document)
    from prometheus_client.parser import text_string_to_metric_families

    # Only the lines of interest go through the parser: a full document of vLLM costs 20 times as much.
    text = "\n".join(_WANTED.findall(document.decode("utf-8", "replace"))) + "\n"
    series: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series.setdefault(sample.name, []).append(sample)
    prefix = next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in series)), None)
    if prefix is None:
        raise ValueError("no metric of a known engine")
    found: dict[str, Any] = dict.fromkeys(FIELDS)
    for field, names in NAMES.items():
        samples = next((series[key] for name in names for key in (name, name + "_total") if key in series), None)
        if samples is not None:
            values = [sample.value for sample in samples if sample.value == sample.value]
            if values:
                value = max(values) if field in _HIGHEST else sum(values)
                found[field] = int(value) if field in _COUNTS or value == int(value) and field in COUNTERS else value
    swapped = found.pop("swapped", None)
    if swapped and found["waiting"] is not None:
        found["waiting"] += int(swapped)  # pre-empted to the host: they wait as well
    for name in _CACHE_INFO:
        if name in series:
            found["kv_capacity_tokens"] = _capacity(series[name])
    if (
        prefix in ("sglang:", "llamacpp:")
        and found["prefix_hits_total"] is not None
        and found["prompt_tokens_total"] is not None
    ):
        # llama.cpp's prompt tokens leave cached ones out, SGLang's do not.
        found["prefix_queries_total"] = found["prompt_tokens_total"] + (
            found["prefix_hits_total"] if prefix == "llamacpp:" else 0
        )
    found["counters_at_end"] = _AT_END.get(prefix)
    return found


def _capacity(samples: Iterable[Any]) -> int | None:
    """Tokens that the KV cache holds, from vLLM's configuration labels, over all ranks."""
    total = 0
    for sample in samples:
        labels = sample.labels
        tokens, blocks, size = (
            labels.get("kv_cache_size_tokens"),
            labels.get("num_gpu_blocks"),
            labels.get("block_size"),
        )
        if tokens and tokens.isdigit():
            total += int(tokens)
        elif blocks and size and blocks.isdigit() and size.isdigit():
            total += int(blocks) * int(size)
        else:
            return None
    return total or None


def _iterations(document: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(document)
    except orjson.JSONDecodeError:
        raise ValueError("not metrics: neither Prometheus text nor JSON") from None
    found: dict[str, Any] = dict.fromkeys(FIELDS)
    if isinstance(value, list) and not value:
        return found  # drained by the last reading: no new iteration
    last = value[-1] if isinstance(value, list) else value
    if not isinstance(last, dict) or "numActiveRequests" not in last:
        raise ValueError("no metric of a known engine")
    found["running"], found["waiting"] = last["numActiveRequests"], last.get("numQueuedRequests")
    cache = last.get("kvCacheStats") or {}
    if cache.get("maxNumBlocks"):
        found["kv_usage_ratio"] = cache.get("usedNumBlocks", 0) / cache["maxNumBlocks"]
        if cache.get("tokensPerBlock"):
            found["kv_capacity_tokens"] = cache["maxNumBlocks"] * cache["tokensPerBlock"]
    return found


def slots(document: bytes) -> tuple[int, int]:
    """Tokens held and tokens that fit, from llama.cpp's /slots. Raises ValueError."""
    try:
        value = orjson.loads(document)
        used = sum(slot["n_prompt_tokens"] for slot in value if slot["is_processing"])
        return used, sum(slot["n_ctx"] for slot in value)
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"not slots: {error!r}") from None


def combine(replicas: list[dict[str, Any]]) -> dict[str, Any]:
    """One view of several servers: sums; the highest use of KV cache; None where any server is unknown or silent."""
    found: dict[str, Any] = dict.fromkeys(FIELDS)
    for field in FIELDS:
        values = [replica.get(field) for replica in replicas]
        if not values or any(value is None for value in values):
            continue
        if field == "counters_at_end":
            found[field] = any(values)
        else:
            numbers = [value for value in values if value is not None]
            found[field] = max(numbers) if field in _HIGHEST else sum(numbers)
    return found
