"""What the client itself may have added to the figures, and which of them that moves by more than a verdict's
margin."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmpar.stats import intervals, order_statistics
from llmpar.summary.columns import NONE, Columns
from llmpar.summary.latencies import Latencies, seconds_of
from llmpar.summary.window import Run

LIMIT = 0.03  # the margin within which verdicts call two sides the same
RATES = ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_per_s")
PER_REQUEST = {"pool", "cold", None}  # launchers of one process a request: others start once, not once a turn


def describe(columns: Columns, run: Run, measured: Latencies, result: dict[str, Any]) -> dict[str, Any]:
    """The summary's `client`. `result` holds the figures so far."""
    order = measured.order
    wait, delay, late = (seconds_of(columns, name, order) for name in ("cpu_wait", "launch_delay", "late"))
    over, lost = turn_lost(run, result)
    launching = _launching(columns, delay, late, measured)
    return {
        "limited": _limited(columns, wait, late, measured, result, lost if lost is not None else launching),
        "turn_lost_ratio": lost,
        "turn_lost_over": over,
        "turn_launch_ratio": launching,
        "clock": {str(key): columns.clocks[key] for key in sorted(filter(None, columns.clocks))},
        "cpu_wait_s": _seconds_spread(wait),
        "launch_delay_s": _seconds_spread(delay),
        "lateness_s": _seconds_spread(late),
        "launchers": {
            str(key): columns.names["launcher"][key] for key in sorted(filter(None, columns.names["launcher"]))
        },
        "hosts": sorted(filter(None, columns.names["host"])),
    }


def turn_lost(run: Run, result: dict[str, Any]) -> tuple[str | None, float | None]:
    """Share of the clients' time in which one had no request out though there was work: launching and waiting.

    Over the steady window; without one ("run"), from the moment when all clients had started until the last request was
    sent. (None, None) for open loads, for conversations with think time, and where the number of clients is unknown.
    """
    asked = result["concurrency"]["asked"]
    if not asked or not run.known or thinks(result):
        return None, None
    if result["window"]["steady"]:
        return "steady", max(0.0, 1 - result["concurrency"]["steady"] / asked)
    starts = run.starts
    if len(starts) <= asked:
        return None, None
    flying = run.mean_in_flight(int(starts[asked - 1]), int(starts[-1]))
    return (None, None) if flying is None else ("run", max(0.0, 1 - flying / asked))


def thinks(result: dict[str, Any]) -> bool:
    """Whether clients wait between the turns of conversations, which is not for want of the client."""
    return bool(((result.get("conversations") or {}).get("think_s") or {}).get("max"))


def _launching(columns: Columns, delay: np.ndarray, late: np.ndarray, measured: Latencies) -> float | None:
    """Share of a client's turn between its process's start and the first byte sent; None where it is not once a
    turn."""
    turn, delay = measured.seconds["e2e_s"], delay[~np.isnan(delay)]
    scheduled = bool((~np.isnan(late)).any())
    if scheduled or not set(columns.names["launcher"]) <= PER_REQUEST or not len(delay) or np.isnan(turn).all():
        return None
    launch, mean_turn = max(float(delay.mean()), 0.0), float(np.nanmean(turn))
    return launch / (launch + mean_turn) if launch + mean_turn > 0 else None


def _seconds_spread(values: np.ndarray) -> dict[str, Any] | None:
    values = np.sort(values[~np.isnan(values)])
    if not len(values):
        return None
    n = len(values)
    return {
        "n": n,
        "mean": int(np.rint(values * 1e6).astype(np.int64).sum()) / 1e6 / n,
        "p50": float(values[order_statistics.rank(n, 50) - 1]),
        "p99": float(values[order_statistics.rank(n, 99) - 1]),
        "max": float(values[-1]),
    }


def _limited(
    columns: Columns,
    wait: np.ndarray,
    late: np.ndarray,
    measured: Latencies,
    result: dict[str, Any],
    lost: float | None,
) -> list[str]:
    """Figures that move by more than LIMIT when the client's delay is taken off every request.

    A worker that waited for a processor stamps late where it stamps itself. The kernel's stamps are on time, but
    segments that wait to be read are joined and keep the last one's: the wait reaches a request's latencies only where
    events of it bear one stamp (as those of an engine that sends in bursts do too, but there nobody waited). The end is
    never joined away. A client's turn that passes without a request out lowers throughput by that share at most
    (`lost`): a server with fewer requests answers each sooner. Whether an interval is wide or missing does not matter.
    """
    limited, latency, order, kept = [], result["latency"], measured.order, columns.kept
    user, joined = (
        kept(columns.array(name)[order]) if len(order) else np.zeros(0, dtype=np.int64) for name in ("user", "joined")
    )
    waited = kept(np.where(np.isnan(wait), 0.0, wait))
    stamped = kept(np.where(user, waited, 0.0))
    first, between = kept(np.where(joined == 2, waited, stamped)), kept(np.where(joined != NONE, waited, stamped))
    own = kept(np.where(np.isnan(late), 0.0, np.maximum(late, 0.0)))
    tokens = columns.array("output")
    # A late first stamp before an end on time makes the time per token too short.
    late_by = np.where(user, waited, -first)
    per_token = late_by / max(float(tokens[tokens != NONE].mean()) - 1, 1.0) if np.any(tokens != NONE) else late_by
    for name, off in (
        ("ttft_s", first),
        ("tpot_s", per_token),
        ("e2e_s", stamped),
        ("effective_ttft_s", first + own),
        ("effective_e2e_s", stamped + own),
    ):
        figure, chosen = latency[name], measured.chosen(name)
        if figure is None or not off[chosen].any():
            continue
        moved = np.sort((measured.seconds[name] - off)[chosen])
        with_failed = np.concatenate([moved, np.full(len(measured.failed_in), np.inf)])
        if _moves(figure["mean"], float(moved.mean())) or any(
            _moves(figure[f"p{percent}"], float(with_failed[order_statistics.rank(len(with_failed), percent) - 1]))
            for percent in intervals.PERCENTS
        ):
            limited.append(name)
    for name in ("itl_s", "event_latency_s"):
        figure, spoilt = latency[name], float(between[measured.sent_in].sum())
        if figure is not None and spoilt and _moves(figure["mean"], figure["mean"]["value"] - spoilt / figure["n"]):
            limited.append(name)
    if lost is not None and lost > LIMIT:
        limited += [name for name in RATES if result["throughput"][name] is not None]
        limited.append("wall_s")
    return limited


def _moves(estimate: dict[str, Any], moved: float) -> bool:
    """Whether the client's delay moves a figure by more than LIMIT of it. A percentile among the failures stays."""
    value = estimate["value"]
    return value is not None and abs(moved - value) > LIMIT * value
