"""Whole sweeps of known truth through the rules of verdicts and picks: noise that is borrowed, a best that is
selected."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from llmpar.stats import best_of, effects
from llmpar.verdicts import knee, verdict
from llmpar.verdicts.noise import Noise

CELLS = 20
# Of the inverse chi-squared from which the cells' true variances are drawn: 1.2 and 7.6 are those of wall seconds and
# steady tokens/s in docs/results; with infinitely many all cells are equally noisy.
FREEDOMS = (1.2, 3.0, 7.6, math.inf)


@dataclass
class Cell:
    summaries: list[dict[str, Any]]


def _cell(random: np.random.Generator, engine: str, clients: int, level: float, noise: float, sessions: int) -> Cell:
    values = np.exp(np.clip(level + noise * random.standard_normal(sessions), -300, 300))
    return Cell(
        [
            {
                "wall_s": {"value": float(value)},
                "session": f"{engine}-{number}",
                "host": {"hostname": "h"},
                "cell": {"sweep": "s", "server": {"engine": engine}, "load": {"clients": clients}},
            }
            for number, value in enumerate(values)
        ]
    )


def told(
    trials: int,
    sessions: int,
    difference: float,
    noise: float,
    freedom: float,
    noisier: float = 1.0,
    method: str = "auto",
    seed: int = 1,
) -> tuple[float, float]:
    """Two engines in CELLS cells: how often any cell is called different, and the share of cells that are.

    `noisier`: the second engine's noise over the first's.
    """
    random = np.random.default_rng([seed, sessions, int(1000 * difference), int(10 * min(freedom, 99))])
    any_cell, share = 0, 0.0
    for _ in range(trials):
        variances = np.ones(CELLS) if math.isinf(freedom) else freedom / random.chisquare(freedom, CELLS)
        spread = noise * np.sqrt(variances)
        a = [_cell(random, "a", n, math.log1p(difference), spread[n], sessions) for n in range(CELLS)]
        b = [_cell(random, "b", n, 0.0, noisier * spread[n], sessions) for n in range(CELLS)]
        known = Noise([*a, *b])
        found = [known.effect(left, right, "wall_s", method) for left, right in zip(a, b, strict=True)]
        effects.correct(found, "holm")
        different = [verdict.decide(effect, False) in ("faster", "slower") for effect in found if effect]
        any_cell += any(different)
        share += sum(different) / CELLS
    return any_cell / trials, share / trials


def same(trials: int, sessions: int, difference: float, noise: float, seed: int = 1) -> tuple[float, float]:
    """How often any of CELLS cells that differ by `difference`, beyond the margin, is called the same: by Holm, and
    uncorrected."""
    random = np.random.default_rng([seed, sessions, 77])
    wrong = [0, 0]
    for _ in range(trials):
        for place, correction in enumerate(("holm", "none")):
            a = [_cell(random, "a", n, math.log1p(difference), noise, sessions) for n in range(CELLS)]
            b = [_cell(random, "b", n, 0.0, noise, sessions) for n in range(CELLS)]
            known = Noise([*a, *b])
            found = [known.effect(left, right, "wall_s") for left, right in zip(a, b, strict=True)]
            effects.correct(found, correction)
            wrong[place] += any(verdict.decide(effect, False) == "same" for effect in found if effect)
    return wrong[0] / trials, wrong[1] / trials


def selected(trials: int, sessions: int, noise: float = 0.02, seed: int = 1) -> tuple[float, float]:
    """CELLS equal cells: how often some cell is put surely below the best, by plain intervals against the first and by
    best_of."""
    random = np.random.default_rng([seed, sessions, 5])
    plain = right = 0
    for _ in range(trials):
        values = np.exp(noise * random.standard_normal((CELLS, sessions)))
        rates = [{f"{n}-{s}": float(value) for s, value in enumerate(row)} for n, row in enumerate(values)]
        order = sorted(range(CELLS), key=lambda n: -float(np.log(values[n]).mean()))
        plain += any(
            (effect := effects.effect(rates[n], rates[order[0]])) and (effect.high or 2) < 1 for n in order[1:]
        )
        ends = best_of.of_best(CELLS, partial(_compare, rates))
        right += any(interval is not None and interval[1] < 1 for interval in ends)
    return plain / trials, right / trials


def _compare(rates: list[dict[str, float]], i: int, j: int, level: float) -> effects.Effect | None:
    return effects.effect(rates[i], rates[j], confidence=level)


KNEE_CLIENTS = (8, 16, 32, 48, 64, 96, 128, 192, 256)


def knees(trials: int, sessions: int, noise: float, half: float, seed: int = 1) -> tuple[float, float, float]:
    """Rates of n clients that saturate as n / (n + half): how often the value is the true knee, how often the true knee
    is among the loads that are said, and how many those are in the mean."""
    random = np.random.default_rng([seed, sessions, round(1000 * noise), round(half)])
    rates = np.array([clients / (clients + half) for clients in KNEE_CLIENTS])
    true = int(np.argmax(rates >= knee.ENOUGH * rates.max()))
    exact = held = loads = 0
    for _ in range(trials):
        values = rates[:, None] * np.exp(noise * random.standard_normal((len(rates), sessions)))
        means = values.mean(axis=1)
        best = int(np.argmax(means))
        exact += int(np.argmax(means >= knee.ENOUGH * means[best])) == true
        by_session = [
            {f"{at}-{number}": float(value) for number, value in enumerate(row)} for at, row in enumerate(values)
        ]
        found = knee.span(by_session, best)
        assert found is not None
        held += found[0] <= true <= found[1]
        loads += found[1] - found[0] + 1
    return exact / trials, held / trials, loads / trials


def false_alarms(trials: int) -> Iterator[str]:
    """Any false alarm over equal cells, 3% noise; the cells' variances have so many degrees of freedom."""
    yield "| sessions | second side noisier | 1.2 | 3 | 7.6 | all equal |\n|---:|---:|---:|---:|---:|---:|"
    for sessions in (2, 3, 5):
        for noisier in (1.0, 2.0, 4.0):
            shares = [told(trials, sessions, 0.0, 0.03, freedom, noisier)[0] for freedom in FREEDOMS]
            side = "no" if noisier == 1 else f"{noisier:g} times"
            yield f"| {sessions} | {side} | " + " | ".join(f"{share:.1%}" for share in shares) + " |"


