"""From which acceptance length on speculation pays: rows with forced acceptance against the row without speculation.

The model: with k draft tokens and as many sequences as there are, every decode step costs the same, so wall seconds are
a + b / L at acceptance length L, a straight line in 1 / L. (The same count as in Leviathan et al., ICML 2023: steps
fall with the tokens a step yields.) Between the two measured lengths around the wall time without speculation that line
is followed to the break-even length; beyond the measured lengths nothing is said but the side on which it lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpar.results.rows import CONFIDENCE, Row
from llmpar.stats import batch_means

METRIC = "wall_s"
# In these a row with speculation may differ from the one without.
OWN = frozenset({"speculate", "speculate_method", "acceptance_length"})


@dataclass(frozen=True)
class Curve:
    """The rows of one k, sorted by their forced length, and the row without speculation; all else agrees."""

    speculate: int
    base: Row
    rows: tuple[Row, ...]

    @property
    def lengths(self) -> list[float]:
        return [float(row.settings["acceptance_length"]) for row in self.rows]


@dataclass(frozen=True)
class BreakEven:
    """Speculation pays above `length`. Where it is None, it pays at every measured length or at none: `pays` says
    which."""

    length: float | None
    low: float | None = None
    high: float | None = None
    sessions: int = 0
    pays: bool | None = None


def curves(rows: Iterable[Row]) -> list[Curve]:
    """The curves among the rows, by k within each group of equal other settings, in order of appearance."""
    rows = list(rows)
    made = []
    for base in rows:
        if base.settings.get("speculate") or base.figure(METRIC).value is None:
            continue
        drafts: dict[int, list[Row]] = {}
        for row in rows:
            if forced(row) is not None and _alike(row, base) and row.figure(METRIC).value is not None:
                drafts.setdefault(int(row.settings["speculate"]), []).append(row)
        for count in sorted(drafts):
            members = sorted(drafts[count], key=lambda row: float(row.settings["acceptance_length"]))
            made.append(Curve(count, base, tuple(members)))
    return made


def telling(curves: Sequence[Curve]) -> list[str]:
    """The settings by which the curves' surroundings differ, such as clients; a count that goes with the clients is
    none."""
    bases = [curve.base for curve in curves]
    keys = [
        key
        for key in dict.fromkeys(key for base in bases for key in base.varies)
        if key not in OWN and len({str(base.settings.get(key)) for base in bases}) > 1
    ]
    return [key for key in keys if key != "count" or "clients" not in keys]


def forced(row: Row) -> float | None:
    """The acceptance length that was forced in a row; None where the text decided."""
    length = row.settings.get("acceptance_length")
    return None if length is None else float(length)


def _alike(row: Row, base: Row) -> bool:
    return (
        row.sweep == base.sweep
        and row.host == base.host
        and all(row.settings.get(key) == base.settings.get(key) for key in {*row.settings, *base.settings} - OWN)
    )


def find(curve: Curve) -> BreakEven:
    """The break-even length of a curve, with a t interval where both rows around it and the base have two sessions or
    more."""
    walls = [_mean(row.by_session(METRIC)) for row in curve.rows]
    base = _mean(curve.base.by_session(METRIC))
    lengths = curve.lengths
    faster = [wall < base for wall in walls]
    if all(faster) or not any(faster):
        return BreakEven(None, pays=faster[0])
    # Longer acceptance is never slower; where noise says otherwise, the last change from slower to faster counts.
    at = max(index for index in range(1, len(walls)) if faster[index] and not faster[index - 1])
    short, long = curve.rows[at - 1], curve.rows[at]
    length = between(lengths[at - 1], walls[at - 1], lengths[at], walls[at], base)
    values = [row.by_session(METRIC) for row in (short, long, curve.base)]
    sessions = min(map(len, values))
    if sessions < 2:
        return BreakEven(length, sessions=sessions)

    def at_walls(left: float, right: float, none: float) -> float:
        return math.log(between(lengths[at - 1], left, lengths[at], right, none))

    error, freedom = _spread(values, (walls[at - 1], walls[at], base), at_walls)
    half = batch_means.student(freedom, CONFIDENCE) * error
    # It is known to lie where acceptance is possible at all.
    return BreakEven(
        length, max(1.0, length * math.exp(-half)), min(curve.speculate + 1.0, length * math.exp(half)), sessions
    )


def between(short: float, slow: float, long: float, fast: float, wall: float) -> float:
    """The length at which wall seconds, a straight line in 1 / length through (short, slow) and (long, fast), are
    `wall`."""
    share = (wall - fast) / (slow - fast)
    return 1 / (1 / long + share * (1 / short - 1 / long))


def _mean(values: Mapping[str, float]) -> float:
    return math.fsum(values.values()) / len(values)


def _spread(values: Sequence[Mapping[str, float]], means: Sequence[float], function: Any) -> tuple[float, float]:
    """Standard error of a function of independent means, to first order, and Welch and Satterthwaite's degrees of
    freedom."""
    parts = []
    for index, sessions in enumerate(values):
        count, mean = len(sessions), means[index]
        variance = math.fsum((value - mean) ** 2 for value in sessions.values()) / (count - 1) / count
        step = mean * 1e-4
        moved = list(means)
        moved[index] = mean + step
        up = function(*moved)
        moved[index] = mean - step
        parts.append((((up - function(*moved)) / (2 * step)) ** 2 * variance, count - 1))
    total = math.fsum(part for part, _ in parts)
    if total == 0:
        return 0.0, float(min(freedom for _, freedom in parts))
    return math.sqrt(total), total**2 / math.fsum(part**2 / freedom for part, freedom in parts)


def records(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """The curves as parts of a claim record: k, client count and whatever else differs, the break-even, what was
    measured."""
    keys = ["clients", *(key for key in telling(curves) if key != "clients")]
    ordered = sorted(curves, key=lambda curve: (curve.base.settings.get("clients") or 0, curve.speculate))
    return [_record(curve, keys) for curve in ordered]


def _record(curve: Curve, keys: Sequence[str]) -> dict[str, Any]:
    point = find(curve)
    at = {key: curve.base.settings[key] for key in keys if curve.base.settings.get(key) is not None}
    return {
        "at": at,
        "speculate": curve.speculate,
        "length": point.length,
        "low": point.low,
        "high": point.high,
        "pays": point.pays,
        "sessions": point.sessions,
        "measured": [
            {"length": length, "sessions": len(row.by_session(METRIC)), "wall_s": _mean(row.by_session(METRIC))}
            for length, row in zip(curve.lengths, curve.rows, strict=True)
        ],
        "base_wall_s": _mean(curve.base.by_session(METRIC)),
        "base_sessions": len(curve.base.by_session(METRIC)),
    }
