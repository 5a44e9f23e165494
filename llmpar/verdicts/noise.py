"""What the cells of a sweep say together of how server sessions differ: the noise that single pairs borrow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from llmpar.results import hosts, rows
from llmpar.stats import borrowed, effects
from llmpar.stats.borrowed import Borrowed

Kind = frozenset[str]
Places = frozenset[tuple[str, str]]


class Cell(Protocol):
    """A row, or a side of a pair."""

    summaries: list[dict[str, Any]]


@dataclass
class Seen:
    """Variances of pairs of one kind, their degrees of freedom, how uneven their sides are, and the cells that they are
    of."""

    variances: list[float] = field(default_factory=list)
    freedom: list[int] = field(default_factory=list)
    log_ratios: list[float] = field(default_factory=list)
    cells: set[int] = field(default_factory=set)

    @property
    def prior(self) -> borrowed.Prior | None:
        """None for few cells: many pairs of few cells know little more than the cells."""
        found = borrowed.prior(self.variances, self.freedom) if len(self.cells) >= borrowed.LEAST else None
        return None if found is None else replace(found, balance=borrowed.balance(self.log_ratios))


class Noise:
    """Compares cells by `effects.effect` with the noise of all given cells of the same sweeps and hosts.

    A pair borrows from pairs of its kind, which differ in the same settings (two engines, two client counts): engines
    may be unequally noisy, and then cells of one engine would lend too little. Commands that are given the same cells
    give the same effects, whichever pairs they compare.
    """

    def __init__(self, cells: Sequence[Cell]):
        unique = {id(cell): cell for cell in cells if cell.summaries}.values()
        self.cells = [(_places(cell.summaries), _settings(cell), cell) for cell in unique]
        self._known: dict[tuple[str, Places], dict[Kind, Borrowed]] = {}
        self._looked: dict[tuple[str, int], tuple[Cell, Places, dict[str, str], dict[str, float]]] = {}

    def effect(
        self, a: Cell, b: Cell, figure: str, method: str = "auto", confidence: float = effects.CONFIDENCE
    ) -> effects.Effect | None:
        """The ratio of the figure of `a` over `b`; see `effects.effect`."""
        if not a.summaries or not b.summaries:
            return None
        (_, places_a, settings_a, values_a), (_, places_b, settings_b, values_b) = (
            self._looked_at(side, figure) for side in (a, b)
        )
        places = places_a | places_b
        if (figure, places) not in self._known:
            self._known[figure, places] = self._priors(figure, places)
        lent = self._known[figure, places].get(_kind(settings_a, settings_b), effects.NOTHING)
        return effects.effect(values_a, values_b, method, confidence, lent)

    def _looked_at(self, side: Cell, figure: str) -> tuple[Cell, Places, dict[str, str], dict[str, float]]:
        """Places, settings and values by session of a side, found once for all of its pairs; kept with the side itself,
        whose identity is no other's while it lives."""
        found = self._looked.get((figure, id(side)))
        if found is None:
            found = (side, _places(side.summaries), _settings(side), rows.by_session(side.summaries, figure))
            self._looked[figure, id(side)] = found
        return found

    def _priors(self, figure: str, places: Places) -> dict[Kind, Borrowed]:
        """What pairs of each kind say of a figure, from the cells measured in these sweeps on these hosts."""
        measured = []
        for where, settings, cell in self.cells:
            values = rows.by_session(cell.summaries, figure)
            if where <= places and len(values) > 1 and min(values.values()) > 0:
                measured.append((settings, {session: math.log(value) for session, value in values.items()}))
        if len(measured) < borrowed.LEAST:
            return {}
        kinds: dict[Kind, tuple[Seen, Seen]] = {}
        variances = [_variance(list(values.values())) for _, values in measured]
        for (first, (settings_a, a)), (second, (settings_b, b)) in itertools.combinations(enumerate(measured), 2):
            between, paired = kinds.setdefault(_kind(settings_a, settings_b), (Seen(), Seen()))
            both = effects.pairable(a, b)
            if both:
                seen, variance, freedom = paired, _variance([a[name] - b[name] for name in both]), len(both) - 1
            elif len(a) == len(b):
                seen, variance, freedom = between, (variances[first] + variances[second]) / 2, 2 * len(a) - 2
                if variances[first] > 0 and variances[second] > 0:
                    log_ratio = math.log(variances[first] / variances[second])
                    seen.log_ratios.append(log_ratio if _first(settings_a, settings_b) else -log_ratio)
            else:
                continue
            seen.variances.append(variance)
            seen.freedom.append(freedom)
            seen.cells |= {first, second}
        return {kind: Borrowed(between.prior, paired.prior) for kind, (between, paired) in kinds.items()}


def _places(summaries: Iterable[dict[str, Any]]) -> Places:
    """Sweep and host of each summary."""
    return frozenset((str((each.get("cell") or {}).get("sweep") or ""), hosts.host_of(each)) for each in summaries)


def _settings(cell: Cell) -> dict[str, str]:
    return {name: str(value) for name, value in rows.settings(cell.summaries[0]).items()}


def _kind(a: dict[str, str], b: dict[str, str]) -> Kind:
    """The settings in which two cells differ."""
    return frozenset(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _first(a: dict[str, str], b: dict[str, str]) -> bool:
    """Which of two cells is the first side of its kind, by the settings in which they differ."""
    names = sorted(_kind(a, b))
    return [a.get(name, "") for name in names] < [b.get(name, "") for name in names]


def _variance(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
