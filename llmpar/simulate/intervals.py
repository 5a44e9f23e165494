"""How far measurements lie from predictions: factors on a prediction, checked on the rows of study/held-out.tsv.

The rate's intervals were set before the simulator existed (a review of other simulators and of the cards' kernel
tables); those of TPOT are their mirror image, and TTFT is an order of magnitude only. `make hold-out` fails where one
of them holds less than 90% of the held-out rows. Real hosts and engines are slower than the card allows, so they are
one-sided.
"""

from __future__ import annotations

# (kind of figure, basis) -> measured over predicted, least and most.
INTERVALS: dict[tuple[str, str], tuple[float, float]] = {
    ("rate", "kernel table"): (0.65, 1.15),
    ("rate", "datasheet"): (0.60, 1.30),
    ("time", "kernel table"): (0.87, 1.54),
    ("time", "datasheet"): (0.77, 1.67),
    ("ttft", "kernel table"): (0.1, 10.0),
    ("ttft", "datasheet"): (0.1, 10.0),
    # With one measured point of the same host, card and model: `python bench/hold_out.py --given`.
    ("rate", "given"): (0.80, 1.25),
    ("time", "given"): (0.80, 1.25),
    ("ttft", "given"): (0.1, 10.0),
}


# Held-out figures, and the share of them within these intervals, as `make hold-out` counts them.
HELD_OUT = (117, 0.98)


def kind_of(figure: str) -> str:
    """rate, time (TPOT, whole requests, wall seconds) or ttft."""
    if figure.endswith("_per_s"):
        return "rate"
    return "ttft" if "ttft" in figure else "time"


def interval(figure: str, value: float, basis: str) -> tuple[float, float]:
    """Lowest and highest measured value to expect where `value` is predicted."""
    low, high = INTERVALS[kind_of(figure), "kernel table" if basis == "microbenchmark" else basis]
    return value * low, value * high
