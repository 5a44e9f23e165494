"""Request records to columns: a chunk of records at a time, in whatever order, to arrays and exact counts."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from llmpar import records, tally

FIELDS = (
    "kind", "v", "status", "sent_at", "launched_at", "scheduled_at", "ttft_s", "e2e_s", "effective_ttft_s",
    "effective_e2e_s", "event_s", "event_tokens", "cpu_wait_s", "prompt_tokens", "cached_tokens", "output_tokens",
    "prompt_sha256", "sampling", "attempt", "error", "engine", "api", "model", "base_url", "stream", "launcher",
    "concurrency", "host", "clock", "token_source", "finish_reason",
)
PLACE = {name: place for place, name in enumerate(FIELDS)}
NAMES = ("engine", "api", "model", "base_url", "stream", "launcher", "concurrency", "host")
STATUSES = ("ok", "error", "timeout", "cancelled")
STATUSES_SET = frozenset(STATUSES)
BINS = 2048  # steps of the time line
NONE = -(1 << 62)  # "not measured" among whole numbers

_all: Callable[[dict[str, Any]], tuple[Any, ...]] = itemgetter(*FIELDS)


def row(record: dict[str, Any]) -> tuple[Any, ...]:
    """The fields of one request record that figures are made of; what is missing is None."""
    try:
        return _all(record)
    except KeyError:
        return tuple(map(record.get, FIELDS))


def check(fields: tuple[Any, ...]) -> None:
    """Raise BadRecord where a request's fields are not of their types."""
    for name in ("sent_at", "launched_at", "scheduled_at", "ttft_s", "e2e_s", "effective_ttft_s", "effective_e2e_s",
                 "cpu_wait_s", "prompt_tokens", "cached_tokens", "output_tokens"):
        value = fields[PLACE[name]]
        if value is not None and not isinstance(value, int | float):
            raise records.BadRecord(f"request record whose '{name}' is not a number")
    for name in ("event_s", "event_tokens"):
        value = fields[PLACE[name]]
        if value is not None and not (isinstance(value, list) and all(isinstance(item, int | float) for item in value)):
            raise records.BadRecord(f"request record whose '{name}' is not a list of numbers")
    events, tokens = fields[PLACE["event_s"]], fields[PLACE["event_tokens"]]
    if tokens is not None and len(tokens) != len(events or ()):
        raise records.BadRecord("request record whose 'event_tokens' is not as long as its 'event_s'")
    if fields[PLACE["status"]] not in STATUSES:
        raise records.BadRecord(f"request record of unknown status {fields[PLACE['status']]!r}")
    for name in (*NAMES, "clock", "token_source", "finish_reason"):
        if isinstance(fields[PLACE[name]], list | dict):
            raise records.BadRecord(f"request record whose '{name}' is not a plain value")
    error, sha256 = fields[PLACE["error"]], fields[PLACE["prompt_sha256"]]
    if error is not None and not isinstance(error, dict):
        raise records.BadRecord("request record whose 'error' is not an object")
    try:
        if sha256 is not None and len(bytes.fromhex(sha256)) != 32:
            raise ValueError
    except (TypeError, ValueError):
        raise records.BadRecord("request record whose 'prompt_sha256' is not 64 hexadecimal digits") from None


def _micro(column: Sequence[Any]) -> np.ndarray:
    """Seconds to whole microseconds (int64), None to NONE."""
    try:
        seconds = np.frombuffer(array("d", column))
        return np.rint(seconds * 1e6).astype(np.int64)
    except TypeError:
        seconds = np.array(column, dtype=float)
        missing = np.isnan(seconds)
        return np.where(missing, NONE, np.rint(np.where(missing, 0.0, seconds) * 1e6).astype(np.int64))


def _whole(column: Sequence[Any]) -> np.ndarray:
    """Counts (int64), None to NONE."""
    try:
        return np.frombuffer(array("q", column), dtype=np.int64)
    except TypeError:
        return np.array([NONE if item is None else int(item) for item in column], dtype=np.int64)


def asked_tokens(sampling: Any) -> int | None:
    """The most output tokens that a request's sampling allows, under whichever name its API has for that."""
    if not isinstance(sampling, dict):
        return None
    inner = sampling.get("parameters")
    for place in (sampling, inner if isinstance(inner, dict) else {}):
        for name in ("max_tokens", "max_new_tokens", "n_predict", "max_completion_tokens"):
            if isinstance(place.get(name), int):
                return int(place[name])
    return None


