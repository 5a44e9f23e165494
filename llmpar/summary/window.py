"""The steady window of a run, and rates over it and over the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from llmpar.stats import intervals, steady
from llmpar.summary import tally
from llmpar.summary.columns import BLOCK, NONE, Columns

METHOD = "mser-both-ends"
DRIFT = 0.10  # a change over the window beyond this share, and beyond chance, is no steady state
LEAST_COMPLETIONS = 10
# Turns: requests sent in the window over those in flight, or its length over a request's time. What is in flight
# changes within a turn or so where clients wait for answers; in an open load nothing holds it, and it takes longer.
OPEN_TURNS = 12
INTERVAL_TURNS = 5
POINTS = 512
TURNS = 2  # of every client, before the window: the first is a burst of prompts, the second still answers it
OPEN_FILLED = 3  # the same of an open load, which starts on an empty server
FLOOR = 0.10  # variations of requests in flight under this share of their mean are no transient
LEAST_SHARE = 0.5  # of the time in which load came that must have settled
# An open load whose TTFT differs by more than this (standard deviation over mean) from tenth to tenth of the run, and
# more than its requests explain, is near the server's capacity: a queue comes and goes.
UNEVEN = 0.4


@dataclass
class Window:
    """Steps `first` … `last` (exclusive) of the time line are steady; or none are, for `reason`.

    `needed`: how many requests an open load that is not steady would have to send at least.
    """

    first: int = 0
    last: int = 0
    reason: str | None = None
    turns: float = 0.0
    needed: int | None = None

    @property
    def steady(self) -> bool:
        return self.reason is None


@dataclass
class Run:
    """A run on its time line: requests in flight and output tokens in each step.

    `starts`, `ends`: instants at which requests were sent, and at which they ended, each ascending.
    """

    columns: Columns

    def __post_init__(self) -> None:
        columns = self.columns
        sent, end = columns.array("sent_all"), columns.array("end_all")
        known = sent != NONE
        self.known = bool(known.any())
        self.starts, self.ends = columns.kept(np.sort(sent[known])), columns.kept(np.sort(end[known]))
        self.open = bool((columns.array("late") != NONE).any())  # requests had a time at which they were due
        launched = columns.array("launched")
        launched = launched[launched != NONE]
        self.start = int(launched.min()) if len(launched) else None
        self.end = int(end[end != NONE].max()) if len(launched) else None
        self.line = columns.timeline
        self.steps = len(self.line.sums)
        self.step_s = self.line.step / 1e6
        self.tokens = self.line.sums[:, 0]
        self.flying = tally.in_flight(self.starts, self.ends, self.line.start, self.line.step, self.steps)

    @cached_property
    def peak(self) -> int:
        return tally.peak(self.starts, self.ends)

    def mean_in_flight(self, start: int, end: int) -> float | None:
        """Time-weighted mean of requests in flight between two instants (us)."""
        if end <= start:
            return None
        return int(tally.in_flight(self.starts, self.ends, start, end - start, 1)[0]) / (end - start)

    def counts(self, instants: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """How many instants (or how much weight) each step of the time line holds."""
        counts = np.zeros(self.steps, dtype=np.int64)
        for start in range(0, len(instants), BLOCK):
            block = slice(start, start + BLOCK)
            places = np.clip((instants[block] - self.line.start) // self.line.step, 0, self.steps - 1)
            counts += np.bincount(places, None if weights is None else weights[block], minlength=self.steps).astype(
                np.int64
            )
        return counts

    def instant(self, step: int) -> float:
        return (self.line.start + step * self.line.step) / 1e6


def find(run: Run) -> Window:
    """The steady window (`_find`); of an open load that has none, also how many requests would show one at least."""
    window = _find(run)
    if window.steady or not run.open or not run.known:
        return window
    count = len(run.starts)
    window.needed = max(window.needed or 2 * count, count + 1)
    span = int(run.starts[-1] - run.starts[0]) / 1e6
    window.reason = (
        f"{window.reason}; run longer: at least {window.needed} requests, {math.ceil(span * window.needed / count)} s"
    )
    return window


def _find(run: Run) -> Window:
    """The steady window: where the load is steady and neither throughput nor the requests in flight drift.

    Both cuts at once, on the requests in flight (`steady.span`). The window starts no sooner than the first request
    ends, and not before twice as many requests were sent as are ever in flight at once: the first two of every client.
    The first are a burst of prompts, and the second are answered while its requests end together. In an open load they
    fill the server. It ends no later than the last is sent: after that no load
    comes. No window: less than half of that time settles, less than one median request, fewer requests than are in
    flight at once (a turn of every client) or ten completions are
    in it, or output or the requests in flight drift on; in an open load, also where TTFT rises, or comes and goes.
    Output itself does not choose the cuts: it comes in waves as long as a request, and a wave's trough looks like the
    steadiest stretch there is.
    """
    if not run.known or run.steps < 50:
        return Window(reason="there are too few requests with known instants")
    peak = run.peak
    before = OPEN_FILLED if run.open else TURNS
    opened = min(before * peak, len(run.starts)) - 1  # the last request of every client's first turns
    started = max(int(run.ends[0]), int(run.starts[opened]))
    begin = -(-(started - run.line.start) // run.line.step)
    close = min((int(run.starts[-1]) - run.line.start) // run.line.step, run.steps)
    chosen = steady.span(run.flying, FLOOR, begin, close)
    if chosen is None:
        return Window(reason="ramp and drain leave nothing between them")
    first, last = chosen
    if last - first < LEAST_SHARE * (close - begin):
        return Window(reason="requests in flight do not settle in half of the run")
    e2e = run.columns.array("e2e_s")
    e2e = e2e[e2e != NONE]
    median = float(np.median(e2e)) / 1e6 if len(e2e) else math.inf
    if (last - first) * run.step_s < median:
        return Window(reason="ramp and drain leave less than the time of one request")
    low, high = run.line.start + first * run.line.step, run.line.start + last * run.line.step
    flying = float(run.flying[first:last].mean()) / run.line.step
    turns = int(np.count_nonzero((run.starts >= low) & (run.starts < high))) / max(flying, 1.0)
    if turns < (OPEN_TURNS if run.open else 1):
        share = (last - first) / (close - begin)
        return Window(
            reason=f"only {turns:.1f} times as many requests as are in flight at once are sent between ramp and drain",
            needed=math.ceil(OPEN_FILLED * peak + OPEN_TURNS * flying / share) if run.open else None,
        )
    done = int(np.count_nonzero((run.ends >= low) & (run.ends < high)))
    if done < LEAST_COMPLETIONS:
        return Window(reason=f"only {done} requests end between ramp and drain")
    if run.open:
        # A server near its capacity fills for long. All of the time shows that, not the stretch that shows it least.
        low, high = (run.line.start + step * run.line.step for step in (begin, close))
        flights, level = run.flying[begin:close], 0.98
        ttft = _ttft(run.columns, low, high)
        slower = max(steady.drift(ttft, level), 0.0)
        if steady.unevenness(ttft) > UNEVEN:
            return Window(reason="TTFT comes and goes: the load is near what the server can take")
    else:
        flights, level, slower = run.flying[first:last], 0.99, 0.0
    changes = {
        "throughput": steady.drift(run.tokens[first:last]),
        "the number of requests in flight": steady.drift(flights, level),
        "TTFT": slower,
    }
    for series, change in changes.items():
        if abs(change) > DRIFT:
            verb = "rises" if change > 0 else "falls"
            return Window(reason=f"{series} {verb} by {abs(change):.0%} between ramp and drain")
    return Window(first, last, turns=turns)


def fewest_turns(open_load: bool) -> int:
    """Turns in the window from which there are intervals (of an open load; else of figures of a shared pace)."""
    return OPEN_TURNS if open_load else INTERVAL_TURNS


def batches(turns: float, open_load: bool) -> int:
    """How many batches of requests are independent enough: each a turn long, eight in an open load; 5 to 20."""
    return int(min(max(turns / (8 if open_load else 1), intervals.LEAST_BATCHES), intervals.BATCHES))


def _ttft(columns: Columns, low: int, high: int) -> np.ndarray:
    """TTFT (us) of the ok requests sent from `low` on and before `high`, in that order."""
    sent, ttft = columns.array("sent"), columns.array("ttft_s")
    chosen = (sent >= low) & (sent < high) & (ttft != NONE)
    return ttft[chosen][np.lexsort((ttft[chosen], sent[chosen]))]


def inside(run: Run, window: Window, instants: np.ndarray) -> np.ndarray:
    """Which instants (us) lie in the steady window; all of them where there is none."""
    if not window.steady:
        return np.ones(len(instants), dtype=bool)
    low, high = bounds(run, window)
    return (instants >= low) & (instants < high)


def bounds(run: Run, window: Window) -> tuple[int, int]:
    """The window's first instant and the first one after it, in microseconds."""
    return run.line.start + window.first * run.line.step, run.line.start + window.last * run.line.step


