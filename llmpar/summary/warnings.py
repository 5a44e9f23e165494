"""Every warning of a summary, in one table: code, what it says, what to try next."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmpar.summary.client_limits import LIMIT
from llmpar.summary.columns import NONE, Columns

BUSY = 0.10  # of all processors
OUT_OF_MEMORY = "out_of_memory"  # an outcome of llmpar-serve, and a warning

# code: (message, what to try), both with places for the values given to `make`
TABLE: dict[str, tuple[str, str]] = {
    "client_limited": (
        "the client's own delay could move {figures} by more than 3%",
        "use fewer clients, more cores or the pooled launcher (run under GNU parallel); this cell is not ranked",
    ),
    "busy_host": (
        "processes that are neither engine nor client took {share:.0%} of the processors {when}",
        "stop what else runs on this machine, and measure again",
    ),
    "low_concurrency": (
        "{achieved:.1f} requests were in flight on average where {asked} were asked for, while there was work left",
        "let processes take prompts in turn (llmpar-request --queue)",
    ),
    "out_of_memory": (
        "the engine ran out of memory {when}, which is this cell's result: {message}",
        "lower max_total_tokens, max_sequences or kv_bytes, or quantise; remove requests.jsonl to try the same again",
    ),
    "failures": (
        "{failed} of {requests} requests did not end ok ({types}); percentiles count them as infinitely long, "
        "means leave them out",
        "read `error` in the records; a server that refuses load looks fast",
    ),
    "retried": ("{count} records are repeated attempts", "leave --retries off when timing"),
    "torn_lines": ("{count} torn lines were dropped", "look for a killed client or a full disk"),
    "out_of_range": (
        "{count} values that no clock and no engine can have given were left out",
        "look for negative or enormous numbers in the records, and at the server or importer that gave them",
    ),
    "no_events": (
        "{count} streamed answers have tokens and no event with text, so their TTFT is unknown",
        "the server streams in a form that is not known here, or not at all: keep one answer (curl -N) and report it",
    ),
    "no_steady_state": (
        "no steady state: {reason}",
        "send more prompts; compare whole-run figures only between equal prompt sets",
    ),
    "convoy": (
        "{what} within the steady window: TTFT is that of how the clients started, not of the server",
        "send more prompts, with answers of different lengths; clients that start together wait for one another's "
        "prompts",
    ),
    "no_instants": (
        "{count} requests have no instants, so there is no throughput",
        "give the client's start times to the importer",
    ),
    "cached_tokens": (
        "{cached} of {prompt} prompt tokens came from the prefix cache though it should be off",
        "turn the engine's prefix cache off, or start a new server for each cell",
    ),
    "short_output": (
        "{count} outputs are shorter than asked and did not end by themselves",
        "look at finish_reason and at the context length the server was started with",
    ),
    "token_dispute": (
        "{count} requests whose output tokens two sources count differently",
        "trust only figures that do not count tokens, or count with the model's tokenizer",
    ),
    "tokens_unknown": (
        "{count} requests whose output tokens nobody counted",
        "use streaming, or an API that reports usage",
    ),
    "split_unknown": (
        "{count} requests whose events carry several tokens and nobody tells how many: not in the inter-token latency",
        "ask the engine for running token counts in the stream; event latency holds all of them",
    ),
    "clock_user": (
        "{user} of {requests} requests were stamped by the program, not the kernel",
        "use plain HTTP on Linux; otherwise trust small latencies only on an idle client",
    ),
    "clock_step": (
        "{count} times that run backwards",
        "let NTP settle, or use one host; these values were set to zero",
    ),
    "acceptance_missed": (
        "an acceptance length of {forced:g} was forced and {observed:.2f} observed",
        "read the engine's log: forcing may not reach this draft method; use the observed length",
    ),
    "mixed_engines": ("the records are of several {what}", "summarise each alone"),
    "mixed_sampling": ("the requests were sampled in {count} different ways", "give every request the same options"),
    "mixed_clients": ("the records are of several client counts ({what})", "summarise each alone"),
}


def make(code: str, **values: Any) -> dict[str, str]:
    """One warning as the summary holds it."""
    message, hint = TABLE[code]
    return {"code": code, "message": message.format(**values), "try": hint.format(**values)}


def in_order(warnings: list[dict[str, str]]) -> list[dict[str, str]]:
    """Warnings in the table's order."""
    order = {code: place for place, code in enumerate(TABLE)}
    return sorted(warnings, key=lambda warning: order[warning["code"]])


