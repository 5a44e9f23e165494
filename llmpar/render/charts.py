"""Which charts a report draws for its rows, each as panels, and what they say in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmpar.render import layout, panel
from llmpar.render.panel import LEFT, PLOT, RIGHT, TOP, Panel, Point, Series
from llmpar.report import tracks
from llmpar.results import rows, words
from llmpar.results.rows import shown
from llmpar.verdicts import break_even, knee, sentences

RATE = "output_tokens_per_s"
MOST_STEPS = 160  # points of a time line: as many as one sees in a panel
BOTTOM = TOP + PLOT


@dataclass
class Chart:
    """Panels under one title. `legend`: names of series with their place and whether they are simulated."""

    title: str
    panels: list[Panel]
    note: str = ""
    legend: list[Series] = field(default_factory=list)


def of_sweep(name: str, rows: Sequence[rows.Row], everything: Sequence[rows.Row]) -> list[Chart]:
    """Curves against clients where they vary; against another numeric setting where that varies; else dots.

    `everything`: the rows of the whole report, so that all of its charts show one statistic of a latency.
    """
    drawn = [row for row in rows if row.figure("wall_s").value is not None]
    if len(drawn) < 2:
        return []
    ringed = (
        " A ring: the client's own delays could have moved the figure." if any(row.limited for row in drawn) else ""
    )
    curves = break_even.curves(drawn)
    if curves:
        return [of_acceptance(name, curves)]
    key = layout.axis_of(drawn)
    if key:
        return [against(name, drawn, key, everything, intervals(drawn) + ringed)]
    metrics = ["wall_s", RATE, shown(everything, "ttft")]
    names = layout.labels(drawn)
    panels = []
    for metric in metrics:
        top = max((row.figure(metric).value or 0.0 for row in drawn), default=0.0)
        if top:
            factor = layout.unit(metric, top)[1]
            panels.append(panel.of_dots(layout.axis_label(metric, top), metric, factor, drawn, names))
    return [Chart(f"{name}: wall seconds and throughput", panels, intervals(drawn) + ringed)]


def against(name: str, given: Sequence[rows.Row], key: str, everything: Sequence[rows.Row], note: str) -> Chart:
    """Curves of rate and latencies (of open loads latencies alone) against one numeric setting."""
    given = [row for row in given if isinstance(row.settings.get(key), int | float)]
    opened = layout.opened(given)
    groups = layout.grouped(given, key)
    ticks = sorted({float(row.settings[key]) for row in given})
    wide = ticks[0] > 0 and ticks[-1] / ticks[0] >= 8
    bend = knee.clients(given) if key == "clients" else None
    margin = (RIGHT - LEFT) * 0.06
    across = panel.Scale(ticks[0], ticks[-1], LEFT + margin, RIGHT - margin, wide)
    panels: list[Panel] = []
    legend: list[Series] = []
    latencies = [shown(everything, stem) for stem in ("ttft", "tpot")]
    for metric in [*([] if opened else [RATE]), *latencies, "goodput_ratio"]:
        known = [row for row in given if row.figure(metric).value is not None]
        if not known:
            continue
        top = 1.0 if metric == "goodput_ratio" else panel.bar_top(row.figure(metric) for row in known)
        most = max(row.figure(metric).value or 0.0 for row in known)
        up = panel.scale([top], BOTTOM, TOP, zero=True, factor=layout.unit(metric, most)[1])
        drawn = [_curve(label, members, metric, key, index) for index, (label, members) in enumerate(groups.items())]
        legend = drawn if len(drawn) > len(legend) else legend
        panels.append(
            Panel(
                layout.axis_label(metric, most),
                "rate, requests per second" if key == "rate" else key.replace("_", " "),
                across,
                up,
                [each for each in drawn if each.points],
                [(tick, f"{tick:g}") for tick in ticks],
                marks=[] if bend is None else [(bend, f"knee: {bend:g}")],
                dodge=4.0 if wide else 0.0,
            )
        )
    title = "latency against rate" if opened else f"throughput and latency against {key.replace('_', ' ')}"
    return Chart(f"{name}: {title}", panels, note, legend if len(legend) > 1 else [])


def _curve(label: str, members: Sequence[rows.Row], metric: str, key: str, index: int) -> Series:
    points = []
    for row in members:
        figure = row.figure(metric)
        if figure.value is not None:
            title = f"{words.name(row)}: {words.title(metric)} {words.measured(metric, figure)}"
            points.append(Point(float(row.settings[key]), figure.value, row, title, figure.low, figure.high))
    return Series(label or "cells", points, index, simulated=any(row.simulated for row in members))


def trade_off(given: Sequence[rows.Row], objectives: Mapping[str, float]) -> Chart | None:
    """Output rate against TTFT, and against tokens a second and user (1 / TPOT); None where no row has both.

    Up and to the left is better in the first, up and to the right in the second. `objectives` are drawn in.
    """
    ttft, tpot = shown(given, "ttft"), shown(given, "tpot")
    key = "rate" if layout.opened(given) else "clients"
    have = [row for row in given if row.figure(RATE).value and row.settings.get(key) is not None]
    panels: list[Panel] = []
    legend: list[Series] = []
    for metric in (ttft, tpot):
        known = [row for row in have if row.figure(metric).value]
        if not known:
            continue
        turned = metric == tpot
        series = _traded(known, metric, key, turned)
        values = [point.x for each in series for point in each.points]
        rates = [point.y for each in series for point in each.points]
        factor = 1.0 if turned else layout.unit(metric, max(values))[1]
        across = panel.scale(values, LEFT + 6, RIGHT - 6, zero=False, factor=factor)
        under = f"tokens per second and user, 1 / {words.title(metric)}"
        limit = objectives.get(metric)
        limit = 1 / limit if turned and limit else limit
        data = {"metric": named(metric), "turned": str(int(turned)), "log": str(int(across.log))}
        data |= {"low": f"{across.low:g}", "high": f"{across.high:g}", "start": f"{across.start:g}"}
        panels.append(
            Panel(
                layout.axis_label(RATE),
                under if turned else layout.axis_label(metric, max(values)),
                across,
                panel.scale(rates, BOTTOM, TOP, zero=True),
                series,
                data=data | {"end": f"{across.end:g}"},
                limit=limit if limit and across.low <= limit <= across.high else None,
            )
        )
        legend = _once(series) if len(_once(series)) > len(legend) else legend
    note = f"Numbers at points: {'requests a second' if key == 'rate' else key}. Hollow and dashed: simulated."
    if not any(row.simulated for row in given):
        note = note.removesuffix(" Hollow and dashed: simulated.")
    return Chart("Rate against latency", panels, note, legend) if panels else None


def named(metric: str) -> str:
    """A latency as objectives write it: `ttft-p95`."""
    return metric.removesuffix("_s").replace("_", "-")


def _traded(known: Sequence[rows.Row], metric: str, key: str, turned: bool) -> list[Series]:
    """A series for each setting of the rest; of several sweeps all have their sweep's colour and name."""
    sweeps = list(dict.fromkeys((row.sweep, row.simulated) for row in known))
    series = []
    for place, (label, members) in enumerate(layout.grouped(known, key).items()):
        points = []
        for row in members:
            value, rate = row.figure(metric).value or 0.0, row.figure(RATE).value or 0.0
            title = (
                f"{words.name(row, sweep=True)}: {words.quantity(RATE, rate)}, "
                f"{words.title(metric)} {words.measured(metric, row.figure(metric))}"
            )
            points.append(
                Point(1 / value if turned else value, rate, row, title, label=words.setting(row.settings[key]))
            )
        first = members[0]
        index, name = place, label or "cells"
        if len(sweeps) > 1:
            index = sweeps.index((first.sweep, first.simulated))
            name = f"{first.sweep or 'cells'}{', simulated' if first.simulated else ''}"
        series.append(Series(name, points, index, simulated=first.simulated))
    return series


