"""Figures as people read them: three significant digits, intervals in brackets, units spelled out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llmpar.series import Figure

DASH = "–"
ABSENT = "not measured"


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without an exponent; whole numbers in full; a dash for what was not measured."""
    if value is None:
        return DASH
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, places)}f}"


def figure(one: Figure, digits: int = 3) -> str:
    """`17.8 (17.2 to 18.4)`; the value alone without an interval; `needs 100` where there are too few values."""
    if one.value is None:
        return f"needs {one.needed}" if one.needed else DASH
    if one.low is None or one.high is None:
        return number(one.value, digits)
    return f"{number(one.value, digits)} ({number(one.low, digits)} to {number(one.high, digits)})"


def sessions(count: int) -> str:
    return "1 session" if count == 1 else f"{count} sessions"


def ratio(value: float | None, low: float | None, high: float | None) -> str:
    """`0.94 (0.92 to 0.96)`: two decimals, three near 1 where two would hide the difference."""
    if value is None:
        return DASH
    places = 3 if abs(value - 1) < 0.02 else 2
    text = f"{value:.{places}f}"
    return text if low is None or high is None else f"{text} ({low:.{places}f} to {high:.{places}f})"


def size(count: float | None) -> str:
    """Bytes in GiB or MiB."""
    if count is None:
        return DASH
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def claim(record: dict[str, Any]) -> str:
    """The effect of a claim record in one line: one comparison as its ratio, several as how many went which way."""
    compared = record["comparisons"]
    if not compared:
        source = {"gpu": "from a GPU ", "cpu": "from a CPU "}.get(record.get("device") or "", "")
        return f"no results {source}to compare; make study-{record['sweep']} measures them"
    if len(compared) == 1:
        return f"{comparison(compared[0], record['metric'])}; {where(compared)}"
    counts = ", ".join(f"{count} {name}" for name, count in record["counts"].items() if count)
    values = [one["ratio"] for one in compared if one["ratio"] is not None]
    spread = f"; {metric(record['metric'])} {ratio(min(values), None, None)} to {ratio(max(values), None, None)} times" if values else ""
    shared = "".join(f"; {reason}" for reason in compared[0]["reasons"] if all(reason in one["reasons"] for one in compared))
    return f"{len(compared)} comparisons: {counts}{spread}{shared}; {where(compared)}"


def where(compared: Sequence[dict[str, Any]]) -> str:
    """`on NVIDIA H100`, `on CPU of box`: what the sides of comparisons ran on."""
    return "on " + " and ".join(dict.fromkeys(one[side]["device"] for one in compared for side in ("a", "b")))


def comparison(one: dict[str, Any], name: str) -> str:
    """One comparison of a claim: ratio, interval, sessions, and why it decides nothing."""
    differ = {key: value for key, value in one["b"]["settings"].items() if one["a"]["settings"].get(key) != value}
    text = f"{metric(name)} {ratio(one['ratio'], one['low'], one['high'])} times those of {settings(differ or one['b']['settings'])}"
    if one["low"] is not None:
        text += f", {sessions(min(one['a']['sessions'], one['b']['sessions']))} each"
    if one["reasons"]:
        text += "; " + "; ".join(one["reasons"])
    return text


def metric(name: str) -> str:
    """A metric's name in words: the study's own measure, else as records spell it."""
    return {"wall_s": "wall seconds", "output_tokens_per_s": "output tokens per second"}.get(name, name)


def settings(values: dict[str, Any]) -> str:
    """`clients 128, launcher parallel`: settings of one side; an unset one is the default."""
    return ", ".join(f"{key.replace('_', ' ')} {setting(value)}" for key, value in values.items())


def setting(value: Any) -> str:
    """One setting's value: `default` where it is unset, `on` and `off`, no `.0`."""
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
