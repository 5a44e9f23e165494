"""An engine's samples over an interval, reduced to figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmpar.sampling.engine_metrics import COUNTERS

# Reduction.


def reduce(samples: list[dict[str, Any]], start: float, end: float) -> dict[str, Any]:
    """Figures of `engine` records, sorted by `at`, over the instants from `start` to `end`.

    Gauges: mean and max of the samples inside. Counters: interpolated between samples at both edges, each server by
    itself, rates over the time that was sampled; after a reset (the server started anew) what it counted since is
    added, and the reset is counted. Figures that cannot be had are None. `counters_at_end` true: token rates lag by up
    to one request's length at both edges.
    """
    inside = [sample for sample in samples if start <= sample["at"] <= end]
    figures: dict[str, Any] = {
        "samples": len(inside),
        "errors": sum(1 for sample in inside if sample.get("error")),
        "start_at": start,
        "end_at": end,
    }
    for field in ("running", "waiting", "kv_usage_ratio"):
        values = [sample[field] for sample in inside if sample.get(field) is not None]
        figures[field] = {"mean": sum(values) / len(values), "max": max(values), "n": len(values)} if values else None
    figures["kv_full_ratio"] = _share(inside, "kv_usage_ratio", lambda value: value >= 0.95)
    figures["waiting_ratio"] = _share(inside, "waiting", lambda value: value > 0)
    figures["kv_capacity_tokens"] = _last(inside, "kv_capacity_tokens")

    servers = _servers(samples)
    resets = 0
    grown: dict[str, float | None] = {}
    rate: dict[str, float | None] = {}
    for field in COUNTERS:
        parts = [_growth(points, field, start, end) for points in servers]
        known = [part for part in parts if part is not None]
        whole = bool(known) and len(known) == len(parts)
        grown[field] = sum(part[0] for part in known) if whole else None
        rate[field] = sum(part[0] / part[2] for part in known) if whole else None
        resets = max(resets, sum(part[1] for part in known))
    figures["counter_resets"] = resets
    figures["counters_at_end"] = _last(inside or samples, "counters_at_end")
    for field in ("preemptions", "requests", "prompt_tokens", "generation_tokens"):
        figures[field] = grown[field + "_total"]
    for field in ("prompt_tokens", "generation_tokens"):
        figures[field + "_per_s"] = rate[field + "_total"]
    figures["spec_drafts"] = grown["spec_drafts_total"]
    figures["spec_acceptance_ratio"] = _over(grown["spec_accepted_tokens_total"], grown["spec_draft_tokens_total"])
    if figures["spec_acceptance_ratio"] is None:
        gauge = [
            sample["spec_acceptance_ratio"] for sample in inside if sample.get("spec_acceptance_ratio") is not None
        ]
        figures["spec_acceptance_ratio"] = sum(gauge) / len(gauge) if gauge else None
    extra = _over(grown["spec_accepted_tokens_total"], grown["spec_drafts_total"])
    figures["spec_tokens_per_step"] = None if extra is None else 1 + extra
    figures["prefix_hit_ratio"] = _over(grown["prefix_hits_total"], grown["prefix_queries_total"])
    figures["queue_s_mean"] = _over(grown["queue_s_total"], grown["queue_requests_total"])
    figures["prefill_s"], figures["decode_s"] = grown["prefill_s_total"], grown["decode_s_total"]

    cpu = _growth([(sample["at"], sample) for sample in samples], "cpu_s", start, end)
    others = [sample["other_cpu_ratio"] for sample in inside if sample.get("other_cpu_ratio") is not None]
    figures["other_cpu_ratio"] = sum(others) / len(others) if others else None
    figures["other_cpu_before_ratio"] = samples[0].get("other_cpu_ratio") if samples else None
    figures["cpu_cores_mean"] = cpu[0] / cpu[2] if cpu else None
    for field in ("rss_bytes", "pss_bytes", "threads", "processes"):
        values = [sample[field] for sample in inside if sample.get(field) is not None]
        figures[field + "_max"] = max(values) if values else None
    return figures


def _over(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _share(samples: list[dict[str, Any]], field: str, test: Callable[[Any], bool]) -> float | None:
    values = [sample[field] for sample in samples if sample.get(field) is not None]
    return sum(1 for value in values if test(value)) / len(values) if values else None


def _last(samples: list[dict[str, Any]], field: str) -> Any:
    return next((sample[field] for sample in reversed(samples) if sample.get(field) is not None), None)


def _servers(samples: list[dict[str, Any]]) -> list[list[tuple[float, dict[str, Any]]]]:
    """The samples of each server by itself, as (instant, fields)."""
    by_url: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for sample in samples:
        replicas = sample.get("replicas")
        for replica in replicas if replicas else [{**sample, "url": ""}]:
            by_url.setdefault(replica.get("url", ""), []).append((sample["at"], replica))
    return list(by_url.values())


def _growth(
    points: list[tuple[float, dict[str, Any]]], field: str, start: float, end: float
) -> tuple[float, int, float] | None:
    """How much a counter grew from `start` to `end`, how often it fell back, and over how many of these seconds it was
    read.

    Between readings it is taken to grow evenly. None where no two readings span a part of the time.
    """
    values = [(at, fields[field]) for at, fields in points if fields.get(field) is not None]
    total, resets, covered = 0.0, 0, 0.0
    for (before, low), (after, high) in zip(values, values[1:], strict=False):
        shared = min(after, end) - max(before, start)
        if shared <= 0 or after <= before:
            continue
        step = high - low
        if step < 0:
            step, resets = high, resets + 1
        total += step * shared / (after - before)
        covered += shared
    return (total, resets, covered) if covered else None
