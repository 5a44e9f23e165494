"""Verdicts as sentences."""

from __future__ import annotations

from typing import Any

from llmpar import series, words

# Reasons that a sentence of two sides that cannot be compared names.
NAMED = ("prompts", "sampling", "model", "versions", "host", "failures", "outputs", "client_limited", "missing", "refused")


def title(figure: str) -> str:
    """A figure as a person names it: `TTFT p95`."""
    known = {"wall_s": "wall time", "output_tokens_per_s": "output rate", "total_tokens_per_s": "token rate",
             "requests_per_s": "request rate", "goodput_per_s": "goodput", "joules_per_token": "energy a token",
             "memory_bytes": "GPU memory", "concurrency": "requests in flight"}
    if figure in known:
        return known[figure]
    if figure.endswith("_steady"):
        return f"steady {title(figure.removesuffix('_steady'))}"
    stem, _, statistic = figure.removesuffix("_s").rpartition("_")
    names = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E latency", "event_latency": "event latency",
             "effective_ttft": "effective TTFT", "effective_e2e": "effective E2E latency"}
    return f"{names[stem]} {statistic}" if stem in names else figure


def sentence(record: dict[str, Any]) -> str:
    """The verdict for people: "vllm is 12 % faster than tgi at 128 clients (9 to 15 %, 3 sessions each)"."""
    a, b, effect = record["a"], record["b"], record["effect"]
    at = " at " + ", ".join(where(name, value) for name, value in record["at"].items()) if record["at"] else ""
    main = record["figure"] in ("wall_s", "output_tokens_per_s", "output_tokens_per_s_steady")
    of = "" if main else f" in {title(record['figure'])}"
    if record["verdict"] == "not comparable":
        first = [each["message"] for each in record["reasons"] if each["code"] in NAMED]
        return f"{a['label']} and {b['label']} are not comparable{of}{at}: {'; '.join(dict.fromkeys(first))}"
    sessions = f"{a['sessions']} sessions each" if a["sessions"] == b["sessions"] else f"{a['sessions']} and {b['sessions']} sessions"
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
        return (f"{a['label']} and {b['label']} are the same{of}{at}: within {percent(record['margin_ratio'])} % "
                f"({between}{sessions})")
    why = next((each["message"] for each in record["reasons"]), "")
    seen = f"{signed(speedup - 1)} % seen" + (f", {between.rstrip(', ')}" if between else "")
    more = f"; {record['needed']['sessions']} sessions each would tell" if record["needed"] else ""
    return f"cannot tell {a['label']} from {b['label']}{of}{at} ({seen}, {sessions}): {why}{more}"


def own(a: str, b: str, settings: dict[str, tuple[Any, Any]]) -> str:
    """In what else two engines differ, and what that means where it is the model."""
    differ = ", ".join(f"{name.replace('_', ' ')} {words.setting(left)} against {words.setting(right)}" for name, (left, right) in settings.items())
    return f"{a} and {b} differ also in {differ}" + (": it compares the engines only if the weights are the same" if "model" in settings else "")


def where(name: str, value: Any) -> str:
    """A setting as part of a sentence: `128 clients`."""
    return f"{value} client{'' if value == 1 else 's'}" if name == "clients" else series.words(name, value)


def percent(share: float) -> str:
    """A share in per cent, whole from 10 on."""
    return f"{share * 100:.0f}" if share >= 0.0995 else f"{share * 100:.1f}".removesuffix(".0")


def signed(share: float) -> str:
    """The same with its sign."""
    return ("+" if share >= 0 else "−") + percent(abs(share))