def power(trials: int) -> Iterator[str]:
    """Share of cells with a true difference that are found, 2% noise: Welch alone, and with borrowed noise."""
    yield (
        "| sessions | difference | Welch 1.2 | 7.6 | equal | borrowed 1.2 | 7.6 | equal "
        "|\n|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for sessions, difference in ((2, 0.1), (3, 0.05), (3, 0.1), (5, 0.05)):
        shares = [
            told(trials, sessions, difference, 0.02, freedom, method=method)[1]
            for method in ("welch", "auto")
            for freedom in (1.2, 7.6, math.inf)
        ]
        yield f"| {sessions} | {difference:.0%} | " + " | ".join(f"{share:.0%}" for share in shares) + " |"


def called_same(trials: int) -> Iterator[str]:
    """Any cell called the same though all differ by 4%, 1.5% noise."""
    yield "| sessions | corrected by Holm | not corrected |\n|---:|---:|---:|"
    for sessions in (3, 5):
        yield f"| {sessions} | " + " | ".join(f"{share:.1%}" for share in same(trials, sessions, 0.04, 0.015)) + " |"


def best(trials: int) -> Iterator[str]:
    """Some of the equal cells put surely below the best, 2% noise."""
    yield "| sessions | plain interval against the first | rate over the best |\n|---:|---:|---:|"
    for sessions in (3, 5):
        yield f"| {sessions} | " + " | ".join(f"{share:.1%}" for share in selected(trials, sessions)) + " |"


def knee_table(trials: int) -> Iterator[str]:
    """The knee of curves that saturate early, in the middle and late."""
    yield "| sessions | noise | exact | within the loads said | loads said |\n|---:|---:|---:|---:|---:|"
    for sessions in (2, 3, 5):
        for noise in (0.01, 0.02):
            shares = np.mean([knees(trials, sessions, noise, half) for half in (4.0, 12.0, 30.0)], axis=0)
            yield f"| {sessions} | {noise:.0%} | {shares[0]:.0%} | {shares[1]:.1%} | {shares[2]:.1f} |"
