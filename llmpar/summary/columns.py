"""Request records to columns: a chunk of records at a time, in whatever order, to arrays and exact counts."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from llmpar import records
from llmpar.summary import conversations, tally
from llmpar.summary.chunks import NAMES, PLACE, STATUSES, Chunk, asked_tokens
from llmpar.summary.clocks import Clock

VERSIONS = frozenset(records.VERSIONS["request"])
STATUSES_SET = frozenset(STATUSES)
BINS = 2048  # steps of the time line
NONE = -(1 << 62)  # "not measured" among whole numbers
SUMS = (
    "retried",
    "disputed",
    "short",
    "unknown_split",
    "backwards",
    "cut_short",
    "out_of_range",
    "asked_known",
    "asked_sum",
)


def in_seconds(micro: np.ndarray) -> np.ndarray:
    """Microseconds to seconds, NONE to NaN."""
    return np.where(micro == NONE, np.nan, micro / 1e6)


def _micro(column: Sequence[Any]) -> np.ndarray:
    """Seconds to whole microseconds (int64), None to NONE."""
    if column[0] is None and column.count(None) == len(column):
        return np.full(len(column), NONE, dtype=np.int64)
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


def _joined(times: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Of each request: 2 where its first two events bear one stamp, 1 where any two in a row do, else NONE."""
    joined = np.full(len(lengths), NONE, dtype=np.int64)
    same = np.zeros(len(times), dtype=bool)
    np.equal(times[1:], times[:-1], out=same[1:])
    starts = np.cumsum(lengths) - lengths
    same[starts[lengths > 0]] = False
    if same.any():
        owner = np.repeat(np.arange(len(lengths)), lengths)
        joined[owner[same]] = 1
        more = lengths > 1
        joined[np.flatnonzero(more)[same[starts[more] + 1]]] = 2
    return joined


def _count(counter: Counter[Any], column: tuple[Any, ...]) -> None:
    """Counter.update, quicker where the column is all alike."""
    if column.count(column[0]) == len(column):
        counter[column[0]] += len(column)
    else:
        counter.update(column)


def name_code(name: Any) -> int:
    """A whole number for a name, the same in every process: in a column the name itself would cost its length."""
    return int.from_bytes(hashlib.sha256(str(name).encode("utf-8", "surrogatepass")).digest()[:7], "big")


def _codes(names: Sequence[Any]) -> np.ndarray:
    """The codes of names; of one name alone they take no memory."""
    if names.count(names[0]) == len(names):
        return np.broadcast_to(np.int64(name_code(names[0])), (len(names),))
    known = {name: name_code(name) for name in set(names)}
    return np.array([known[name] for name in names], dtype=np.int64)


