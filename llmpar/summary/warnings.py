"""Every warning of a summary: each row of the table has its code, when it is given, what it says and what to try next.

The condition is the function below the row; its values fill the places in message and advice. docs/metrics.md holds the
table too, rewritten by `make golden`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from llmpar.summary.chunks import LENGTHS, asked_tokens
from llmpar.summary.client_limits import LIMIT, thinks
from llmpar.summary.clocks import LARGE_RATIO, LARGE_S
from llmpar.summary.columns import NONE, Columns

BUSY = 0.10  # of all processors
ACCEPTANCE_SLACK = 0.05
PREFIX_SLACK = 0.10  # of all prompt tokens
# Outcomes of llmpar-serve.
OUT_OF_MEMORY = "out_of_memory"  # a warning too
RAN = (None, "starting", "running", "ok", "cancelled", "failed")  # the engine did not end by itself


def ended_by_itself(server: Mapping[str, Any] | None) -> bool:
    """Whether an engine did not start, or ended before it was told to."""
    return server is not None and server.get("outcome") not in RAN


@dataclass(frozen=True)
class Evidence:
    """What conditions look at: a summary whose figures are all there, and what it was made of. `convoy`: TTFT still
    falls within the window."""

    result: dict[str, Any]
    columns: Columns
    cell: dict[str, Any] | None
    server: dict[str, Any] | None
    convoy: bool = False
    hosts: frozenset[str] = frozenset()  # whose clocks the instants are by

    def count(self, name: str) -> int:
        """Requests that ended well without a value in this column."""
        return int(np.count_nonzero(self.columns.array(name) == NONE))


# The values that message and advice have places for, or None where there is nothing to warn of.
Condition = Callable[[Evidence], dict[str, Any] | None]


@dataclass(frozen=True)
class Warning:
    """One row. `when` is the condition in words, for docs/metrics.md."""

    when: str
    message: str
    advice: str
    condition: Condition


TABLE: dict[str, Warning] = {}


def row(when: str, message: str, advice: str) -> Callable[[Condition], Condition]:
    """Enter a condition into the table under its own name."""

    def enter(condition: Condition) -> Condition:
        TABLE[condition.__name__] = Warning(when, message, advice, condition)
        return condition

    return enter


def counted(code: str, when: str, message: str, advice: str, count: Callable[[Evidence], int]) -> None:
    """Enter a warning that is given where something was counted."""
    TABLE[code] = Warning(when, message, advice, lambda evidence: {"count": n} if (n := count(evidence)) else None)


def of_summary(evidence: Evidence) -> list[dict[str, str]]:
    """The warnings of a summary, in the table's order."""
    return [
        {"code": code, "message": warning.message.format(**values), "try": warning.advice.format(**values)}
        for code, warning in TABLE.items()
        if (values := warning.condition(evidence)) is not None
    ]


@row(
    "the client's delay moves a figure by more than 3%",
    "the client's own delay could move {figures} by more than 3%",
    "use fewer clients, more cores or the pooled launcher (run under GNU parallel); this cell is not ranked",
)
def client_limited(evidence: Evidence) -> dict[str, Any] | None:
    limited = evidence.result["client"]["limited"]
    return {"figures": ", ".join(limited)} if limited else None


@row(
    f"`other_cpu_ratio` of the engine's samples is above {BUSY:g} during the load or just before it",
    "processes that are neither engine nor client used {share:.0%} of the processors {moment}",
    "stop whatever else runs on this machine and measure again",
)
def busy_host(evidence: Evidence) -> dict[str, Any] | None:
    engine = evidence.result["engine"] or {}
    for field, moment in (("other_cpu_ratio", "during the load"), ("other_cpu_before_ratio", "just before the load")):
        share = engine.get(field)
        if share is not None and share > BUSY:
            return {"share": share, "moment": moment}
    return None


@row(
    f"`turn_lost_ratio` is above {LIMIT:.0%}, or there are no more prompts than clients; the first part of the advice "
    "is given where there are fewer than ten times as many prompts as clients",
    "{achieved:.1f} requests were in flight on average, of {asked} asked for, while prompts were still waiting",
    "{first}have each client take its next prompt itself (llmpar-request --queue)",
)
def low_concurrency(evidence: Evidence) -> dict[str, Any] | None:
    concurrency, requests = evidence.result["concurrency"], evidence.result["n"]["requests"]
    asked, lost = concurrency["asked"], evidence.result["client"]["turn_lost_ratio"]
    if (
        lost is None
        and asked
        and concurrency["ratio"] is not None
        and requests <= asked
        and not thinks(evidence.result)
    ):
        lost = 1 - concurrency["ratio"]
    if lost is None or lost <= LIMIT:
        return None
    first = MORE_PROMPTS if requests < 10 * asked else ""
    return {"achieved": (1 - lost) * asked, "asked": asked, "first": first}


