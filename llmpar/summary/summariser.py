"""Request records to one summary: what was measured, how well it is known, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from llmpar import records, sizes
from llmpar.stats import order_statistics
from llmpar.summary import client_limits, clocks, conversations, join, latencies, models, window
from llmpar.summary.chunks import STATUSES
from llmpar.summary.columns import NONE, Columns
from llmpar.summary.latencies import OBJECTIVES
from llmpar.summary.spill import Spill
from llmpar.summary.warnings import Evidence, of_summary
from llmpar.summary.window import Run, both, describe, find, series


class Summariser:
    """Collects one cell's records, in whatever order, and then makes the summary."""

    def __init__(self, clock_records: Sequence[dict[str, Any]] = ()) -> None:
        """`clock_records`: of the hosts whose records come; all instants are put by their common clock. Raises
        records.BadRecord."""
        self.against, self.clocks = clocks.read(clock_records)
        self.columns = Columns(self.clocks)
        self.torn = 0
        self.left_out: list[str] = []  # samples of a wrong shape: where each is and what is wrong with it
        kinds = ("cell", "server", "host", "gpu", "engine", "ended")
        self.beside: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}

    def add_other(self, record: dict[str, Any]) -> None:
        """Take a record that is not a request; kinds that a summary has no use for pass by."""
        kept = self.beside.get(record["kind"])
        if kept is not None:
            kept.append(record)

    def merge(self, other: Summariser) -> None:
        """Take all that another one collected."""
        self.columns.merge(other.columns)
        self.torn += other.torn
        self.left_out += other.left_out
        for kind, kept in other.beside.items():
            self.beside[kind] += kept

    def another(self) -> Summariser:
        """An empty one with the same clocks, for a part of the records; in a process forked later, if need be."""
        made = Summariser()
        made.against, made.clocks, made.columns = self.against, self.clocks, Columns(self.clocks)
        made.columns.spill = Spill()
        return made

    def _hosts(self) -> set[str]:
        """Hosts whose clocks the summary's instants are by: of requests, and of samples beside them."""
        sampled = {each.get("host") for kind in ("gpu", "engine") for each in self.beside[kind]}
        return {str(host) for host in {*self.columns.names["host"], *sampled} if host}

    def _clocks(self, result: dict[str, Any], run: Run) -> dict[str, Any]:
        """`clocks` and `crossing` of the summary's `client`: null for one clock, or unknown ones."""
        hosts = self._hosts()
        known = clocks.describe(self.against, self.clocks, hosts)
        if known is None or len(hosts | {self.against}) < 2 or len(known) < len(hosts) or not run.known:
            return {"clocks": known, "crossing": None}
        span_s = int(run.starts[-1] - run.starts[0]) / 1e6
        return {"clocks": known, "crossing": clocks.crossing(result, max(each["error_s"] for each in known), span_s)}

    def _sampled(self, kind: str) -> list[dict[str, Any]]:
        """Samples with their instants by the common clock."""
        made = []
        for sample in self.beside[kind]:
            of_host, at = self.clocks.get(str(sample.get("host"))), sample.get("at")
            if of_host is not None and any(of_host.offsets) and isinstance(at, int | float):
                moved = of_host.correct(np.array([round(at * 1e6)]), NONE)
                sample = sample | {"at": int(moved[0]) / 1e6}
            made.append(sample)
        return made

    def only(self, kind: str) -> dict[str, Any] | None:
        """The one record of a kind, without its kind and version; the last by content where there are several."""
        found = sorted(self.beside[kind], key=lambda record: orjson.dumps(record, option=orjson.OPT_SORT_KEYS))
        return {key: item for key, item in found[-1].items() if key not in ("kind", "v")} if found else None

    def summary(
        self,
        objectives: dict[str, float] | None = None,
        label: str | None = None,
        session: str | None = None,
        clients: int | None = None,
        version: str = "",
    ) -> dict[str, Any]:
        """The summary record. `objectives`: seconds by name in OBJECTIVES. Needs at least one request."""
        columns, run = self.columns, Run(self.columns)
        window = find(run)
        measured = latencies.of_run(columns, run, window)
        cell, server, host = self.only("cell"), self.only("server"), self.only("host")
        # Of measured records the summary does not have the field at all.
        simulated = {"simulated": True} if columns.clocks.get("simulated") or (host or {}).get("simulated") else {}
        result: dict[str, Any] = {
            "kind": "summary",
            "v": records.VERSIONS["summary"][-1],
            **simulated,
            "label": label if label is not None else (cell or {}).get("id"),
            "session": session if session is not None else _session(cell, server, host),
            "cell": cell,
            "n": {
                "requests": sum(columns.counts.values()),
                **{name: columns.counts[name] for name in STATUSES},
                "retried": columns.retried,
                "torn_lines": self.torn,
            },
            **({"ended_early": ended} if (ended := self.only("ended")) else {}),
            "failures": dict(sorted(columns.failures.items())),
            "finish": _counts(columns.finishes),
            "started_at": None if run.start is None else run.start / 1e6,
            "ended_at": None if run.end is None else run.end / 1e6,
        }
        result["wall_s"] = (
            {"value": None, "needed": None}
            if run.start is None or run.end is None
            else {"value": (run.end - run.start) / 1e6, "low": None, "high": None}
        )
        drift, waves, convoy = latencies.convoy(measured, run, window)
        result["window"] = {**describe(run, window), "ttft_drift_ratio": drift, "wave_ratio": waves}
        result["latency"] = latencies.distributions(columns, measured, run, window)
        result["latency_failures"] = "infinite"
        result["latency_over"] = "steady" if window.steady else "run"
        result["latency_run"] = (
            latencies.distributions(columns, measured, run, None) if window.steady else result["latency"]
        )
        good = latencies.good(measured, objectives or {})
        result["throughput"] = _throughput(columns, run, window, measured.order, good if objectives else None)
        result["goodput"] = None
        if objectives:
            result["goodput"] = latencies.goodput(
                measured, good, objectives, result["n"]["requests"], result["window"]["requests"]
            )
        result["concurrency"] = _concurrency(columns, run, window, _asked(cell, clients, columns))
        result["tokens"] = _tokens(columns)
        if (talks := conversations.describe(columns.turns)) is not None:
            result["conversations"] = talks
        if (each_model := models.describe(columns, measured, result["wall_s"]["value"])) is not None:
            result["models"] = each_model
        result["client"] = client_limits.describe(columns, run, measured, result)
        result["client"] |= self._clocks(result, run)
        result["workload"] = _workload(columns)
        result["series"] = series(run)
        result.update(server=server, host=host, gpu=None, engine=None, joined=None)
        result["warnings"] = []  # filled below, once the samples are joined; here for its place in the record
        result["provenance"] = {
            "llmpar": version,
            "confidence": order_statistics.CONFIDENCE,
            "options": {"slo": dict(sorted((objectives or {}).items())), "clients": clients},
            "records_sha256": columns.checksum(),
        }

        def tokens_between(start: float, end: float) -> int:
            first, last = ((round(at * 1e6) - run.line.start) // run.line.step for at in (start, end))
            return int(run.tokens[max(first, 0) : max(last, 0) + (0 if window.steady else 1)].sum())

        join.join(result, self._sampled("gpu"), self._sampled("engine"), tokens_between)
        if (prefix := conversations.prefix(result)) is not None:
            result["prefix"] = prefix
        result["warnings"] = of_summary(Evidence(result, columns, cell, server, convoy, frozenset(self._hosts())))
        return result


def _session(cell: dict[str, Any] | None, server: dict[str, Any] | None, host: dict[str, Any] | None) -> str | None:
    """A name for the server's start: two nights run the same sweep, so the start's time belongs to it.

    Of a server that somebody else started, the time of the host record stands for it: taken once a session.
    """
    started = (server or {}).get("started_at") or (server or {}).get("id")
    named = f"{cell.get('sweep')}/{cell.get('session')}" if cell and cell.get("session") else None
    if named is None:
        return None if started is None else f"server@{started}"
    started = started or (host or {}).get("at")
    return named if started is None else f"{named}@{started}"


def _counts(counter: Counter[Any]) -> dict[str, int]:
    return {str(key): counter[key] for key in sorted(filter(None, counter), key=str)}


def _throughput(
    columns: Columns, run: window.Run, window: window.Window, order: np.ndarray, good: np.ndarray | None
) -> dict[str, Any]:
    """Rates of ok requests: output tokens when they came, prompt tokens with the first of them, requests at their
    end."""
    sent, e2e, ttft, output, prompt = (columns.array(name) for name in ("sent", "e2e_s", "ttft_s", "output", "prompt"))
    known = bool(len(sent)) and not bool((sent == NONE).any()) and not bool((e2e == NONE).any())
    if not known:
        nothing = both(run, window, None, None)
        return {
            "output_tokens_per_s": nothing,
            "total_tokens_per_s": nothing,
            "requests_per_s": nothing,
            "goodput_per_s": None if good is None else nothing,
        }
    counted, prompts_counted = not bool((output == NONE).any()), not bool((prompt == NONE).any())
    done = columns.kept(sent + e2e)
    total = (
        run.tokens + run.counts(columns.kept(np.where(ttft == NONE, done, sent + ttft)), prompt)
        if counted and prompts_counted
        else None
    )
    return {
        "output_tokens_per_s": both(
            run, window, run.tokens if counted else None, int(output.sum()) if counted else None
        ),
        "total_tokens_per_s": both(run, window, total, None if total is None else int(output.sum() + prompt.sum())),
        "requests_per_s": both(run, window, run.counts(done), len(done)),
        "goodput_per_s": None
        if good is None
        else both(run, window, run.counts(done[order][good]), int(np.count_nonzero(good))),
    }


def _asked(cell: dict[str, Any] | None, clients: int | None, columns: Columns) -> int | None:
    if clients is not None:
        return clients
    load = (cell or {}).get("load") or {}
    if load.get("rate") or load.get("launcher") == "open":
        return None  # an open load asks for a rate, not for a number in flight
    if isinstance(load.get("clients"), int):
        return int(load["clients"])
    counts, named = columns.clients(), {host for host, _ in columns.hosts}
    if len(counts) < len(named):
        return None
    # Each host's processes know of their own host.
    return sum(each.pop() for each in counts) if counts and all(len(each) == 1 for each in counts) else None


def _concurrency(columns: Columns, run: window.Run, window: window.Window, asked: int | None) -> dict[str, Any]:
    achieved = steady = wall = None
    if run.known and run.start is not None and run.end is not None:
        achieved = run.mean_in_flight(int(run.starts[0]), int(run.starts[-1]))
        wall = run.mean_in_flight(run.start, run.end)
        if window.steady:
            steady = int(run.flying[window.first : window.last].sum()) / ((window.last - window.first) * run.line.step)
    return {
        "asked": asked,
        "achieved": achieved,
        "ratio": achieved / asked if achieved is not None and asked else None,
        "steady": steady,
        "wall": wall,
        "peak": run.peak,
    }


def _tokens_spread(values: np.ndarray) -> dict[str, Any] | None:
    values = values[values != NONE]
    if not len(values):
        return None
    ordered = np.sort(values)
    return {
        "n": len(values),
        "min": int(ordered[0]),
        "max": int(ordered[-1]),
        "mean": int(values.sum()) / len(values),
        "p50": int(ordered[order_statistics.rank(len(ordered), 50) - 1]),
    }


def _tokens(columns: Columns) -> dict[str, Any]:
    def total(name: str) -> int | None:
        values = columns.array(name)
        return int(values.sum()) if len(values) and not bool((values == NONE).any()) else None

    ok = columns.counts["ok"]
    return {
        "prompt": total("prompt"),
        "output": total("output"),
        "cached": total("cached"),
        "output_asked": columns.asked_sum if ok and columns.asked_known == ok else None,
        "output_per_request": _tokens_spread(columns.array("output")),
        "prompt_per_request": _tokens_spread(columns.array("prompt")),
        "sources": _counts(columns.sources),
        "disputed": columns.disputed,
        "short": columns.short,
        "unknown_split": columns.unknown_split,
    }


def _workload(columns: Columns) -> dict[str, Any]:
    def only(name: str) -> Any:
        values = sorted((each for each in columns.names[name] if each is not None), key=str)
        return None if not values else values[0] if len(values) == 1 else values

    distinct, prompts, shares = columns.prompts()
    samplings = sorted(columns.samplings)
    return {
        "prompts": {"distinct": distinct, "sha256": prompts, "shares_sha256": shares},
        "sampling": orjson.loads(samplings[0]) if len(samplings) == 1 else None,
        "sampling_sha256": hashlib.sha256(b"\n".join(samplings)).hexdigest(),
        "api": only("api"),
        "model": only("model"),
        "stream": only("stream"),
        "engine": only("engine"),
        "base_urls": only("base_url"),
    }


def parse_objective(text: str) -> tuple[str, float]:
    """`ttft=500ms` to its name and seconds. Raises ValueError with a message for the user."""
    name, _, bound = text.partition("=")
    if name not in OBJECTIVES:
        raise ValueError(f"'{text}' is not an objective: write NAME=TIME, with NAME one of {', '.join(OBJECTIVES)}")
    try:
        return name, sizes.seconds_of(bound)
    except ValueError as error:
        raise ValueError(f"'{text}' is not an objective: {error}") from None
