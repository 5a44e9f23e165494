"""Figures as people read them: three significant digits, intervals in brackets, units spelled out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llmpar.results.rows import Figure, Row
from llmpar.wording import shortened as shortened

DASH = "–"


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without an exponent; whole numbers in full; a dash for what was not measured."""
    if value is None:
        return DASH
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = abs(float(f"{value:.{digits - 1}e}"))  # 99.96 has the digits of 100
    places = digits - 1 - math.floor(math.log10(rounded))
    return f"{value:.{max(0, places)}f}"


def figure(figure: Figure, digits: int = 3) -> str:
    """`17.8 (17.2 to 18.4)`; the value alone without an interval, with the requests needed for one where they are too
    few."""
    if figure.value is None:
        return f"needs {figure.needed}" if figure.needed else DASH
    if figure.low is None or figure.high is None:
        return number(figure.value, digits) + (f" (interval needs {figure.needed} requests)" if figure.needed else "")
    return f"{number(figure.value, digits)} ({number(figure.low, digits)} to {number(figure.high, digits)})"


def sessions(count: int) -> str:
    return "1 server session" if count == 1 else f"{count} server sessions"


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


def startup(server: dict[str, Any] | None) -> str:
    """`2.2 s (spawn 0.5, weights 1.7, first token 0.1)`: how long a server took to start, and its phases; empty where
    it is not known."""
    ready = (server or {}).get("ready_s")
    if ready is None:
        return ""
    phases = ((server or {}).get("startup") or {}).items()
    parts = [f"{name.removesuffix('_s').replace('_', ' ')} {value:.1f}" for name, value in phases if value is not None]
    return f"{number(ready)} s" + (f" ({', '.join(parts)})" if parts else "")


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


@dataclass(frozen=True)
class Name:
    """What a figure is called: in a sentence or column, on the axis of a chart; its unit, empty for a plain count."""

    title: str
    axis: str
    unit: str


# The only table of what figures are called; docs/metrics.md holds it too, rewritten by `make golden`.
NAMES = {
    "wall_s": Name("wall time", "wall seconds", "s"),
    "output_tokens_per_s": Name("output rate", "output tokens per second", "output tokens/s"),
    "total_tokens_per_s": Name("token rate", "tokens per second, prompt and output", "tokens/s"),
    "requests_per_s": Name("request rate", "requests per second", "requests/s"),
    "goodput_per_s": Name("goodput", "goodput, requests per second", "requests/s"),
    "joules_per_token": Name("energy per output token", "energy per output token", "J"),
    "memory_bytes": Name("GPU memory", "peak GPU memory", "bytes"),
    "concurrency": Name("requests in flight", "requests in flight, mean", ""),
    "acceptance_length": Name("acceptance length", "acceptance length, observed", "tokens/step"),
    "goodput_ratio": Name("goodput share", "share of requests within the SLO", "%"),
}
# Of latencies, by stem: `ttft_p95_s` is the p95 of `ttft`.
LATENCY_NAMES = {
    "ttft": Name("TTFT", "time to first token", "s"),
    "tpot": Name("TPOT", "time per output token", "s"),
    "itl": Name("ITL", "gap between tokens", "s"),
    "e2e": Name("E2E latency", "whole request", "s"),
    "event_latency": Name("inter-chunk latency", "gap between events", "s"),
    "effective_ttft": Name("effective TTFT", "effective time to first token", "s"),
    "effective_e2e": Name("effective E2E latency", "effective whole request", "s"),
}


def named(figure: str) -> Name:
    """What a figure is called; a dotted path by itself, without a unit."""
    if figure in NAMES:
        return NAMES[figure]
    if figure.endswith("_steady") and figure.removesuffix("_steady") in NAMES:
        whole = NAMES[figure.removesuffix("_steady")]
        return Name(f"steady {whole.title}", f"{whole.axis}, steady window", whole.unit)
    if figure.endswith("_s_run"):
        part = named(figure.removesuffix("_run"))
        return Name(f"{part.title} of the whole run", f"{part.axis}, whole run", part.unit)
    stem, _, statistic = figure.removesuffix("_s").rpartition("_")
    if stem in LATENCY_NAMES:
        latency = LATENCY_NAMES[stem]
        return Name(f"{latency.title} {statistic}", f"{latency.axis}, {statistic}", latency.unit)
    return Name(figure, figure, "")


def title(figure: str) -> str:
    """A figure as a person names it: `TTFT p95`."""
    return named(figure).title


