"""Which charts a report draws for its rows, and what each says to someone who cannot see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from llmpar.render import plot
from llmpar.report import tracks
from llmpar.results import rows, words
from llmpar.results.rows import shown
from llmpar.verdicts import break_even, sentences


@dataclass
class Chart:
    """A picture that can be drawn in each look. `alt` says in words what it shows."""

    title: str
    alt: str
    draw: Callable[[plot.Look], Figure]
    note: str = field(default="")


def of_sweep(name: str, rows: Sequence[rows.Row]) -> list[Chart]:
    """Curves against clients where they vary; against another numeric setting where that varies; else dots."""
    drawn = [row for row in rows if row.figure("wall_s").value is not None]
    if len(drawn) < 2:
        return []
    ringed = (
        " A ring: the client's own delays could have moved the figure." if any(row.limited for row in drawn) else ""
    )
    curves = break_even.curves(drawn)
    if curves:
        return [of_acceptance(name, curves)]
    key = plot.axis_of(drawn)
    if key:
        title = "latency against rate" if key == "rate" else "throughput and latency against clients"
        return [Chart(f"{name}: {title}", described(drawn), _against(drawn, key), intervals(drawn) + ringed)]
    metrics = ["wall_s", "output_tokens_per_s"]
    metrics += [shown(drawn, "ttft")]
    if any(row.figure("memory_bytes").value is not None for row in drawn):
        metrics.append("memory_bytes")
    draw = _dots(drawn, metrics[:3])
    return [Chart(f"{name}: wall seconds and throughput", described(drawn), draw, intervals(drawn) + ringed)]


def of_acceptance(name: str, curves: Sequence[break_even.Curve]) -> Chart:
    """Rate against forced acceptance length, with the break-even lengths in words."""
    found = [sentences.break_even(record) for record in break_even.records(curves)]
    note = (
        "Acceptance was forced. Crosses: the break-even length, on a straight line of wall time against 1 / length "
        "between "
        "the measured points. " + intervals([row for curve in curves for row in (*curve.rows, curve.base)])
    )
    return Chart(
        f"{name}: output rate against acceptance length",
        "; ".join(found),
        lambda look: plot.acceptance(curves, look),
        note,
    )


def _against(rows: Sequence[rows.Row], key: str) -> Callable[[plot.Look], Figure]:
    return lambda look: plot.against(rows, key, None, look)


def _dots(rows: Sequence[rows.Row], metrics: Sequence[str]) -> Callable[[plot.Look], Figure]:
    return lambda look: plot.dots(rows, metrics, look)


def intervals(rows: Sequence[rows.Row]) -> str:
    """What the bars around the points are."""
    if any(len(row.summaries) > 1 for row in rows):
        return "Points: mean over server sessions; bars: 95% t interval over sessions."
    return "One server session: bars are the 95% interval within it; where there is no bar there is no interval."


def described(rows: Sequence[rows.Row]) -> str:
    """Every point's wall seconds and rate in words; the table beside it has the rest."""
    parts = [
        f"{label}: {words.number(row.figure('wall_s').value)} s wall, "
        f"{words.number(row.figure('output_tokens_per_s').value)} output tokens per second"
        for label, row in zip(plot.labels(rows), rows, strict=True)
    ]
    return "; ".join(parts)


def of_timeline(one: tracks.Timeline) -> Chart:
    """A cell's requests in flight with its samples under them."""
    name = words.name(one.row, sweep=True)
    peak, span = max(count for _, count in one.flight), one.flight[-1][0]
    under = ", ".join(label for label, _, _ in one.tracks)
    alt = f"up to {peak} requests in flight over {words.number(span)} seconds" + (
        f"; under them {under}" if under else ""
    )
    note = f"Session {one.session}." if one.session else ""

    def draw(look: plot.Look) -> Figure:
        return plot.timeline(one.flight, one.tracks, look)

    return Chart(f"{name}: requests in flight", alt, draw, note)
