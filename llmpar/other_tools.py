"""Result files of other load generators to request records, as far as their data go.

vLLM: `vllm bench serve --save-result --save-detailed` (vllm/benchmarks/serve.py); SGLang's `bench_serving
--output-details` has the same lists without start times. GuideLLM: the JSON report of `guidellm benchmark`
(guidellm/schemas/request_stats.py and info.py, and the flat fields of releases before 0.4). What a file does not hold
is null in the records; docs/metrics.md says how the tools' own definitions differ.
"""

from __future__ import annotations

import calendar
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

FORMATS = ("vllm", "guidellm")
DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "errors")


class BadImport(ValueError):
    """A file that is not a result of a known tool, or holds no requests; the text says what to do."""


def detect(document: Any) -> str:
    """Which tool wrote a parsed JSON document. Raises BadImport."""
    if isinstance(document, dict):
        if isinstance(document.get("benchmarks"), list):
            return "guidellm"
        if "request_throughput" in document or "ttfts" in document:
            return "vllm"
    raise BadImport("not a result of vllm bench serve, SGLang's bench_serving or guidellm")


def runs(document: dict[str, Any], form: str) -> list[dict[str, Any]]:
    """The single runs in a document: one for vLLM, one for each benchmark of a GuideLLM report."""
    if not isinstance(document, dict):
        raise BadImport("not a JSON object")
    if form == "vllm":
        return [document]
    return [each for each in _listed(document.get("benchmarks")) if isinstance(each, dict)]


def describe(run: dict[str, Any], form: str) -> str:
    """A run in a few words, so that a person can choose one of several."""
    if form == "vllm":
        prompts = run.get("num_prompts") or len(_listed(run.get("ttfts")))
        return f"{prompts} prompts, concurrency {run.get('max_concurrency')}"
    strategy = _strategy(run)
    rate = strategy.get("streams") or strategy.get("rate") or strategy.get("max_concurrency")
    return f"{strategy.get('type_', 'unknown strategy')}{'' if rate is None else f' {rate}'}"


def requests(
    run: dict[str, Any],
    form: str,
    engine: str | None = None,
    clients: int | None = None,
    left_out: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Request records of one run. An entry that is none costs itself: `left_out` gets its number and what is wrong.
    Raises BadImport."""
    made = _vllm(run, engine, clients) if form == "vllm" else _guidellm(run, engine, clients)
    usable, wrong = 0, None
    for number, entry in enumerate(made, 1):
        try:
            record = entry()
            wrong = _fault(record)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            wrong = "its fields are of other types than this tool writes"
        if wrong is None:
            usable += 1
            yield record
        elif left_out is not None:
            left_out.append(f"request {number}: {wrong}")
    if not usable:
        raise BadImport(f"it holds no usable request ({wrong})")


LATEST, LONGEST, MOST = 1e11, 1e9, 10**12  # epoch seconds, seconds, tokens: what no load generator measures


def _fault(record: dict[str, Any]) -> str | None:
    """What is wrong with a record's figures; None for a good one."""
    for names, low, high, types in (
        (("launched_at", "sent_at"), 0.0, LATEST, (int, float)),
        (("ttft_s", "e2e_s"), -LONGEST, LONGEST, (int, float)),
        (("prompt_tokens", "output_tokens"), 0, MOST, (int,)),
    ):
        for name in names:
            value = record[name]
            if value is not None and (type(value) not in types or not low <= value <= high):
                return f"{name} is {str(value)[:40]}"
    if not all(0 <= at <= LONGEST for at in record["event_s"]):
        return "its gaps are no durations"
    words = [record[name] for name in ("model", "text") if record[name] is not None]
    if not all(isinstance(word, str) for word in words):
        return "its model or text is not a text"
    for name in ("model", "text", "error"):
        record[name] = _whole(record[name])
    return None


def _whole(value: Any) -> Any:
    """Words without halves of surrogate pairs, which JSON may hold and a record may not."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _record(number: int, tool: str, **fields: Any) -> dict[str, Any]:
    """A request record in which everything is null but what is given."""
    record: dict[str, Any] = {
        "kind": "request",
        "v": 1,
        "id": f"{tool}-{number}",
        "prompt": f"{number}",
        "prompt_sha256": None,
        "attempt": 1,
        "engine": None,
        "api": "openai-completions",
        "model": None,
        "base_url": None,
        "stream": True,
        "status": "ok",
        "error": None,
        "host": None,
        "pid": None,
        "slot": None,
        "seq": number + 1,
        "launcher": tool,
        "concurrency": None,
        "scheduled_at": None,
        "launched_at": None,
        "sent_at": None,
        "lateness_s": None,
        "connect_s": None,
        "headers_s": None,
        "ttft_s": None,
        "e2e_s": None,
        "effective_ttft_s": None,
        "effective_e2e_s": None,
        "event_s": [],
        "event_tokens": None,
        "clock": "user",
        "cpu_wait_s": None,
        "prompt_tokens": None,
        "cached_tokens": None,
        "output_tokens": None,
        "token_source": None,
        "finish_reason": None,
        "text": None,
        "sampling": {},
        "bytes_sent": 0,
        "bytes_received": 0,
    }
    record.update(fields)
    return record


def _seconds(value: Any) -> float | None:
    return round(float(value), 6) if isinstance(value, int | float) and math.isfinite(value) else None


Entry = Callable[[], dict[str, Any]]  # one request's record; raises what a value of another type raises


def _vllm(run: dict[str, Any], engine: str | None, clients: int | None) -> Iterator[Entry]:
    """Instants: `start_times` are of a clock without a date; the run's `date` is its end, so they are put before it.

    Differences between instants are exact, the date is good to a second and taken as UTC. No end of a request is kept:
    vLLM's own is its last event.
    """
    missing = [name for name in DETAILS if not isinstance(run.get(name), list)]
    if missing:
        raise BadImport(
            f"the result has no {', '.join(missing)}: run vllm bench serve with --save-result --save-detailed "
            "(SGLang: --output-details)"
        )
    count = len(run["ttfts"])
    if not count or any(len(run[name]) != count for name in DETAILS):
        raise BadImport(f"the lists of the result are not of one length ({', '.join(DETAILS)})")
    starts, texts = run.get("start_times"), run.get("generated_texts")
    offset = None
    if isinstance(starts, list) and len(starts) == count and all(map(_is_number, [*starts, run.get("duration") or 0])):
        offset = _ended(run.get("date")) - float(run.get("duration") or 0.0) - min(starts)
    asked = clients if clients is not None else run.get("max_concurrency")
    tool = "sglang-bench" if "total_output_tokens_retokenized" in run else "vllm-bench"

    def entry(number: int) -> dict[str, Any]:
        ttft, gaps, error = run["ttfts"][number], run["itls"][number], run["errors"][number]
        events, at = [], 0.0
        if ttft:
            for gap in [ttft, *gaps]:
                at += gap
                events.append(round(at, 6))
        output = run["output_lens"][number]
        ok = not error and bool(events)
        sent = None if offset is None or not isinstance(starts, list) else round(starts[number] + offset, 6)
        return _record(
            number,
            tool,
            engine=engine,
            model=run.get("model_id"),
            concurrency=asked if type(asked) is int and 0 < asked < MOST else None,
            launched_at=sent,
            sent_at=sent,
            status="ok" if ok else "error",
            error=None
            if ok
            else {"type": "other", "message": str(error or "no first token")[:500], "http_status": None},
            ttft_s=events[0] if events else None,
            e2e_s=_seconds(at) if ok else None,
            event_s=events if ok else [],
            prompt_tokens=run["input_lens"][number],
            output_tokens=output if ok else None,
            token_source="engine" if ok else None,
            text=texts[number] if isinstance(texts, list) and len(texts) == count else None,
        )

    return (partial(entry, number) for number in range(count))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _ended(date: Any) -> float:
    """Epoch seconds of vLLM's `date`, 20260131-120000; the epoch itself where there is none."""
    try:
        return float(calendar.timegm(time.strptime(str(date), "%Y%m%d-%H%M%S")))
    except ValueError:
        return 86_400.0


def _strategy(run: dict[str, Any]) -> dict[str, Any]:
    for path in (("config", "strategy"), ("scheduler", "strategy"), ("args", "strategy")):
        place: Any = run
        for name in path:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict):
            return place
    return {}


