"""`benchmark_data.db` of `evalscope perf`: an SQLite table with a row a request, whose answers are pickled and so not
read. Read in evalscope 1.14.1: evalscope/perf/utils/db_util.py and benchmark_util.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from llmpar.other_tools import record as made

ARGUMENTS = "benchmark_args.json"  # beside it: the command line


def entries(run: dict[str, Any], engine: str | None, clients: int | None) -> Iterator[made.Entry]:
    """Instants are of a clock without a date and the file has none: the first request is put at the epoch's second day.
    Why a request failed is not in the file."""
    rows = made.listed(run.get("requests"))
    starts = [float(row["start_time"]) for row in map(made.mapping, rows) if made.is_number(row.get("start_time"))]
    if not starts:
        raise made.BadImport("it holds no requests")
    arguments = made.mapping(run.get("beside"))
    asked = made.clients(clients, None if arguments.get("open_loop") else arguments.get("parallel"))
    return (
        partial(_request, number, row, engine, asked, made.DAY_ONE - min(starts)) for number, row in enumerate(rows)
    )


def _request(number: int, row: dict[str, Any], engine: str | None, asked: int | None, offset: float) -> dict[str, Any]:
    try:
        body = made.mapping(json.loads(row.get("request") or "{}"))
    except (ValueError, RecursionError):
        body = {}
    ok = bool(row.get("success"))
    streamed = bool(row["is_stream"]) if row.get("is_stream") is not None else body.get("stream") is True
    gaps = json.loads(row.get("inter_token_latencies") or "[]")
    ttft = row.get("first_chunk_latency") if ok and streamed else None
    start = row["start_time"] + offset
    latency = row["latency"] if ok else row["completed_time"] - row["start_time"]
    return made.record(
        number,
        "evalscope",
        engine=engine,
        api="openai-chat" if "messages" in body else "openai-completions",
        model=body.get("model"),
        concurrency=asked,
        status="ok" if ok else "error",
        error=None if ok else made.failure("evalscope keeps no reason"),
        launched_at=made.seconds(start),
        sent_at=made.seconds(start),
        ttft_s=made.seconds(ttft),
        e2e_s=made.seconds(latency),
        event_s=made.events(ttft, gaps) if ttft else [],
        prompt_tokens=row.get("prompt_tokens"),
        output_tokens=row.get("completion_tokens") if ok else None,
        token_source="engine" if ok else None,
        stream=streamed,
    )
