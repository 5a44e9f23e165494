"""The JSON report of `guidellm benchmark` (guidellm/schemas/request_stats.py and info.py, and the flat fields of
releases before 0.4)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from llmpar.other_tools import record as made


def wrote(document: dict[str, Any]) -> bool:
    return isinstance(document.get("benchmarks"), list)


def runs(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in made.listed(document.get("benchmarks")) if isinstance(each, dict)]


def describe(run: dict[str, Any]) -> str:
    strategy = _strategy(run)
    rate = strategy.get("streams") or strategy.get("rate") or strategy.get("max_concurrency")
    return f"{strategy.get('type_', 'unknown strategy')}{'' if rate is None else f' {rate}'}"


def _strategy(run: dict[str, Any]) -> dict[str, Any]:
    for path in (("config", "strategy"), ("scheduler", "strategy"), ("args", "strategy")):
        place: Any = run
        for name in path:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict):
            return place
    return {}


def entries(run: dict[str, Any], engine: str | None, clients: int | None) -> Iterator[made.Entry]:
    """GuideLLM keeps the first and last token's time only: no events, so no inter-token latency and no event
    latency."""
    groups = run.get("requests")
    if not isinstance(groups, dict) or not any(
        isinstance(groups.get(name), list) for name in ("successful", "errored", "incomplete")
    ):
        raise made.BadImport("the benchmark has no requests; write the report without leaving requests out")
    statuses = (("successful", "ok"), ("errored", "error"), ("incomplete", "cancelled"))
    whole = [(each, status) for name, status in statuses for each in made.listed(groups.get(name))]
    if not whole:
        raise made.BadImport("the benchmark has no requests")
    clients = made.clients(clients, _strategy(run).get("streams"))
    return (partial(_request, at, each, status, engine, clients) for at, (each, status) in enumerate(whole))


def _request(
    number: int, request: dict[str, Any], status: str, engine: str | None, asked: int | None
) -> dict[str, Any]:
    info = request.get("info") or request.get("scheduler_info") or {}
    timings = info.get("timings") or info.get("request_timings") or {}
    start = _first(timings.get("request_start"), request.get("request_start_time"), request.get("start_time"))
    end = _first(timings.get("request_end"), request.get("request_end_time"), request.get("end_time"))
    first = _first(
        timings.get("first_token_iteration"), timings.get("first_iteration"), request.get("first_token_time")
    )
    prompt = request.get("request_args") if isinstance(request.get("request_args"), str) else request.get("prompt")
    error = None
    if status != "ok":
        error = made.failure(info.get("error") or request.get("error") or status, status)
    return made.record(
        number,
        "guidellm",
        engine=engine,
        concurrency=asked,
        status=status,
        error=error,
        launched_at=made.seconds(start),
        sent_at=made.seconds(start),
        ttft_s=None if first is None or start is None else made.seconds(first - start),
        e2e_s=None if end is None or start is None else made.seconds(end - start),
        prompt_tokens=_count(request, "prompt_tokens", "input_metrics"),
        output_tokens=_count(request, "output_tokens", "output_metrics") if status == "ok" else None,
        token_source="engine" if status == "ok" else None,
        text=request.get("output"),
        prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest() if isinstance(prompt, str) else None,
    )


def _first(*values: Any) -> float | None:
    return next((float(value) for value in values if isinstance(value, int | float)), None)


def _count(each: dict[str, Any], name: str, metrics: str) -> int | None:
    value = each.get(name)
    if isinstance(value, bool):
        raise TypeError(name)
    if value is None and isinstance(each.get(metrics), dict):
        value = each[metrics].get("total_tokens") or each[metrics].get("text_tokens")
    return int(value) if isinstance(value, int | float) else None
