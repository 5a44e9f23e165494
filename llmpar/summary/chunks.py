"""Some request records at a time, as columns and events: what is read of each record, and whether it is of its type."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import NoneType
from typing import Any, Literal

import msgspec
import numpy as np
import orjson
from msgspec.structs import asdict, astuple

from llmpar import outside, records
from llmpar.summary import conversations
from llmpar.summary.names import Names

INSTANTS = ("sent_at", "launched_at", "scheduled_at")
DURATIONS = ("ttft_s", "e2e_s", "effective_ttft_s", "effective_e2e_s", "cpu_wait_s")
COUNTS = ("prompt_tokens", "cached_tokens", "output_tokens")
# The most output tokens of a request, as APIs name it.
LENGTHS = ("max_tokens", "max_new_tokens", "n_predict", "num_predict", "max_completion_tokens")
LATEST = 1e11  # epoch seconds, in the year 5138
LONGEST = 1e9  # seconds of any duration, 32 years; by the clock's steps they may be negative
NAMES = ("engine", "api", "model", "base_url", "stream", "launcher", "concurrency", "host")
STATUSES = ("ok", "error", "timeout", "cancelled")
VERSIONS = frozenset(records.VERSIONS["request"])
NEWLINE = ord("\n")
NONE = -(1 << 62)  # "not measured" among whole numbers
NULL = msgspec.Raw(b"null")


class Request(msgspec.Struct, gc=False):
    """What is read of a request record, in the order in which records have it: looked for there first."""

    kind: Literal["request"]
    v: int
    status: Literal["ok", "error", "timeout", "cancelled"]
    prompt_sha256: str | None = None
    attempt: int | None = None
    engine: str | None = None
    api: str | None = None
    model: str | None = None
    base_url: str | None = None
    stream: bool | None = None
    error: dict[str, Any] | None = None
    host: str | None = None
    launcher: str | None = None
    concurrency: int | None = None
    conversation: Any = None
    turn: Any = None
    turns: Any = None
    think_s: Any = None
    scheduled_at: float | None = None
    launched_at: float | None = None
    sent_at: float | None = None
    ttft_s: float | None = None
    e2e_s: float | None = None
    effective_ttft_s: float | None = None
    effective_e2e_s: float | None = None
    event_s: list[float] | None = None
    event_tokens: msgspec.Raw = NULL
    clock: str | None = None
    cpu_wait_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    token_source: str | None = None
    finish_reason: str | None = None
    sampling: msgspec.Raw = NULL


FIELDS = Request.__struct_fields__
RAW = ("sampling", "event_tokens")  # kept as JSON, which most requests have in common
EMPTY: dict[str, Any] = dict.fromkeys(FIELDS)

_tokens: Callable[[msgspec.Raw], list[int] | None] = msgspec.json.Decoder(list[int] | None).decode
_pack: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
PACKED = np.dtype([("kind", "u1"), ("float", ">f8")])  # a float64 in MessagePack
_decode_lines: Callable[[bytes], list[Request]] = msgspec.json.Decoder(Request).decode_lines


def lines_of(block: bytes) -> int:
    """How many lines end in a block; in a quarter of the time of bytes.count."""
    return int(np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == NEWLINE))


def _doubles(lists: tuple[list[float], ...], length: int) -> bytes:
    """The floats of lists of one length, in a third of the time of array.fromlist: MessagePack writes each as a byte
    and its eight, behind the heads of its list and of them all."""
    packed = _pack(lists)
    kind = np.dtype([("head", "V", _head(length)), ("events", PACKED, (length,))])
    return np.frombuffer(packed, kind, offset=_head(len(lists)))["events"]["float"].astype(float).tobytes()


def _head(length: int) -> int:
    """How many bytes are before the elements of a list in MessagePack."""
    return 1 if length < 16 else 3 if length < 65536 else 5


@lru_cache(1024)
def _ones(count: int) -> msgspec.Raw:
    """The `event_tokens` of so many events of a token each, as llmpar-request writes it."""
    return _raw([1] * count)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(orjson.dumps(value))


class Chunk:
    """Some records, in columns; events of ok requests one after the other.

    `seconds`: times by field, NaN for none. `wholes`: counts by field, NONE for none. `names`: Names by field.
    `lengths`: events of each ok request. `odd`: for ok requests (by their place among those) whose events do not carry
    one token each: tokens per event, or None where nobody tells.
    """

    def __init__(self) -> None:
        self.count = 0
        self.seconds = {name: array("d") for name in (*INSTANTS, *DURATIONS)}
        self.wholes = {name: array("q") for name in COUNTS}
        self.names = {name: Names() for name in (*NAMES, "status", "clock", "token_source", "finish_reason")}
        self.samplings = Names()  # as JSON
        self.hashes: list[str] = []
        self.retried = 0
        self.errors: list[Any] = []
        self.events = array("d")
        self.lengths: list[int] = []
        self.odd: dict[int, list[int] | None] = {}
        self.turns: list[conversations.Turn] = []

    @classmethod
    def of_blocks(cls, blocks: Iterable[bytes], lines: int) -> Chunk:
        """Of blocks with so many lines together that are all request records. Raises msgspec.MsgspecError,
        OverflowError, RecursionError or ValueError where one is not, or a number is out of range: what the slow way
        refuses or makes null."""
        chunk = cls()
        for block in blocks:
            if not block.isascii():
                block.decode()  # of what it skips msgspec does not look at the characters
            chunk._take(_decode_lines(block))
        if chunk.count != lines:
            # The decoder minds neither. Where a blank line makes up for two in a line, both are read.
            raise ValueError("two records in a line, or one in two lines")
        chunk._vet()
        return chunk

    @classmethod
    def of_records(cls, parsed: Iterable[dict[str, Any]]) -> Chunk:
        """Of records that are checked and mended and have all fields."""
        chunk = cls()
        made = []
        for record in parsed:
            record = record | {name: _raw(record[name]) for name in RAW}
            record["event_s"] = record["event_s"] and list(map(float, record["event_s"]))
            made.append(Request(**{name: record[name] for name in FIELDS}))
        chunk._take(made)
        return chunk

    def _take(self, made: list[Request]) -> None:
        if not made:
            return
        columns: dict[str, tuple[Any, ...]] = dict(zip(FIELDS, zip(*map(astuple, made), strict=True), strict=True))
        self.count += len(made)
        if not set(columns["v"]) <= VERSIONS:
            raise ValueError("not all request records of a known version")
        for name, seconds in self.seconds.items():
            _numbers(seconds, columns[name], math.nan)
        for name, wholes in self.wholes.items():
            _numbers(wholes, columns[name], NONE)
        for name, names in self.names.items():
            names.extend(columns[name])
        self.samplings.extend(columns["sampling"], bytes)
        self.hashes += (
            columns["prompt_sha256"] if None not in columns["prompt_sha256"] else filter(None, columns["prompt_sha256"])
        )
        attempts = columns["attempt"]
        if attempts.count(1) != len(made):
            self.retried += sum(1 for each in attempts if isinstance(each, int) and each > 1)
        if columns["error"].count(None) != len(made):
            self.errors += filter(None, columns["error"])
        if columns["conversation"].count(None) != len(made):
            self.turns += filter(None, map(conversations.of_record, map(asdict, made)))
        self._take_events(columns["event_s"], columns["event_tokens"], columns["status"])

    def _take_events(self, events: tuple[Any, ...], tokens: tuple[msgspec.Raw, ...], status: tuple[str, ...]) -> None:
        """Events of ok requests. Numbers leave their Python objects at once: kept ones would cost more than reading."""
        lengths = list(map(len, events)) if all(events) else [len(each) if each else 0 for each in events]
        ones = list(map(_ones, lengths))
        if list(tokens) == ones and status.count("ok") == len(status):  # nearly always
            if lengths[0] and lengths.count(lengths[0]) == len(lengths):
                self.events.frombytes(_doubles(events, lengths[0]))
            else:
                deque(map(self.events.fromlist, filter(None, events)), maxlen=0)
            self.lengths += lengths
            return
        for instants, carried, one, count, ended in zip(events, tokens, ones, lengths, status, strict=True):
            counts = None if carried == one else _tokens(carried)
            if counts is not None and len(counts) != count:
                raise ValueError("event_tokens is not as long as event_s")
            if counts and not (min(counts) >= 0 and sum(counts) <= outside.COUNT_LIMIT):
                raise ValueError("'event_tokens' is out of range")
            if ended != "ok":
                if count and max(max(instants), -min(instants)) > LONGEST:
                    raise ValueError("'event_s' is out of range")
                continue
            if count:
                self.events.fromlist(instants)
            if carried != one and (counts is None or counts.count(1) != count):
                self.odd[len(self.lengths)] = counts
            self.lengths.append(count)

    def _vet(self) -> None:
        """Raise ValueError where a number is out of range."""
        for names, low, high in ((INSTANTS, 0, LATEST), (DURATIONS, -LONGEST, LONGEST)):
            for name in names:
                column = np.frombuffer(self.seconds[name])
                if bool(((column < low) | (column > high)).any()):
                    raise ValueError(f"'{name}' is out of range")
        for name in COUNTS:
            counts = self.whole(name)
            if bool(((counts < 0) & (counts != NONE) | (counts > outside.COUNT_LIMIT)).any()):
                raise ValueError(f"'{name}' is out of range")
        events = np.frombuffer(self.events)
        if len(events) and max(float(events.max()), -float(events.min())) > LONGEST:
            raise ValueError("'event_s' is out of range")
        if set(map(len, self.hashes)) - {64}:
            raise ValueError("'prompt_sha256' is not 64 hexadecimal digits")

    def micro(self, name: str) -> np.ndarray:
        """A field's times in whole microseconds (int64), NONE for none."""
        seconds = np.frombuffer(self.seconds[name])
        if math.isnan(seconds[0]) and bool(np.isnan(seconds).all()):
            return np.full(len(seconds), NONE, dtype=np.int64)
        micro = np.rint(seconds * 1e6)
        missing = np.isnan(micro)
        if not missing.any():
            return micro.astype(np.int64)
        return np.where(missing, NONE, np.where(missing, 0.0, micro).astype(np.int64))

    def whole(self, name: str) -> np.ndarray:
        """A field's counts (int64), NONE for none."""
        return np.frombuffer(self.wholes[name], dtype=np.int64)


def _numbers(taken: array[Any], column: tuple[Any, ...], none: float) -> None:
    """Append a column of numbers, `none` for None."""
    if column[0] is None and column.count(None) == len(column):
        taken.extend(array(taken.typecode, (none,)) * len(column))
        return
    try:
        taken.extend(array(taken.typecode, column))
    except TypeError:
        taken.fromlist([none if each is None else each for each in column])


# Fields that are counted or named, and the types of their values.
_TEXTS = ("engine", "api", "model", "base_url", "launcher", "host", "clock", "token_source", "finish_reason")
PLAIN: dict[str, set[Any]] = {name: {str, NoneType} for name in _TEXTS} | {
    "stream": {bool, NoneType},
    "concurrency": {int, NoneType},
}


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