def quantity(figure: str, value: float | None) -> str:
    """A figure's value with its unit: `346 ms`, `17.8 s`, `2570 output tokens/s`, `20.1 GiB`."""
    unit = named(figure).unit
    if value is None or not unit:
        return number(value)
    if unit == "bytes":
        return size(value)
    if unit == "s":
        return duration(value)
    if unit == "%":
        return f"{percent(value)}%"
    return f"{number(value)} {unit}"


def slo(objectives: dict[str, float]) -> str:
    """The objectives of goodput in words: `TTFT ≤ 500 ms, TPOT ≤ 50 ms`."""
    stems = {name.removesuffix("_s"): most for name, most in objectives.items()}
    return ", ".join(f"{LATENCY_NAMES[stem].title} ≤ {goal(f'{stem}_p95_s', most)}" for stem, most in stems.items())


def goal(figure: str, most: float) -> str:
    """An objective as it was given: `500 ms`, `1.2 s`, `20 GiB`."""
    if named(figure).unit == "s":
        return f"{most * 1000:.6g} ms" if most < 1 else f"{most:.6g} s"
    return quantity(figure, most)


def measured(figure: str, value: Figure) -> str:
    """`346 ms (330 to 360)`: a figure with its unit and its interval."""
    if value.value is None:
        return f"needs {value.needed} requests" if value.needed else DASH
    if value.low is None or value.high is None:
        return quantity(figure, value.value)
    unit = named(figure).unit
    factor = 100 if unit == "%" else 1000 if unit == "s" and abs(value.value) < 1 else 1
    return f"{quantity(figure, value.value)} ({number(value.low * factor)} to {number(value.high * factor)})"


def duration(seconds: float) -> str:
    """Seconds; milliseconds below one."""
    return f"{number(seconds * 1000)} ms" if abs(seconds) < 1 else f"{number(seconds)} s"


def setting_phrase(name: str, value: Any) -> str:
    """A setting as part of a sentence: `128 clients`."""
    return f"{value} client{'' if value == 1 else 's'}" if name == "clients" else words(name, value)


def percent(share: float) -> str:
    """A share in per cent, whole from 10 on."""
    return f"{share * 100:.0f}" if share >= 0.0995 else f"{share * 100:.1f}".removesuffix(".0")


def signed(share: float) -> str:
    """The same with its sign."""
    return ("+" if share >= 0 else "−") + percent(abs(share))


def names(value: Any) -> list[str]:
    """The names in a field that holds one, or a list where the records have several; none of null."""
    return [str(each) for each in value] if isinstance(value, list) else [str(value)] if value else []


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", "\u202f")


def utc(instant: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(instant))


def label(row: Row, without: tuple[str, ...] = ("clients",)) -> str:
    """A row's distinguishing settings in words, `clients` left out unless it is all there is."""
    parts = ["simulated"] if row.simulated else []
    for key, value in row.varies.items():
        value = row.settings.get(key, value)
        # Engines have settings of their own; that the others leave them unset is no news.
        if key in without or value is None and "engine" in row.varies:
            continue
        # Without drafts there is no acceptance, forced or not.
        if key == "acceptance_length" and not row.settings.get("speculate"):
            continue
        parts.append(words(key, value))
    # A forced length is in every label: such a figure is not one of real text.
    forced = None if "acceptance_length" in {*row.varies, *without} else row.settings.get("acceptance_length")
    if forced is not None:
        parts.append(words("acceptance_length", forced))
    return ", ".join(parts)


def name(row: Row, sweep: bool = False) -> str:
    """A row by its settings, else by its cell; its sweep before it where that is asked for."""
    own = label(row, ()) or row.cell
    return f"{row.sweep}: {own}" if sweep and row.sweep else own


def by_label(rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """The summaries of rows that differ only in their clients, by their label."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(label(row), []).extend(row.summaries)
    return groups


def words(key: str, value: Any) -> str:
    """A setting as a person says it: `vllm`, `speculate 2`, `kv 8 GiB`."""
    if key == "acceptance_length":
        return "acceptance not forced" if value is None else f"acceptance {value:g} forced"
    if value is None:
        return f"{key.replace('_', ' ')} default"
    if key in ("engine", "launcher", "model", "host"):
        return str(value).rsplit("/", 1)[-1]
    if isinstance(value, bool):
        return f"{key.replace('_', ' ')} {'on' if value else 'off'}"
    return f"{key.replace('_', ' ')} {value}"
