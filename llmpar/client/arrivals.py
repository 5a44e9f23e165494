"""When the requests of an open load are due: gaps of a renewal process, a ramp, or somebody's trace.

An open load does not wait for answers. Its times are drawn beforehand, so that a server that stalls cannot slow down
the questions put to it (coordinated omission).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable
from datetime import UTC, datetime

PROCESSES = ("constant", "poisson", "gamma", "ramp")


class BadTrace(ValueError):
    """A trace that cannot be read; says which line and why."""


def offsets(
    process: str, count: int, rate: float, seed: int = 0, shape: float = 1.0, to: float | None = None
) -> list[float]:
    """Seconds from the start at which `count` requests are due, in order.

    `constant`: every 1/rate seconds, the first at once. `poisson`: independent exponential gaps, the first before the
    first request. `gamma`: gaps of a gamma distribution with the same mean and the given shape, whose coefficient of
    variation is shape^-1/2: 1 is Poisson, less is burstier, more is more even. `ramp`: the rate moves linearly from
    `rate` to `to` while the requests last; request k is due when the integral of the rate reaches k. Raises ValueError
    for a process of another name.
    """
    if process == "constant":
        return [k / rate for k in range(count)]
    if process == "ramp":
        return _ramp(count, rate, rate if to is None else to)
    if process not in PROCESSES:
        raise ValueError(f"'{process}' is none of {', '.join(PROCESSES)}")
    # The generator's uniform numbers are the same in every Python, and so are the times.
    draw = random.Random(seed)
    at, found = 0.0, []
    for _ in range(count):
        at += (
            -math.log1p(-draw.random()) / rate if process == "poisson" else draw.gammavariate(shape, 1 / (shape * rate))
        )
        found.append(at)
    return found


def _ramp(count: int, rate: float, to: float) -> list[float]:
    """With r(t) = a + (b - a) t / T the integral over T is (a + b) T / 2 = count; t solves a t + (b - a) t² / 2T =
    k."""
    length = 2 * count / (rate + to)
    # The root that stays exact where the slope goes to 0 or the rate falls.
    return [2 * k / (rate + math.sqrt(rate * rate + 2 * (to - rate) / length * k)) for k in range(count)]


_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def trace(lines: Iterable[str], name: str) -> list[float]:
    """Offsets from the earliest time in a trace, in order.

    The first column of each line (columns end at a comma, semicolon, tab) is a time: seconds, or a date and time as ISO
    8601 has it (UTC where it names no zone). A first line without a time is a header. A line may also be a JSON object
    with a `timestamp` in milliseconds, as Mooncake's traces have it, or with `at_s`, as the manifest of a prompt
    set made of a trace. Raises BadTrace.
    """
    instants: list[float] = []
    for number, line in enumerate(lines, 1):
        if line.lstrip("\ufeff \t").startswith("{"):
            instants.append(_timestamp(line, name, number))
            continue
        text = re.split(r"[,;\t]", line.removeprefix("\ufeff").strip(), maxsplit=1)[0].strip().strip('"')
        if not text:
            continue
        try:
            at = _date(text) if _DAY.match(text) else float(text)
        except ValueError:
            if number == 1:
                continue
            at = math.nan
        if not math.isfinite(at):
            raise BadTrace(f"cannot read '{name}' line {number}: '{text[:40]}' is neither a time in seconds nor a date")
        instants.append(at)
    instants.sort()
    return [at - instants[0] for at in instants]


def _timestamp(line: str, name: str, number: int) -> float:
    """Seconds of a JSON object's `timestamp`."""
    import json

    try:
        value = json.loads(line.strip("\ufeff \t\r\n"))
        at = value["at_s"] * 1000 if "at_s" in value else value["timestamp"]
    except (ValueError, KeyError, TypeError, RecursionError):
        at = None
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
        raise BadTrace(f"cannot read '{name}' line {number}: no JSON object with a timestamp in milliseconds")
    return at / 1000


def _date(text: str) -> float:
    # Seven decimals, as in Azure's traces, are one more than Python reads.
    found = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def scaled(times: list[float], rate: float) -> list[float]:
    """The same pattern at a mean rate of `rate` requests per second: gaps over their whole length."""
    if len(times) < 2 or times[-1] <= 0:
        return times
    # Divided first: the factor itself has no number where all times are next to nothing.
    return [at / times[-1] * ((len(times) - 1) / rate) for at in times]