def _once(series: Sequence[Series]) -> list[Series]:
    """One series of each name, where there is more than one name."""
    found = list({each.name: each for each in series}.values())
    return found if len(found) > 1 else []


def of_acceptance(name: str, curves: Sequence[break_even.Curve]) -> Chart:
    """Rate against forced acceptance length, with the break-even lengths in words: a line for each k, a dashed level
    without speculation, a cross where they meet."""
    groups: dict[str, list[break_even.Curve]] = {}
    keys = break_even.telling(curves)
    for curve in sorted(curves, key=lambda curve: (curve.base.settings.get("clients") or 0, curve.speculate)):
        label = ", ".join(words.setting_phrase(key, curve.base.settings.get(key)) for key in keys)
        groups.setdefault(label, []).append(curve)
    drafts = sorted({curve.speculate for curve in curves})
    panels: list[Panel] = []
    legend: list[Series] = []
    for label, members in groups.items():
        series, crosses = [], []
        longest = max(length for curve in members for length in curve.lengths)
        level = members[0].base.figure(RATE).value
        for curve in members:
            index = drafts.index(curve.speculate)
            points = [
                Point(length, one.value, row, f"{words.name(row)}: {words.measured(RATE, one)}", one.low, one.high)
                for length, row in zip(curve.lengths, curve.rows, strict=True)
                if (one := row.figure(RATE)).value is not None
            ]
            series.append(Series(words.plural(curve.speculate, "draft token"), points, index))
            meets = break_even.find(curve).length
            if meets is not None and level is not None:
                crosses.append((meets, level, f"{meets:.2f}", index))
        top = panel.bar_top(row.figure(RATE) for curve in members for row in (*curve.rows, curve.base))
        panels.append(
            Panel(
                f"{label}: {layout.axis_label(RATE)}" if label else layout.axis_label(RATE),
                "acceptance length (forced), tokens per step",
                panel.Scale(1.0, longest + (longest - 1) * 0.06, LEFT, RIGHT),
                panel.scale([top], BOTTOM, TOP, zero=True),
                series,
                levels=[] if level is None else [(level, "no speculation")],
                crosses=crosses,
            )
        )
        legend = series if len(series) > len(legend) else legend
    said = [sentences.break_even(record) for record in break_even.records(curves)]
    note = (
        "Acceptance was forced. Crosses: the break-even length, on a straight line of wall time against 1 / length "
        "between the measured points. " + intervals([row for curve in curves for row in (*curve.rows, curve.base)])
    )
    return Chart(f"{name}: output rate against acceptance length", panels, f"{note} {'; '.join(said)}.", legend)


