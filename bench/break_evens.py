"""How often the interval of a break-even acceptance length holds the true one. `bench/simulate 2000
break-evens` prints the table of docs/metrics.md.

Wall seconds at length L are a fixed part and decode steps that fall as L^-power: 1 is the straight line in 1 / L that
the interval is made of, other powers are not. Server sessions differ by a factor of their own, logarithms normal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmpar.verdicts import break_even

LENGTHS = (1.5, 2.0, 2.5, 3.0)  # forced, with k = 2 draft tokens
FIXED_S, STEPS_S = 8.0, 24.0


@dataclass(frozen=True)
class Row:
    """What break_even.find asks of a row of results."""

    walls: dict[str, float]
    settings: dict[str, Any]

    def by_session(self, metric: str) -> dict[str, float]:
        return self.walls


def wall(length: float, power: float) -> float:
    return FIXED_S + STEPS_S / length**power


def curve(
    random: np.random.Generator, truth: float, power: float, noise: float, sessions: int, shared: bool
) -> break_even.Curve:
    """Rows of one curve whose break-even length is `truth`; each row has server sessions of its own, or all lengths
    share theirs (one server is forced to several lengths, a tenth of the variance is each cell's own)."""
    start = noise * random.standard_normal(sessions)

    def row(seconds: float, settings: dict[str, Any]) -> Any:
        alone = noise * random.standard_normal(sessions)
        moods = np.sqrt(0.9) * start + np.sqrt(0.1) * alone if shared and settings else alone
        first = settings["acceptance_length"] if settings and not shared else bool(settings)
        walls = {f"{first}-{number}": float(value) for number, value in enumerate(seconds * np.exp(moods))}
        return Row(walls, settings)

    rows = [row(wall(length, power), {"acceptance_length": length}) for length in LENGTHS]
    return break_even.Curve(2, row(wall(truth, power), {}), tuple(rows))


def line(trials: int, truth: float, power: float, noise: float, sessions: int, shared: bool) -> list[str]:
    random = np.random.default_rng([3, round(100 * truth), round(10 * power), round(1e4 * noise), sessions])
    found = [break_even.find(curve(random, truth, power, noise, sessions, shared)) for _ in range(trials)]
    given = [each for each in found if each.low is not None and each.high is not None and each.length is not None]
    covered = [each.low <= truth <= each.high for each in given]
    widths = [math.log(each.high / each.low) / 2 for each in given]
    return [
        f"{noise:.1%}, {sessions} sessions, true length {truth:g}"
        + ("" if power == 1 else f", power {power:g}")
        + (", shared" if shared else ""),
        f"{np.median([each.length for each in given]) / truth:.3f}",
        f"{np.mean(covered):.1%}",
        f"{len(given) / trials:.0%}",
        f"{np.median(widths):.1%}",
    ]


def lines(trials: int) -> Iterator[str]:
    """The table of docs/metrics.md, line by line."""
    yield "| noise between sessions | length / true | covered | given | half width |\n|---|---:|---:|---:|---:|"
    for power, shared in ((1.0, False), (1.3, False), (1.0, True)):
        for truth in (2.02, 2.2):
            for noise in (0.005, 0.02):
                for sessions in (2, 3, 5):
                    if noise == 0.02 or (power == 1.0 and not shared):
                        yield f"| {' | '.join(line(trials, truth, power, noise, sessions, shared))} |"
