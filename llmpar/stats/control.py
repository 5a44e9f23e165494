"""A control chart for nights: does the level fall below the one it was pinned to?

Two CUSUMs (Page, Biometrika 41, 1954) of each night's distance from the pinned nights, in their standard deviations:
one for steps, and one with half its allowance for slow losses. Until enough nights are pinned each night is
standardised by those before it (self-starting, Hawkins, Journal of Quality Technology 19, 1987), so that a chart needs
no nights of training. Estimated means and deviations make Student's t of a distance; it is mapped to the normal
distribution before it is summed. Nights that follow one another alike (an autoregressive mood of the host) are charted
by what is new in each: its distance less `rho` times that of the night before (Alwan and Roberts, Journal of Business
and Economic Statistics 6, 1988). The error of the pinned mean then weighs as much as for independent nights, whatever
the correlation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmpar.stats import effects, special

# Allowance and threshold of each sum. The time between false alarms grows as exp(2kh) (Siegmund, Sequential Analysis,
# 1985, II.6), so of several charts each threshold rises by ln(charts) / 2k.
SUMS = ((0.5, 4.5), (0.25, 7.0))
# A single night this improbable speaks at once: one in 5,000 nights of an unchanged server.
SINGLE = 0.0002
BACK = 3.0  # log-likelihood ratio, summed over nights, from which a loss that was told is thought to be over
PINNED = 30
LEAST = 3  # nights before the first that can be judged
LEAST_CORRELATED = 10  # nights from which correlation is looked at
MOST_CORRELATION = 0.95
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


@dataclass
class Chart:
    """Alarms in the order of time. `standing`: the last one, where its loss still lasts at the last night."""

    alarms: list[Alarm] = field(default_factory=list)
    standing: Alarm | None = None


def chart(
    values: Sequence[float],
    lower_is_better: bool,
    margin: float = 0.0,
    charts: int = 1,
    rho: float = 0.0,
    pinned: int = PINNED,
) -> Chart:
    """The alarms of losses in a series of positive values in the order of time.

    A loss is told once: later nights are held against the level that it left, and speak when that falls again; when
    they look like the pinned nights again, the loss is over. `margin`: a loss within it is no news, and the sums go on.
    `charts`: how many are read side by side. `rho`: the correlation of one night with the next (`correlation`).
    """
    single = -float(special.ndtri(SINGLE / charts))
    thresholds = [height + math.log(charts) / (2 * allowance) for allowance, height in SUMS]
    worse = (np.log(np.asarray(values, dtype=float)) * (1 if lower_is_better else -1)).tolist()
    found = Chart()
    totals, begun = [0.0] * len(SUMS), [LEAST] * len(SUMS)
    back = level = deviation = lag = 0.0
    for night in range(LEAST, len(worse)):
        many = min(night, pinned)
        if night <= pinned:
            lag = rho if many >= LEAST_CORRELATED else 0.0
            level, deviation = _pinned(worse[:many], lag)
        held, known = level, many
        if found.standing is not None:
            # The level that a loss left, from up to as many nights as pin one.
            left = worse[found.standing.since : min(night, found.standing.since + pinned)]
            held, known = math.fsum(left) / len(left), len(left)
        new = worse[night] - held - lag * (worse[night - 1] - held)
        distance = new / (deviation * math.sqrt(1 + 1 / known))
        # Far tails of t with few degrees of freedom are cut: one wild night is not proof of a level.
        z = float(special.ndtri(min(max(special.stdtr(many - 1, distance), 1e-9), 1 - 1e-9)))
        if found.standing is not None:
            shift = (held - level) * (1 - lag)
            back = max(0.0, back - shift * (shift / 2 + new) / deviation**2)
            if back > BACK:
                found.standing, back = None, 0.0
                totals, begun = [0.0] * len(SUMS), [night + 1] * len(SUMS)
                continue
        since = None
        for place, (allowance, _) in enumerate(SUMS):
            totals[place] += z - allowance
            if totals[place] <= 0:
                totals[place], begun[place] = 0.0, night + 1
            elif totals[place] > thresholds[place] and since is None:
                since = begun[place]
        if z > single:
            since = night  # the night alone says it; those before it may have been as ever
        if since is None:
            continue
        loss = math.fsum(worse[since : night + 1]) / (night + 1 - since) - level
        if math.expm1(loss + level - held) > margin:
            found.standing = Alarm(night, since, math.exp(loss))
            found.alarms.append(found.standing)
            back = 0.0
            totals, begun = [0.0] * len(SUMS), [night + 1] * len(SUMS)
    return found


def _pinned(level: Sequence[float], lag: float) -> tuple[float, float]:
    """Mean of the pinned nights, and the standard deviation of what is new in each."""
    mean = math.fsum(level) / len(level)
    off = [value - mean for value in level]
    # The first night has none before it: its own variance stands for that of what is new.
    squares = (1 - lag**2) * off[0] ** 2 + math.fsum((b - lag * a) ** 2 for a, b in zip(off, off[1:], strict=False))
    return mean, max(math.sqrt(squares / (len(level) - 1)), LEAST_DEVIATION * math.sqrt(1 - lag**2))


def correlation(series: Sequence[Sequence[float]], pinned: int = PINNED) -> float:
    """Correlation of one night with the next over the pinned nights of several figures, from 0 to MOST_CORRELATION.

    The mean over the figures of the lag-one correlation of logarithms, corrected for the bias of few nights: of n its
    expectation is rho - (1 + 4 rho) / n (Marriott and Pope; Kendall; Biometrika 41, 1954).
    """
    raw = []
    for values in series:
        level = np.log(np.asarray(values[:pinned], dtype=float))
        count = len(level)
        centred = level - level.mean() if count else level
        power = float((centred**2).sum())
        if count < LEAST_CORRELATED or power <= 1e-18:
            continue
        lag = float((centred[1:] * centred[:-1]).sum()) / power
        raw.append((count * lag + 1) / (count - 4))
    return min(max(math.fsum(raw) / len(raw), 0.0), MOST_CORRELATION) if raw else 0.0


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
    half = float(special.stdtrit(freedom, 0.5 + confidence / 2)) * error
    p_value = 2 * float(special.stdtr(freedom, -abs(difference) / error)) if error > 0 else float(difference == 0)
    return effects.Effect(
        math.exp(difference),
        math.exp(difference - half),
        math.exp(difference + half),
        p_value,
        "prediction-t",
        freedom,
        error,
    )
