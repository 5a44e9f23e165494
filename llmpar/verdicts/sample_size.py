"""How many server sessions and prompts it takes to see a given difference, from the noise of a pilot.

The variance of a cell's figure between sessions has two parts: what differs from start to start, and what a finite
number of prompts adds within each. More prompts shrink only the second. The pilot's variance is itself uncertain; as
Browne (Statistics in Medicine 14, 1995) advises, its upper 80% limit is planned with, else half of all plans fall
short. The part within a session cannot exceed the total; where its estimate does, it says nothing of how the total
divides, and the plan assumes what costs more: that fewer prompts add noise, and more remove none.

Options are compared by time, since a start of the server often takes longer than a cell (Kalibera and Jones, ISMM
2013).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llmpar.results import rows
from llmpar.stats import effects, intervals, order_statistics, special
from llmpar.stats.power import power_different, sessions_needed

FACTORS = (0.25, 0.5, 1, 2, 4, 8)
LIMIT = 0.8


@dataclass
class Noise:
    """Standard deviations of the logarithm of a figure, pooled over the pilot's cells.

    `total` between sessions, `upper` its upper limit, with `freedom` degrees; `within` what the prompts of one session
    add (None where no interval within a session is known); `requests` in each session. `start_s`: mean time from the
    server's launch until it was ready (None where no server was launched), `cell_s`: mean wall seconds of a cell (None
    where unknown), `cells_per_session`: how many cells a session of the pilot measured.
    """

    figure: str
    total: float
    upper: float
    freedom: int
    within: float | None
    requests: float
    cells: int
    start_s: float | None = None
    cell_s: float | None = None
    cells_per_session: int = 1

    @property
    def divided(self) -> bool:
        """Whether the pilot says which part of the noise more prompts would shrink."""
        return self.within is not None and self.within < self.total


@dataclass
class Option:
    """One way to see the difference: so many sessions of each side, so many requests in each.

    `duration_s`: of both sides, for one cell; without the server's starts where none was launched.
    """

    sessions: int | None
    requests: int
    noise: float
    duration_s: float | None = None

    @property
    def total(self) -> int | None:
        return None if self.sessions is None else 2 * self.sessions * self.requests


def noise(summaries: list[dict[str, Any]], figure: str) -> Noise | None:
    """The pilot's noise in a figure; None without a cell of at least two sessions that have it."""
    squares, freedom, within, cells = 0.0, 0, [], 0
    grouped = rows.group(summaries)
    for row in grouped:
        within += [known for summary in row.summaries if (known := _within(summary, figure)) is not None]
        logs = [math.log(value) for value in row.by_session(figure).values() if value > 0]
        if len(logs) < 2:
            continue
        mean = math.fsum(logs) / len(logs)
        squares += math.fsum((value - mean) ** 2 for value in logs)
        freedom += len(logs) - 1
        cells += 1
    if not freedom:
        return None
    pilot = [summary for row in grouped for summary in row.summaries]
    sessions = {rows.session_of(summary) for summary in pilot}
    total = math.sqrt(squares / freedom)
    return Noise(
        figure,
        total,
        total * math.sqrt(freedom / float(special.chdtri(freedom, LIMIT))),
        freedom,
        math.sqrt(math.fsum(error * error for error in within) / len(within)) if within else None,
        _mean([summary["n"]["requests"] for summary in pilot]) or 0.0,
        cells,
        _mean([(summary.get("server") or {}).get("ready_s") for summary in pilot]),
        _mean([rows.reading(summary, "wall_s").value for summary in pilot]),
        max(1, round(len(pilot) / len(sessions))),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _within(summary: dict[str, Any], figure: str) -> float | None:
    """Standard error of the logarithm within one session, from its interval; whole-run rates borrow the steady
    one's."""
    reading = rows.reading(summary, figure)
    if reading.low is None and figure in rows.RATES:
        reading = rows.reading(summary, f"{figure}_steady")
    if reading.low is None and figure == "wall_s":
        reading = rows.reading(summary, "output_tokens_per_s_steady")
    if reading.value is None or reading.low is None or reading.high is None:
        return None
    if reading.value <= 0 or not 0 < reading.low <= reading.high:
        return None
    return (
        (math.log(reading.high) - math.log(reading.low))
        / 2
        / float(special.ndtri(0.5 + order_statistics.CONFIDENCE / 2))
    )


def options(
    noise: Noise,
    difference: float,
    power: float = 0.9,
    margin: float = effects.MARGIN,
    confidence: float = effects.CONFIDENCE,
) -> list[Option]:
    """Sessions needed for several numbers of requests a session, from a quarter of the pilot's to eight times it."""
    result = []
    for factor in FACTORS if noise.within is not None else (1,):
        if noise.divided:
            own = min(noise.within or 0.0, noise.upper)
            sigma = math.sqrt(noise.upper**2 - own**2 + own**2 / factor)
        else:
            sigma = noise.upper / math.sqrt(min(factor, 1))
        count = max(round(noise.requests * factor), 1)
        sessions = sessions_needed(sigma, difference, power, margin, confidence)
        result.append(Option(sessions, count, sigma, _duration(noise, sessions, factor)))
    return result


def _duration(found: Noise, sessions: int | None, factor: float, cells: int = 1) -> float | None:
    """Seconds that `sessions` of both sides take: each a start of the server and `cells` cells of `factor` times the
    requests."""
    if sessions is None or found.cell_s is None:
        return None
    return 2 * sessions * ((found.start_s or 0.0) + cells * factor * found.cell_s)


def best(choices: list[Option], least: int) -> Option | None:
    """The option that takes the least time (where that is unknown: the fewest requests), of those with at least `least`
    requests a session."""
    usable = [each for each in choices if each.sessions is not None and each.requests >= least]
    return min(usable, key=lambda each: (each.duration_s or 0.0, each.total or 0, each.sessions or 0), default=None)


def least_requests(figure: str) -> int:
    """Requests that the figure itself needs in each session: a percentile's interval must exist."""
    for percent in intervals.PERCENTS:
        if f"_p{percent}_" in figure:
            return order_statistics.needed(percent)
    return 1


def seen(noise: Noise, sessions: int, power: float = 0.9, margin: float = effects.MARGIN) -> float | None:
    """The smallest relative difference beyond the margin, up to 1, that so many sessions of each side see; None beyond
    that."""
    low, high = margin, 1.0
    if noise.upper <= 0:
        return margin
    if power_different(noise.upper, high, sessions, margin) < power:
        return None
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if power_different(noise.upper, middle, sessions, margin) >= power else (middle, high)
    return high


def record(
    noise: Noise, choices: list[Option], difference: float, power: float, margin: float = effects.MARGIN
) -> dict[str, Any]:
    """The plan as a record (docs/records.md)."""
    chosen = best(choices, least_requests(noise.figure))
    return {
        "kind": "plan",
        "v": 1,
        "figure": noise.figure,
        "difference_ratio": difference,
        "margin_ratio": margin,
        "power": power,
        "confidence": effects.CONFIDENCE,
        "noise": {
            "sessions_ratio": noise.total,
            "upper_ratio": noise.upper,
            "freedom": noise.freedom,
            "within_ratio": noise.within,
            "requests": noise.requests,
            "cells": noise.cells,
            "divided": noise.divided,
        },
        "start_s": noise.start_s,
        "cell_s": noise.cell_s,
        "cells_per_session": noise.cells_per_session,
        "options": [
            {
                "sessions": each.sessions,
                "requests": each.requests,
                "noise_ratio": each.noise,
                "duration_s": each.duration_s,
            }
            for each in choices
        ],
        "sessions": None if chosen is None else chosen.sessions,
        "requests": None if chosen is None else chosen.requests,
        "duration_s": None if chosen is None else chosen.duration_s,
        "all_cells_duration_s": None
        if chosen is None
        else _duration(noise, chosen.sessions, chosen.requests / noise.requests, noise.cells_per_session),
        "least_requests": least_requests(noise.figure),
        "three_sessions_see_ratio": seen(noise, 3, power, margin),
        "five_sessions_see_ratio": seen(noise, 5, power, margin),
    }