MORE_PROMPTS = "send at least ten times as many prompts as clients, or "


def _served(evidence: Evidence) -> bool:
    """Whether all requests were answered. A server that ended later has other cells of its server session behind it,
    which it served well."""
    n = evidence.result["n"]
    return bool(n["ok"] == n["requests"] > 0)


@row(
    "the server ran out of memory, and requests failed or none was sent",
    "the engine ran out of memory {moment}, which is this cell's result: {message}",
    "lower max_total_tokens, max_sequences or kv_bytes, or quantise; remove requests.jsonl to measure the same again",
)
def out_of_memory(evidence: Evidence) -> dict[str, Any] | None:
    server = evidence.server or {}
    if server.get("outcome") != OUT_OF_MEMORY or _served(evidence):
        return None
    return {
        "moment": "before it was ready" if server.get("ready_s") is None else "under this load",
        "message": server.get("message") or "its log gives no details",
    }


@row(
    "the server did not start, or ended under the load, for another reason",
    "{message}",
    "read the server's log; remove requests.jsonl to measure the same again",
)
def server_ended(evidence: Evidence) -> dict[str, Any] | None:
    server = evidence.server or {}
    if server.get("outcome") == OUT_OF_MEMORY or not ended_by_itself(server) or _served(evidence):
        return None
    return {"message": server.get("message") or "the engine ended, and its log gives no details"}


@row(
    "any request is not `ok`",
    "{failed} of {requests} requests failed ({types}); percentiles count them as infinitely long, means leave them out",
    "read `error` in the records; a server that refuses load looks fast",
)
def failures(evidence: Evidence) -> dict[str, Any] | None:
    n = evidence.result["n"]
    types = ", ".join(f"{count} {name}" for name, count in evidence.result["failures"].items()) or "no type given"
    failed = n["requests"] - n["ok"]
    return {"failed": failed, "requests": n["requests"], "types": types} if failed else None


counted(
    "retried",
    "records have an `attempt` above 1",
    "{count} records are repeated attempts",
    "leave --retries off when timing",
    lambda evidence: evidence.result["n"]["retried"],
)
counted(
    "torn_lines",
    "lines, at the end or within, that their writer did not finish",
    "{count} torn lines were dropped",
    "look for a killed client or a full disk",
    lambda evidence: evidence.result["n"]["torn_lines"],
)
counted(
    "out_of_range",
    "times outside 0 to 10^11 s, durations over 10^9 s, counts that are negative or over 10^12: taken as null",
    "{count} values that no clock or engine can produce were left out",
    "look for negative or enormous numbers in the records, and at the server or importer that wrote them",
    lambda evidence: evidence.columns.out_of_range,
)


def _answers_without_events(evidence: Evidence) -> int:
    columns = evidence.columns
    if set(columns.names["stream"]) != {True}:
        return 0
    return int(np.count_nonzero((columns.array("output") > 0) & (columns.array("ttft_s") == NONE)))


counted(
    "no_events",
    "streamed answers have `output_tokens` above 0 and no event",
    "{count} streamed answers have tokens but no event with text, so their TTFT is unknown",
    "the server streams in an unknown form, or not at all: keep one answer (curl -N) and report it",
    _answers_without_events,
)


@row(
    "see The steady window",
    "no steady state: {reason}",
    "send more prompts; compare whole-run figures only between equal prompt sets",
)
def no_steady_state(evidence: Evidence) -> dict[str, Any] | None:
    window = evidence.result["window"]
    return {"reason": window["reason"]} if evidence.result["n"]["ok"] and not window["steady"] else None


@row(
    "see The steady window",
    "{what} within the steady window: TTFT reflects how the clients started, not the server",
    "send more prompts, with answers of different lengths; clients that start together wait for one another's prompts",
)
def convoy(evidence: Evidence) -> dict[str, Any] | None:
    if not evidence.convoy:
        return None
    window = evidence.result["window"]
    falls = f"TTFT falls by {-window['ttft_drift_ratio']:.0%}" if not window["wave_ratio"] else ""
    return {"what": falls or "clients send their requests in step"}


counted(
    "no_instants",
    "ok requests have no `sent_at`",
    "{count} requests have no start time, so there is no throughput",
    "give the client's start times to the importer",
    lambda evidence: evidence.count("sent"),
)