def _prefix_cache_on(cell: dict[str, Any] | None, server: dict[str, Any] | None) -> bool:
    """Whether the prefix cache was asked for; it is off by default."""
    for place in ((cell or {}).get("server"), (server or {}).get("settings"), server):
        if isinstance(place, dict) and place.get("prefix_cache") is not None:
            return place["prefix_cache"] in (True, "on", "yes", "true", 1)
    return False


def _concurrency(result: dict[str, Any]) -> list[dict[str, str]]:
    """Whether fewer requests were in flight than asked for, while there was work left to send."""
    concurrency, lost, requests = result["concurrency"], result["client"]["turn_lost_ratio"], result["n"]["requests"]
    asked = concurrency["asked"]
    if lost is None and asked and concurrency["ratio"] is not None and requests <= asked:
        lost = 1 - concurrency["ratio"]
    if lost is None or lost <= LIMIT:
        return []
    warning = make("low_concurrency", achieved=(1 - lost) * asked, asked=asked)
    if requests < 10 * asked:
        warning["try"] = f"send at least ten times as many prompts as clients, or {warning['try']}"
    return [warning]


def _no_events(columns: Columns) -> int:
    """Streamed answers with tokens and no event."""
    if set(columns.names["stream"]) != {True}:
        return 0
    return int(np.count_nonzero((columns.array("output") > 0) & (columns.array("ttft_s") == NONE)))


def of_host(engine: dict[str, Any] | None) -> list[dict[str, str]]:
    """Whether others took the processors, by the engine's samples before and during the load."""
    for field, when in (("other_cpu_ratio", "during the load"), ("other_cpu_before_ratio", "just before it")):
        share = (engine or {}).get(field)
        if share is not None and share > BUSY:
            return [make("busy_host", share=share, when=when)]
    return []


def of_summary(
    result: dict[str, Any],
    columns: Columns,
    cell: dict[str, Any] | None,
    server: dict[str, Any] | None,
    convoy: bool = False,
) -> list[dict[str, str]]:
    """The warnings of a summary whose figures are all there. `convoy`: TTFT still falls within its window."""
    found: list[dict[str, str]] = []
    n, tokens, client = result["n"], result["tokens"], result["client"]
    if client["limited"]:
        found.append(make("client_limited", figures=", ".join(client["limited"])))
    found += _concurrency(result)
    failed = n["requests"] - n["ok"]
    # A server that ran out of memory later has other cells of its session behind it, which it served well.
    if server and server.get("outcome") == OUT_OF_MEMORY and (failed or not n["requests"]):
        found.append(
            make(
                OUT_OF_MEMORY,
                when="before it was ready" if server.get("ready_s") is None else "under this load",
                message=server.get("message") or "its log says no more",
            )
        )
    if failed:
        kinds = ", ".join(f"{count} {name}" for name, count in result["failures"].items()) or "no type given"
        found.append(make("failures", failed=failed, requests=n["requests"], types=kinds))
    for code, count in (
        ("retried", n["retried"]),
        ("torn_lines", n["torn_lines"]),
        ("out_of_range", columns.out_of_range),
        ("no_events", _no_events(columns)),
        ("short_output", columns.cut_short),
        ("token_dispute", tokens["disputed"]),
        ("split_unknown", tokens["unknown_split"]),
        ("clock_step", columns.backwards),
        ("tokens_unknown", int(np.count_nonzero(columns.array("output") == NONE))),
        ("no_instants", int(np.count_nonzero(columns.array("sent") == NONE))),
    ):
        if count:
            found.append(make(code, count=count))
    if not result["window"]["steady"] and n["ok"]:
        found.append(make("no_steady_state", reason=result["window"]["reason"]))
    if convoy:
        waves, fall = result["window"]["wave_ratio"], -result["window"]["ttft_drift_ratio"]
        what = "clients send their requests in step" if waves else f"TTFT falls by {fall:.0%}"
        found.append(make("convoy", what=what))
    cached = columns.array("cached")
    cached_sum = int(cached[cached != NONE].sum())
    if cached_sum and not _prefix_cache_on(cell, server):
        prompt = columns.array("prompt")
        found.append(make("cached_tokens", cached=cached_sum, prompt=int(prompt[prompt != NONE].sum())))
    if client["clock"].get("user"):
        found.append(make("clock_user", user=client["clock"]["user"], requests=n["ok"]))
    mixed = [name for name in ("engine", "api", "model") if isinstance(result["workload"][name], list)]
    if mixed:
        found.append(make("mixed_engines", what=" and ".join(f"{name}s" for name in mixed)))
    if len(columns.samplings) > 1:
        found.append(make("mixed_sampling", count=len(columns.samplings)))
    counts = sorted(each for each in columns.names["concurrency"] if each is not None)
    if len(counts) > 1:
        found.append(make("mixed_clients", what=", ".join(map(str, counts))))
    return in_order(found)
