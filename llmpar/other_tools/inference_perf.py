"""`per_request_lifecycle_metrics.json` of inference-perf (report.request_lifecycle.per_request: true). Read at commit
7de5ef2 of August 2026: inference_perf/reportgen/base.py and inference_perf/apis/base.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from llmpar.other_tools import record as made


def is_request(document: dict[str, Any]) -> bool:
    return {"start_time", "end_time", "request", "info"} <= set(document)


def entries(run: dict[str, Any], engine: str | None, clients: int | None) -> Iterator[made.Entry]:
    """Instants are of a clock without a date and the file has none: the first request is put at the epoch's second day.
    Stages of the load are not told apart in the file."""
    ordered = sorted(
        (
            each
            for each in made.listed(run.get("requests"))
            if isinstance(each, dict) and made.is_number(each.get("start_time"))
        ),
        key=lambda each: float(each["start_time"]),
    )
    if not ordered:
        raise made.BadImport("it holds no requests")
    offset = made.DAY_ONE - float(ordered[0]["start_time"])
    asked = made.clients(clients, None)
    return (partial(_request, number, each, engine, asked, offset) for number, each in enumerate(ordered))


def _request(
    number: int, entry: dict[str, Any], engine: str | None, asked: int | None, offset: float
) -> dict[str, Any]:
    info = made.mapping(entry.get("info"))
    answer = made.mapping(info.get("response_metrics"))
    usage = made.mapping(answer.get("server_usage"))
    start, error = entry["start_time"], entry.get("error")
    body = _body(entry.get("request"))
    # Chunks with text are the receipts; releases of 2025 have output_token_times, one for a token, instead.
    times = answer.get("chunk_times") or answer.get("output_token_times") or []
    prompt = made.mapping(made.mapping(info.get("request_metrics")).get("text")).get("input_tokens")
    counted = usage.get("completion_tokens")
    ok = error is None
    cause = made.mapping(error)
    words = body.get("prompt")
    return made.record(
        number,
        "inference-perf",
        engine=engine,
        api="openai-chat" if "messages" in body else "openai-completions",
        model=info.get("lora_adapter") or body.get("model"),
        prompt_sha256=hashlib.sha256(words.encode("utf-8", "replace")).hexdigest() if isinstance(words, str) else None,
        concurrency=asked,
        status="ok" if ok else "error",
        error=None if ok else made.failure(cause.get("error_msg") or error, str(cause.get("error_type") or "other")),
        launched_at=made.seconds(start + offset),
        sent_at=made.seconds(start + offset),
        ttft_s=made.seconds(times[0] - start) if times else None,
        e2e_s=made.seconds(entry["end_time"] - start),
        event_s=[round(at - start, 6) for at in times] if ok else [],
        prompt_tokens=usage.get("prompt_tokens", prompt if prompt is not None else info.get("input_tokens")),
        cached_tokens=made.mapping(usage.get("prompt_tokens_details")).get("cached_tokens"),
        output_tokens=(counted if counted is not None else answer.get("output_tokens")) if ok else None,
        token_source=None if not ok else "tokenizer" if counted is None else "engine",
        stream=bool(times) or body.get("stream") is True,
    )


def _body(text: Any) -> dict[str, Any]:
    try:
        return made.mapping(json.loads(text))
    except (TypeError, ValueError, RecursionError):
        return {}