class Columns:
    """What all requests of a run say, order and grouping forgotten."""

    def __init__(self, of_host: Mapping[str, Clock] | None = None) -> None:
        """`of_host`: the clocks of hosts, to put all instants by one of them."""
        self.counts: Counter[str] = Counter()
        self.turns: list[conversations.Turn] = []  # of conversations
        self.names: dict[str, Counter[Any]] = {name: Counter() for name in NAMES}
        self.of_host = of_host or {}
        self.hosts: Counter[tuple[Any, Any]] = Counter()  # host and concurrency
        self.clocks: Counter[Any] = Counter()
        self.sources: Counter[Any] = Counter()
        self.finishes: Counter[Any] = Counter()
        self.failures: Counter[Any] = Counter()
        self.samplings: Counter[bytes] = Counter()
        self.retried = self.disputed = self.short = self.unknown_split = self.backwards = self.cut_short = 0
        self.asked_known = self.asked_sum = self.out_of_range = 0
        self.timeline = tally.Timeline(BINS)
        self.single, self.split, self.events = tally.Gaps(), tally.Gaps(), tally.Gaps()
        self._parts: dict[str, list[Any]] = {}
        self._last_sampling: Any = object()
        self._last_key = b""
        self._last_asked: int | None = None

    def add(self, chunk: Chunk) -> None:
        """Take a chunk. Raises TypeError or ValueError where a field is not of its type (see `check`)."""
        rows = chunk.rows
        if not rows:
            return
        self.turns.extend(chunk.turns)
        columns = list(zip(*rows, strict=True))
        if columns[0].count("request") != len(rows) or not set(columns[1]) <= VERSIONS:
            raise ValueError("not all request records of a known version")
        status = columns[PLACE["status"]]
        _count(self.counts, status)
        if not set(self.counts) <= STATUSES_SET:
            raise ValueError("unknown status")
        sent, e2e = _micro(columns[PLACE["sent_at"]]), _micro(columns[PLACE["e2e_s"]])
        launched, due = _micro(columns[PLACE["launched_at"]]), _micro(columns[PLACE["scheduled_at"]])
        if self.of_host:
            sent, launched, due = self._by_one_clock(columns[PLACE["host"]], sent, launched, due)
        launched = np.where(launched == NONE, sent, launched)
        end = np.where(e2e == NONE, np.where(sent == NONE, launched, sent), sent + e2e)
        end = np.where(sent == NONE, launched, end)
        known = sent != NONE
        if known.any():
            self.timeline.cover(
                min(int(launched[known].min()), int(sent[known].min())),
                max(int(end[known].max()), int(sent[known].max())),
            )
        self._keep(launched=launched, end_all=np.maximum(end, launched), sent_all=sent)
        if "error" in status or "timeout" in status:  # what the client cancelled did not fail
            self._keep(failed_sent=sent[np.array([each in ("error", "timeout") for each in status])])
        self._categories(columns)
        ok = status.count("ok")
        if ok and ok != len(rows):
            columns = list(zip(*(each for each in rows if each[PLACE["status"]] == "ok"), strict=True))
            mask = np.array([each == "ok" for each in status])
            sent, e2e, launched, due = sent[mask], e2e[mask], launched[mask], due[mask]
        if ok:
            output, disputed = self._take(columns, sent, e2e, launched, due)
            self._events(chunk, sent, e2e, output, disputed)

    def merge(self, other: Columns) -> None:
        """Take all that another one holds."""
        for mine, its in (
            (self.counts, other.counts),
            (self.clocks, other.clocks),
            (self.sources, other.sources),
            (self.finishes, other.finishes),
            (self.failures, other.failures),
            *((self.names[name], other.names[name]) for name in NAMES),
        ):
            mine.update(its)
        self.turns.extend(other.turns)
        self.samplings.update(other.samplings)
        self.hosts.update(other.hosts)
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.timeline.merge(other.timeline)
        for mine_gaps, its_gaps in (
            (self.single, other.single),
            (self.split, other.split),
            (self.events, other.events),
        ):
            mine_gaps.merge(its_gaps)
        for name, parts in other._parts.items():
            self._parts.setdefault(name, []).extend(parts)

    def _by_one_clock(self, hosts: Sequence[Any], *instants: np.ndarray) -> list[np.ndarray]:
        """Instants (us) of these hosts by the clock that all are put by."""
        copies = [times.copy() for times in instants]
        names = np.array([str(host) for host in hosts])
        for host in set(hosts) & set(self.of_host):
            rows = names == host
            for times in copies:
                times[rows] = self.of_host[host].correct(times[rows], NONE)
        return copies

    def _keep(self, **arrays: np.ndarray) -> None:
        """Add to columns; a part in which nothing was measured is kept as its length."""
        for name, values in arrays.items():
            empty = len(values) and values.dtype == np.int64 and values[0] == NONE and bool((values == NONE).all())
            self._parts.setdefault(name, []).append(len(values) if empty else values)

    def array(self, name: str) -> np.ndarray:
        """One column of all requests (launched, sent_all, end_all) or of the ok ones (the others), as read."""
        parts = self._parts.get(name)
        if parts is None:
            return np.zeros(0, dtype=np.int64)
        if all(isinstance(part, int) for part in parts):
            return np.broadcast_to(np.int64(NONE), (sum(parts),))
        if len(parts) > 1:
            parts[:] = [
                np.concatenate(
                    [np.full(part, NONE, dtype=np.int64) if isinstance(part, int) else part for part in parts]
                )
            ]
        return parts[0]

    def _categories(self, columns: list[tuple[Any, ...]]) -> None:
        for name, counter in self.names.items():
            _count(counter, columns[PLACE[name]])
        host, asked = columns[PLACE["host"]], columns[PLACE["concurrency"]]
        if host.count(host[0]) == len(host) and asked.count(asked[0]) == len(asked):
            self.hosts[host[0], asked[0]] += len(host)
        else:
            self.hosts.update(zip(host, asked, strict=True))
        attempts = columns[PLACE["attempt"]]
        if attempts.count(1) != len(attempts):
            self.retried += sum(1 for each in attempts if isinstance(each, int) and each > 1)
        errors = columns[PLACE["error"]]
        if errors.count(None) != len(errors):
            for error in filter(None, errors):
                self.failures[str(error.get("type"))] += 1
        samplings = columns[PLACE["sampling"]]
        while samplings:
            same = samplings.count(self._last_sampling)
            if same:
                self.samplings[self._last_key] += same
            if same == len(samplings):
                break
            samplings = tuple(each for each in samplings if each != self._last_sampling)
            self._last_sampling, self._last_asked = samplings[0], asked_tokens(samplings[0])
            self._last_key = orjson.dumps(samplings[0], option=orjson.OPT_SORT_KEYS)
        hashes = columns[PLACE["prompt_sha256"]]
        if None in hashes:
            hashes = tuple(filter(None, hashes))
        if hashes:
            # The first eight bytes of each hash tell prompts apart.
            self._keep(prompts=np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8")[::4].astype(np.uint64))

    def _take(
        self, columns: list[tuple[Any, ...]], sent: np.ndarray, e2e: np.ndarray, launched: np.ndarray, due: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The columns of requests that ended ok; returns output tokens, and where they are more than asked."""
        clock = columns[PLACE["clock"]]
        _count(self.clocks, clock)
        _count(self.sources, columns[PLACE["token_source"]])
        _count(self.finishes, columns[PLACE["finish_reason"]])
        ttft, output = _micro(columns[PLACE["ttft_s"]]), _whole(columns[PLACE["output_tokens"]])
        self.backwards += int(
            np.count_nonzero((e2e != NONE) & (e2e < 0))
            + np.count_nonzero((ttft != NONE) & ((ttft < 0) | ((e2e != NONE) & (ttft > e2e))))
            + np.count_nonzero((sent != NONE) & (sent < launched))
        )
        # Late by its own doing: after both its due time and its process's start.
        late = np.where((due == NONE) | (sent == NONE), NONE, sent - np.maximum(due, launched))
        self._keep(
            sent=sent,
            ttft_s=ttft,
            e2e_s=e2e,
            output=output,
            launch_delay=np.where(sent == NONE, NONE, sent - launched),
            late=late,
            effective_ttft_s=_micro(columns[PLACE["effective_ttft_s"]]),
            effective_e2e_s=_micro(columns[PLACE["effective_e2e_s"]]),
            cpu_wait=_micro(columns[PLACE["cpu_wait_s"]]),
            prompt=_whole(columns[PLACE["prompt_tokens"]]),
            cached=_whole(columns[PLACE["cached_tokens"]]),
            model=_codes(columns[PLACE["model"]]),
            user=np.zeros(len(clock), dtype=bool)
            if clock.count("kernel") == len(clock)
            else np.array([each != "kernel" for each in clock]),
        )
        asked = self._asked(columns[PLACE["sampling"]])
        both = (asked != NONE) & (output != NONE)
        self.asked_known += int(np.count_nonzero(asked != NONE))
        self.asked_sum += int(asked[asked != NONE].sum())
        short = both & (output < asked)
        if short.any():
            finish = columns[PLACE["finish_reason"]]
            self.short += int(np.count_nonzero(short))
            self.cut_short += sum(1 for place in np.flatnonzero(short).tolist() if finish[place] != "stop")
        return output, both & (output > asked)

    def _asked(self, samplings: Sequence[Any]) -> np.ndarray:
        if samplings.count(self._last_sampling) == len(samplings):
            return np.full(len(samplings), NONE if self._last_asked is None else self._last_asked, dtype=np.int64)
        return _whole([asked_tokens(each) for each in samplings])

    def _events(
        self, chunk: Chunk, sent: np.ndarray, e2e: np.ndarray, output: np.ndarray, disputed: np.ndarray
    ) -> None:
        """Gaps between events and tokens, and when tokens came."""
        lengths = np.array(chunk.lengths, dtype=np.int64)
        seconds = np.frombuffer(chunk.events) * 1e6
        times = np.rint(seconds, out=seconds).astype(np.int64)
        if len(times) and int(times.min()) < 0:
            self.backwards += int(np.count_nonzero(times < 0))
            times = np.maximum(times, 0)
        self._keep(joined=_joined(times, lengths))
        # Without instants a request goes into one block or another, always the same.
        when = np.where(sent == NONE, (e2e * 40503) & 0xFFFFF, sent) if bool((sent == NONE).any()) else sent
        if not chunk.odd and len(times) and bool(lengths.all()):
            self._plain_gaps(when, lengths, times)
            self._keep(first_tokens=np.full(len(lengths), NONE, dtype=np.int64))
            self._arrivals(sent, e2e, output, lengths, times, None, lengths)
            disputed = disputed | ((output != NONE) & (np.abs(lengths - output) > 1))
            self.disputed += int(np.count_nonzero(disputed))
            return
        owner = np.repeat(np.arange(len(lengths)), lengths)
        single, unknown = np.ones(len(lengths), dtype=bool), np.zeros(len(lengths), dtype=bool)
        carried = np.ones(len(times), dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        for place, tokens in chunk.odd.items():
            single[place], unknown[place] = False, tokens is None
            if tokens is not None:
                carried[starts[place] : starts[place] + len(tokens)] = tokens
        # Nobody tells: where there are nearly as many events as tokens, each event is a token.
        alike = unknown & (output != NONE) & (np.abs(output - lengths) <= np.maximum(1, output // 20))
        single |= alike
        self.unknown_split += int(np.count_nonzero(unknown & ~alike & (lengths > 1)))
        sums = np.bincount(owner, carried, minlength=len(lengths)).astype(np.int64)
        disputed = disputed | (~unknown & (lengths > 0) & (output != NONE) & (np.abs(sums - output) > 1))
        self.disputed += int(np.count_nonzero(disputed))
        # Tokens of the first event, NONE for one; where nobody tells, an even share.
        begun = np.full(len(lengths), NONE, dtype=np.int64)
        counted = ~single & ~unknown & (lengths > 0)
        begun[counted] = carried[starts[counted]]
        guessed = unknown & ~alike & (lengths > 0) & (output != NONE)
        begun[guessed] = np.maximum(output[guessed] // lengths[guessed], 1)
        self._keep(first_tokens=begun)
        self._gaps(when, lengths, times, owner, single, unknown, carried)
        self._arrivals(sent, e2e, output, lengths, times, carried, sums)

    def _plain_gaps(self, sent: np.ndarray, lengths: np.ndarray, times: np.ndarray) -> None:
        """Steps of requests with an event for each token."""
        self.single.add(sent, lengths, self._steps(times, np.cumsum(lengths) - lengths))

    def _steps(self, times: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Times of events to steps from one to the next; a request's first is from its sending. None is negative."""
        steps = np.empty_like(times)
        np.subtract(times[1:], times[:-1], out=steps[1:])
        steps[starts] = times[starts]
        if int(steps.min()) < 0:
            self.backwards += int(np.count_nonzero(steps < 0))
            steps = np.maximum(steps, 0)
        return steps

    def _gaps(
        self,
        sent: np.ndarray,
        lengths: np.ndarray,
        times: np.ndarray,
        owner: np.ndarray,
        single: np.ndarray,
        unknown: np.ndarray,
        carried: np.ndarray,
    ) -> None:
        """Steps of requests of every sort."""
        if len(times) < 2:
            return
        first = np.concatenate([[True], owner[1:] != owner[:-1]])
        steps = self._steps(times, np.flatnonzero(first))
        chosen = single[owner]
        self.single.add(sent, np.where(single, lengths, 0), steps[chosen])
        self.events.add(sent, np.where(single, 0, lengths), steps[~chosen])
        multi = ~single & ~unknown
        if not multi.any():
            return
        # An event of k tokens: k gaps of a k-th. Events that carry none add their time to the next that does.
        kept = multi[owner] & ((carried > 0) | first)
        times, owner, carried, first = times[kept], owner[kept], carried[kept], first[kept]
        steps = np.diff(times, prepend=0)
        steps[first] = times[first]
        lengths = np.bincount(owner, minlength=len(sent))
        self.split.add(sent, lengths, np.maximum(steps, 0), np.maximum(carried, 1))

    def _arrivals(
        self,
        sent: np.ndarray,
        e2e: np.ndarray,
        output: np.ndarray,
        lengths: np.ndarray,
        times: np.ndarray,
        carried: np.ndarray | None,
        sums: np.ndarray,
    ) -> None:
        """Put each output token into the bin of time in which it came; a request's tokens add up to its count."""
        known, line = sent != NONE, self.timeline
        if not known.any():
            return
        instants = np.repeat(sent, lengths) + times
        if carried is None and known.all() and bool((lengths == output).all()):
            line.add(line.places(np.minimum(instants, line.high)), None)
            return
        total = np.where(output == NONE, np.where(lengths > 0, sums, 0), output)
        cumulated = np.cumsum(np.ones(len(times), dtype=np.int64) if carried is None else carried)
        before = np.concatenate([[0], cumulated])[np.cumsum(lengths) - lengths]
        spread = [np.repeat(each, lengths) for each in (before, total, np.maximum(sums, 1), known)]
        reached = (cumulated - spread[0]) * spread[1] // spread[2]
        new = np.diff(reached, prepend=0)
        starts = (np.cumsum(lengths) - lengths)[lengths > 0]
        new[starts] = reached[starts]
        instants = np.clip(instants, line.low, line.high)[spread[3]]
        if len(instants):
            line.add(line.places(instants), new[spread[3]])
        bare = known & ((lengths == 0) | (sums == 0)) & (total > 0) & (e2e != NONE)
        if bare.any():
            line.add(line.places(np.maximum(sent + e2e, sent)[bare]), total[bare])

    def checksum(self) -> str:
        """A hash of all requests' instants and of the ok ones' figures, whatever their order: of sums over mixed
        rows."""
        total = []
        for group in (("sent_all", "end_all", "launched"), ("sent", "e2e_s", "ttft_s", "output")):
            mixed = np.zeros(len(self.array(group[0])), dtype=np.uint64)
            for name in group:
                # The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
                mixed += self.array(name).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
                mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                mixed ^= mixed >> np.uint64(31)
            total += [len(mixed), int(mixed.sum(dtype=np.uint64))]
        return hashlib.sha256(repr(total).encode()).hexdigest()

    def clients(self) -> list[set[int]]:
        """The numbers of clients that the records of each host name; several where they are of several runs."""
        found: dict[Any, set[int]] = {}
        for host, asked in self.hosts:
            if asked is not None:
                found.setdefault(host, set()).add(int(asked))
        return list(found.values())

    def prompts(self) -> tuple[int, str | None, str | None]:
        """How many distinct prompts there were, a hash of their set, and one of the shares in which they were sent."""
        distinct, counts = np.unique(self.array("prompts").astype(np.uint64), return_counts=True)
        if not len(distinct):
            return 0, None, None
        shares = (counts // np.gcd.reduce(counts)).astype(">u8").tobytes()
        names = distinct.astype(">u8").tobytes()
        return len(distinct), hashlib.sha256(names).hexdigest(), hashlib.sha256(names + shares).hexdigest()
