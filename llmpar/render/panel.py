"""One panel of a chart as a small SVG that a page scales: points, bars over their intervals, lines, and levels.

A panel is as wide as a telephone, so that a page lays panels side by side or under one another with one drawing of
each. Colours are classes that a style sheet fills in. Every point carries its row's key and a title with its figures.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llmpar.results import rows, words

WIDTH, LEFT, RIGHT, TOP, PLOT = 360.0, 42.0, 350.0, 24.0, 165.0
LETTER = 5.9  # width of a letter of 11 units, on average
MOST_WIDE = 60  # letters that fit over the width
LINE = 30.0  # height of a row of dots with its name


@dataclass(frozen=True)
class Point:
    """One row's value; `low` and `high` end its bar along y (along x among dots)."""

    x: float
    y: float
    row: rows.Row
    title: str
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass
class Series:
    """Points of one colour and marker, by `index`; joined by a line unless that says nothing."""

    name: str
    points: list[Point]
    index: int
    joined: bool = True
    simulated: bool = False


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` over the units from `start` to `end`. `factor`: of values in labels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    factor: float = 1.0

    def at(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        low, high = self.low * self.factor, self.high * self.factor
        found = _powers(low, high) if self.log else _steps(low, high)
        return [value / self.factor for value in found]

    def text(self, value: float) -> str:
        return f"{value * self.factor:.6g}"


@dataclass
class Panel:
    """What the template draws. `levels` and `marks`: dashed lines across and upright, with their words."""

    title: str
    under: str
    x: Scale
    y: Scale
    series: list[Series]
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    levels: list[tuple[float, str]] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    crosses: list[tuple[float, float, str, int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of rows of dots
    height: float = TOP + PLOT + 34
    data: dict[str, str] = field(default_factory=dict)  # for the page's script
    limit: float | None = None  # an objective, in units of x
    dodge: float = 0.0  # units between series, so that equal bars do not cover each other

    @property
    def heading(self) -> str:
        return textwrap.shorten(self.title, MOST_WIDE, placeholder=" …")

    @property
    def bottom(self) -> float:
        return max(self.y.start, self.y.end)

    def grid(self) -> str:
        """The path of lines behind everything."""
        upright = self.names or self.x_ticks == []
        lines = [f"M{LEFT:g} {self.y.at(value):g}H{RIGHT:g}" for value in ([] if self.names else self.y.ticks())]
        if upright:
            lines += [f"M{self.x.at(value):g} {TOP:g}V{self.bottom:g}" for value in self.x.ticks()]
        return "".join([*lines, f"M{self.x.start:g} {self.bottom:g}H{RIGHT:g}"])

    def along(self) -> list[tuple[float, str]]:
        """Where labels stand along the bottom; those that would cover one before them are left out."""
        ticks = self.x_ticks or [(value, self.x.text(value)) for value in self.x.ticks()]
        kept: list[tuple[float, str]] = []
        for value, text in ticks:
            place = self.x.at(value)
            if not kept or place - kept[-1][0] > LETTER * (len(text) + len(kept[-1][1])) / 2 + 5:
                kept.append((place, text))
        return kept

    def placed(self) -> list[tuple[Series, list[tuple[float, float, Point]]]]:
        """Every series with where its points lie."""
        shift = self.dodge if len(self.series) <= 5 else 0.0
        placed_series = []
        for number, each in enumerate(self.series):
            aside = shift * (number - (len(self.series) - 1) / 2)
            placed_series.append(
                (each, [(round(self.x.at(one.x) + aside, 1), self.y.at(one.y), one) for one in each.points])
            )
        return placed_series

    def bars(self, places: Sequence[tuple[float, float, Point]]) -> str:
        """The path of the intervals; an end beyond the picture is an arrow."""
        scale = self.x if self.names else self.y
        near, far = sorted((scale.at(scale.low), scale.at(scale.high)))
        paths = []
        for x, y, figure in places:
            if figure.low is None or figure.high is None:
                continue
            ends = [scale.at(max(figure.low, scale.low if scale.log else 0.0)), scale.at(figure.high)]
            low, high = (min(max(end, near), far) for end in ends)
            cut = ends[1] > far + 0.5 if self.names else ends[1] < near - 0.5
            if self.names:
                cap = f"M{high:g} {y - 3:g}v6" if not cut else f"M{high - 4:g} {y - 4:g}l4 4l-4 4"
                paths.append(f"M{low:g} {y - 3:g}v6m0 -3H{high:g}{cap}")
            else:
                cap = f"M{x - 3:g} {high:g}h6" if not cut else f"M{x - 4:g} {high + 4:g}l4 -4l4 4"
                paths.append(f"M{x - 3:g} {low:g}h6m-3 0V{high:g}{cap}")
        return "".join(paths)

    def texts(self) -> list[tuple[float, float, str, str]]:
        """Labels of points, crosses, levels and marks, placed so that none covers another or a point: x, y, anchor and
        words. A point's label that has no place is left out; its title has it."""
        points = [(x, y) for _, places in self.placed() for x, y, _ in places]
        taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
        labels: list[tuple[float, float, str, str]] = []

        def put(text: str, places: Iterable[tuple[float, float, str]], must: bool) -> None:
            places = list(places)
            for x, y, anchor in places:
                wide = LETTER * len(text)
                left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
                box = (left, y - 9, left + wide, y + 2)
                inside = box[0] >= LEFT - 2 and box[2] <= WIDTH and box[1] >= TOP - 8 and box[3] <= self.bottom
                if inside and not any(_meet(box, other) for other in taken):
                    taken.append(box)
                    labels.append((round(x, 1), round(y, 1), anchor, text))
                    return
            if must:
                x, y, anchor = places[0]
                labels.append((round(x, 1), round(y, 1), anchor, text))

        for value, text in self.marks:
            x = self.x.at(value)
            put(text, [(x - 4, TOP + 8, "end"), (x + 4, TOP + 8, "start"), (x + 4, self.bottom - 5, "start")], True)
        for x, y, text, _ in self.crosses:
            put(text, around(self.x.at(x), self.y.at(y)), True)
        for value, text in self.levels:
            y = self.y.at(value)
            put(text, [(RIGHT, y - 4, "end"), (RIGHT, y + 11, "end"), (LEFT + 4, y - 4, "start")], False)
        said: list[tuple[float, float, str]] = []
        for _, places in self.placed():
            for x, y, figure in places:
                # What a neighbour says already is not said again.
                near = any(text == figure.label and abs(x - a) < 45 and abs(y - b) < 30 for a, b, text in said)
                if figure.label and not near:
                    put(figure.label, around(x, y), False)
                    said.append((x, y, figure.label))
        return labels

    def alt(self) -> str:
        """The values in words, in order; the page's tables have the rest."""
        said = "; ".join(one.title for each in self.series for one in each.points[:12])
        return textwrap.shorten(f"{self.title} against {self.under or 'cells'}: {said}", 600, placeholder=" …")


def around(x: float, y: float) -> list[tuple[float, float, str]]:
    """Where a label may stand by its point, nearest first."""
    near = [(x + 6, y - 5, "start"), (x + 6, y + 12, "start"), (x - 6, y - 5, "end"), (x - 6, y + 12, "end")]
    return [*near, (x, y - 10, "middle"), (x, y + 18, "middle"), (x + 6, y + 26, "start"), (x - 6, y - 18, "end")]


def scale(values: Sequence[float], start: float, end: float, *, zero: bool, factor: float = 1.0) -> Scale:
    """A scale over positive values with room at both ends: logarithmic where they span a factor of 8 and need not begin
    at zero."""
    low, high = min(values), max(values)
    if not zero and low > 0 and high / low >= 8:
        return Scale(low / 1.2, high * 1.25, start, end, True, factor)
    return Scale(0.0, high * 1.08 or 1.0, start, end, False, factor)


def bar_top(figures: Iterable[rows.Figure]) -> float:
    """The greatest value to show: of the bars as far as they are no longer than 1.6 times the greatest value, since an
    interval of two server sessions may be so long that the curves would be flat."""
    known = [one for one in figures if one.value is not None]
    highest = max((one.value or 0.0 for one in known), default=0.0)
    furthest = max((one.high for one in known if one.high is not None), default=0.0)
    return max(highest, min(furthest, highest * 1.5))


def of_dots(title: str, metric: str, factor: float, given: Sequence[rows.Row], names: Sequence[str]) -> Panel:
    """One line a row: its name, a dot at its value and a bar over its interval."""
    bottom = TOP + LINE * len(given)
    top = bar_top(row.figure(metric) for row in given)
    places = Scale(0.0, len(given) or 1, TOP, bottom)
    points: list[Point] = []
    guesses: list[Point] = []
    for number, (row, name) in enumerate(zip(given, names, strict=True)):
        figure = row.figure(metric)
        if figure.value is not None:
            said = f"{name}: {words.title(metric)} {words.measured(metric, figure)}"
            found = guesses if row.simulated else points
            found.append(Point(figure.value, number + 0.72, row, said, figure.low, figure.high))
    drawn = [Series("measured", points, 0, False), Series("simulated", guesses, 1, False, True)]
    across = scale([top], 8.0, RIGHT - 6, zero=True, factor=factor)
    cut = [textwrap.shorten(name, MOST_WIDE, placeholder=" …") for name in names]
    return Panel(title, "", across, places, [each for each in drawn if each.points], names=cut, height=bottom + 20)


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _steps(low: float, high: float) -> list[float]:
    """Four or five round values from `low` to `high`."""
    rough = (high - low) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.85)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two values."""
    steps = [round(factor * 10.0**power, 12) for power in range(-6, 8) for factor in (1, 2, 5)]
    return [step for step in steps if low <= step <= high]
