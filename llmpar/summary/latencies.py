"""Latencies of a run's ok requests: of the steady window's, and of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmpar.stats import intervals, steady
from llmpar.summary import tally
from llmpar.summary.columns import NONE, Columns, in_seconds
from llmpar.summary.window import Run, Window, batches, bounds, fewest_turns, inside

# What --slo may name, and the figure it bounds.
OBJECTIVES = {
    "ttft": "ttft_s",
    "tpot": "tpot_s",
    "e2e": "e2e_s",
    "effective_ttft": "effective_ttft_s",
    "effective_e2e": "effective_e2e_s",
}
FIGURES = ("ttft_s", "itl_s", "event_latency_s", "tpot_s", "e2e_s", "effective_ttft_s", "effective_e2e_s")
# Requests that are out together share the engine's pace in these, so batches are as long as a turn of all clients.
SHARED_PACE = ("itl_s", "event_latency_s", "tpot_s", "e2e_s", "effective_e2e_s")
WAVES = 0.2  # requests sent more in step than this come in waves
CONVOY = 0.10  # TTFT that falls by more over the steady window is the start's echo


@dataclass
class Latencies:
    """Figures of the ok requests in the order of sending, in seconds, NaN where there is none.

    `order` puts the columns into that order. `sent_in` and `whole_in`: which requests were sent within the steady
    window, and which also ended in it; all of them without a window. `failed_in`: instants of the failed requests that
    were sent within it, in microseconds.
    """

    order: np.ndarray
    seconds: dict[str, np.ndarray]
    sent_in: np.ndarray
    whole_in: np.ndarray
    failed_in: np.ndarray

    def chosen(self, figure: str) -> np.ndarray:
        """Which requests the window's figure is of. The time per token of one that ends in the drain is too short."""
        return (self.whole_in if figure == "tpot_s" else self.sent_in) & ~np.isnan(self.seconds[figure])


def of_run(columns: Columns, run: Run, window: Window) -> Latencies:
    """All latencies of the requests that ended ok."""
    order = columns.kept(_order(columns))
    sent, e2e = columns.array("sent")[order], columns.array("e2e_s")[order]
    seconds = {}
    for name in ("ttft_s", "e2e_s", "effective_ttft_s", "effective_e2e_s"):
        seconds[name] = seconds_of(columns, name, order)
    seconds["tpot_s"] = _tpot(columns, order)
    sent_in = inside(run, window, sent)
    whole_in = sent_in & inside(run, window, np.where(e2e == NONE, sent, sent + e2e))
    failed = columns.array("failed_sent")
    return Latencies(order, seconds, sent_in, whole_in, failed[inside(run, window, failed)])


