"""Every warning of a summary, in one table: code, what it says, what to try next."""

from __future__ import annotations

from typing import Any

# code: (message, what to try), both with places for the values given to `make`
TABLE: dict[str, tuple[str, str]] = {
    "client_limited": (
        "the client's own delay could move {figures} by more than the interval",
        "use fewer clients, more cores or the pooled launcher (run under GNU parallel); this cell is not ranked"),
    "low_concurrency": (
        "{achieved:.1f} requests were in flight on average where {asked} were asked for",
        "let processes take prompts in turn (llmpar-request --queue)"),
    "out_of_memory": (
        "the engine ran out of memory {when}, which is this cell's result: {message}",
        "lower max_total_tokens, max_sequences or kv_bytes, or quantise; remove requests.jsonl to try the same again"),
    "failures": (
        "{failed} of {requests} requests did not end ok ({types}); latencies are those of the rest",
        "read `error` in the records; a server that refuses load looks fast"),
    "retried": ("{count} records are repeated attempts", "leave --retries off when timing"),
    "torn_lines": ("{count} torn last lines were dropped", "look for a killed client or a full disk"),
    "no_steady_state": (
        "no steady state: {reason}", "send more prompts; compare whole-run figures only between equal prompt sets"),
    "no_instants": (
        "{count} requests have no instants, so there is no throughput", "give the client's start times to the importer"),
    "cached_tokens": (
        "{cached} of {prompt} prompt tokens came from the prefix cache though it should be off",
        "turn the engine's prefix cache off, or start a new server for each cell"),
    "short_output": (
        "{count} outputs are shorter than asked and did not end by themselves",
        "look at finish_reason and at the context length the server was started with"),
    "token_dispute": (
        "{count} requests whose output tokens two sources count differently",
        "trust only figures that do not count tokens, or count with the model's tokenizer"),
    "tokens_unknown": (
        "{count} requests whose output tokens nobody counted", "use streaming, or an API that reports usage"),
    "split_unknown": (
        "{count} requests whose events carry several tokens and nobody tells how many: not in the inter-token latency",
        "ask the engine for running token counts in the stream; event latency holds all of them"),
    "clock_user": (
        "{user} of {requests} requests were stamped by the program, not the kernel",
        "use plain HTTP on Linux; otherwise trust small latencies only on an idle client"),
    "clock_step": (
        "{count} times that run backwards", "let NTP settle, or use one host; these values were set to zero"),
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
