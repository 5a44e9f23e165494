"""The ratio of one figure between two cells, with an interval over server sessions.

Sessions that both cells share (only the load differs, so they ran against the same server start) are compared within
the session: Student's t on the differences of logarithms, which takes what a session adds to both sides out of the
noise. Else Welch's t on the logarithms. Fewer than two sessions a side give a ratio without an interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

# Differences within 1 ± this mean nothing in practice; llmpar-compare's default is the same.
MARGIN = 0.03


@dataclass(frozen=True)
class Ratio:
    """A over B; `low` and `high` None where there is no interval, `ratio` None where a side has no value above 0."""

    ratio: float | None
    low: float | None
    high: float | None
    sessions_a: int
    sessions_b: int
    method: str | None


def ratio(a: Mapping[str, float], b: Mapping[str, float], confidence: float = 0.95) -> Ratio:
    """The ratio of geometric means of `a` and `b`, values by session, with its interval at `confidence`."""
    from llmpar import stats

    if not a or not b or min(*a.values(), *b.values()) <= 0:
        return Ratio(None, None, None, len(a), len(b), None)
    logs_a = {session: math.log(value) for session, value in a.items()}
    logs_b = {session: math.log(value) for session, value in b.items()}
    both = sorted(set(a) & set(b))
    if len(both) >= 2:
        differences = [logs_a[session] - logs_b[session] for session in both]
        centre, spread = _moments(differences)
        half = stats.student(len(both) - 1, confidence) * math.sqrt(spread / len(both))
        return _made(centre, half, len(both), len(both), "paired-log-t")
    mean_a, variance_a = _moments(list(logs_a.values()))
    mean_b, variance_b = _moments(list(logs_b.values()))
    if min(len(a), len(b)) < 2:
        return Ratio(math.exp(mean_a - mean_b), None, None, len(a), len(b), None)
    part_a, part_b = variance_a / len(a), variance_b / len(b)
    total = part_a + part_b
    if total == 0:
        return _made(mean_a - mean_b, 0.0, len(a), len(b), "welch-log-t")
    freedom = total**2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    half = stats.student(freedom, confidence) * math.sqrt(total)
    return _made(mean_a - mean_b, half, len(a), len(b), "welch-log-t")


def _made(centre: float, half: float, sessions_a: int, sessions_b: int, method: str) -> Ratio:
    return Ratio(math.exp(centre), math.exp(centre - half), math.exp(centre + half), sessions_a, sessions_b, method)


def _moments(values: list[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
