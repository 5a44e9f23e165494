"""Years of nights with a known truth, judged as scripts/nightly judges them. Prints the tables of docs/nightly.md.

The generator knows nothing of the method: logarithms of an autoregressive mood that all figures share in part, a step
or a slow loss on top. The thresholds were chosen on other seeds than SEED.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmpar.stats import control

NIGHTS = 365
MARGIN = 0.005
SEED = 4711


def year(rng: np.random.Generator, sd: float, rho: float, charts: int, shared: float = 0.5) -> np.ndarray:
    """Rates of `charts` figures over a year and 30 nights, mean 100. `shared`: part of the variance that is one
    mood."""
    many = NIGHTS + 30

    def moods(count: int) -> np.ndarray:
        shocks = rng.standard_normal((count, many)) * np.sqrt(1 - rho**2)
        shocks[:, 0] = rng.standard_normal(count)
        for night in range(1, many):
            shocks[:, night] += rho * shocks[:, night - 1]
        return shocks

    parts = np.sqrt(shared) * moods(1) + np.sqrt(1 - shared) * moods(charts)
    return 100 * np.exp(sd * parts)


def mailed(rates: np.ndarray, first: int = 0) -> list[int]:
    """Nights with a mail from night `first` on. As on each of those nights: the first ones know only the nights before
    them."""
    nights = set()
    for known in (*range(max(control.LEAST, first) + 1, control.PINNED), rates.shape[1]):
        rho = control.correlation(rates[:, :known])
        alarms = [control.chart(row[:known], False, MARGIN, len(rates), rho).alarms for row in rates]
        least = known - 1 if known < control.PINNED else control.PINNED - 1
        nights |= {night for night in control.mails(alarms) if max(least, first) <= night < known}
    return sorted(nights)


def informed(sd: float, rho: float, shapes: np.ndarray, loss: np.ndarray, first: int, last: int) -> float:
    """How often a likelihood-ratio chart of one figure speaks from night `first` to `last` that knows all but the
    night: level, noise, correlation and the shape of the loss.

    `shapes`: the loss that it looks for, by nights since it began; `loss`: what is lost, by night. Its threshold is
    that of two mails a year from an unchanged server.
    """
    many, length = 400, len(shapes)
    random = np.random.default_rng([SEED, 4])
    unchanged = -np.log(np.concatenate([year(random, sd, rho, 1) for _ in range(many)]) / 100)
    news = shapes - rho * np.concatenate([[0.0], shapes[:-1]])

    def largest(worse: np.ndarray, first: int, last: int) -> np.ndarray:
        fresh = worse[:, 1:] - rho * worse[:, :-1]
        best = np.full(len(worse), -np.inf)
        for night in range(first, last):
            back = fresh[:, max(0, night - length) : night]
            for nights in range(1, back.shape[1] + 1):
                shape = news[:nights]
                ratio = (back[:, -nights:] @ shape - shape @ shape / 2) / (sd**2 * (1 - rho**2))
                best = np.maximum(best, ratio)
        return best

    # With two mails a year on average, e^-2 of all years have none.
    threshold = np.quantile(largest(unchanged, 30, 395), np.exp(-2))
    return float(np.mean(largest(unchanged + loss, first, last) > threshold))


def unchanged(years: int) -> Iterator[str]:
    """How many mails unchanged servers cause."""
    yield "| nothing changed: mails a year | 1 figure | 15 figures |\n|---|---:|---:|"
    for sd, rho in ((0.01, 0.0), (0.02, 0.0), (0.02, 0.3), (0.02, 0.5), (0.05, 0.0), (0.05, 0.5), (0.01, 0.9)):
        counts = [
            sum(
                len(mailed(year(np.random.default_rng([SEED, 1, charts, number]), sd, rho, charts)))
                for number in range(years)
            )
            / years
            * NIGHTS
            / (NIGHTS + 27)
            for charts in (1, 15)
        ]
        yield f"| noise {sd:.0%}, correlation {rho:g} | " + " | ".join(f"{count:.1f}" for count in counts) + " |"


def step(rounds: int) -> Iterator[str]:
    """How soon a loss that comes at once is mailed, and how often."""
    yield (
        "| a step, after 60 nights: mailed within 5 nights (mails in the 90 nights after it) | 1 figure "
        "| 15 figures | 1 figure, all known but the night |\n|---|---:|---:|---:|"
    )
    for size, sd, rho in (
        (0.05, 0.01, 0.0),
        (0.05, 0.02, 0.0),
        (0.05, 0.02, 0.5),
        (0.10, 0.02, 0.0),
        (0.10, 0.05, 0.0),
    ):
        cells = []
        for charts in (1, 15):
            hits = mails = 0
            for number in range(rounds):
                rates = year(np.random.default_rng([SEED, 2, charts, number]), sd, rho, charts)[:, :150]
                rates[:, 60:] *= 1 - size
                nights = mailed(rates, first=60)
                hits += any(night < 65 for night in nights)
                mails += len(nights)
            cells.append(f"{hits / rounds:.0%} ({mails / rounds:.1f})")
        lost = -np.log1p(-size) * (np.arange(NIGHTS + 30) >= 60)
        cells.append(f"{informed(sd, rho, np.full(20, -np.log1p(-size)), lost, 60, 65):.0%}")
        yield f"| {size:.0%}, noise {sd:.0%}, correlation {rho:g} | " + " | ".join(cells) + " |"


def slow(rounds: int) -> Iterator[str]:
    """How much a loss of 10% a year has taken when it is first mailed."""
    yield (
        "| 10% lost over a year | lost when first mailed: median (90% of years), before 2% is lost; 1 figure "
        "| 15 figures |\n|---|---:|---:|"
    )
    fall = -np.log(0.9) * np.arange(NIGHTS + 30) / NIGHTS
    for sd, rho in ((0.005, 0.0), (0.01, 0.0), (0.02, 0.0), (0.01, 0.5)):
        cells = []
        for charts in (1, 15):
            lost = []
            for number in range(rounds):
                rates = year(np.random.default_rng([SEED, 3, charts, number]), sd, rho, charts)
                nights = mailed(rates * np.exp(-fall))
                lost.append(-np.expm1(-fall[nights[0]]) if nights else 1.0)
            early = np.mean(np.array(lost) <= 0.02)
            cells.append(f"{np.median(lost):.1%} ({np.quantile(lost, 0.9):.1%}), {early:.0%}")
        yield f"| noise {sd:.1%}, correlation {rho:g} | " + " | ".join(cells) + " |"
