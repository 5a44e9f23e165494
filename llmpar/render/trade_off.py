"""Throughput against what a user waits: which load or setting gives the most within the objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from llmpar.render import layout, plot
from llmpar.results import rows, words
from llmpar.results.rows import shown

RATE = "output_tokens_per_s"


def draw(
    given: Sequence[rows.Row], objectives: Mapping[str, float] | None = None, look: plot.Look = plot.WIDE
) -> Figure:
    """Two panels: output rate against TTFT, and against tokens/s per user (1 / TPOT), with the objectives as lines.

    Up and to the left is better in the first, up and to the right in the second. `objectives`: metric to the most it
    may be, in seconds. Raises ValueError where no row has a rate and a latency.
    """
    objectives = objectives or {}
    ttft, tpot = shown(given, "ttft"), shown(given, "tpot")
    key = "rate" if layout.opened(given) else "clients"
    drawn = [row for row in given if row.figure(RATE).value is not None and row.settings.get(key) is not None]
    panels = [name for name in (ttft, tpot) if any(row.figure(name).value for row in drawn)]
    if not panels:
        raise ValueError("no summary has a rate and a latency to draw against one another")
    groups = layout.grouped(drawn, key)
    figure, axes = plot.panels(len(panels), plot.Look(look.width, look.text, min(look.columns, 2)), 3.3)
    for axis, metric in zip(axes, panels, strict=True):
        turned = metric == tpot
        values: list[float] = []
        for index, (name, members) in enumerate(groups.items()):
            values += _series(axis, name, members, metric, key, index, turned)
        axis.set_ylim(bottom=0)
        axis.margins(x=0.08)
        most = objectives.get(metric)
        if most is not None:
            limit = 1 / most if turned else most
            values.append(limit)
            _limit(axis, limit, words.goal(metric, most), look)
        under = f"tokens per second and user, 1 / {words.title(metric)}"
        plot.dressed(axis, layout.axis_label(RATE), under if turned else layout.axis_label(metric, max(values)), look)
        if values and max(values) / min(values) >= 8:
            axis.set_xscale("log")
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.set_xticks(_ticks(min(values), max(values)))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        else:
            axis.set_xlim(left=0)
        if not turned:
            plot.unit_axis(axis.xaxis, metric, max(values))
    if len(groups) > 1:
        plot.legend(figure, axes[0], look)
    return figure


def _series(
    axis: Any, name: str, members: Sequence[rows.Row], metric: str, key: str, index: int, turned: bool
) -> list[float]:
    """Draws one series in the order of its load; returns where its points lie along the bottom."""
    colour, marker, dash = plot.shade(index)
    if any(row.simulated for row in members):
        colour, dash = plot.SIMULATED, ":"
    known = [(row, row.figure(metric).value) for row in members]
    placed = [(row, 1 / value if turned else value) for row, value in known if value]
    rates = [row.figure(RATE).value or 0.0 for row, _ in placed]
    places = [x for _, x in placed]
    axis.plot(places, rates, color=colour, linestyle=dash, linewidth=1.1, alpha=0.6, label="_", zorder=1)
    for place, ((row, x), rate) in enumerate(zip(placed, rates, strict=True)):
        title = (
            f"{words.name(row)}: {words.quantity(RATE, rate)}, "
            f"{words.title(metric)} {words.measured(metric, row.figure(metric))}"
        )
        plot.spot(axis, x, rate, row, title, colour, marker)
        _label(axis, words.setting(row.settings[key]), x, rate, place)
    plot.series(axis, name, colour, marker, dash)
    return places


def _label(axis: Any, text: str, x: float, y: float, place: int) -> None:
    """A load beside its point, unless another series has the same next to it; by turns above and below the line."""
    for other in axis.texts:
        left, height = other.xy
        if other.get_text() == text and 0.8 < x / left < 1.25 and 0.9 < y / height < 1.1:
            return
    below = -11 if place % 2 else 5
    axis.annotate(
        text,
        (x, y),
        textcoords="offset points",
        xytext=(5, below),
        fontsize=8.5,
        color=plot.TEXT,
        bbox=plot.BACKED,
        zorder=1.5,  # above the lines, below the points
    )


def _limit(axis: Any, limit: float, goal: str, look: plot.Look) -> None:
    """The objective as a line with its limit."""
    axis.axvline(limit, color=plot.TEXT, linestyle=plot.DASHES[1], linewidth=1.2, label="_")
    axis.annotate(
        f"SLO {goal}",
        (limit, 0.02),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        xytext=(4, 0),
        va="bottom",
        fontsize=look.text - 1,
        color=plot.TEXT,
        rotation=90,
    )


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two values."""
    steps = [factor * 10.0**power for power in range(-6, 7) for factor in (1, 2, 5)]
    inside = [step for step in steps if low * 0.9 <= step <= high * 1.1]
    return inside if len(inside) <= 7 else [step for step in inside if f"{step:e}"[0] == "1"]
