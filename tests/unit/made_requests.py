"""Request records made for tests of summaries: plain dictionaries, every field there."""

from __future__ import annotations

import hashlib
from typing import Any

START = 1_700_000_000.0


def request(
    number: int = 0, sent: float = 0.0, events: tuple[float, ...] = (0.1, 0.2, 0.3), **fields: Any
) -> dict[str, Any]:
    """An ok request sent `sent` seconds after START; one token an event and an end 1 ms after the last unless told."""
    tokens = fields.pop("event_tokens", [1] * len(events))
    total = len(events) if tokens is None else sum(tokens)
    record: dict[str, Any] = {
        "kind": "request",
        "v": 1,
        "id": f"{number:032x}",
        "prompt": f"{number}.txt",
        "prompt_sha256": hashlib.sha256(str(number % 7).encode()).hexdigest(),
        "attempt": 1,
        "engine": "fake",
        "api": "openai-completions",
        "model": "m",
        "base_url": "http://127.0.0.1:1",
        "stream": True,
        "status": "ok",
        "error": None,
        "host": "h",
        "pid": 1,
        "slot": 1,
        "seq": number,
        "launcher": "pool",
        "concurrency": 4,
        "scheduled_at": None,
        "launched_at": round(START + sent - 0.001, 6),
        "sent_at": round(START + sent, 6),
        "lateness_s": None,
        "connect_s": 0.0,
        "headers_s": 0.01,
        "ttft_s": events[0] if events else None,
        "e2e_s": round((events[-1] if events else 0.1) + 0.001, 6),
        "effective_ttft_s": None,
        "effective_e2e_s": None,
        "event_s": list(events),
        "event_tokens": tokens,
        "clock": "kernel",
        "cpu_wait_s": 0.0,
        "prompt_tokens": 10,
        "cached_tokens": 0,
        "output_tokens": total,
        "token_source": "engine",
        "finish_reason": "length",
        "text": "x",
        "sampling": {"max_tokens": total, "temperature": 0.0},
        "bytes_sent": 1,
        "bytes_received": 1,
    }
    record.update(fields)
    return record


def failed(number: int, sent: float, status: str = "error", kind: str = "http") -> dict[str, Any]:
    """A request that failed after 50 ms without any text."""
    return request(
        number,
        sent,
        (),
        status=status,
        error={"type": kind, "message": "no", "http_status": 500},
        ttft_s=None,
        e2e_s=0.05,
        event_tokens=None,
        output_tokens=None,
        token_source=None,
        finish_reason=None,
    )
