"""Summaries to rows: repeats of one cell together, each figure with its interval, for tables, charts, claims and picks.

The server session is the unit of repetition: with two sessions or more a row's figure is their mean with Student's t
interval over sessions; with one session it is that session's figure with the interval within the session, and
`sessions` says so. Intervals of the two sorts answer different questions, so every reader shows which it is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from llmpar import sizes
from llmpar.results import hosts
from llmpar.results.simulated import is_simulated
from llmpar.stats import batch_means

CONFIDENCE = 0.95
MOST_FAILED = 0.01  # the share of failed requests over which a cell's figures are not comparable
# What an unset setting means, so that `-` in one sweep and the default in another are the same setting.
UNSET: dict[str, Any] = {"shards": 1, "replicas": 1, "speculate": 0, "quantize": "none", "launcher": "parallel"}
LATENCIES = ("ttft_s", "itl_s", "event_latency_s", "tpot_s", "e2e_s", "effective_ttft_s", "effective_e2e_s")
RATES = ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_per_s")
STATISTICS = ("mean", "p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Figure:
    """One value with its interval. `sessions` 1: the interval is within one server session; `needed`: too few
    values."""

    value: float | None
    low: float | None = None
    high: float | None = None
    sessions: int = 0
    needed: int | None = None


@dataclass
class Row:
    """All summaries of one cell: repeats of whole server sessions on one host."""

    key: str
    sweep: str
    cell: str
    host: str
    settings: dict[str, Any]
    varies: dict[str, Any]
    summaries: list[dict[str, Any]] = field(default_factory=list)

    def figure(self, metric: str) -> Figure:
        """The metric over this row's sessions; its value is None where no session has it, or one has too few values for
        it."""
        readings = [reading(summary, metric) for summary in self.summaries]
        known = [one for one in readings if one.value is not None]
        refused = [one for one in readings if one.value is None and one.needed]
        if refused or not known:
            # What one session of three has too few values for is not known of the row.
            return max(refused, key=lambda one: one.needed or 0, default=Figure(None))
        return known[0] if len(known) == 1 else across(list(self.by_session(metric).values()))

    def by_session(self, metric: str) -> dict[str, float]:
        """The metric's value in each server session that has one; see `by_session`."""
        return by_session(self.summaries, metric)

    @property
    def simulated(self) -> bool:
        """Whether this is a prediction of llmpar-simulate."""
        return any(map(is_simulated, self.summaries))

    @property
    def limited(self) -> list[str]:
        """Figures that the client's own delays could have moved, in any session."""
        names = {name for summary in self.summaries for name in (summary.get("client") or {}).get("limited") or []}
        return sorted(names)

    @property
    def failures(self) -> int:
        """Requests that did not end well, over all sessions."""
        return sum(
            int((summary.get("n") or {}).get(key) or 0)
            for summary in self.summaries
            for key in ("error", "timeout", "cancelled")
        )

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """Warnings of all sessions, each code once with how many sessions have it."""
        seen: dict[str, dict[str, Any]] = {}
        for summary in self.summaries:
            for warning in summary.get("warnings") or []:
                code = str(warning.get("code"))
                if code in seen:
                    seen[code]["sessions"] += 1
                else:
                    seen[code] = dict(warning) | {"sessions": 1}
        return list(seen.values())


def reading(summary: dict[str, Any], metric: str) -> Figure:
    """A metric of one summary, with its interval within the session.

    Names: `wall_s`; a rate of RATES, over the whole wall time, or with `_steady` appended over the steady window; a
    latency of LATENCIES as `ttft_p95_s`, of the requests sent within the steady window where there is one, or with
    `_run` appended of all; `memory_bytes`, `joules_per_token`, `concurrency`, `acceptance_length` (observed),
    `goodput_ratio` (share of all requests that met the SLO); anything else as a dotted path. Raises KeyError for none
    of these.
    """
    at = path(metric)
    if at[0] == "latency_run" and "latency_run" not in summary:
        at = ("latency", *at[1:])  # version 1 held the whole run's there
    value: Any = summary
    for key in at:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, dict) and "value" not in value and "wall" in value:
        value = value["wall"]
    if isinstance(value, dict) and is_simulated(summary):
        # The interval within a simulated run says nothing of how wrong the prediction is.
        return Figure(_number(value.get("value")), None, None, 1, None)
    if isinstance(value, dict):
        number = value.get("value")
        return Figure(
            _number(number),
            _number(value.get("low")),
            _number(value.get("high")),
            1 if number is not None else 0,
            value.get("needed"),
        )
    number = _number(value)
    return Figure(number, sessions=0 if number is None else 1)


