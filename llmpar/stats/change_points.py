"""Where a series of nights changes its level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from llmpar.stats import effects

SHUFFLES = 1999
LEAST = 3  # nights on either side of a change, and before the newest


@dataclass
class Change:
    """The level changes at `index`, the first night of the new level, by `ratio`."""

    index: int
    ratio: float
    p_value: float


def changes(values: list[float], level: float = 0.05, seed: int = 0) -> list[Change]:
    """Change points of a series of positive values in the order of time. Under 2 * LEAST values there are none."""
    logs = np.log(np.asarray(values, dtype=float))
    random = np.random.default_rng(seed)
    found: list[tuple[int, float]] = []

    def split(first: int, last: int) -> None:
        part = logs[first:last]
        if len(part) < 2 * LEAST:
            return
        best, place = _cusum(part[None, :])
        shuffled, _ = _cusum(random.permuted(np.tile(part, (SHUFFLES, 1)), axis=1))
        p_value = (1 + int(np.count_nonzero(shuffled >= best[0] * (1 - 1e-12)))) / (SHUFFLES + 1)
        if p_value > level or best[0] <= 1e-9:
            return
        middle = first + int(place[0])
        split(first, middle)
        found.append((middle, p_value))
        split(middle, last)

    split(0, len(logs))
    edges = [0, *(place for place, _ in found), len(logs)]
    return [
        Change(
            place, math.exp(float(logs[place : edges[number + 2]].mean() - logs[edges[number] : place].mean())), p_value
        )
        for number, (place, p_value) in enumerate(found)
    ]


def _cusum(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the largest standardised difference of means over splits, and where: at least LEAST on each side."""
    many = rows.shape[1]
    sizes = np.arange(LEAST, many - LEAST + 1)
    sums = np.cumsum(rows, axis=1)
    total = sums[:, -1:]
    left = sums[:, sizes - 1]
    apart = np.abs(left / sizes - (total - left) / (many - sizes)) * np.sqrt(sizes * (many - sizes) / many)
    place = np.argmax(apart, axis=1)
    return apart[np.arange(len(rows)), place], sizes[place]


def predicted(before: list[float], newest: list[float], confidence: float = effects.CONFIDENCE) -> effects.Effect:
    """The ratio of the newest night (one or more sessions) to those before, with a prediction interval.

    Student's t: the newest varies as each night does, and the mean of the others is not known exactly.
    """
    x, y = np.log(np.asarray(newest, dtype=float)), np.log(np.asarray(before, dtype=float))
    difference = float(x.mean() - y.mean())
    if len(y) < LEAST:
        return effects.Effect(math.exp(difference), None, None, None, "too-few-nights")
    error = float(y.std(ddof=1)) * math.sqrt(1 / len(x) + 1 / len(y))
    freedom = len(y) - 1
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(difference) / error)) if error > 0 else float(difference == 0)
    return effects.Effect(
        math.exp(difference),
        math.exp(difference - half),
        math.exp(difference + half),
        p_value,
        "prediction-t",
        freedom,
        error,
    )
