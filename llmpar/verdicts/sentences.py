"""Verdicts as sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llmpar.results import words
from llmpar.results.words import percent, ratio, sessions, setting_phrase, settings, signed, title

# Reasons that a sentence of two sides that cannot be compared names.
NAMED = (
    "prompts",
    "sampling",
    "model",
    "versions",
    "host",
    "failures",
    "outputs",
    "client_limited",
    "latency_over",
    "missing",
    "refused",
)


def sentence(record: dict[str, Any]) -> str:
    """The verdict for people, with both values.

    "vllm is 12% faster than tgi at 128 clients: 112 against 100 output tokens/s (9 to 15%, 3 server sessions each)";
    times, energy and memory speak in their own direction: "vllm is slower than tgi in TTFT p50 at 2 clients: 346 ms
    against 182 ms, 1.9 times as long (1.8 to 2, 3 server sessions each)".
    """
    a, b, effect, figure = record["a"], record["b"], record["effect"], record["figure"]
    at = " at " + ", ".join(setting_phrase(name, value) for name, value in record["at"].items()) if record["at"] else ""
    main = figure in ("wall_s", "output_tokens_per_s", "output_tokens_per_s_steady")
    of = "" if main else f" in {title(figure)}"
    if record["verdict"] == "not comparable":
        first = [each["message"] for each in record["reasons"] if each["code"] in NAMED]
        return f"{a['label']} and {b['label']} are not comparable{of}{at}: {'; '.join(dict.fromkeys(first))}"
    if effect is None:
        why = "; ".join(each["message"] for each in record["reasons"][:2])
        return f"cannot tell {a['label']} from {b['label']}{of}{at}: {why}"
    seen = values(figure, a["value"], b["value"])
    measured = counts(a["sessions"], b["sessions"])
    if record["verdict"] in ("faster", "slower"):
        size, interval = change(record)
        if record["better"] == "higher":
            lead = f"{a['label']} is {size} {record['verdict']} than {b['label']}{of}{at}: {seen}"
        else:
            lead = f"{a['label']} is {_word(record)} than {b['label']}{of}{at}: {seen}, {size}"
        return f"{lead} ({interval}, {measured})"
    if record["verdict"] == "same":
        within = f"within {percent(record['margin_ratio'])}% ({_interval(effect)}, {measured})"
        return f"{a['label']} and {b['label']} are the same{of}{at}: {seen}, {within}"
    why = next((each["message"] for each in record["reasons"]), "")
    size, interval = change(record)
    interval = f", {interval}" if interval else ""
    more = ""
    if record["needed"]:
        more = f"; {sessions(record['needed']['sessions'])} each would decide it (make decide stops as soon as it can)"
    return f"cannot tell {a['label']} from {b['label']}{of}{at} ({seen}, {size}{interval}, {measured}): {why}{more}"


def together(verdicts: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each verdict; one for all of two sides that want requests for the same figure."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for number, record in enumerate(verdicts):
        codes = {reason.get("code") for reason in record.get("reasons") or []}
        alike = record.get("effect") is None and "refused" in codes and record.get("verdict") == "cannot tell"
        key = (record["a"]["label"], record["b"]["label"], record["figure"]) if alike else number
        groups.setdefault(key, []).append(record)
    return [_refused(members) if len(members) > 1 else _own(members[0]) for members in groups.values()]


def _own(record: dict[str, Any]) -> str:
    return str(record.get("sentence") or record.get("verdict") or "")


def _refused(records: Sequence[dict[str, Any]]) -> str:
    first = records[0]
    if all(set(record["at"]) == {"clients"} for record in records):
        counts = [words.setting(record["at"]["clients"]) for record in records]
        at = f"{', '.join(counts[:-1])} and {counts[-1]} clients"
    else:
        phrases = (", ".join(setting_phrase(*each) for each in record["at"].items()) for record in records)
        at = "; ".join(phrase or "the same settings" for phrase in phrases)
    messages = " ".join(reason["message"] for record in records for reason in record["reasons"])
    needed = sorted(int(count) for count in re.findall(r"needs (\d+) requests", messages))
    why = "a server session has too few requests for it" if needed else "some server sessions do not have it"
    ends = "" if not needed else f" (needs {' to '.join(dict.fromkeys((str(needed[0]), str(needed[-1]))))})"
    return (
        f"cannot tell {first['a']['label']} from {first['b']['label']} in {title(first['figure'])} at {at}: {why}{ends}"
    )


def values(figure: str, a: float, b: float) -> str:
    """`346 ms against 182 ms`, `112 against 100 output tokens/s`."""
    left, right = words.quantity(figure, a), words.quantity(figure, b)
    unit = words.named(figure).unit
    if unit and left.endswith(f" {unit}") and right.endswith(f" {unit}"):
        left = left.removesuffix(f" {unit}")
    return f"{left} against {right}"


def change(record: dict[str, Any]) -> tuple[str, str]:
    """How much A differs from B, in the figure's own direction, and the interval of that; empty without one.

    Rates: `12%` with a verdict, else `+12%`. What is better lower: `12% longer`, `1.9 times as long`.
    """
    effect, decided = record["effect"], record["verdict"] in ("faster", "slower")
    ratio, low, high = effect["ratio"], effect["low"], effect["high"]
    if record["better"] == "higher":
        size = f"{percent(abs(ratio - 1))}%" if decided else f"{signed(ratio - 1)}%"
        return size, "" if low is None else _ends(low, high) if decided else _interval(effect)
    many, more, less = _degrees(record["figure"])
    if not 1 / 1.5 < ratio < 1.5:
        return f"{words.number(ratio, 2)} times as {many}", "" if low is None else _times(low, high)
    size = f"{percent(abs(ratio - 1))}% {more if ratio >= 1 else less}"
    return size, "" if low is None else _ends(low, high) if decided else _interval(effect)


def _ends(low: float, high: float) -> str:
    """`9 to 15%` of a difference whose direction was said; signed where the interval holds both directions."""
    if low < 1 < high:  # an exact p-value may be surer than the interval by Student's t
        return f"{signed(low - 1)} to {signed(high - 1)}%"
    ends = sorted((abs(low - 1), abs(high - 1)))
    return f"{percent(ends[0])} to {percent(ends[1])}%"


def _interval(effect: dict[str, Any]) -> str:
    """`−1.2 to +3%`, or factors where an end is far away."""
    low, high = effect["low"], effect["high"]
    return f"{signed(low - 1)} to {signed(high - 1)}%" if high < 3 else _times(low, high)


def _times(low: float, high: float) -> str:
    return f"{words.number(low, 2)} to {words.number(high, 2) if high < 1000 else 'over 1000'} times"


def _degrees(figure: str) -> tuple[str, str, str]:
    """The words for much, more and less of a figure that is better lower."""
    return ("long", "longer", "shorter") if words.named(figure).unit == "s" else ("much", "more", "less")


def _word(record: dict[str, Any]) -> str:
    """The verdict as an adjective: faster and slower are for time."""
    if words.named(record["figure"]).unit == "s":
        return str(record["verdict"])
    return "lower" if record["verdict"] == "faster" else "higher"


def counts(a: int, b: int) -> str:
    """`3 server sessions each`, `1 and 8 server sessions`."""
    return f"{sessions(a)} each" if a == b else f"{a} and {b} server sessions"


def own(a: str, b: str, settings: dict[str, tuple[Any, Any]]) -> str:
    """In what else two engines differ, and what that means where it is the model."""
    differ = ", ".join(
        f"{name.replace('_', ' ')} {words.setting(left)} against {words.setting(right)}"
        for name, (left, right) in settings.items()
    )
    return f"{a} and {b} differ also in {differ}" + (
        ": it compares the engines only if the weights are the same" if "model" in settings else ""
    )


def claim(record: dict[str, Any]) -> str:
    """The effect of a claim record in one line: one comparison as its ratio, several as how many went which way."""
    compared = record["comparisons"]
    if record.get("break_even"):
        return "; ".join(break_even(curve) for curve in record["break_even"])
    if not compared:
        source = {"gpu": "from a GPU ", "cpu": "from a CPU "}.get(record.get("device") or "", "")
        return f"no results {source}to compare; make study-{record['sweep']} measures them"
    if len(compared) == 1:
        return f"{comparison(compared[0], record['metric'])}; {where(compared)}"
    counts = ", ".join(f"{count} {name}" for name, count in record["counts"].items() if count)
    values = [one["ratio"] for one in compared if one["ratio"] is not None]
    spread = (
        f"; {words.named(record['metric']).axis} {ratio(min(values), None, None)} to "
        f"{ratio(max(values), None, None)} times"
        if values
        else ""
    )
    shared = "".join(
        f"; {reason}" for reason in compared[0]["reasons"] if all(reason in one["reasons"] for one in compared)
    )
    return f"{len(compared)} comparisons: {counts}{spread}{shared}; {where(compared)}"


def break_even(curve: dict[str, Any]) -> str:
    """`speculate 8 pays from an acceptance length of 3.1 (2.9 to 3.3) at clients 128, 2 server sessions`."""
    at = ", ".join(setting_phrase(name, value) for name, value in curve["at"].items())
    name, at = f"speculate {curve['speculate']}", f" at {at}" if at else ""
    lengths = [one["length"] for one in curve["measured"]]
    if curve["length"] is None:
        shown = f"{min(lengths):g} to {max(lengths):g}" if len(lengths) > 1 else f"{lengths[0]:g}"
        return f"{name} {'pays' if curve['pays'] else 'does not pay'} at any measured acceptance length ({shown}){at}"
    text = f"{name} pays from an acceptance length of {ratio(curve['length'], curve['low'], curve['high'])}{at}"
    return f"{text}, {sessions(curve['sessions'])}"


def where(compared: Sequence[dict[str, Any]]) -> str:
    """`on NVIDIA H100`, `on CPU of box`: what the sides of comparisons ran on."""
    return "on " + " and ".join(dict.fromkeys(one[side]["device"] for one in compared for side in ("a", "b")))


def comparison(compared: dict[str, Any], name: str) -> str:
    """One comparison of a claim: ratio, interval, sessions, and why it decides nothing."""
    differ = {
        key: value for key, value in compared["b"]["settings"].items() if compared["a"]["settings"].get(key) != value
    }
    text = (
        f"{words.named(name).axis} {ratio(compared['ratio'], compared['low'], compared['high'])} times those of "
        f"{settings(differ or compared['b']['settings'])}"
    )
    if compared["low"] is not None:
        text += f", {sessions(min(compared['a']['sessions'], compared['b']['sessions']))} each"
    if compared["reasons"]:
        text += "; " + "; ".join(compared["reasons"])
    return text
