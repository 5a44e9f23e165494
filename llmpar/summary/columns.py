"""Request records to columns: a chunk of records at a time, in whatever order, to arrays and exact counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson

from llmpar.summary import conversations, tally
from llmpar.summary.chunks import NAMES, NONE, Chunk, asked_tokens
from llmpar.summary.clocks import Clock
from llmpar.summary.names import Names
from llmpar.summary.spill import LEAST_BYTES, Column, Spill

BINS = 2048  # steps of the time line
HELD_BYTES = 32 << 20  # of columns in memory: with more they go into a file
BLOCK = 1 << 17  # values that are worked on at a time
SAMPLINGS = 4096  # whose keys are kept for the next chunk
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


def name_code(name: Any) -> int:
    """A whole number for a name, the same in every process: in a column the name itself would cost its length."""
    return int.from_bytes(hashlib.sha256(str(name).encode("utf-8", "surrogatepass")).digest()[:7], "big")


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
        self._columns: dict[str, Column] = {}
        self._held = 0  # bytes of columns in memory
        self.spill: Spill | None = None
        self._samplings: dict[bytes, tuple[bytes, int]] = {}  # JSON as it came: with sorted keys, tokens asked for

    def add(self, chunk: Chunk) -> None:
        """Take a chunk. Raises ValueError where a prompt's hash is none (see `check`)."""
        if not chunk.count:
            return
        self._categories(chunk)
        self.turns.extend(chunk.turns)
        status = chunk.names["status"]
        self.counts.update(status.counts())
        sent, e2e, launched, due = (chunk.micro(name) for name in ("sent_at", "e2e_s", "launched_at", "scheduled_at"))
        if self.of_host:
            sent, launched, due = self._by_one_clock(chunk.names["host"], sent, launched, due)
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
        failed = status.are("error", "timeout")  # what the client cancelled did not fail
        if failed.any():
            self._keep(failed_sent=sent[failed])
        ok = status.are("ok")
        if ok.any():
            sent, e2e, launched, due = (each[ok] for each in (sent, e2e, launched, due))
            output, disputed = self._take(chunk, ok, sent, e2e, launched, due)
            self._events(chunk, sent, e2e, output, disputed)
        self._bound()

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
        for mine_gaps, its_gaps in zip(self._gaps_of_all(), other._gaps_of_all(), strict=True):
            mine_gaps.merge(its_gaps)
        for name, column in other._columns.items():
            self._columns.setdefault(name, Column()).parts += column.parts
        self._held += other._held
        if other.spill is not None:
            self.spill = self.spill or Spill()  # its own: another process may have filled the other one
        self._bound()

    def _gaps_of_all(self) -> tuple[tally.Gaps, ...]:
        return self.single, self.split, self.events

    def store(self) -> None:
        """Put columns into a file."""
        self.spill = self.spill or Spill()
        for column in self._columns.values():
            column.store(self.spill)
        for gaps in self._gaps_of_all():
            gaps.store(self.spill)
        self._held = 0

    def _bound(self) -> None:
        """Put columns into a file where they take much memory."""
        if self._held + sum(each.held for each in self._gaps_of_all()) > HELD_BYTES:
            self.store()

    def made(self, count: int, of: Callable[[slice], np.ndarray]) -> np.ndarray:
        """So many floats, in the file where there is one; `of` makes some of them at a time."""
        blocks = (of(slice(start, min(start + BLOCK, count))) for start in range(0, count, BLOCK))
        if self.spill is None or 8 * count < LEAST_BYTES:
            return np.concatenate([np.empty(0), *blocks])
        return self.spill.fill(count, float, blocks).array()

    def kept(self, values: np.ndarray) -> np.ndarray:
        """Values that are needed for long: in the file where there is one, and they are many."""
        return values if self.spill is None or values.nbytes < LEAST_BYTES else self.spill.put(values).array()

    def _by_one_clock(self, hosts: Names, *instants: np.ndarray) -> list[np.ndarray]:
        """Instants (us) of these hosts by the clock that all are put by."""
        copies = [times.copy() for times in instants]
        for host in set(hosts.values) & set(self.of_host):
            rows = hosts.are(host)
            for times in copies:
                times[rows] = self.of_host[host].correct(times[rows], NONE)
        return copies

    def _keep(self, **arrays: np.ndarray) -> None:
        """Add to columns."""
        for name, values in arrays.items():
            self._held += self._columns.setdefault(name, Column()).append(values)

    def array(self, name: str) -> np.ndarray:
        """One column of all requests (launched, sent_all, end_all) or of the ok ones (the others), as read."""
        column = self._columns.get(name)
        return np.zeros(0, dtype=np.int64) if column is None else column.whole(self.spill)

    def _categories(self, chunk: Chunk) -> None:
        if chunk.hashes:
            # The first eight bytes of each hash tell prompts apart.
            hashes = np.frombuffer(bytes.fromhex("".join(chunk.hashes)), dtype=">u8")
            self._keep(prompts=hashes[::4].astype(np.uint64))
        for name, counter in self.names.items():
            counter.update(chunk.names[name].counts())
        hosts, asked = chunk.names["host"], chunk.names["concurrency"]
        for host in hosts.values:
            for clients, count in asked.counts(hosts.are(host)).items():
                self.hosts[host, clients] += count
        self.retried += chunk.retried
        for error in chunk.errors:
            self.failures[str(error.get("type"))] += 1
        for sampling, count in chunk.samplings.counts().items():
            self.samplings[self._sampling(sampling)[0]] += count

    def _sampling(self, text: bytes) -> tuple[bytes, int]:
        """A request's sampling, given as JSON, with sorted keys, and how many tokens it asks for at most."""
        found = self._samplings.get(text)
        if found is None:
            sampling = orjson.loads(text)
            asked = asked_tokens(sampling)
            found = orjson.dumps(sampling, option=orjson.OPT_SORT_KEYS), NONE if asked is None else asked
            if len(self._samplings) < SAMPLINGS:
                self._samplings[text] = found
        return found

    def _take(
        self, chunk: Chunk, ok: np.ndarray, sent: np.ndarray, e2e: np.ndarray, launched: np.ndarray, due: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The columns of requests that ended ok; returns output tokens, and where they are more than asked."""
        for counter, name in ((self.clocks, "clock"), (self.sources, "token_source"), (self.finishes, "finish_reason")):
            counter.update(chunk.names[name].counts(ok))
        ttft, output = chunk.micro("ttft_s")[ok], chunk.whole("output_tokens")[ok]
        self.backwards += int(
            np.count_nonzero((e2e != NONE) & (e2e < 0))
            + np.count_nonzero((ttft != NONE) & ((ttft < 0) | ((e2e != NONE) & (ttft > e2e))))
            + np.count_nonzero((sent != NONE) & (sent < launched))
        )
        model = chunk.names["model"]
        # Late by its own doing: after both its due time and its process's start.
        late = np.where((due == NONE) | (sent == NONE), NONE, sent - np.maximum(due, launched))
        self._keep(
            sent=sent,
            ttft_s=ttft,
            e2e_s=e2e,
            output=output,
            launch_delay=np.where(sent == NONE, NONE, sent - launched),
            late=late,
            effective_ttft_s=chunk.micro("effective_ttft_s")[ok],
            effective_e2e_s=chunk.micro("effective_e2e_s")[ok],
            cpu_wait=chunk.micro("cpu_wait_s")[ok],
            prompt=chunk.whole("prompt_tokens")[ok],
            cached=chunk.whole("cached_tokens")[ok],
            model=np.array([name_code(each) for each in model.values], dtype=np.int64)[model.codes][ok],
            user=~chunk.names["clock"].are("kernel")[ok],
        )
        of_sampling = np.array([self._sampling(each)[1] for each in chunk.samplings.values], dtype=np.int64)
        asked = of_sampling[chunk.samplings.codes][ok]
        both = (asked != NONE) & (output != NONE)
        self.asked_known += int(np.count_nonzero(asked != NONE))
        self.asked_sum += int(asked[asked != NONE].sum())
        short = both & (output < asked)
        if short.any():
            self.short += int(np.count_nonzero(short))
            self.cut_short += int(np.count_nonzero(short & ~chunk.names["finish_reason"].are("stop")[ok]))
        return output, both & (output > asked)

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
