"""Some request records at a time, as rows and events: what is read of each record, and whether it is of its type."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from llmpar import records

FIELDS = (
    "kind",
    "v",
    "status",
    "sent_at",
    "launched_at",
    "scheduled_at",
    "ttft_s",
    "e2e_s",
    "effective_ttft_s",
    "effective_e2e_s",
    "cpu_wait_s",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "prompt_sha256",
    "sampling",
    "attempt",
    "error",
    "engine",
    "api",
    "model",
    "base_url",
    "stream",
    "launcher",
    "concurrency",
    "host",
    "clock",
    "token_source",
    "finish_reason",
)
PLACE = {name: place for place, name in enumerate(FIELDS)}
NAMES = ("engine", "api", "model", "base_url", "stream", "launcher", "concurrency", "host")
STATUSES = ("ok", "error", "timeout", "cancelled")

EMPTY: dict[str, Any] = dict.fromkeys((*FIELDS, "event_s", "event_tokens"))

_all: Callable[[dict[str, Any]], tuple[Any, ...]] = itemgetter(*FIELDS)


class Chunk:
    """Some records, in columns: `rows` of FIELDS; events of ok requests one after the other.

    `lengths`: events of each ok request. `odd`: for ok requests (by their place among those) whose events do not carry
    one token each: tokens per event, or None where nobody tells.
    """

    def __init__(self, parsed: Iterable[dict[str, Any]]) -> None:
        """Raises KeyError where a field is missing, TypeError where events are no numbers, ValueError for odd lengths."""
        self.rows: list[tuple[Any, ...]] = []
        self.events = array("d")
        self.lengths: list[int] = []
        self.odd: dict[int, list[int] | None] = {}
        place = PLACE["status"]
        for record in parsed:
            fields = _all(record)
            self.rows.append(fields)
            if fields[place] == "ok":
                # Numbers leave their Python objects at once: kept ones would cost more than reading them did.
                events, tokens = record["event_s"], record["event_tokens"]
                count = len(events) if events else 0
                if count:
                    self.events.fromlist(events)
                if tokens is None:
                    self.odd[len(self.lengths)] = None
                elif tokens.count(1) != count or len(tokens) != count:
                    if len(tokens) != count:
                        raise ValueError("event_tokens is not as long as event_s")
                    self.odd[len(self.lengths)] = tokens
                self.lengths.append(count)


def check(record: dict[str, Any]) -> None:
    """Raise BadRecord where a request's fields (missing ones given as None) are not of their types."""
    for name in (
        "sent_at",
        "launched_at",
        "scheduled_at",
        "ttft_s",
        "e2e_s",
        "effective_ttft_s",
        "effective_e2e_s",
        "cpu_wait_s",
        "prompt_tokens",
        "cached_tokens",
        "output_tokens",
    ):
        value = record[name]
        if value is not None and not isinstance(value, int | float):
            raise records.BadRecord(f"request record whose '{name}' is not a number")
    for name in ("event_s", "event_tokens"):
        value = record[name]
        if value is not None and not (isinstance(value, list) and all(isinstance(item, int | float) for item in value)):
            raise records.BadRecord(f"request record whose '{name}' is not a list of numbers")
    events, tokens = record["event_s"], record["event_tokens"]
    if tokens is not None and len(tokens) != len(events or ()):
        raise records.BadRecord("request record whose 'event_tokens' is not as long as its 'event_s'")
    if record["status"] not in STATUSES:
        raise records.BadRecord(f"request record of unknown status {record['status']!r}")
    for name in (*NAMES, "clock", "token_source", "finish_reason"):
        if isinstance(record[name], list | dict):
            raise records.BadRecord(f"request record whose '{name}' is not a plain value")
    error, sha256 = record["error"], record["prompt_sha256"]
    if error is not None and not isinstance(error, dict):
        raise records.BadRecord("request record whose 'error' is not an object")
    try:
        if sha256 is not None and len(bytes.fromhex(sha256)) != 32:
            raise ValueError
    except (TypeError, ValueError):
        raise records.BadRecord("request record whose 'prompt_sha256' is not 64 hexadecimal digits") from None


def asked_tokens(sampling: Any) -> int | None:
    """The most output tokens that a request's sampling allows, under whichever name its API has for that."""
    if not isinstance(sampling, dict):
        return None
    inner = sampling.get("parameters")
    for place in (sampling, inner if isinstance(inner, dict) else {}):
        for name in ("max_tokens", "max_new_tokens", "n_predict", "num_predict", "max_completion_tokens"):
            if isinstance(place.get(name), int):
                return int(place[name])
    return None
