"""Charts with matplotlib: curves against clients, dots with intervals, and time lines.

Every chart takes rows of llmpar.results.rows and returns a matplotlib Figure; nothing here reads or writes files.
matplotlib is the extra `plot`; importing this module without it raises ImportError. Colours are Okabe and Ito's (2008),
which people of all kinds of colour vision tell apart, and each series has its own marker and dash as well.
"""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from llmpar.render import layout
from llmpar.results import rows, words
from llmpar.results.rows import shown
from llmpar.verdicts import break_even, knee

matplotlib.rcParams["text.parse_math"] = False  # names of models are no mathematics, whatever their dollar signs

# Orange and sky blue are darker than theirs, and grey stands in for yellow: a line on white needs a contrast of 3.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b3558a", "#b37700", "#3a8fc7", "#111112", "#7f7f80")
TEXT, GRID = "#010203", "#d0d1d2"
SIMULATED = "#7a1f6b"  # predictions, whatever their series
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BACKED = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}  # a label that lines may pass behind
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)))


@dataclass(frozen=True)
class Look:
    """Size in inches and base text size in points of one variant of a chart."""

    width: float = 10.5
    text: float = 9.6
    columns: int = 3

    @property
    def narrow(self) -> bool:
        return self.columns == 1


WIDE, NARROW = Look(), Look(width=4.0, text=9.5, columns=1)


def unit_axis(axis: Any, metric: str, most: float) -> None:
    """Tick labels of an x or y axis in the unit that `axis_label` names."""
    unit, factor = layout.unit(metric, most)
    if unit == "%":
        axis.set_major_formatter(PercentFormatter(1.0))
    elif factor != 1.0:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * factor:g}"))


def against(
    rows: Sequence[rows.Row], key: str = "clients", metrics: Sequence[str] | None = None, look: Look = WIDE
) -> Figure:
    """Curves of several metrics against one numeric setting, a series for each combination of the others.

    By default rate and latencies; of open loads, whose rate was given, latencies alone. With the share of requests
    within the SLO where it is known. Intervals are drawn as bars. Raises ValueError where no row has both the setting
    and a metric.
    """
    rows = [row for row in rows if isinstance(row.settings.get(key), int | float)]
    if metrics is None:
        metrics = [] if layout.opened(rows) else ["output_tokens_per_s"]
        metrics += [shown(rows, "ttft"), shown(rows, "tpot"), "goodput_ratio"]
    metrics = [metric for metric in metrics if any(row.figure(metric).value is not None for row in rows)]
    if not metrics:
        raise ValueError(f"no summary has a figure to draw against {key}")
    groups = layout.grouped(rows, key)
    figure, axes = panels(len(metrics), look)
    ticks = sorted({float(row.settings[key]) for row in rows})
    wide = ticks[0] > 0 and ticks[-1] / ticks[0] >= 8
    bend = knee.clients(rows) if key == "clients" else None
    under = "rate, requests per second" if key == "rate" else key.replace("_", " ")
    for axis, metric in zip(axes, metrics, strict=True):
        most = _curves(axis, groups, key, metric, dodge=wide)
        dressed(axis, layout.axis_label(metric, most), under, look)
        unit_axis(axis.yaxis, metric, most)
        axis.margins(x=0.07)
        if wide:
            axis.set_xscale("log", base=2)
            axis.xaxis.set_minor_locator(NullLocator())
        if bend is not None:
            axis.axvline(bend, color=TEXT, linestyle=DASHES[2], linewidth=1.2, zorder=0)
            axis.annotate(
                f"knee: {bend:g}",
                xy=(bend, 0.94),
                xycoords=("data", "axes fraction"),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                fontsize=look.text,
                color=TEXT,
            )
        axis.xaxis.set_major_locator(FixedLocator(ticks))
        axis.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    if len(groups) > 1:
        legend(figure, axes[0], look)
    return figure


def shade(index: int) -> tuple[str, str, Any]:
    """Colour, marker and dash of a series by its place: no two series differ in colour alone."""
    dash = DASHES[index // len(COLOURS) % len(DASHES)]
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], dash