def intervals(rows: Sequence[rows.Row]) -> str:
    """What the bars around the points are."""
    if any(len(row.summaries) > 1 for row in rows):
        return "Points: mean over server sessions; bars: 95% t interval over sessions."
    return "One server session: bars are the 95% interval within it; where there is no bar there is no interval."


@dataclass
class Track:
    """One polyline over a cell's seconds, ready to be drawn."""

    title: str
    index: int
    path: str
    grid: str
    rows: list[tuple[float, str]]
    columns: list[tuple[float, str]]
    alt: str


@dataclass
class Timeline:
    title: str
    tracks: list[Track]


def of_timeline(timeline: tracks.Timeline) -> Timeline:
    """A cell's requests in flight with its samples beside them, each thinned to what a panel can show."""
    seconds, counts = [at for at, _ in timeline.flight], [float(count) for _, count in timeline.flight]
    span = max(seconds[-1], 1e-9)
    drawn = [_track("requests in flight", seconds, counts, span, 0)]
    drawn += [_track(label, at, values, span, 1 + number) for number, (label, at, values) in enumerate(timeline.tracks)]
    session = f" (server session {timeline.session})" if timeline.session else ""
    return Timeline(words.name(timeline.row, sweep=True) + session, drawn)


def _track(title: str, seconds: Sequence[float], values: Sequence[float | None], span: float, index: int) -> Track:
    top = max((value for value in values if value is not None), default=0.0)
    across = panel.Scale(0.0, span, LEFT, RIGHT)
    up = panel.scale([top], 98.0, 22.0, zero=True)
    path, pen = [], "M"
    for at, value in thinned(seconds, values):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{across.at(at):g} {up.at(value):g}")
        pen = "L"
    levels = up.ticks()
    grid = "".join(f"M{LEFT:g} {up.at(value):g}H{RIGHT:g}" for value in levels)
    alt = f"{title}: up to {words.number(top)} over {words.number(span)} seconds"
    sides = [(up.at(value), up.text(value)) for value in levels[::2]]
    return Track(title, index, "".join(path), grid, sides, [(across.at(at), f"{at:g}") for at in across.ticks()], alt)


def thinned(seconds: Sequence[float], values: Sequence[float | None]) -> list[tuple[float, float | None]]:
    """At most MOST_STEPS points: of each stretch the mean, a gap where all of it is one; the last point stays."""
    count = len(seconds)
    if count <= MOST_STEPS:
        return list(zip(seconds, values, strict=True))
    points: list[tuple[float, float | None]] = []
    for part in range(MOST_STEPS - 1):
        first, last = part * count // (MOST_STEPS - 1), (part + 1) * count // (MOST_STEPS - 1)
        known = [value for value in values[first:last] if value is not None]
        middle = sum(seconds[first:last]) / (last - first)
        points.append((middle, sum(known) / len(known) if known else None))
    return [*points, (seconds[-1], values[-1])]
