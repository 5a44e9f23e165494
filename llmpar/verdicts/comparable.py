"""Whether two sides may be compared: what must be equal, and what differs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from llmpar.engines import ENGINES
from llmpar.results import hosts, rows, words, workload
from llmpar.verdicts.pairs import Pair, Side

# What two sides must share unless it is what is compared or is allowed by name.
CHECKS = ("prompts", "sampling", "model", "versions", "host", "failures", "outputs", "times", "latency_over")
OUTPUT_DIFFERENCE = 0.03
LENGTH_BOUND = ("wall_s", "e2e", "effective_e2e", "requests_per_s", "goodput_per_s")


def _one(values: Iterable[Any]) -> str:
    return " and ".join(sorted({str(value) for value in values}))


def version(summary: dict[str, Any]) -> str | None:
    """The engine's version: of the server record, else of the package that the host record lists for it."""
    server = summary.get("server") or {}
    known = server.get("version")
    if known is None:
        packages = ((summary.get("host") or {}).get("software") or {}).get("packages") or {}
        engine = str(server.get("engine") or summary["workload"].get("engine"))
        names = ENGINES[engine].packages if engine in ENGINES else (engine,)
        known = next((packages[name] for name in names if name in packages), None)
    return None if known is None else str(known)


def differences(pair: Pair, figure: str) -> list[dict[str, str]]:
    """Why two sides cannot be compared, as `{"code", "message"}`; codes are those of CHECKS and `client_limited`."""
    a, b, reasons = pair.a.summaries, pair.b.summaries, []

    def differ(code: str, what: str, values: tuple[list[Any], list[Any]], compared: tuple[str, ...] = ()) -> None:
        known = [[value for value in side if value not in (None, "", [])] for side in values]
        if (
            all(known)
            and {str(value) for value in known[0]} != {str(value) for value in known[1]}
            and not (set(compared) & set(pair.subject))
        ):
            reasons.append({"code": code, "message": f"{what}: {_one(known[0])} against {_one(known[1])}"})

    # Summaries before version 2 know only the set of prompts, not the shares in which they were sent.
    shares = all("shares_sha256" in each["workload"]["prompts"] for each in (*a, *b))

    def short(summary: dict[str, Any]) -> str | None:
        prompts = summary["workload"]["prompts"]
        sha256 = prompts.get("shares_sha256" if shares else "sha256")
        return None if sha256 is None else f"{prompts.get('distinct')} prompts ({sha256[:8]})"

    differ(
        "prompts",
        "prompt sets differ",
        ([short(each) for each in a], [short(each) for each in b]),
        ("prompts", "count"),
    )
    asked = [[workload.sampling(each) for each in side] for side in (a, b)]
    for name in workload.NAMES:
        values = tuple([each.get(name) for each in side] for side in asked)
        differ(
            "sampling",
            f"sampling differs in {name}",
            (values[0], values[1]),
            (name, "sampling_seed" if name == "seed" else name),
        )
    differ(
        "model",
        "models differ",
        ([_model(each) for each in a], [_model(each) for each in b]),
        ("model", "engine", "quantize"),
    )
    differ(
        "versions",
        "engine versions differ",
        ([version(each) for each in a], [version(each) for each in b]),
        ("version", "engine"),
    )
    differ(
        "host", "hosts differ", ([hosts.where(each) for each in a], [hosts.where(each) for each in b]), ("host", "gpus")
    )
    for side in (pair.a, pair.b):
        failures, requests = failed(side)
        if failures > rows.MOST_FAILED * requests:
            message = f"{failures} of {requests} requests of {side.label} failed"
            reasons.append({"code": "failures", "message": message})
        name = figure.removesuffix("_steady")
        limited = sorted(
            {item for each in side.summaries for item in each["client"].get("limited") or () if _concerns(item, name)}
        )
        if limited:
            reasons.append(
                {"code": "client_limited", "message": f"the client limits {', '.join(limited)} of {side.label}"}
            )
    reasons += _latency_over(pair, figure)
    if figure.startswith(LENGTH_BOUND):
        lengths = [
            [
                each["tokens"]["output"] / each["n"]["ok"]
                for each in side
                if each["tokens"].get("output") and each["n"]["ok"]
            ]
            for side in (a, b)
        ]
        if all(lengths):
            means = [math.fsum(each) / len(each) for each in lengths]
            if abs(math.log(means[0] / means[1])) > math.log1p(OUTPUT_DIFFERENCE) and not {
                "max_tokens",
                "prompts",
            } & set(pair.subject):
                reasons.append(
                    {
                        "code": "outputs",
                        "message": f"outputs differ in length: {means[0]:.1f} against {means[1]:.1f} tokens",
                    }
                )
    return reasons


def _latency_over(pair: Pair, figure: str) -> list[dict[str, str]]:
    """That a latency is of the steady window in some summaries and of the whole run, ramp included, in others."""
    if rows.path(figure)[0] != "latency":
        return []
    have = [each for each in (*pair.a.summaries, *pair.b.summaries) if rows.reading(each, figure).value is not None]
    steady = sum(rows.latency_over(each) == "steady" for each in have)
    if not 0 < steady < len(have):
        return []
    message = (
        f"{words.title(figure)} is of the steady window in {steady} of {len(have)} summaries and of the whole run in "
        f"the others; compare {figure}_run"
    )
    return [{"code": "latency_over", "message": message}]


def _concerns(limited: str, figure: str) -> bool:
    return figure.startswith(limited.removesuffix("_s") + "_") or figure == limited


def _model(summary: dict[str, Any]) -> Any:
    model = summary["workload"].get("model")
    return model.rsplit("/", 1)[-1] if isinstance(model, str) else model


def failed(side: Side) -> tuple[int, int]:
    """Requests of a side that did not end ok, and all of them."""
    requests = sum(each["n"]["requests"] for each in side.summaries)
    return requests - sum(each["n"]["ok"] for each in side.summaries), requests