def _curves(axis: Any, groups: dict[str, list[rows.Row]], key: str, metric: str, dodge: bool) -> float:
    """Draws a series for each group, and returns the greatest value shown."""
    highest, highest_bar = 0.0, 0.0
    for index, (name, members) in enumerate(groups.items()):
        points = [(float(row.settings[key]), row.figure(metric), row) for row in members]
        points = [point for point in points if point[1].value is not None]
        if not points:
            continue
        # Series a little beside one another, so that bars of equal values do not cover each other.
        aside = 2 ** (0.06 * (index - (len(groups) - 1) / 2)) if dodge and len(groups) <= 5 else 1.0
        x = [point[0] * aside for point in points]
        y = [point[1].value for point in points]
        highest = max(highest, *[value for value in y if value is not None])
        highest_bar = max([highest_bar, *[point[1].high for point in points if point[1].high is not None]])
        colour, marker, dash = shade(index)
        guess = any(row.simulated for row in members)
        if guess:
            colour, dash = SIMULATED, ":"
        axis.errorbar(
            x,
            y,
            yerr=_bars([point[1] for point in points]),
            color=colour,
            linestyle=dash,
            linewidth=1.6,
            capsize=3,
            elinewidth=1.1,
        )
        for left, (_, figure, row) in zip(x, points, strict=True):
            title = f"{words.name(row, sweep=False)}: {words.title(metric)} {words.measured(metric, figure)}"
            spot(axis, left, figure.value or 0.0, row, title, colour, marker)
        series(axis, name, colour, marker, dash, guess)
    # An interval of two server sessions may be so long that the curves would be flat: it leaves the picture.
    axis.set_ylim(0, max(highest * 1.08, min(highest_bar * 1.03, highest * 1.6)) or None)
    if words.named(metric).unit == "%":
        axis.set_ylim(0, 1.05)
    return highest


def spot(axis: Any, x: float, y: float, row: rows.Row, title: str, colour: str, marker: str) -> None:
    """One point of a row, ringed where the client's own delays could have moved it. `svg` makes its label a title, and
    its id names the row."""
    gid = f"point-{row.key}-{axis.figure.axes.index(axis)}-{len(axis.lines)}"
    size, face = 5.5, "none" if row.simulated else colour
    if row.limited:
        axis.plot([x], [y], marker=marker, markersize=10, markerfacecolor="none", markeredgecolor=colour, label="_ring")
    axis.plot([x], [y], marker=marker, markersize=size, color=colour, markerfacecolor=face, gid=gid, label=f"_{title}")


def series(axis: Any, name: str, colour: str, marker: str, dash: Any, hollow: bool = False) -> None:
    """A legend's entry; one that begins with a line would be left out, so that a blank comes before it."""
    face = "none" if hollow else colour
    label = f" {name}" if name.startswith("_") else name or "_"
    axis.plot([], [], color=colour, marker=marker, linestyle=dash, markerfacecolor=face, label=label)


def acceptance(curves: Sequence[break_even.Curve], look: Look = WIDE) -> Figure:
    """Output rate against acceptance length: a line for each k, a dashed level without speculation, a cross where they
    meet.

    One panel for each setting of the rest, such as a client count. Raises ValueError without curves.
    """
    groups: dict[str, list[break_even.Curve]] = {}
    keys = break_even.telling(curves)
    for curve in sorted(curves, key=lambda curve: (curve.base.settings.get("clients") or 0, curve.speculate)):
        name = ", ".join(words.setting_phrase(key, curve.base.settings.get(key)) for key in keys)
        groups.setdefault(name, []).append(curve)
    if not groups:
        raise ValueError("this picture needs summaries with a forced acceptance length and one without speculation")
    figure, axes = panels(len(groups), look, 3.3)
    drafts = sorted({curve.speculate for curve in curves})
    for axis, (name, members) in zip(axes, groups.items(), strict=True):
        level = members[0].base.figure("output_tokens_per_s").value
        drawn = [_curve(axis, curve, level, drafts.index(curve.speculate)) for curve in members]
        if level is not None:
            axis.axhline(level, color=TEXT, linestyle=DASHES[1], linewidth=1.3, label="no speculation")
        dressed(
            axis,
            f"{name}: {layout.axis_label('output_tokens_per_s')}" if name else layout.axis_label("output_tokens_per_s"),
            "",
            look,
        )
        axis.set_xlabel("acceptance length (forced), tokens per step", fontsize=look.text, color=TEXT)
        axis.set_ylim(0, axis.get_ylim()[1] * 1.04)
        axis.set_xlim(left=1)
        if level is not None:
            columns = min(len(groups), look.columns)
            _lengths(axis, [each for each in drawn if each], level, 72 * look.width / columns * 0.85)
    legend(figure, max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1])), look)
    return figure


