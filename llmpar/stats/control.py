"""A control chart for nights: does the level fall below the one it was pinned to?

CUSUM (Page, Biometrika 41, 1954) of each night's distance from the pinned nights, with allowance k and threshold h in
their standard deviations. Until enough nights are pinned each night is standardised by those before it (self-starting,
Hawkins, Journal of Quality Technology 19, 1987), so that a chart needs no nights of training. Estimated means and
deviations make Student's t of a distance; it is mapped to the normal distribution before it is summed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from llmpar.stats import effects

K, H = 0.5, 4.5
# A single night this improbable speaks at once: one in 5,000 nights of an unchanged server.
SINGLE = 0.0002
PINNED = 30
LEAST = 3  # nights before the first that can be judged
# Below this a night's noise is not believed: few alike nights would make any later one an event. Natural logarithm.
LEAST_DEVIATION = 0.001


@dataclass(frozen=True)
class Alarm:
    """The chart passed its threshold at night `index`; the level is thought to have changed at night `since`.

    `ratio` is the level since then over the pinned one, above 1 for worse whichever way the figure points.
    """

    index: int
    since: int
    ratio: float


def alarms(
    values: Sequence[float],
    lower_is_better: bool,
    margin: float = 0.0,
    charts: int = 1,
    rho: float = 0.0,
    pinned: int = PINNED,
) -> list[Alarm]:
    """Alarms of losses in a series of positive values in the order of time. After an alarm the sum starts at 0 again.

    `margin`: a loss within it is no news, and the sum goes on. `charts`: how many are read side by side; the threshold
    rises by the logarithm of their number, which keeps the time between false alarms of them all that of one. `rho`:
    the correlation of one night with the next (`correlation`); like nights in a row are then no event.
    """
    single = -float(ndtri(SINGLE / charts))
    threshold = (H + math.log(charts)) * (1 + rho) / (1 - rho)
    worse = np.log(np.asarray(values, dtype=float)) * (1 if lower_is_better else -1)
    found: list[Alarm] = []
    total, since = 0.0, LEAST
    for night in range(LEAST, len(worse)):
        level = worse[: min(night, pinned)]
        deviation = max(float(level.std(ddof=1)), LEAST_DEVIATION)
        distance = (worse[night] - level.mean()) / (deviation * math.sqrt(1 + 1 / len(level)))
        # Far tails of t with few degrees of freedom are cut: one wild night is not proof of a level.
        z = float(ndtri(min(max(stdtr(len(level) - 1, distance), 1e-9), 1 - 1e-9)))
        if total + z - K <= 0:
            total, since = 0.0, night + 1
            continue
        total += z - K
        if total <= threshold and z <= single:
            continue
        if z > single:
            since = night  # the night alone says it; those before it may have been as ever
        ratio = math.exp(float(worse[since : night + 1].mean() - level.mean()))
        if ratio - 1 > margin:
            found.append(Alarm(night, since, ratio))
            total, since = 0.0, night + 1
    return found


def correlation(series: Sequence[Sequence[float]], pinned: int = PINNED) -> float:
    """Correlation of one night with the next over the pinned nights of several figures, from 0 to 0.8.

    The mean over the figures of the lag-one correlation of logarithms, with Kendall's correction for the bias of few
    nights (Biometrika 41, 1954); 0 where twice its standard error would explain it, and under 10 nights.
    """
    raw, least = [], 1.0
    for values in series:
        level = np.log(np.asarray(values[:pinned], dtype=float))
        centred = level - level.mean() if len(level) else level
        power = float((centred**2).sum())
        if len(level) < 10 or power <= 1e-18:
            continue
        lag = float((centred[1:] * centred[:-1]).sum()) / power
        raw.append(lag + (1 + 4 * lag) / len(level))
        least = 2 / math.sqrt(len(level))
    mean = math.fsum(raw) / len(raw) if raw else 0.0
    return min(0.8, mean) if mean > least else 0.0


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
