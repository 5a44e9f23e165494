"""Engines' own metrics to canonical fields, and samples of them reduced to figures over a window. No I/O.

The names are in each engine's row, `Engine.metrics`; docs/wire.md has them as a table, with their sources.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import orjson

from llmpar import outside
from llmpar.engines import ENGINES, Metrics

_HIGHEST = {"kv_usage_ratio", "spec_acceptance_ratio"}
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
VALUE_LIMIT = 10**15  # no engine counts further, and sums of replicas still are numbers of 64 bits


def _wanted(metrics: Metrics) -> re.Pattern[str]:
    names = {name for names in metrics.names.values() for name in names}
    names |= {metrics.cache_info} if metrics.cache_info else set()
    either = "|".join(map(re.escape, sorted(names)))
    return re.compile(rf"^{re.escape(metrics.prefix)}(?:{either})(?:_total)?[ \t{{].*$", re.M)


@cache
def _known() -> tuple[tuple[Metrics, re.Pattern[str]], ...]:
    rows = [engine.metrics for engine in ENGINES.values()]
    return tuple((metrics, _wanted(metrics)) for metrics in rows if metrics and metrics.names)


def parse(document: bytes) -> dict[str, Any]:
    """The canonical fields in one engine's metrics: Prometheus text, or TensorRT-LLM's JSON list of iterations.

    All of FIELDS are there, None where the engine does not tell, and `kv_used_tokens` where it tells that instead of a
    ratio. Raises ValueError for a document that is neither or holds no known metric.
    """
    document = document.removeprefix(codecs.BOM_UTF8)
    if document.lstrip()[:1] in (b"[", b"{"):
        return _iterations(document)
    whole = document.decode("utf-8", "replace")
    # Only the lines of interest go through the parser: a full document of vLLM costs 20 times as much.
    matches = ((metrics, lines) for metrics, wanted in _known() if (lines := wanted.findall(whole)))
    metrics, lines = next(matches, (None, []))
    if metrics is None:
        raise ValueError("no metric of a known engine")
    series: dict[str, list[Any]] = {}
    for sample in _samples(lines):
        series.setdefault(sample.name.removeprefix(metrics.prefix), []).append(sample)
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    for field, names in metrics.names.items():
        # Several series of one name (data-parallel engines, models) are added up, but for the fields in _HIGHEST.
        samples = next((series[key] for name in names for key in (name, name + "_total") if key in series), None)
        if samples is not None:
            values = _values(samples)
            if values and all(0 <= value <= VALUE_LIMIT for value in values):
                value = max(values) if field in _HIGHEST else sum(values)
                fields[field] = int(value) if field in _COUNTS or value == int(value) and field in COUNTERS else value
    swapped = fields.pop("swapped", None)
    if swapped and fields["waiting"] is not None:
        fields["waiting"] += int(swapped)  # pre-empted to the host: they wait as well
    if fields.pop("acceptance_length", None) == 0:
        fields["spec_acceptance_ratio"] = None  # SGLang says 0 of drafts that it never made
    if metrics.cache_info in series:
        fields["kv_capacity_tokens"] = _capacity(series[metrics.cache_info])
    hits, prompt = fields["prefix_hits_total"], fields["prompt_tokens_total"]
    if metrics.hits_in_prompt is not None and hits is not None and prompt is not None:
        fields["prefix_queries_total"] = prompt + (0 if metrics.hits_in_prompt else hits)
    fields["counters_at_end"] = metrics.counters_at_end
    return fields


def _samples(lines: list[str]) -> list[Any]:
    """The samples in lines of Prometheus text; a line that cannot be read costs itself."""
    from prometheus_client.parser import text_string_to_metric_families

    def read(text: str) -> list[Any]:
        return [sample for family in text_string_to_metric_families(text + "\n") for sample in family.samples]

    try:
        return read("\n".join(lines))
    except ValueError:
        found: list[Any] = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found += read(line)
        return found


# Labels of ranks that serve the same requests (tensor and pipeline parallel), unlike those of dp_rank and engine.
_SAME_REQUESTS = ("tp_rank", "pp_rank", "moe_ep_rank", "attn_tp_rank")
_NOT_WELL = ("abort", "error", "cancelled", "canceled")  # finish reasons of requests that did not end well


def _values(samples: Iterable[Any]) -> list[float]:
    """One value for each group of ranks that say the same, without the requests that were aborted; readings that are no
    number are left out."""
    highest: dict[tuple[Any, ...], float] = {}
    for sample in samples:
        if sample.value != sample.value or sample.labels.get("finished_reason") in _NOT_WELL:
            continue
        key = tuple(sorted(item for item in sample.labels.items() if item[0] not in _SAME_REQUESTS))
        highest[key] = max(sample.value, highest.get(key, sample.value))
    return list(highest.values())


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
        if _digits(tokens):
            total += int(tokens)
        elif _digits(blocks) and _digits(size):
            total += int(blocks) * int(size)
        else:
            return None
    return outside.count(total) or None


def _digits(label: str | None) -> bool:
    return label is not None and label.isascii() and label.isdigit() and len(label) < 16


def _iterations(document: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(document)
    except orjson.JSONDecodeError:
        raise ValueError("not metrics: neither Prometheus text nor JSON") from None
    figures: dict[str, Any] = dict.fromkeys(FIELDS)
    if isinstance(value, list) and not value:
        return figures  # drained by the last reading: no new iteration
    last = value[-1] if isinstance(value, list) else value
    if not isinstance(last, dict) or "numActiveRequests" not in last:
        raise ValueError("no metric of a known engine")
    count = outside.count
    figures["running"], figures["waiting"] = count(last["numActiveRequests"]), count(last.get("numQueuedRequests"))
    cache = last.get("kvCacheStats")
    cache = cache if isinstance(cache, dict) else {}
    blocks, used, size = (count(cache.get(name)) for name in ("maxNumBlocks", "usedNumBlocks", "tokensPerBlock"))
    if blocks:
        figures["kv_usage_ratio"] = None if used is None else used / blocks
        if size:
            figures["kv_capacity_tokens"] = count(blocks * size)
    return figures


def slots(document: bytes) -> tuple[int, int]:
    """Tokens held and tokens that fit, from llama.cpp's /slots. Raises ValueError."""
    try:
        value = orjson.loads(document)
        used = sum(slot["n_prompt_tokens"] for slot in value if slot["is_processing"])
        counts = outside.count(used), outside.count(sum(slot["n_ctx"] for slot in value))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"not slots: {error!r}") from None
    if None in counts:
        raise ValueError("not slots: their tokens are no counts")
    return counts[0] or 0, counts[1] or 0


def combine(replicas: list[dict[str, Any]]) -> dict[str, Any]:
    """One view of several servers: sums; the highest use of KV cache; None where any server is unknown or silent."""
    figures: dict[str, Any] = dict.fromkeys(FIELDS)
    for field in FIELDS:
        values = [replica.get(field) for replica in replicas]
        if not values or any(value is None for value in values):
            continue
        if field == "counters_at_end":
            figures[field] = any(values)
        else:
            numbers = [value for value in values if value is not None]
            figures[field] = max(numbers) if field in _HIGHEST else sum(numbers)
    return figures