def _guidellm(run: dict[str, Any], engine: str | None, clients: int | None) -> Iterator[Entry]:
    """GuideLLM keeps the first and last token's time only: no events, so no inter-token latency and no event
    latency."""
    groups = run.get("requests")
    if not isinstance(groups, dict) or not any(
        isinstance(groups.get(name), list) for name in ("successful", "errored", "incomplete")
    ):
        raise BadImport("the benchmark has no requests; write the report without leaving requests out")
    strategy = _strategy(run)
    asked = clients if clients is not None else strategy.get("streams")
    statuses = (("successful", "ok"), ("errored", "error"), ("incomplete", "cancelled"))
    whole = [(each, status) for name, status in statuses for each in _listed(groups.get(name))]
    if not whole:
        raise BadImport("the benchmark has no requests")
    clients = asked if type(asked) is int and 0 < asked < MOST else None
    return (partial(_guidellm_request, at, each, status, engine, clients) for at, (each, status) in enumerate(whole))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _guidellm_request(
    number: int, each: dict[str, Any], status: str, engine: str | None, asked: int | None
) -> dict[str, Any]:
    info = each.get("info") or each.get("scheduler_info") or {}
    timings = info.get("timings") or info.get("request_timings") or {}
    start = _first(timings.get("request_start"), each.get("request_start_time"), each.get("start_time"))
    end = _first(timings.get("request_end"), each.get("request_end_time"), each.get("end_time"))
    first = _first(timings.get("first_token_iteration"), timings.get("first_iteration"), each.get("first_token_time"))
    prompt = each.get("request_args") if isinstance(each.get("request_args"), str) else each.get("prompt")
    error = None
    if status != "ok":
        error = {
            "type": status,
            "message": str(info.get("error") or each.get("error") or status)[:500],
            "http_status": None,
        }
    return _record(
        number,
        "guidellm",
        engine=engine,
        concurrency=asked,
        status=status,
        error=error,
        launched_at=_seconds(start),
        sent_at=_seconds(start),
        ttft_s=None if first is None or start is None else _seconds(first - start),
        e2e_s=None if end is None or start is None else _seconds(end - start),
        prompt_tokens=_count(each, "prompt_tokens", "input_metrics"),
        output_tokens=_count(each, "output_tokens", "output_metrics") if status == "ok" else None,
        token_source="engine" if status == "ok" else None,
        text=each.get("output"),
        prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest() if isinstance(prompt, str) else None,
    )


def _first(*values: Any) -> float | None:
    return next((float(value) for value in values if isinstance(value, int | float)), None)


def _count(each: dict[str, Any], name: str, metrics: str) -> int | None:
    value = each.get(name)
    if isinstance(value, bool):
        raise TypeError(name)
    if value is None and isinstance(each.get(metrics), dict):
        value = each[metrics].get("total_tokens") or each[metrics].get("text_tokens")
    return int(value) if isinstance(value, int | float) else None