@row(
    "`cached_tokens` is above 0 and `prefix_cache` was not asked for",
    "{cached} of {prompt} prompt tokens came from the prefix cache although it should be off",
    "turn the engine's prefix cache off, or start a new server for each cell",
)
def cached_tokens(evidence: Evidence) -> dict[str, Any] | None:
    cached, prompt = (evidence.columns.array(name) for name in ("cached", "prompt"))
    total = int(cached[cached != NONE].sum())
    if not total or _prefix_cache_on(evidence.cell, evidence.server):
        return None
    return {"cached": total, "prompt": int(prompt[prompt != NONE].sum())}


def _prefix_cache_on(cell: dict[str, Any] | None, server: dict[str, Any] | None) -> bool:
    """Whether the prefix cache was asked for; it is off by default."""
    for place in ((cell or {}).get("server"), (server or {}).get("settings"), server):
        if isinstance(place, dict) and place.get("prefix_cache") is not None:
            return place["prefix_cache"] in (True, "on", "yes", "true", 1)
    return False


counted(
    "short_output",
    "fewer tokens than asked for and `finish_reason` is not `stop`",
    "{count} outputs are shorter than asked for and did not end by themselves",
    "look at finish_reason and at the context length the server was started with",
    lambda evidence: evidence.columns.cut_short,
)
counted(
    "token_dispute",
    "`output_tokens` and the sum of `event_tokens` differ by more than 1, or more tokens than asked for",
    "two sources count the output tokens of {count} requests differently",
    "trust only figures that do not count tokens, or count with the model's tokenizer",
    lambda evidence: evidence.result["tokens"]["disputed"],
)
counted(
    "tokens_unknown",
    "ok requests have no `output_tokens`",
    "the output tokens of {count} requests are unknown",
    "use streaming, or an API that reports usage",
    lambda evidence: evidence.count("output"),
)
counted(
    "split_unknown",
    "see ITL",
    "{count} requests have events of several tokens, their number unknown; ITL leaves them out",
    "ask the engine for running token counts in the stream; inter-chunk latency includes every event",
    lambda evidence: evidence.result["tokens"]["unknown_split"],
)


@row(
    "any arrival was timestamped by the program",
    "{user} of {requests} requests were timestamped by the program, not the kernel",
    "use plain HTTP on Linux; otherwise trust small latencies only on an idle client",
)
def clock_user(evidence: Evidence) -> dict[str, Any] | None:
    user = evidence.result["client"]["clock"].get("user")
    return {"user": user, "requests": evidence.result["n"]["ok"]} if user else None


counted(
    "clock_step",
    "negative durations, events out of order, or sent before launched",
    "{count} durations came out negative and were set to zero",
    "let NTP settle, or use one host",
    lambda evidence: evidence.columns.backwards,
)


@row(
    f"the observed acceptance length is more than {ACCEPTANCE_SLACK:.0%} off the forced one",
    "an acceptance length of {forced:g} was forced but {observed:.2f} was observed",
    "read the engine's log: forcing may not reach this draft method; use the observed length",
)
def acceptance_missed(evidence: Evidence) -> dict[str, Any] | None:
    length = (evidence.result["joined"] or {}).get("acceptance_length")
    if not length or length["forced"] is None or abs(length["observed"] / length["forced"] - 1) <= ACCEPTANCE_SLACK:
        return None
    return dict(length)


@row(
    "several engines or APIs, or several models where no cell is known: within one, prompts may name them",
    "the records are of several {what}",
    "summarise each alone",
)
def mixed_engines(evidence: Evidence) -> dict[str, Any] | None:
    workload = evidence.result["workload"]
    names = ("engine", "api") if evidence.cell else ("engine", "api", "model")
    mixed = [f"{name}s" for name in names if isinstance(workload[name], list)]
    return {"what": " and ".join(mixed)} if mixed else None


@row(
    "several sets of sampling options, answer lengths aside",
    "the requests were sampled in {count} different ways",
    "give every request the same options",
)
def mixed_sampling(evidence: Evidence) -> dict[str, Any] | None:
    count = len(evidence.columns.samplings)
    if count > 1:  # prompts may ask for lengths of their own
        count = len({_without_length(orjson.loads(each)) for each in evidence.columns.samplings})
    return {"count": count} if count > 1 else None


def _without_length(sampling: Any) -> bytes:
    if isinstance(sampling, dict):
        inner = sampling.get("parameters")
        sampling = {name: value for name, value in sampling.items() if name not in LENGTHS}
        if isinstance(inner, dict):
            sampling["parameters"] = {name: value for name, value in inner.items() if name not in LENGTHS}
    return orjson.dumps(sampling, option=orjson.OPT_SORT_KEYS)


