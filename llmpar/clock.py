"""Instants and durations, as records hold them.

Instants are epoch seconds (UTC) as floats with six decimals, durations seconds. A float64 holds epoch seconds of
this century to about 0.24 microseconds, so six decimals survive.
"""

import time


def now() -> float:
    """Epoch seconds now, six decimals."""
    return instant(time.time_ns())


def instant(nanoseconds: int) -> float:
    """Epoch seconds with six decimals from epoch nanoseconds."""
    return round(nanoseconds / 1e9, 6)


def duration(nanoseconds: int) -> float:
    """Seconds with six decimals from a difference in nanoseconds."""
    return round(nanoseconds / 1e9, 6)
