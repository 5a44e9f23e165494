"""The highest load level that meets an objective: doubling, then bisection over a fixed ladder of levels.

A level is a number of clients, or the requests a second of an open load. Levels lie on a ladder (1, 1.5, 2, 3, 4, 6, 8,
... times the first), so that two searches of one server measure the same cells. Meeting an objective is taken to be
monotone: a server that meets it at a level meets it at every lower one. Where a measured level contradicts that, the
answer says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from llmpar.verdicts.objectives import MEETS, MISSES, UNKNOWN


@dataclass(frozen=True)
class Step:
    """What to do next: `level` to measure (`again`: it was measured, is still unknown, and needs more requests),
    or, with `level` None, the answer: `best` meets the objective (None: not even the lowest does) and `above` does not
    (None: the highest meets it too). `unsure` are levels whose requests did not settle it; `contradictions` are levels
    that break the order.
    """

    level: float | None
    again: bool = False
    best: float | None = None
    above: float | None = None
    unsure: tuple[float, ...] = ()
    contradictions: tuple[float, ...] = ()


def ladder(least: float, most: float, whole: bool = True) -> list[float]:
    """Levels from `least` to `most`: 1, 1.5, 2, 3, 4, 6 ... times the least, and `most` itself. `whole`: counts of
    clients, rounded. Raises ValueError for an empty range."""
    if not 0 < least <= most:
        raise ValueError(f"the lowest level ({least:g}) must be above 0 and at most the highest ({most:g})")
    levels: set[float] = set()
    power = 0
    while (base := least * 2**power) <= most:
        for level in (base, base * 1.5):
            if level <= most:
                levels.add(float(round(level)) if whole else level)
        power += 1
    levels.add(float(round(most)) if whole else most)
    return sorted(levels)


def next_step(
    levels: list[float],
    measured: Mapping[float, str],
    tries: Mapping[float, int] | None = None,
    most_tries: int = 2,
    start: float | None = None,
) -> Step:
    """The next level to measure, or the answer.

    `measured` maps a level to MEETS, MISSES or UNKNOWN (its requests do not settle it). `tries` counts how often a
    level was measured, and an unknown one is measured up to `most_tries` times, each with more requests, before it
    counts as a miss that is named unsure. `start` is the first level tried (default: the lowest). Levels that are not
    on the ladder count too.
    """
    tries = tries or {}
    for level, verdict in sorted(measured.items()):
        if verdict == UNKNOWN and tries.get(level, 1) < most_tries:
            return Step(level, again=True)
    good = [level for level, verdict in measured.items() if verdict == MEETS]
    bad = [level for level, verdict in measured.items() if verdict != MEETS]
    best = max(good, default=None)
    # A miss below the best level that meets is a contradiction; the answer rests on the highest level that meets.
    above = min((level for level in bad if best is None or level > best), default=None)
    odd = tuple(sorted(level for level in bad if best is not None and level < best and measured[level] == MISSES))
    unsure = tuple(sorted(level for level in bad if measured[level] == UNKNOWN))
    between = [
        level
        for level in levels
        if level not in measured and (best is None or level > best) and (above is None or level < above)
    ]
    if not between:
        return Step(None, best=best, above=above, unsure=unsure, contradictions=odd)
    if not measured:
        first = min(levels, key=lambda level: (abs(math.log(level / start)), level)) if start else levels[0]
        return Step(first)
    if above is None:  # everything so far meets: double
        return Step(_nearest(between, 2 * (best or levels[0])))
    if best is None:  # everything so far misses: a quarter, as the answer may be far below
        return Step(_nearest(between, above / 4))
    return Step(_nearest(between, math.sqrt(best * above)))


def _nearest(levels: list[float], wanted: float) -> float:
    return min(levels, key=lambda level: (abs(math.log(level / wanted)), level))
