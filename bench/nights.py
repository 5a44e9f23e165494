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


def speaks(rates: np.ndarray) -> list[int]:
    """Nights with a mail: any figure's chart raises an alarm. As on each of those nights: the first ones know only the
    nights before them."""
    nights = set()
    for known in (*range(control.LEAST + 1, control.PINNED), rates.shape[1]):
        if known > rates.shape[1]:
            break
        rho = control.correlation(rates[:, :known])
        for row in rates[:, :known]:
            alarms = control.chart(row, False, MARGIN, len(rates), rho).alarms
            least = known - 1 if known < control.PINNED else control.PINNED - 1
            nights |= {alarm.index for alarm in alarms if alarm.index >= least}
    return sorted(nights)


def unchanged(years: int) -> Iterator[str]:
    """How many mails unchanged servers cause."""
    yield "| nothing changed: mails a year | 1 figure | 15 figures |\n|---|---:|---:|"
    for sd, rho in ((0.01, 0.0), (0.02, 0.0), (0.02, 0.3), (0.02, 0.5), (0.05, 0.0), (0.05, 0.5), (0.01, 0.9)):
        counts = [
            sum(
                len(speaks(year(np.random.default_rng([SEED, 1, charts, number]), sd, rho, charts)))
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
        "| 15 figures |\n|---|---:|---:|"
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
                nights = [night for night in speaks(rates) if night >= 60]
                hits += any(night < 65 for night in nights)
                mails += len(nights)
            cells.append(f"{hits / rounds:.0%} ({mails / rounds:.1f})")
        yield f"| {size:.0%}, noise {sd:.0%}, correlation {rho:g} | " + " | ".join(cells) + " |"


def slow(rounds: int) -> Iterator[str]:
    """How much a loss of 10% a year has taken when it is first mailed."""
    yield (
        "| 10% lost over a year, one figure | lost when first mailed, median (90% of years) | before 2% is lost |"
        "\n|---|---:|---:|"
    )
    for sd, rho in ((0.005, 0.0), (0.01, 0.0), (0.02, 0.0), (0.01, 0.5)):
        lost = []
        for number in range(rounds):
            rates = year(np.random.default_rng([SEED, 3, number]), sd, rho, 1)
            fall = 0.9 ** (np.arange(rates.shape[1]) / NIGHTS)
            nights = speaks(rates * fall)
            lost.append(1 - fall[nights[0]] if nights else 1.0)
        yield (
            f"| noise {sd:.1%}, correlation {rho:g} | {np.median(lost):.1%} ({np.quantile(lost, 0.9):.1%}) "
            f"| {np.mean(np.array(lost) <= 0.02):.0%} |"
        )