def session_of(summary: dict[str, Any]) -> str:
    """The server session of a summary: its name and its server's start, so that two nights of one plan are two
    sessions.

    Empty where the records name neither.
    """
    started = (summary.get("server") or {}).get("started_at")
    return " ".join(str(part) for part in (summary.get("session"), started) if part is not None)


def by_session(summaries: Iterable[dict[str, Any]], metric: str) -> dict[str, float]:
    """The metric's value in each server session that has one: the only source of values for comparisons.

    Several summaries of one session are repeats under one start: their geometric mean (the mean where one is 0) stands
    for it. Summaries that name no session count as one session, named "".
    """
    values_of: dict[str, list[float]] = {}
    for summary in summaries:
        value = reading(summary, metric).value
        if value is not None:
            values_of.setdefault(session_of(summary), []).append(value)
    return {
        session: values[0]
        if len(values) == 1
        else math.exp(math.fsum(map(math.log, values)) / len(values))
        if min(values) > 0
        else math.fsum(values) / len(values)
        for session, values in sorted(values_of.items())
    }


def path(metric: str) -> tuple[str, ...]:
    """Where a summary holds a metric. Raises KeyError for an unknown name."""
    if metric == "wall_s":
        return ("wall_s",)
    if metric in OTHERS:
        return OTHERS[metric]
    if metric in RATES:
        return ("throughput", metric, "wall")
    if metric.endswith("_steady") and metric.removesuffix("_steady") in RATES:
        return ("throughput", metric.removesuffix("_steady"), "steady")
    stem, _, statistic = metric.removesuffix("_run").removesuffix("_s").rpartition("_")
    if f"{stem}_s" in LATENCIES and statistic in STATISTICS:
        return ("latency_run" if metric.endswith("_s_run") else "latency", f"{stem}_s", statistic)
    if "." in metric:
        return tuple(metric.split("."))
    raise KeyError(metric)


OTHERS: dict[str, tuple[str, ...]] = {
    "memory_bytes": ("gpu", "memory_used_bytes", "max"),
    "joules_per_token": ("joined", "energy_per_output_token_j"),
    "concurrency": ("concurrency", "achieved"),
    "acceptance_length": ("joined", "acceptance_length", "observed"),
    "goodput_ratio": ("goodput", "ratio"),
}


def latency_over(summary: dict[str, Any]) -> str:
    """What a summary's latencies are of: `steady` (requests sent within the steady window) or `run` (all of them)."""
    return str(summary.get("latency_over") or "run")


def objectives(rows: Iterable[Row]) -> dict[str, float]:
    """The SLO that goodput of these rows was counted with, as metric to the most it may be: `ttft_p95_s` for a limit on
    TTFT. Empty where they had none, or different ones."""
    found = [(summary.get("goodput") or {}).get("objectives") for row in rows for summary in row.summaries]
    if not found or not found[0] or any(each != found[0] for each in found):
        return {}
    return {f"{name.removesuffix('_s')}_p95_s": float(most) for name, most in found[0].items()}


def lower_is_better(metric: str) -> bool:
    """Whether less of the metric is better: times, memory and energy yes, rates no."""
    higher = (*RATES, "goodput_ratio", "concurrency", "acceptance_length")
    return not any(metric.startswith(name) for name in higher)


def shown(rows: Iterable[Row], stem: str) -> str:
    """The one statistic of a latency that tables, charts and sentences show of these rows: p95.

    Summaries of version 1 refuse it where requests were few: then the furthest of p90, p50 and mean that no row
    refuses, so that one table has one statistic.
    """
    rows = list(rows)
    names = [f"{stem}_{statistic}_s" for statistic in ("p95", "p90", "p50", "mean")]

    def refused(one: Figure) -> bool:
        return one.value is None and bool(one.needed)

    return next((name for name in names if not any(refused(row.figure(name)) for row in rows)), names[0])


