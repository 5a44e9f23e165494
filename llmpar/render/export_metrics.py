"""Summaries as gauges for Prometheus: OpenMetrics with the instant at which each run ended, or plain text without.

The instants are for `promtool tsdb create-blocks-from openmetrics`, which puts results where Grafana finds them, years
of nights at once; node_exporter's text files and the Pushgateway take no instants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics import exposition
from prometheus_client.registry import Collector

from llmpar.results import rows, words

LABELS = ("sweep", "cell", "session", "host", "engine", "model", "clients", "rate")
STATISTICS = ("mean", "p50", "p90", "p95", "p99")
# Name without the last word, that word (the unit, as OpenMetrics wants it), the figure, what it is.
FIGURES = (
    ("llmpar_wall", "seconds", "wall_s", "First launch to last end of the requests"),
    ("llmpar_output_tokens", "per_second", "output_tokens_per_s", "Output tokens a second over the whole run"),
    ("llmpar_requests_ended", "per_second", "requests_per_s", "Requests a second over the whole run"),
    ("llmpar_goodput", "per_second", "goodput_per_s", "Requests a second that met all objectives"),
    ("llmpar_goodput", "ratio", "goodput_ratio", "Share of the requests that met all objectives"),
    ("llmpar_in_flight", "requests", "concurrency", "Requests in flight, a mean over time"),
    ("llmpar_output_token", "joules", "joules_per_token", "Energy of the GPUs for one output token"),
)
LATENCIES = (
    ("llmpar_ttft", "ttft", "Time to first token"),
    ("llmpar_tpot", "tpot", "Time per output token after the first"),
    ("llmpar_itl", "itl", "Gaps between tokens"),
    ("llmpar_e2e", "e2e", "Time to the last byte"),
)
ENDS = (("", "value"), ("_low", "low"), ("_high", "high"))


class _Summaries(Collector):
    """What prometheus_client asks for its families of samples."""

    def __init__(self, summaries: Sequence[dict[str, Any]], instants: bool) -> None:
        self.instants = instants
        # A series goes forward in time, and the last of two runs of one name and instant holds.
        self.summaries = sorted(summaries, key=lambda summary: summary.get("ended_at") or 0.0)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, unit, figure, what in FIGURES:
            for ending, end in ENDS:
                yield from self._family(f"{name}{ending}", unit, f"{what}{_of(end)}", (), {(): figure}, end)
        for name, latency, what in LATENCIES:
            wanted: dict[tuple[str, ...], str] = {(each,): f"{latency}_{each}_s" for each in STATISTICS}
            for ending, end in ENDS:
                yield from self._family(f"{name}{ending}", "seconds", f"{what}{_of(end)}", ("statistic",), wanted, end)
        yield from self._counts("llmpar_requests", "How requests ended", "status", _statuses)
        yield from self._counts("llmpar_warnings", "Warnings of the summary, by code", "code", _warnings)

    def _family(
        self, name: str, unit: str, what: str, more: tuple[str, ...], figures: dict[tuple[str, ...], str], end: str
    ) -> Iterator[GaugeMetricFamily]:
        samples: dict[tuple[tuple[str, ...], float | None], float] = {}
        for summary in self.summaries:
            for labels, figure in figures.items():
                value = getattr(rows.reading(summary, figure), end)
                if value is not None:
                    samples[(*labels_of(summary), *labels), self._at(summary)] = value
        yield from self._made(f"{name}_{unit}", what, more, samples)

    def _counts(self, name: str, what: str, label: str, of: Any) -> Iterator[GaugeMetricFamily]:
        found = {
            ((*labels_of(summary), key), self._at(summary)): float(value)
            for summary in self.summaries
            for key, value in of(summary).items()
        }
        yield from self._made(name, what, (label,), found)

    def _at(self, summary: dict[str, Any]) -> float | None:
        return summary.get("ended_at") if self.instants else None

    def _made(
        self, name: str, what: str, more: tuple[str, ...], samples: dict[tuple[tuple[str, ...], float | None], float]
    ) -> Iterator[GaugeMetricFamily]:
        if samples:
            family = GaugeMetricFamily(name, what, labels=(*LABELS, *more))
            for (labels, at), value in sorted(samples.items(), key=lambda item: item[0][0]):
                family.add_metric(labels, value, timestamp=at)
            yield family


def _of(end: str) -> str:
    return "" if end == "value" else f": {end} end of its 95% interval"


def _statuses(summary: dict[str, Any]) -> dict[str, int]:
    n = summary.get("n") or {}
    return {name: int(n.get(name) or 0) for name in ("ok", "error", "timeout", "cancelled")}


def _warnings(summary: dict[str, Any]) -> dict[str, int]:
    return {str(warning.get("code")): 1 for warning in summary.get("warnings") or []}


def labels_of(summary: dict[str, Any]) -> tuple[str, ...]:
    """Values of LABELS; empty where a summary does not tell."""
    cell, workload = summary.get("cell") or {}, summary.get("workload") or {}
    load, client = cell.get("load") or {}, summary.get("client") or {}
    hosts = client.get("hosts") or []
    asked = load.get("clients") or (summary.get("concurrency") or {}).get("asked")
    found = (
        cell.get("sweep"),
        cell.get("id") or summary.get("label"),
        summary.get("session"),
        (summary.get("host") or {}).get("host") or (hosts[0] if hosts else None),
        *(", ".join(words.names(workload.get(name))) for name in ("engine", "model")),
        asked,
        load.get("rate"),
    )
    return tuple("" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in found)


def text(summaries: Sequence[dict[str, Any]], openmetrics: bool) -> bytes:
    """The exposition of all summaries; see the module for what the two forms are for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Summaries(summaries, instants=openmetrics))
    return exposition.generate_latest(registry) if openmetrics else generate_latest(registry)
