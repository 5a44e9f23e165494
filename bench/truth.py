"""What a client says against what the server's log says, and the server's own lateness.

Compared are instants of one clock (CLOCK_REALTIME of one host). For a request the server's log holds `received`, the
kernel's stamp of the request's last segment, and for each event the instant before its write() and after it. The true
time of an event, counted as a client counts, is `before - received`; what the client said is its own `event_s`, counted
from its `sent_at`. The difference is the client's error, with the way through the kernel (twice, some 0.01 ms) on top
of it.
"""

from __future__ import annotations

import bisect
import math
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Served:
    """One request as the server saw it: epoch nanoseconds."""

    id: str
    received: int
    due: list[int]
    before: list[int]
    after: list[int]


@dataclass(slots=True)
class Told:
    """One request as a client tells it: `sent` in epoch seconds or None, times in seconds from it."""

    id: str
    sent: float | None
    events: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Errors:
    """Seconds, client minus truth, of all matched requests."""

    sent: list[float] = field(default_factory=list)
    ttft: list[float] = field(default_factory=list)
    events: list[float] = field(default_factory=list)
    unmatched: int = 0


def read_log(lines: Iterable[str]) -> Iterator[Served]:
    """truthd's log. Raises ValueError for a line of another shape."""
    for line in lines:
        name, received, *times = line.rstrip("\n").split("\t")
        if len(times) % 3:
            raise ValueError(f"truthd's line of '{name}' is cut")
        numbers = list(map(int, times))
        yield Served(name, int(received), numbers[0::3], numbers[1::3], numbers[2::3])


def told(record: dict[str, Any]) -> Told:
    """A request record; its prompt file is named like the first word of its prompt."""
    return Told(record["prompt"], record["sent_at"], record["event_s"])


def compare(clients: Iterable[Told], served: Iterable[Served]) -> Errors:
    """Match by the first word of the prompt; of requests with one prompt, by the nearest receipt."""
    log: dict[str, list[Served]] = {}
    for one in served:
        log.setdefault(one.id.split(" ")[0], []).append(one)
    errors = Errors()
    for said in clients:
        candidates = log.get(said.id, [])
        if not candidates or not said.events:
            errors.unmatched += 1
            continue
        at = 0
        if said.sent is not None:
            sent = said.sent
            at = min(range(len(candidates)), key=lambda number: abs(candidates[number].received / 1e9 - sent))
        true = candidates.pop(at)
        if said.sent is not None:
            errors.sent.append(said.sent - true.received / 1e9)
        first = [(before - true.received) / 1e9 for before in true.before]
        if not first or len(said.events) > len(first):
            errors.unmatched += 1
            continue
        errors.ttft.append(said.events[0] - first[0])
        if len(said.events) == len(first):
            errors.events.extend(mine - truth for mine, truth in zip(said.events, first, strict=True))
    return errors


def quantile(values: Iterable[float], share: float) -> float:
    """Nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1] if ordered else math.nan


def size(values: Iterable[float], share: float) -> float:
    """Quantile of the absolute values."""
    return quantile(map(abs, values), share)


def lateness(served: Iterable[Served]) -> list[float]:
    """Seconds from when an event was due to when its write() had returned."""
    return [(after - due) / 1e9 for one in served for due, after in zip(one.due, one.after, strict=True)]


def held(served: list[Served], skip: float = 0.0) -> float:
    """Time-weighted mean number of requests at the server, from the first receipt to the last; NaN for fewer than two.

    `skip`: a share of that time that is left out at each end.
    """
    starts = sorted(one.received for one in served)
    if len(starts) < 2 or starts[0] == starts[-1]:
        return math.nan
    cut = (starts[-1] - starts[0]) * skip
    first, last = starts[0] + cut, starts[-1] - cut
    spans = ((max(one.received, first), min(one.after[-1] if one.after else one.received, last)) for one in served)
    return sum(max(end - begin, 0) for begin, end in spans) / (last - first)


def most(served: list[Served]) -> int:
    """The largest number of requests at the server at one time."""
    ends = sorted(one.after[-1] for one in served if one.after)
    starts = sorted(one.received for one in served if one.after)
    return max((number + 1 - bisect.bisect_right(ends, start) for number, start in enumerate(starts)), default=0)


def build(program: Path) -> None:
    """Compile truthd where it is missing or older than its source. Raises CalledProcessError, FileNotFoundError (no
    gcc)."""
    source = Path(__file__).with_name("truthd.c")
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)], check=True)


class Server:
    """truthd, running until `stop`, which gives its log."""

    def __init__(self, program: Path, log: Path, options: Iterable[str] = (), core: int | None = None):
        self.log = log
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        self.process = subprocess.Popen(
            [*pinned, str(program), "0", str(log), *options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        port, _, self.scheduling = self.process.stdout.readline().strip().partition(" ")
        if not port:
            raise OSError("truthd did not start")
        self.cpu_s = 0.0  # known once it has ended
        self.url = f"http://127.0.0.1:{port}"

    def stop(self) -> list[Served]:
        self.process.terminate()
        _, code, used = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(code)
        self.cpu_s = used.ru_utime + used.ru_stime
        with open(self.log) as stream:
            return list(read_log(stream))


def fifo(program: Path, log: Path) -> bool:
    """Whether truthd may run under SCHED_FIFO here."""
    server = Server(program, log)
    server.stop()
    return server.scheduling == "fifo"