def across(values: list[float]) -> Figure:
    """Mean and Student's t interval of one value a session. Needs two values or more; see docs/metrics.md.

    No figure can be negative, so the interval ends at 0.
    """

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Figure(mean, sessions=n)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = batch_means.student(n - 1, CONFIDENCE) * spread / math.sqrt(n)
    return Figure(mean, max(0.0, mean - half), mean + half, n)


def settings(summary: dict[str, Any]) -> dict[str, Any]:
    """Server and load settings of a summary's cell in one mapping, unset ones made plain by UNSET."""
    cell = summary.get("cell") or {}
    merged = dict(UNSET)
    for part in ("server", "load"):
        merged |= {key: value for key, value in (cell.get(part) or {}).items() if value is not None and value != ""}
    return merged


def group(summaries: Iterable[dict[str, Any]]) -> list[Row]:
    """Group summaries into rows, in the order in which each row's first summary came.

    Two summaries belong together when sweep, settings and host agree, the host in name and in what it is made of; other
    kinds are skipped.
    """
    made: dict[str, dict[str, str]] = {}  # by host, then by what it is made of: its machine in words
    by_key: dict[str, Row] = {}
    for number, summary in enumerate(summaries):
        if summary.get("kind") != "summary":
            continue
        cell = summary.get("cell") or {}
        merged = settings(summary)
        sweep, host = str(cell.get("sweep") or ""), hosts.host_of(summary)
        print_of = hosts.fingerprint(summary)
        made.setdefault(host, {}).setdefault(print_of, hosts.machine(summary))
        identity: Any = [sweep, host, print_of, merged] if cell else [number]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        if key not in by_key:
            name = str(cell.get("id") or f"summary-{number + 1}")
            repeat = cell.get("repeat")
            if repeat is not None:
                name = name.removesuffix(f"-r{repeat}")
            by_key[key] = Row(key, sweep, name, host, merged, dict(cell.get("varies") or {}))
        by_key[key].summaries.append(summary)
    rows = list(by_key.values())
    for row in rows:
        machines = made.get(row.host, {})
        if row.host and len(machines) > 1:
            print_of = hosts.fingerprint(row.summaries[0])
            # Machines may differ in what their words leave out, such as the memory of a GPU: those are numbered.
            alike = [other for other, words in machines.items() if words == machines[print_of]]
            which = f", machine {alike.index(print_of) + 1}" if len(alike) > 1 else ""
            row.host = f"{row.host} ({machines[print_of]}{which})"
    for sweep in {row.sweep for row in rows if row.sweep}:
        _tell_apart([row for row in rows if row.sweep == sweep])
    return rows


def _tell_apart(rows: list[Row]) -> None:
    """Add to `varies` what differs between a sweep's rows and its table does not vary: engine and model of servers that
    already ran, then any other setting as long as two rows would have the same name."""
    others = {key for row in rows for key in row.settings} - {"engine", "model", "base_url"}
    own = {(row.settings.get("engine"), row.settings.get("model")) for row in rows}
    # A table that varies the engine may give each a file of its own, which goes with it.
    follows = all("engine" in row.varies for row in rows) and len(own) == len({engine for engine, _ in own})
    added: list[str] = []
    for key in ("engine", "model", *sorted(others), "base_url"):
        if len({json.dumps(row.settings.get(key)) for row in rows}) == 1 or all(key in row.varies for row in rows):
            continue
        names = {json.dumps([row.host, [row.settings.get(each) for each in (*added, *row.varies)]]) for row in rows}
        if key == "engine" or key == "model" and not follows or len(names) < len(rows):
            added.append(key)
    for row in rows:
        row.varies = {key: row.settings.get(key) for key in added} | row.varies


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def order(row: Row) -> list[tuple[int, float, str]]:
    """A key to sort rows of a sweep with, by their settings."""
    return [sizes.by_size(row.settings.get(key)) for key in row.varies]
