"""`vllm bench serve --save-result --save-detailed` (vllm/benchmarks/serve.py) and, with the same lists but no start
times, SGLang's `bench_serving --output-details`."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from llmpar.other_tools import record as made

DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "errors")


def wrote(document: dict[str, Any]) -> bool:
    return "request_throughput" in document or "ttfts" in document


def describe(run: dict[str, Any]) -> str:
    prompts = run.get("num_prompts") or len(made.listed(run.get("ttfts")))
    return f"{prompts} prompts, concurrency {run.get('max_concurrency')}"


def entries(run: dict[str, Any], engine: str | None, clients: int | None) -> Iterator[made.Entry]:
    """Instants: `start_times` are of a clock without a date; the run's `date` is its end, so they are put before it.

    Differences between instants are exact, the date is good to a second and taken as UTC. No end of a request is kept:
    vLLM's own is its last event.
    """
    missing = [name for name in DETAILS if not isinstance(run.get(name), list)]
    if missing:
        raise made.BadImport(
            f"the result has no {', '.join(missing)}: run vllm bench serve with --save-result --save-detailed "
            "(SGLang: --output-details)"
        )
    count = len(run["ttfts"])
    if not count or any(len(run[name]) != count for name in DETAILS):
        raise made.BadImport(f"the lists of the result are not of one length ({', '.join(DETAILS)})")
    starts, texts = run.get("start_times"), run.get("generated_texts")
    offset = None
    duration = run.get("duration") or 0.0
    if isinstance(starts, list) and len(starts) == count and all(map(made.is_number, [*starts, duration])):
        offset = _ended(run.get("date")) - float(duration) - min(starts)
    tool = "sglang-bench" if "total_output_tokens_retokenized" in run else "vllm-bench"

    def entry(number: int) -> dict[str, Any]:
        error = run["errors"][number]
        events = made.events(run["ttfts"][number], run["itls"][number])
        output = run["output_lens"][number]
        ok = not error and bool(events)
        sent = None if offset is None or not isinstance(starts, list) else round(starts[number] + offset, 6)
        return made.record(
            number,
            tool,
            engine=engine,
            model=run.get("model_id"),
            concurrency=made.clients(clients, run.get("max_concurrency")),
            launched_at=sent,
            sent_at=sent,
            status="ok" if ok else "error",
            error=None if ok else made.failure(error or "no first token"),
            ttft_s=events[0] if events else None,
            e2e_s=events[-1] if ok else None,
            event_s=events if ok else [],
            prompt_tokens=run["input_lens"][number],
            output_tokens=output if ok else None,
            token_source="engine" if ok else None,
            text=texts[number] if isinstance(texts, list) and len(texts) == count else None,
        )

    return (partial(entry, number) for number in range(count))


def _ended(date: Any) -> float:
    """Epoch seconds of vLLM's `date`, 20260131-120000; the epoch itself where there is none."""
    try:
        return float(calendar.timegm(time.strptime(str(date), "%Y%m%d-%H%M%S")))
    except ValueError:
        return made.DAY_ONE
