"""What the client itself may have added to the figures, and which of them that could move beyond their interval."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmpar.stats import intervals
from llmpar.summary.columns import NONE, Columns


def describe(
    columns: Columns, order: np.ndarray, seconds: dict[str, np.ndarray], result: dict[str, Any]
) -> dict[str, Any]:
    """The summary's `client`. `order` puts ok requests in the order of `seconds`; `result` holds the figures so far."""
    wait = _known(columns.array("cpu_wait")[order])
    delay = _known(columns.array("launch_delay")[order])
    late = _known(columns.array("late")[order])
    return {
        "limited": _limited(columns, order, wait, delay, late, seconds, result),
        "clock": {str(key): columns.clocks[key] for key in sorted(filter(None, columns.clocks))},
        "cpu_wait_s": _plain(wait),
        "launch_delay_s": _plain(delay),
        "lateness_s": _plain(late),
        "launchers": {
            str(key): columns.names["launcher"][key] for key in sorted(filter(None, columns.names["launcher"]))
        },
        "hosts": sorted(filter(None, columns.names["host"])),
    }


def _known(micro: np.ndarray) -> np.ndarray:
    return np.where(micro == NONE, np.nan, micro / 1e6)


def _plain(values: np.ndarray) -> dict[str, Any] | None:
    values = np.sort(values[~np.isnan(values)])
    if not len(values):
        return None
    n = len(values)
    return {
        "n": n,
        "mean": int(np.rint(values * 1e6).astype(np.int64).sum()) / 1e6 / n,
        "p50": float(values[intervals.rank(n, 50) - 1]),
        "p99": float(values[intervals.rank(n, 99) - 1]),
        "max": float(values[-1]),
    }


def _limited(
    columns: Columns,
    order: np.ndarray,
    wait: np.ndarray,
    delay: np.ndarray,
    late: np.ndarray,
    seconds: dict[str, np.ndarray],
    result: dict[str, Any],
) -> list[str]:
    """Figures that leave their own interval when the client's delay is taken off every request.

    A worker that waited for a processor stamps late where it stamps itself. The kernel's stamps are on time, but segments
    that wait to be read are joined and keep the last one's: the wait reaches a request's latencies only where events of it
    bear one stamp (as those of an engine that sends in bursts do too, but there nobody waited). The end is never joined
    away. Launch delay is time in which a client held its place without a request out: it lowers
    throughput by its share of a client's turn. Only launchers of one process a request have such a delay; in the others
    the process starts once and `launched_at` says nothing about a turn.
    """
    found, latency = [], result["latency"]
    user, joined = (
        columns.array(name)[order] if len(order) else np.zeros(0, dtype=np.int64) for name in ("user", "joined")
    )
    waited = np.where(np.isnan(wait), 0.0, wait)
    stamped = np.where(user, waited, 0.0)
    first, between = np.where(joined == 2, waited, stamped), np.where(joined != NONE, waited, stamped)
    own = np.where(np.isnan(late), 0.0, np.maximum(late, 0.0))
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
        figure, values = latency[name], seconds[name]
        if figure is None or not off.any():
            continue
        kept = ~np.isnan(values)
        moved = np.sort((values - off)[kept])
        if _leaves(figure["mean"], float(moved.mean())) or any(
            _leaves(figure[f"p{percent}"], float(moved[intervals.rank(len(moved), percent) - 1]))
            for percent in intervals.PERCENTS
        ):
            found.append(name)
    for name in ("itl_s", "event_latency_s"):
        if latency[name] is not None and between.any():
            shift = float(between.sum()) / latency[name]["n"]
            if _leaves(latency[name]["mean"], latency[name]["mean"]["value"] - shift):
                found.append(name)
    turn, gone = seconds["e2e_s"], delay[~np.isnan(delay)]
    if set(columns.names["launcher"]) <= {"pool", "cold", None} and len(gone) and not np.isnan(turn).all():
        share = float(gone.mean()) / (float(gone.mean()) + float(np.nanmean(turn)))
        for name in ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s"):
            steady = result["throughput"][name]["steady"]
            if steady.get("high") is not None and steady["value"] > 0 and share > steady["high"] / steady["value"] - 1:
                found.append(name)
        if "output_tokens_per_s" in found:
            found.append("wall_s")
    return found


def _leaves(estimate: dict[str, Any], moved: float) -> bool:
    """Whether a value moved by the client's delay falls out of the estimate's interval."""
    return estimate.get("low") is not None and not estimate["low"] <= moved <= estimate["high"]
