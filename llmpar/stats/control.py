"""A control chart for nights: does the level fall below the one it was pinned to?

Two statistics of what is new in each night, its distance from the level less `rho` times that of the night before
(Alwan and Roberts, Journal of Business and Economic Statistics 6, 1988, for hosts whose moods last):

- the generalised likelihood ratio of a step at any of the last LONGEST nights (Willsky and Jones, IEEE Transactions on
  Automatic Control 21, 1976; Lai, JRSS B 57, 1995), with the error of the pinned level in its variance;
- for slow losses a CUSUM (Page, Biometrika 41, 1954) with a small allowance, of Student's t mapped to normal.

Until enough nights are pinned each night is judged by those before it (self-starting, Hawkins, Journal of Quality
Technology 19, 1987). After an alarm the level is learnt anew from that night on, in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from llmpar.stats import effects, special

# Chosen by bench/simulate's nights, on other seeds, for at most two mails a year. A step speaks where its chance is
# STEP_RATE, shared by all charts; the sum of slow losses at HEIGHT, and HEIGHT_RISE higher for each e-fold of charts:
# pinned levels err, and among many one errs far.
STEP_RATE = 0.0016
LONGEST = 20
ALLOWANCE = 0.25
HEIGHT, HEIGHT_RISE = 6.0, 4.5
# The correlation of thirty nights is known badly where it is high: thresholds rise by this times its square.
UNSURE = 0.3
FOLLOWS = 10  # nights in which alarms of figures that one change moved are gathered
NEAR = 2  # nights by which the night that a change is thought to have come at is often late
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
    unsure = 1 + UNSURE * rho * rho
    rate = float(special.ndtr(float(special.ndtri(STEP_RATE / charts)) * unsure))
    slow_height = (HEIGHT + HEIGHT_RISE * math.log(charts)) * unsure
    worse = (np.log(np.asarray(values, dtype=float)) * (1 if lower_is_better else -1)).tolist()
    result = Chart()
    total, begun, first = 0.0, LEAST, LEAST  # `first`: night from which a step may be
    level = deviation = lag = step_height = 0.0
    start = 0
    for night in range(LEAST, len(worse)):
        many = min(night, pinned)
        if night <= pinned:
            lag = rho if many >= LEAST_CORRELATED else 0.0
            level, deviation = _pinned(worse[:many], lag)
            step_height = float(-special.stdtrit(many - 1, rate)) * deviation
        held, known = level, many
        if result.standing is not None:
            # The level that a loss left, from up to as many nights as pin one.
            left = worse[start : min(night, start + pinned)]
            held, known = math.fsum(left) / len(left), len(left)
        new = worse[night] - held - lag * (worse[night - 1] - held)
        earliest = max(first, night + 1 - LONGEST)
        if result.standing is not None:
            statistic, at = _step(worse, held, lag, earliest, night, 1 / known, -1)
            if statistic > step_height:
                better = math.fsum(worse[at : night + 1]) / (night + 1 - at)
                start, total, begun, first = at, 0.0, night + 1, night + 1
                if better - level < (held - level) / 2:
                    result.standing = None
                continue
        since = None
        total += _normal(new / (deviation * math.sqrt(1 + 1 / known)), many - 1) - ALLOWANCE
        if total <= 0:
            total, begun = 0.0, night + 1
        elif total > slow_height:
            since = begun
        statistic, at = _step(worse, held, lag, earliest, night, 1 / known)
        if statistic > step_height:
            since = at
        if since is None:
            continue
        loss = math.fsum(worse[since : night + 1]) / (night + 1 - since) - level
        if math.expm1(loss + level - held) > margin:
            result.standing = Alarm(night, since, math.exp(loss))
            result.alarms.append(result.standing)
            start, total, begun, first = night, 0.0, night + 1, night + 1
    return result


def mails(
    alarms: Sequence[Sequence[Alarm]], measured: Sequence[Collection[int]] | None = None
) -> dict[int, list[tuple[int, Alarm]]]:
    """Which alarms of several charts are spoken of together: each night of a mail, and its alarms with their chart's
    number. `measured`: the nights on which each chart's figure has a value; None: all of them.

    One cause moves many figures, and their charts pass their thresholds over some nights. An alarm whose change came no
    later than the mail before it, or NEAR nights later, waits until FOLLOWS nights after that mail, and is then mailed
    with all others like it whose figures have a value that night; the others wait for one that has.
    """
    nights = sorted({alarm.index for each in alarms for alarm in each})
    if nights:
        nights.extend(max(each, default=nights[0]) for each in measured or ())
    sent: dict[int, list[tuple[int, Alarm]]] = {}
    last, waiting = -math.inf, list[tuple[int, Alarm]]()
    for night in range(nights[0], max(nights) + FOLLOWS + 1) if nights else ():
        now = list[tuple[int, Alarm]]()
        for number, each in enumerate(alarms):
            for alarm in each:
                if alarm.index == night:
                    (waiting if alarm.since <= last + NEAR and night < last + FOLLOWS else now).append((number, alarm))
        if now or night >= last + FOLLOWS:
            ready = [each for each in waiting if measured is None or night in measured[each[0]]]
            if now or ready:
                sent[night] = [*now, *ready]
                last, waiting = night, [each for each in waiting if each not in ready]
    return sent


def _normal(distance: float, freedom: int) -> float:
    """Student's t as a normal deviate; its far tails are cut: one wild night is not proof of a level."""
    return float(special.ndtri(min(max(special.stdtr(freedom, distance), 1e-9), 1 - 1e-9)))


def _step(
    worse: list[float], held: float, lag: float, first: int, night: int, error: float, sign: int = 1
) -> tuple[float, int]:
    """The largest statistic of a step up to `night`, from `first` on, and the night at which it came.

    A step shows whole in its first night's residual and by 1 - lag in those after it; `error` is the variance of the
    held level, in those of a night.
    """
    best, at = -math.inf, night
    rest, later = 0.0, 0
    for begin in range(night, first - 1, -1):
        new = sign * (worse[begin] - held - lag * (worse[begin - 1] - held))
        weights, squares = 1 + later * (1 - lag), 1 + later * (1 - lag) ** 2
        statistic = (new + (1 - lag) * rest) / math.sqrt(squares + weights * weights * error)
        if statistic > best:
            best, at = statistic, begin
        rest, later = rest + new, later + 1
    return best, at


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