def describe(run: Run, window: Window) -> dict[str, Any]:
    """The summary's `window`."""
    if not window.steady or run.start is None or run.end is None:
        return {
            "steady": False,
            "reason": window.reason,
            "start_at": None,
            "end_at": None,
            "duration_s": None,
            "ramp_s": None,
            "drain_s": None,
            "requests": 0,
            "completed": 0,
            "method": METHOD,
        }
    low, high = bounds(run, window)
    starts, ends = run.columns.array("sent_all"), run.columns.array("end_all")
    sent = (starts >= low) & (starts < high)
    return {
        "steady": True,
        "reason": None,
        "start_at": low / 1e6,
        "end_at": high / 1e6,
        "duration_s": (high - low) / 1e6,
        "ramp_s": max(low - run.start, 0) / 1e6,
        "drain_s": max(run.end - high, 0) / 1e6,
        "requests": int(np.count_nonzero(sent)),
        "completed": int(np.count_nonzero(sent & (ends < high))),
        "method": METHOD,
    }


def both(run: Run, window: Window, counts: np.ndarray | None, total: int | None) -> dict[str, Any]:
    """A rate per second over the whole wall time and over the steady window; None counts mean "nobody knows"."""
    refused: dict[str, Any] = {"value": None, "needed": None}
    wall_s = (run.end - run.start) / 1e6 if run.start is not None and run.end is not None else 0.0
    wall = refused if total is None or wall_s <= 0 else {"value": total / wall_s, "low": None, "high": None}
    steady = refused
    if counts is not None and window.steady:
        most = batches(window.turns, True) if run.open else intervals.BATCHES
        steady = intervals.rate(counts[window.first : window.last], run.step_s, most)
    return {"wall": wall, "steady": steady}


def series(run: Run) -> dict[str, Any] | None:
    """Requests in flight and output tokens a second over the whole run, for pictures."""
    if not run.known:
        return None
    pool = -(-run.steps // POINTS)
    starts = np.arange(0, run.steps, pool)
    lengths = np.minimum(pool, run.steps - starts) * run.line.step
    flying, tokens = np.add.reduceat(run.flying, starts), np.add.reduceat(run.tokens, starts)
    return {
        "start_at": run.instant(0),
        "step_s": pool * run.step_s,
        "in_flight": [round(value, 3) for value in (flying / lengths).tolist()],
        "output_tokens_per_s": [round(value, 3) for value in (tokens / lengths * 1e6).tolist()],
    }