class Columns:
    """What all requests of a run say, order and grouping forgotten."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: dict[str, Counter[Any]] = {name: Counter() for name in NAMES}
        self.clocks: Counter[Any] = Counter()
        self.sources: Counter[Any] = Counter()
        self.finishes: Counter[Any] = Counter()
        self.failures: Counter[Any] = Counter()
        self.samplings: Counter[bytes] = Counter()
        self.retried = self.disputed = self.short = self.unknown_split = self.backwards = self.cut_short = 0
        self.asked_known = 0
        self.asked_sum = 0
        self.timeline = tally.Timeline(BINS)
        self.single, self.split, self.events = tally.Gaps(), tally.Gaps(), tally.Gaps()
        self._parts: dict[str, list[np.ndarray]] = {}
        self._last_sampling: Any = object()
        self._last_key = b""
        self._last_asked: int | None = None

    def add(self, rows: list[tuple[Any, ...]]) -> None:
        """Take a chunk of rows. Raises TypeError or ValueError where a field is not of its type (see `check`)."""
        if not rows:
            return
        columns = list(zip(*rows, strict=True))
        status = columns[PLACE["status"]]
        self.counts.update(status)
        if len(self.counts) > len(STATUSES) or not STATUSES_SET >= set(self.counts):
            raise ValueError("unknown status")
        sent, e2e = _micro(columns[PLACE["sent_at"]]), _micro(columns[PLACE["e2e_s"]])
        launched = _micro(columns[PLACE["launched_at"]])
        launched = np.where(launched == NONE, sent, launched)
        end = np.where(e2e == NONE, np.where(sent == NONE, launched, sent), sent + e2e)
        end = np.where(sent == NONE, launched, end)
        known = sent != NONE
        if known.any():
            self.timeline.cover(min(int(launched[known].min()), int(sent[known].min())),
                                max(int(end[known].max()), int(sent[known].max())))
        self._keep(launched=launched, end_all=np.maximum(end, launched), sent_all=sent)
        self._categories(columns)
        ok = status.count("ok")
        if ok == len(rows):
            self._take(columns, sent, e2e, launched, rows)
        elif ok:
            chosen = [each for each in rows if each[PLACE["status"]] == "ok"]
            mask = np.array([each == "ok" for each in status])
            self._take(list(zip(*chosen, strict=True)), sent[mask], e2e[mask], launched[mask], chosen)

    def _keep(self, **arrays: np.ndarray) -> None:
        for name, values in arrays.items():
            self._parts.setdefault(name, []).append(values)

    def array(self, name: str) -> np.ndarray:
        """One column of all requests (launched, sent_all, end_all) or of the ok ones (the others), as read."""
        parts = self._parts.get(name)
        if parts is None:
            return np.zeros(0, dtype=np.int64)
        if len(parts) > 1:
            parts[:] = [np.concatenate(parts)]
        return parts[0]

    def _categories(self, columns: list[tuple[Any, ...]]) -> None:
        for name, counter in self.names.items():
            counter.update(columns[PLACE[name]])
        attempts = columns[PLACE["attempt"]]
        if attempts.count(1) != len(attempts):
            self.retried += sum(1 for each in attempts if isinstance(each, int) and each > 1)
        for error in filter(None, columns[PLACE["error"]]):
            self.failures[str(error.get("type"))] += 1
        for sampling in columns[PLACE["sampling"]]:
            if sampling != self._last_sampling:
                self._last_sampling, self._last_asked = sampling, asked_tokens(sampling)
                self._last_key = orjson.dumps(sampling, option=orjson.OPT_SORT_KEYS)
            self.samplings[self._last_key] += 1
        hashes = columns[PLACE["prompt_sha256"]]
        if None in hashes:
            hashes = tuple(filter(None, hashes))
        if hashes:
            # The first eight bytes of each hash tell prompts apart.
            self._keep(prompts=np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8")[::4].astype(np.uint64))

    def _take(self, columns: list[tuple[Any, ...]], sent: np.ndarray, e2e: np.ndarray, launched: np.ndarray,
              rows: list[tuple[Any, ...]]) -> None:
        """The columns of requests that ended ok."""
        self.clocks.update(columns[PLACE["clock"]])
        self.sources.update(columns[PLACE["token_source"]])
        self.finishes.update(columns[PLACE["finish_reason"]])
        ttft, output = _micro(columns[PLACE["ttft_s"]]), _whole(columns[PLACE["output_tokens"]])
        due = _micro(columns[PLACE["scheduled_at"]])
        self.backwards += int(np.count_nonzero((e2e != NONE) & (e2e < 0)) + np.count_nonzero((ttft != NONE) & (
            (ttft < 0) | ((e2e != NONE) & (ttft > e2e)))) + np.count_nonzero((sent != NONE) & (sent < launched)))
        # Late by its own doing: after both its due time and its process's start.
        late = np.where((due == NONE) | (sent == NONE), NONE, sent - np.maximum(due, launched))
        self._keep(sent=sent, ttft_s=ttft, e2e_s=e2e, output=output, launch_delay=np.where(sent == NONE, NONE, sent - launched),
                   late=late, effective_ttft_s=_micro(columns[PLACE["effective_ttft_s"]]),
                   effective_e2e_s=_micro(columns[PLACE["effective_e2e_s"]]), cpu_wait=_micro(columns[PLACE["cpu_wait_s"]]),
                   prompt=_whole(columns[PLACE["prompt_tokens"]]), cached=_whole(columns[PLACE["cached_tokens"]]),
                   user=np.array([each != "kernel" for each in columns[PLACE["clock"]]]))
        asked = self._asked(columns[PLACE["sampling"]])
        both = (asked != NONE) & (output != NONE)
        self.asked_known += int(np.count_nonzero(asked != NONE))
        self.asked_sum += int(asked[asked != NONE].sum())
        short = both & (output < asked)
        self.short += int(np.count_nonzero(short))
        if short.any():
            finish = columns[PLACE["finish_reason"]]
            self.cut_short += sum(1 for place in np.flatnonzero(short).tolist() if finish[place] != "stop")
        self._events(columns, sent, e2e, output, both & (output > asked))

    def _asked(self, samplings: Sequence[Any]) -> np.ndarray:
        if all(each == self._last_sampling for each in samplings):
            return np.full(len(samplings), NONE if self._last_asked is None else self._last_asked, dtype=np.int64)
        return _whole([asked_tokens(each) for each in samplings])

    def _events(self, columns: list[tuple[Any, ...]], sent: np.ndarray, e2e: np.ndarray, output: np.ndarray,
                disputed: np.ndarray) -> None:
        """Gaps between events and tokens, and when tokens came."""
        events = [each or [] for each in columns[PLACE["event_s"]]]
        lengths = np.array(list(map(len, events)), dtype=np.int64)
        flat = array("d")
        for each in events:
            flat.fromlist(each)
        times = np.rint(np.frombuffer(flat) * 1e6).astype(np.int64)
        owner = np.repeat(np.arange(len(events)), lengths)
        told = columns[PLACE["event_tokens"]]
        if any(tokens is not None and len(tokens) != len(each) for tokens, each in zip(told, events, strict=True)):
            raise ValueError("event_tokens is not as long as event_s")
        single = np.array([tokens is not None and tokens.count(1) == len(tokens) for tokens in told], dtype=bool)
        carried = None
        if not single.all():
            # Nobody tells: where there are nearly as many events as tokens, each event is a token.
            unknown = np.array([tokens is None for tokens in told])
            alike = unknown & (output != NONE) & (np.abs(output - lengths) <= np.maximum(1, output // 20))
            single |= alike
            self.unknown_split += int(np.count_nonzero(unknown & ~alike & (lengths > 1)))
            counts = array("q")
            for each, tokens in zip(events, told, strict=True):
                counts.fromlist([1] * len(each) if tokens is None else [int(token) for token in tokens])
            carried = np.frombuffer(counts, dtype=np.int64)
            sums = np.bincount(owner, carried, minlength=len(events)).astype(np.int64)
            disputed |= ~unknown & (lengths > 0) & (output != NONE) & (np.abs(sums - output) > 1)
        else:
            unknown = np.zeros(len(events), dtype=bool)
            sums = lengths
            disputed |= (lengths > 0) & (output != NONE) & (np.abs(lengths - output) > 1)
        self.disputed += int(np.count_nonzero(disputed))
        self._gaps(sent, lengths, times, owner, single, unknown, carried)
        self._arrivals(sent, e2e, output, lengths, times, owner, carried, sums)

    def _gaps(self, sent: np.ndarray, lengths: np.ndarray, times: np.ndarray, owner: np.ndarray, single: np.ndarray,
              unknown: np.ndarray, carried: np.ndarray | None) -> None:
        if len(times) < 2:
            return
        gaps, inside = np.diff(times), owner[1:] == owner[:-1]
        back = inside & (gaps < 0)
        if back.any():
            self.backwards += int(np.count_nonzero(back))
            gaps = np.maximum(gaps, 0)
        counts = np.maximum(lengths - 1, 0)
        if not inside.all():
            gaps = gaps[inside]
        if carried is None:
            self.single.add(sent, counts, gaps, None)
            return
        whose = owner[1:][inside]
        chosen = single[whose]
        self.single.add(sent, np.where(single, counts, 0), gaps[chosen], None)
        self.events.add(sent, np.where(single, 0, counts), gaps[~chosen], None)
        multi = ~single & ~unknown
        if not multi.any():
            return
        # An event of k tokens: k gaps of a k-th. Events that carry none add their time to the next that does.
        first = np.concatenate([[True], owner[1:] != owner[:-1]])
        kept = multi[owner] & ((carried > 0) | first)
        times, owner, carried = times[kept], owner[kept], carried[kept]
        inside = owner[1:] == owner[:-1]
        weights = np.maximum(carried[1:][inside], 1)
        gaps = np.maximum(np.diff(times)[inside], 0)
        each = np.bincount(owner[1:][inside], minlength=len(sent))
        self.split.add(sent, each, (2 * gaps + weights) // (2 * weights), weights)

    def _arrivals(self, sent: np.ndarray, e2e: np.ndarray, output: np.ndarray, lengths: np.ndarray, times: np.ndarray,
                  owner: np.ndarray, carried: np.ndarray | None, sums: np.ndarray) -> None:
        """Put each output token into the bin of time in which it came; a request's tokens add up to its count."""
        known = sent != NONE
        if not known.any():
            return
        if carried is None and known.all() and bool((lengths == output).all()):
            self.timeline.add(self.timeline.places(np.minimum(sent[owner] + times, self.timeline.high)), None)
            return
        total = np.where(output == NONE, np.where(lengths > 0, sums, 0), output)
        cumulated = np.cumsum(np.ones(len(times), dtype=np.int64) if carried is None else carried)
        before = np.concatenate([[0], cumulated])[np.cumsum(lengths) - lengths]
        reached = (cumulated - before[owner]) * total[owner] // np.maximum(sums[owner], 1)
        new = np.diff(reached, prepend=0)
        starts = np.cumsum(lengths)[:-1]
        starts = starts[(starts > 0) & (starts < len(times))]
        new[starts] = reached[starts]
        chosen = known[owner]
        instants = np.clip(sent[owner] + times, self.timeline.low, self.timeline.high)[chosen]
        if len(instants):
            self.timeline.add(self.timeline.places(instants), new[chosen])
        bare = known & ((lengths == 0) | (sums == 0)) & (total > 0) & (e2e != NONE)
        if bare.any():
            self.timeline.add(self.timeline.places((sent + e2e)[bare]), total[bare])

    def fingerprint(self) -> str:
        """A hash of all requests' instants and of the ok ones' figures, whatever their order."""
        digest = hashlib.sha256()
        for group in (("sent_all", "end_all", "launched"), ("sent", "e2e_s", "ttft_s", "output")):
            arrays = [self.array(name) for name in group]
            order = np.lexsort(arrays[::-1])
            for values in arrays:
                digest.update(values[order].tobytes())
        return digest.hexdigest()

    def prompts(self) -> tuple[int, str | None]:
        """How many distinct prompts there were, and a hash of their set."""
        distinct = np.unique(self.array("prompts").astype(np.uint64))
        if not len(distinct):
            return 0, None
        return len(distinct), hashlib.sha256(distinct.astype(">u8").tobytes()).hexdigest()
