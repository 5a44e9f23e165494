"""Verdicts as sentences."""

from __future__ import annotations

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
    "missing",
    "refused",
)


def sentence(record: dict[str, Any]) -> str:
    """The verdict for people: "vllm is 12 % faster than tgi at 128 clients (9 to 15 %, 3 sessions each)"."""
    a, b, effect = record["a"], record["b"], record["effect"]
    at = " at " + ", ".join(setting_phrase(name, value) for name, value in record["at"].items()) if record["at"] else ""
    main = record["figure"] in ("wall_s", "output_tokens_per_s", "output_tokens_per_s_steady")
    of = "" if main else f" in {title(record['figure'])}"
    if record["verdict"] == "not comparable":
        first = [each["message"] for each in record["reasons"] if each["code"] in NAMED]
        return f"{a['label']} and {b['label']} are not comparable{of}{at}: {'; '.join(dict.fromkeys(first))}"
    sessions = (
        f"{a['sessions']} sessions each"
        if a["sessions"] == b["sessions"]
        else f"{a['sessions']} and {b['sessions']} sessions"
    )
    if a["sessions"] == b["sessions"] == 1:
        sessions = "1 session each"
    if effect is None:
        why = "; ".join(each["message"] for each in record["reasons"][:2])
        return f"cannot tell {a['label']} from {b['label']}{of}{at}: {why}"
    speedup, low, high = effect["speedup"], effect["speedup_low"], effect["speedup_high"]
    if record["verdict"] in ("faster", "slower"):
        ends = sorted((abs(low - 1), abs(high - 1)))
        between = f"{percent(ends[0])} to {percent(ends[1])}"
        if low < 1 < high:  # an exact p-value may be surer than the interval by Student's t
            between = f"{signed(low - 1)} to {signed(high - 1)}"
        return f"{a['label']} is {percent(abs(speedup - 1))} % {record['verdict']} than {b['label']}{of}{at} ({between} %, {sessions})"
    between = "" if low is None else f"{signed(low - 1)} to {signed(high - 1)} %, "
    if record["verdict"] == "same":
        return (
            f"{a['label']} and {b['label']} are the same{of}{at}: within {percent(record['margin_ratio'])} % "
            f"({between}{sessions})"
        )
    why = next((each["message"] for each in record["reasons"]), "")
    seen = f"{signed(speedup - 1)} % seen" + (f", {between.rstrip(', ')}" if between else "")
    more = f"; {record['needed']['sessions']} sessions each would tell" if record["needed"] else ""
    return f"cannot tell {a['label']} from {b['label']}{of}{at} ({seen}, {sessions}): {why}{more}"


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
    if not compared:
        source = {"gpu": "from a GPU ", "cpu": "from a CPU "}.get(record.get("device") or "", "")
        return f"no results {source}to compare; make study-{record['sweep']} measures them"
    if len(compared) == 1:
        return f"{comparison(compared[0], record['metric'])}; {where(compared)}"
    counts = ", ".join(f"{count} {name}" for name, count in record["counts"].items() if count)
    values = [one["ratio"] for one in compared if one["ratio"] is not None]
    spread = (
        f"; {words.named(record['metric']).axis} {ratio(min(values), None, None)} to {ratio(max(values), None, None)} times"
        if values
        else ""
    )
    shared = "".join(
        f"; {reason}" for reason in compared[0]["reasons"] if all(reason in one["reasons"] for one in compared)
    )
    return f"{len(compared)} comparisons: {counts}{spread}{shared}; {where(compared)}"


def where(compared: Sequence[dict[str, Any]]) -> str:
    """`on NVIDIA H100`, `on CPU of box`: what the sides of comparisons ran on."""
    return "on " + " and ".join(dict.fromkeys(one[side]["device"] for one in compared for side in ("a", "b")))


def comparison(one: dict[str, Any], name: str) -> str:
    """One comparison of a claim: ratio, interval, sessions, and why it decides nothing."""
    differ = {key: value for key, value in one["b"]["settings"].items() if one["a"]["settings"].get(key) != value}
    text = f"{words.named(name).axis} {ratio(one['ratio'], one['low'], one['high'])} times those of {settings(differ or one['b']['settings'])}"
    if one["low"] is not None:
        text += f", {sessions(min(one['a']['sessions'], one['b']['sessions']))} each"
    if one["reasons"]:
        text += "; " + "; ".join(one["reasons"])
    return text