def _order(columns: Columns) -> np.ndarray:
    """Ok requests in the order of sending. Without instants they are shuffled, always in the same way."""
    sent, e2e, ttft = columns.array("sent"), columns.array("e2e_s"), columns.array("ttft_s")
    first = sent
    if len(sent) > 1 and bool((sent[1:] > sent[:-1]).all()):
        return np.arange(len(sent))
    if bool((sent == NONE).any()):
        mixed = (e2e.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ (
            ttft.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
        )
        first = (mixed >> np.uint64(8)).astype(np.int64)
    order = np.argsort(first, kind="stable")
    same = np.diff(first[order]) == 0
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    if len(tied):
        names = ("prompt", "effective_e2e_s", "effective_ttft_s", "output", "ttft_s", "e2e_s")
        rows = order[tied]
        order[tied] = rows[np.lexsort((*(columns.array(name)[rows] for name in names), first[rows]))]
    return order


def _tpot(columns: Columns, order: np.ndarray) -> np.ndarray:
    """(E2E − TTFT) over the tokens that came after the first event; NaN where none did."""
    ttft, e2e, output, begun = (columns.array(name) for name in ("ttft_s", "e2e_s", "output", "first_tokens"))

    def of(block: slice) -> np.ndarray:
        rows = order[block]
        rest = output[rows] - np.where(begun[rows] == NONE, 1, begun[rows])
        known = (ttft[rows] != NONE) & (e2e[rows] != NONE) & (output[rows] != NONE) & (rest >= 1)
        return np.where(known, (e2e[rows] - ttft[rows]) / 1e6 / np.where(known, rest, 1), np.nan)

    return columns.made(len(order), of)


def seconds_of(columns: Columns, name: str, order: np.ndarray) -> np.ndarray:
    """A column of microseconds in this order, in seconds."""
    column = columns.array(name)
    return columns.made(len(order), lambda block: in_seconds(column[order[block]]))


def distributions(columns: Columns, measured: Latencies, run: Run, window: Window | None) -> dict[str, Any]:
    """The summary's `latency` of the steady window, or with None (or without a steady one) of the whole run."""
    over_window = window is not None and window.steady
    figures = {}
    failed = measured.failed_in if over_window else columns.array("failed_sent")
    sent = columns.array("sent")[measured.order]
    turns = window.turns if over_window and window is not None else 0.0
    pace = batches(turns, run.open) if over_window else None
    for name, values in measured.seconds.items():
        chosen = measured.chosen(name) if over_window else ~np.isnan(values)
        figures[name] = intervals.distribution(
            _with_failures(values[chosen], sent[chosen], failed), pace if run.open or name in SHARED_PACE else None
        )
    low, high = bounds(run, window) if window is not None and window.steady else (None, None)
    # Where every event is one token, the gaps serve both figures.
    gaps = [tally.Gaps(), tally.Gaps()]
    for gap, rest in zip(gaps, (columns.split, columns.events), strict=True):
        gap.merge(columns.single)
        gap.merge(rest)
    itl = gaps[0].distribution(low, high, pace or intervals.BATCHES)
    plain = columns.split.empty and columns.events.empty
    figures["itl_s"] = itl
    figures["event_latency_s"] = (
        dict(itl) if plain and itl else gaps[1].distribution(low, high, pace or intervals.BATCHES)
    )
    fewest = fewest_turns(run.open)
    if over_window and turns < fewest:
        requests = int(np.count_nonzero(measured.sent_in))
        for name in FIGURES if run.open else SHARED_PACE:
            figures[name] = _without_intervals(figures[name], int(np.ceil(requests * fewest / turns)))
    if window is not None and window.needed is not None:
        figures = {name: _without_intervals(figure, window.needed) for name, figure in figures.items()}
    return {name: figures[name] for name in FIGURES}


def _without_intervals(figure: dict[str, Any] | None, least: int) -> dict[str, Any] | None:
    """A distribution's values alone; its percentiles' intervals need `least` requests in the window or more."""
    if figure is None:
        return None
    kept: dict[str, Any] = {}
    for name, item in figure.items():
        if not isinstance(item, dict):
            kept[name] = item
        elif "needed" in item:
            kept[name] = intervals.bounded(item["value"], None, None, None, None, max(least, item["needed"] or 0))
        else:
            kept[name] = {"value": item["value"], "low": None, "high": None}
    return kept


def _with_failures(values: np.ndarray, sent: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Values, and an infinite one for each failed request, in the order of sending: a timeout is the longest wait."""
    if not len(failed) or not len(values):
        return values
    order = np.argsort(np.concatenate([sent, failed]), kind="stable")
    return np.concatenate([values, np.full(len(failed), np.inf)])[order]


def convoy(measured: Latencies, run: Run, window: Window) -> tuple[float | None, float | None, bool]:
    """The window's `ttft_drift_ratio` and `wave_ratio`, and whether TTFT is of the clients' start rather than the
    server's.

    Clients that start together and get answers of equal length go on together, and wait for one another's prompts. Seen
    by TTFT that falls by more than CONVOY, and more than chance explains, or by requests that are sent in waves.
    """
    values = measured.seconds["ttft_s"][measured.chosen("ttft_s")]
    third = len(values) // 3
    if not window.steady or third == 0 or not values[:third].any():
        return None, None, False
    change = float(values[-third:].mean()) / float(values[:third].mean()) - 1
    in_step = None if run.open else _waves(run, window)
    return change, in_step, change < -CONVOY and steady.drift(values) < 0 or bool(in_step and in_step > WAVES)


def _waves(run: Run, window: Window) -> float | None:
    """How far requests are sent in waves, one a turn: 0 evenly, 1 all at once. None: too few, or chance could do that.

    The length of the mean direction when the time of a turn (in flight / sent per second, Little) is a full circle; the
    longest for turns within 4% of that, over twenty turns. Of n even ones it exceeds 3 / √n in fewer than 1 of 100.
    """
    low, high = bounds(run, window)
    sent = run.starts[(run.starts >= low) & (run.starts < high)]
    flying = float(run.flying[window.first : window.last].sum()) / (high - low)
    if flying < 2 or len(sent) < 2 * flying:
        return None
    turn = flying * (high - low) / len(sent)
    sent = sent[: min(int(20 * flying), 5000)] - low
    turns = turn * np.linspace(0.96, 1.04, 81)
    length = max(abs(complex(np.exp(2j * np.pi * sent / each).mean())) for each in turns)
    return length if length > 3 / np.sqrt(len(sent)) else 0.0


def good(measured: Latencies, objectives: dict[str, float]) -> np.ndarray:
    """Which ok requests meet every objective; a single token has no time per output token to miss."""
    met_all = np.ones(len(measured.seconds["e2e_s"]), dtype=bool)
    for name, bound in objectives.items():
        values = measured.seconds[OBJECTIVES[name]]
        with np.errstate(invalid="ignore"):
            met = values <= bound
        met_all &= met | np.isnan(values) if name == "tpot" else met
    return met_all


def goodput(
    measured: Latencies, met: np.ndarray, objectives: dict[str, float], requests: int, within: int
) -> dict[str, Any]:
    """The summary's `goodput`. `met`: as from `good`; `requests` in all, `within` the steady window (sent, failures
    too)."""
    total = int(np.count_nonzero(met))
    steadily = int(np.count_nonzero(met & measured.sent_in))
    return {
        "objectives": {OBJECTIVES[name]: bound for name, bound in sorted(objectives.items())},
        "met": total,
        "ratio": total / requests if requests else None,
        "steady": {"requests": within, "met": steadily, "ratio": steadily / within} if within else None,
    }
