"""Some request records at a time, as rows and events: what is read of each record, and whether it is of its type."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from operator import itemgetter
from types import NoneType
from typing import Any

import numpy as np
import orjson

from llmpar import outside, records
from llmpar.summary import conversations

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
INSTANTS = ("sent_at", "launched_at", "scheduled_at")
DURATIONS = ("ttft_s", "e2e_s", "effective_ttft_s", "effective_e2e_s", "cpu_wait_s")
COUNTS = ("prompt_tokens", "cached_tokens", "output_tokens")
# The most output tokens of a request, as APIs name it.
LENGTHS = ("max_tokens", "max_new_tokens", "n_predict", "num_predict", "max_completion_tokens")
LATEST = 1e11  # epoch seconds, in the year 5138
LONGEST = 1e9  # seconds of any duration, 32 years; by the clock's steps they may be negative
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
        """Raises KeyError where a field is missing, TypeError where events are no numbers, ValueError for odd
        lengths."""
        self.rows: list[tuple[Any, ...]] = []
        self.events = array("d")
        self.lengths: list[int] = []
        self.odd: dict[int, list[int] | None] = {}
        self.turns: list[conversations.Turn] = []
        place = PLACE["status"]
        for record in parsed:
            fields = _all(record)
            self.rows.append(fields)
            if "conversation" in record and (turn := conversations.of_record(record)) is not None:
                self.turns.append(turn)
            if fields[place] == "ok":
                # Numbers leave their Python objects at once: kept ones would cost more than reading them did.
                events, tokens = record["event_s"], record["event_tokens"]
                count = len(events) if events else 0
                if count:
                    self.events.fromlist(events)
                if tokens is None:
                    self.odd[len(self.lengths)] = None
                elif count and tokens and tokens[0] is True:
                    raise ValueError("'event_tokens' is not of numbers")
                elif tokens.count(1) != count or len(tokens) != count:
                    if len(tokens) != count:
                        raise ValueError("event_tokens is not as long as event_s")
                    self.odd[len(self.lengths)] = tokens
                self.lengths.append(count)

    def vet(self) -> None:
        """Raise ValueError where a number is not of its type or out of range: what the slow way refuses or makes
        null."""
        columns = list(zip(*self.rows, strict=True))
        for names, types, low, high in (
            (INSTANTS, _TIMES, 0, LATEST),
            (DURATIONS, _TIMES, -LONGEST, LONGEST),
            (COUNTS, _WHOLES, 0, outside.COUNT_LIMIT),
        ):
            for name in names:
                column: Any = columns[PLACE[name]] if columns else ()
                kinds = set(map(type, column))
                if not kinds <= types:
                    raise ValueError(f"'{name}' is not a number")
                if NoneType in kinds:
                    column = [value for value in column if value is not None]
                if column and not (low <= min(column) and max(column) <= high):
                    raise ValueError(f"'{name}' is out of range")
        for name, types in PLAIN.items():
            if columns and not set(map(type, columns[PLACE[name]])) <= types:
                raise ValueError(f"'{name}' is of another type")
        events = np.frombuffer(self.events)
        # Arrays take booleans for 0 and 1.
        if len(events) and (np.abs(events).max() > LONGEST or bool(((events == 0) | (events == 1)).any())):
            raise ValueError("'event_s' is out of range, or no number")
        for tokens in self.odd.values():
            if tokens and not (
                set(map(type, tokens)) == {int} and min(tokens) >= 0 and sum(tokens) <= outside.COUNT_LIMIT
            ):
                raise ValueError("'event_tokens' is out of range")


# Fields that are counted or named, and the types of their values.
_TEXTS = ("engine", "api", "model", "base_url", "launcher", "host", "clock", "token_source", "finish_reason")
PLAIN: dict[str, set[Any]] = {name: {str, NoneType} for name in _TEXTS} | {
    "stream": {bool, NoneType},
    "concurrency": {int, NoneType},
}
_TIMES = {float, int, NoneType}
_WHOLES = {int, NoneType}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def mend(record: dict[str, Any]) -> int:
    """Make null what no clock and no engine can have said: how many fields of a checked record that were."""
    mended = 0
    for names, low, high in ((INSTANTS, 0, LATEST), (DURATIONS, -LONGEST, LONGEST), (COUNTS, 0, outside.COUNT_LIMIT)):
        for name in names:
            value = record[name]
            if value is not None and name in COUNTS and value == value // 1:
                value = record[name] = int(value)
            if value is not None and not (low <= value <= high and (name not in COUNTS or isinstance(value, int))):
                record[name] = None
                mended += 1
    if any(not -LONGEST <= value <= LONGEST for value in record["event_s"] or ()):
        record["event_s"], record["event_tokens"] = None, None
        mended += 1
    tokens = record["event_tokens"]
    if tokens and not (all(type(each) is int and each >= 0 for each in tokens) and sum(tokens) <= outside.COUNT_LIMIT):
        record["event_tokens"] = None
        mended += 1
    return mended


def check(record: dict[str, Any]) -> None:
    """Raise BadRecord where a request's fields (missing ones given as None) are not of their types."""
    for name in (*INSTANTS, *DURATIONS, *COUNTS):
        value = record[name]
        if value is not None and not _number(value):
            raise records.BadRecord(f"request record whose '{name}' is not a number")
    for name in ("event_s", "event_tokens"):
        value = record[name]
        if value is not None and not (isinstance(value, list) and all(map(_number, value))):
            raise records.BadRecord(f"request record whose '{name}' is not a list of numbers")
    try:
        orjson.dumps(record["sampling"])
    except TypeError:
        raise records.BadRecord("request record whose 'sampling' is nested too deeply") from None
    events, tokens = record["event_s"], record["event_tokens"]
    if tokens is not None and len(tokens) != len(events or ()):
        raise records.BadRecord("request record whose 'event_tokens' is not as long as its 'event_s'")
    if record["status"] not in STATUSES:
        raise records.BadRecord(f"request record of unknown status {record['status']!r}")
    for name, types in PLAIN.items():
        if type(record[name]) not in types:
            wanted = {"stream": "yes or no", "concurrency": "a whole number"}.get(name, "a text")
            raise records.BadRecord(f"request record whose '{name}' is not {wanted}")
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
        for name in LENGTHS:
            if outside.count(place.get(name)) is not None:
                return int(place[name])
    return None