def _curve(axis: Any, curve: break_even.Curve, level: float | None, index: int) -> tuple[float, str] | None:
    """Draws one k; returns its break-even length and colour, where there is one."""
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    points = [row.figure("output_tokens_per_s") for row in curve.rows]
    known = [(length, one) for length, one in zip(curve.lengths, points, strict=True) if one.value is not None]
    axis.errorbar(
        [length for length, _ in known],
        [one.value for _, one in known],
        yerr=_bars([one for _, one in known]),
        color=colour,
        marker=marker,
        linestyle="-",
        markersize=5.5,
        linewidth=1.6,
        capsize=3,
        elinewidth=1.1,
        label=f"{curve.speculate} draft tokens" if curve.speculate > 1 else "1 draft token",
    )
    point = break_even.find(curve)
    if point.length is not None and level is not None:
        axis.plot([point.length], [level], marker="x", markersize=8, markeredgewidth=2, color=colour, linestyle="")
        return point.length, colour
    return None


def _lengths(axis: Any, crosses: Sequence[tuple[float, str]], level: float, wide: float) -> None:
    """Break-even lengths under their crosses, each in the first line in which it covers no other. `wide`: points that
    the axis is long."""
    low, high = axis.get_xlim()
    ends: list[float] = []  # of each line, where its last label ends
    for length, colour in sorted(crosses):
        left = (length - low) / (high - low) * wide
        line = next((place for place, end in enumerate(ends) if end < left), len(ends))
        ends[line : line + 1] = [left + 27]
        axis.annotate(
            f"{length:.2f}",
            (length, level),
            textcoords="offset points",
            xytext=(4, -13 - 11 * line),
            fontsize=8.5,
            color=colour,
            bbox=BACKED,
        )


def dots(
    rows: Sequence[rows.Row],
    metrics: Sequence[str] | None = None,
    look: Look = WIDE,
    names: Sequence[str] | None = None,
) -> Figure:
    """One line a row, a dot at its value and a bar over its interval; for settings that are words.

    By default wall time, rate and TTFT; of open loads the latencies.

    Raises ValueError where no row has any of the metrics.
    """
    if metrics is None:
        ttft, tpot = shown(rows, "ttft"), shown(rows, "tpot")
        metrics = (ttft, tpot, "goodput_ratio") if layout.opened(rows) else ("wall_s", "output_tokens_per_s", ttft)
    metrics = [metric for metric in metrics if any(row.figure(metric).value is not None for row in rows)]
    if not metrics:
        raise ValueError("no summary has a figure to draw")
    names = list(names) if names is not None else layout.labels(rows)
    wrapped = [textwrap.fill(name, 22 if look.narrow else 34) for name in names]
    tallest = max(name.count("\n") + 1 for name in wrapped)
    height = max(1.3, max(0.33, 0.19 * tallest) * len(rows) + 0.75)
    figure, axes = panels(len(metrics), look, height)
    for number, (axis, metric) in enumerate(zip(axes, metrics, strict=True)):
        for place, row in enumerate(rows):
            value = row.figure(metric)
            if value.value is None:
                continue
            colour = SIMULATED if row.simulated else COLOURS[0]
            axis.errorbar([value.value], [place], xerr=_bars([value]), color=colour, capsize=3)
            title = f"{names[place]}: {words.title(metric)} {words.measured(metric, value)}"
            spot(axis, value.value, place, row, title, colour, "o")
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_yticks(range(len(rows)))
        axis.set_yticklabels(wrapped if number == 0 or look.narrow else [""] * len(rows))
        known = [value for value in (row.figure(metric) for row in rows) if value.value is not None]
        highest = max(value.value or 0.0 for value in known)
        furthest = max([value.high for value in known if value.high is not None], default=0.0)
        axis.set_xlim(0, max(highest * 1.08, min(furthest * 1.03, highest * 1.6)) or None)
        dressed(axis, "", layout.axis_label(metric, highest), look)
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        unit_axis(axis.xaxis, metric, highest)
    return figure


