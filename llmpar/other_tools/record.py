"""A request record of another tool's run: null but for what the tool's file holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

MOST = 10**12  # tokens, clients: what no load generator measures
DAY_ONE = 86_400.0  # epoch seconds at which a run begins whose file has no date
Entry = Callable[[], dict[str, Any]]  # one request's record; raises what a value of another type raises


class BadImport(ValueError):
    """A file that is not a result of a known tool, or holds no requests; the text says what to do."""


def record(number: int, tool: str, **fields: Any) -> dict[str, Any]:
    """A request record in which everything is null but what is given."""
    record: dict[str, Any] = {
        "kind": "request",
        "v": 1,
        "id": f"{tool}-{number}",
        "prompt": f"{number}",
        "prompt_sha256": None,
        "attempt": 1,
        "engine": None,
        "api": "openai-completions",
        "model": None,
        "base_url": None,
        "stream": True,
        "status": "ok",
        "error": None,
        "host": None,
        "pid": None,
        "slot": None,
        "seq": number + 1,
        "launcher": tool,
        "concurrency": None,
        "scheduled_at": None,
        "launched_at": None,
        "sent_at": None,
        "lateness_s": None,
        "connect_s": None,
        "headers_s": None,
        "ttft_s": None,
        "e2e_s": None,
        "effective_ttft_s": None,
        "effective_e2e_s": None,
        "event_s": [],
        "event_tokens": None,
        "clock": "user",
        "cpu_wait_s": None,
        "prompt_tokens": None,
        "cached_tokens": None,
        "output_tokens": None,
        "token_source": None,
        "finish_reason": None,
        "text": None,
        "sampling": {},
        "bytes_sent": 0,
        "bytes_received": 0,
    }
    record.update(fields)
    return record


def seconds(value: Any) -> float | None:
    return round(float(value), 6) if isinstance(value, int | float) and math.isfinite(value) else None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def clients(given: int | None, found: Any) -> int | None:
    """Clients asked for: as given on the command line, else what the file says."""
    asked = given if given is not None else found
    return asked if type(asked) is int and 0 < asked < MOST else None


def events(first: Any, gaps: Iterable[Any]) -> list[float]:
    """Seconds from the start to each event, of the time to the first and the gaps after it; none without a first."""
    if not first:
        return []
    made, at = [], 0.0
    for gap in [first, *gaps]:
        at += gap
        made.append(round(at, 6))
    return made


def failure(message: Any, kind: str = "other", http_status: int | None = None) -> dict[str, Any]:
    """The `error` of a record."""
    return {"type": kind, "message": str(message)[:500], "http_status": http_status}