@row(
    "requests of a cell ask for another number of output tokens than its `max_tokens`",
    "{count} of {requests} requests asked for {lengths} output tokens instead of the cell's max_tokens {cell}: what a "
    "prompt or a body sets itself comes first",
    "take max_tokens out of the prompts to give every answer the cell's; where their own are meant, all is well",
)
def own_lengths(evidence: Evidence) -> dict[str, Any] | None:
    cell = ((evidence.cell or {}).get("load") or {}).get("max_tokens")
    if cell is None:
        return None
    asked = [(asked_tokens(orjson.loads(each)), count) for each, count in evidence.columns.samplings.items()]
    others = [(tokens, count) for tokens, count in asked if tokens not in (None, cell)]
    if not others:
        return None
    least, most = min(tokens for tokens, _ in others), max(tokens for tokens, _ in others)
    return {
        "count": sum(count for _, count in others),
        "requests": evidence.result["n"]["requests"],
        "lengths": str(least) if least == most else f"{least} to {most}",
        "cell": cell,
    }


@row(
    f"the share of prompt tokens from the prefix cache is unknown, or over {PREFIX_SLACK:.0%} of all tokens off "
    "`prefix_ratio`",
    "{asked:.0%} of the prompt tokens were to come from the prefix cache, {achieved}",
    "set the column prefix_cache to yes; prompts of 1,000 tokens and more lose less to whole blocks; where nobody "
    "tells, ask the engine for usage with cached tokens or sample its metrics",
)
def prefix_missed(evidence: Evidence) -> dict[str, Any] | None:
    found = evidence.result.get("prefix")
    if found is None:
        return None
    achieved = found["achieved_ratio"]
    if achieved is not None and abs(achieved - found["asked_ratio"]) <= PREFIX_SLACK:
        return None
    words = "nobody tells how many did" if achieved is None else f"{achieved:.0%} did"
    return {"asked": found["asked_ratio"], "achieved": words}


@row(
    f"over {LIMIT:.0%} more requests in flight than were asked for",
    "{achieved:.1f} requests were in flight on average where {asked} were asked for",
    "summarise the records of each run alone; where they are of one, say how many clients it had: --clients N",
)
def more_clients(evidence: Evidence) -> dict[str, Any] | None:
    found = evidence.result["concurrency"]
    if not found["asked"] or (found["ratio"] or 0) <= 1 + LIMIT:
        return None
    return {name: found[name] for name in ("achieved", "asked")}


@row(
    "records or samples of several hosts, and no clock record of one of them",
    "the clocks of {hosts} were not compared: wall time, rates and requests in flight take their times as they stand",
    "run llmpar-clock HOST... before and after a run, then llmpar-summarise --clock; LOAD_HOSTS does both",
)
def clocks_unknown(evidence: Evidence) -> dict[str, Any] | None:
    found = evidence.result["client"]["clocks"]
    missing = sorted(evidence.hosts - {each["host"] for each in found or ()})
    return {"hosts": ", ".join(missing)} if missing and (found or len(evidence.hosts) > 1) else None


@row(
    f"a clock is more than {LARGE_S * 1000:g} ms or {LARGE_RATIO:.0%} of the wall time off, or moved between readings",
    "the clock of {host} was {offset:+.4f} s off that of {against}{moved}; times are right to within {error:.4f} s",
    "let NTP or PTP run on every host; `client.crossing` bounds the figures",
)
def clocks_differ(evidence: Evidence) -> dict[str, Any] | None:
    if clocks_unknown(evidence):
        return None
    wall = evidence.result["wall_s"]["value"]
    limit = min(LARGE_S, LARGE_RATIO * wall) if wall else LARGE_S
    clocks = evidence.result["client"]["clocks"] or ()
    apart = [each for each in clocks if abs(each["offset_s"]) > limit or each["moved_s"]]
    if not apart:
        return None
    worst = max(apart, key=lambda each: max(abs(each["offset_s"]), each["moved_s"]))
    moved = f", and moved by {worst['moved_s']:.4f} s during the run" if worst["moved_s"] else ""
    return {
        "host": worst["host"],
        "against": worst["against"],
        "offset": worst["offset_s"],
        "moved": moved,
        "error": worst["error_s"],
    }


@row("several client counts", "the records are of several client counts ({what})", "summarise each alone")
def mixed_clients(evidence: Evidence) -> dict[str, Any] | None:
    counts = sorted({count for each in evidence.columns.clients() if len(each) > 1 for count in each})
    return {"what": ", ".join(map(str, counts))} if counts else None
