"""Years of nights with a known truth, judged as scripts/nightly judges them. Prints the tables of docs/nightly.md.

The generator knows nothing of the method: logarithms of an autoregressive mood that all figures share in part, a step
or a slow loss on top.   nights.py [YEARS]
"""

from __future__ import annotations

import sys

import numpy as np

from llmpar.stats import control

NIGHTS = 365
MARGIN = 0.005


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
    """Nights with a mail: any figure's chart raises an alarm."""
    rho = control.correlation(rates)
    nights = {alarm.index for row in rates for alarm in control.alarms(row, False, MARGIN, len(rates), rho)}
    return sorted(nights)


def unchanged(years: int) -> None:
    print("| nothing changed: mails a year | 1 figure | 15 figures |\n|---|---:|---:|")
    for sd, rho in ((0.01, 0.0), (0.02, 0.0), (0.02, 0.5), (0.05, 0.0), (0.05, 0.5), (0.01, 0.9)):
        rng = np.random.default_rng(1)
        counts = [
            sum(len(speaks(year(rng, sd, rho, charts))) for _ in range(number)) / number * NIGHTS / (NIGHTS + 27)
            for charts, number in ((1, years), (15, max(2, years // 5)))
        ]
        print(f"| noise {sd:.0%}, correlation {rho:g} | " + " | ".join(f"{count:.1f}" for count in counts) + " |")


def step(years: int) -> None:
    print("\n| a step, after 60 nights: spoken of within 5 nights | 1 figure | 15 figures |\n|---|---:|---:|")
    for size, sd, rho in (
        (0.05, 0.01, 0.0),
        (0.05, 0.02, 0.0),
        (0.05, 0.02, 0.5),
        (0.10, 0.02, 0.0),
        (0.10, 0.05, 0.0),
    ):
        rng = np.random.default_rng(2)
        shares = []
        for charts, number in ((1, 2 * years), (15, max(10, years // 2))):
            hits = 0
            for _ in range(number):
                rates = year(rng, sd, rho, charts)[:, :66]
                rates[:, 60:] *= 1 - size
                hits += any(60 <= night < 65 for night in speaks(rates[:, :65]))
            shares.append(hits / number)
        print(
            f"| {size:.0%}, noise {sd:.0%}, correlation {rho:g} | "
            + " | ".join(f"{share:.0%}" for share in shares)
            + " |"
        )


def slow(years: int) -> None:
    print("\n| 10% lost over a year | lost when first spoken of, median (90% of years) | never |\n|---|---:|---:|")
    for sd in (0.005, 0.01, 0.02):
        rng = np.random.default_rng(3)
        lost, never = [], 0
        for _ in range(years):
            rates = year(rng, sd, 0.0, 1)
            fall = 0.9 ** (np.arange(rates.shape[1]) / NIGHTS)
            nights = speaks(rates * fall)
            lost.append(1 - fall[nights[0]] if nights else 1.0)
            never += not nights
        print(f"| noise {sd:.1%} | {np.median(lost):.1%} ({np.quantile(lost, 0.9):.1%}) | {never} of {years} |")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    unchanged(count)
    step(count)
    slow(count)
