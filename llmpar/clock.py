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


def parse(text: str) -> int:
    """Epoch nanoseconds of an instant as options take it: epoch seconds, or `+SECONDS` from now. Raises ValueError."""
    try:
        seconds = float(text.removeprefix("+"))
        if not 0 <= seconds < 1e11:
            raise ValueError
    except ValueError:
        raise ValueError(f"'{text}' is not an instant") from None
    return (time.time_ns() if text.startswith("+") else 0) + round(seconds * 1e9)


def duration(nanoseconds: int) -> float:
    """Seconds with six decimals from a difference in nanoseconds."""
    return round(nanoseconds / 1e9, 6)