def captioned(figure: Figure, text: str, look: Look = WIDE) -> Figure:
    """The figure with a line under it that says what it is of, for a picture that travels alone."""
    wrapped = textwrap.fill(text, 60 if look.narrow else 150)
    figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=look.text - 1.5, color="#5a5a60")
    return figure


def png(figure: Figure, dots_per_inch: int = 144) -> bytes:
    """The figure as a PNG on white."""
    out = BytesIO()
    figure.savefig(out, format="png", dpi=dots_per_inch, facecolor="white")
    return out.getvalue()


def svg(figure: Figure, prefix: str) -> str:
    """The figure as one <svg> element without prolog or metadata; every id begins with `prefix` and text stays text.

    Each point is a group of class `point` with the key of its row and a title that says its figures."""
    out = BytesIO()
    spots = figure.findobj(lambda artist: str(artist.get_gid() or "").startswith("point-"))
    titles = {str(artist.get_gid()): str(artist.get_label())[1:] for artist in spots}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r'<g id="(point-([0-9a-f]+)-\d+-\d+)">', lambda match: _titled(match, titles), text)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', text)
    return re.sub(r"url\(#", f"url(#{prefix}-", text)


def _titled(found: re.Match[str], titles: Mapping[str, str]) -> str:
    title = html.escape(titles.get(found[1], ""))
    return f'<g class="point" data-row="{found[2]}"><title>{title}</title>'


def _bars(figures: Sequence[rows.Figure]) -> list[list[float]] | None:
    lower, upper = [], []
    for one in figures:
        known = one.value is not None and one.low is not None and one.high is not None
        lower.append(max(0.0, one.value - one.low) if known else 0.0)  # type: ignore[operator]
        upper.append(max(0.0, one.high - one.value) if known else 0.0)  # type: ignore[operator]
    return [lower, upper] if any(lower) or any(upper) else None


def panels(count: int, look: Look, height: float = 2.9) -> tuple[Figure, list[Any]]:
    columns = min(count, look.columns)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(look.width, height * lines + 0.2), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    flat = [axis for line in axes for axis in line]
    for spare in flat[count:]:
        spare.set_visible(False)
    return figure, flat[:count]


def dressed(axis: Any, y: str, x: str, look: Look) -> None:
    wrap = 44
    if y:  # above the axis, where it reads level
        axis.set_title(textwrap.fill(y, wrap), fontsize=look.text, color=TEXT, loc="left")
    axis.set_xlabel(textwrap.fill(x, wrap), fontsize=look.text, color=TEXT)
    axis.tick_params(labelsize=look.text - 0.5, colors=TEXT, length=0)
    axis.grid(color=GRID, linewidth=0.7)
    axis.set_axisbelow(True)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)


def legend(figure: Figure, axis: Any, look: Look) -> None:
    handles, names = axis.get_legend_handles_labels()
    wrapped = [textwrap.fill(name, 44 if look.narrow else 60) for name in names]
    columns = 1 if look.narrow else min(3, len(names), max(1, int(125 / (max(map(len, wrapped)) + 6))))
    lines = sum(name.count("\n") + 1 for name in wrapped) / columns
    # The panels have room for two lines above them; what more there are must not take theirs.
    figure.set_figheight(figure.get_figheight() + max(0.0, lines - 2) * look.text * 1.5 / 72)
    figure.legend(
        handles,
        wrapped,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=look.text - 0.5,
        labelcolor=TEXT,
    )
