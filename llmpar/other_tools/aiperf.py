"""`profile_export.jsonl` of `aiperf profile`: a line a request, at --export-level records (the default). Read in AIPerf
0.13.0: aiperf/common/models/record_models.py (MetricRecordInfo) and aiperf/metrics/types."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from llmpar.other_tools import record as made

EXPORT = "profile_export_aiperf.json"  # beside it: the figures of the run and its configuration
IN_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}


def is_request(document: dict[str, Any]) -> bool:
    return "request_start_ns" in made.mapping(document.get("metadata")) and "metrics" in document


def entries(run: dict[str, Any], engine: str | None, clients: int | None) -> Iterator[made.Entry]:
    """Warm-up requests are left out. Start and latency are of different clocks, each exact."""
    measured = [each for each in made.listed(run.get("requests")) if not _is_warm_up(made.mapping(each))]
    if not measured:
        raise made.BadImport("the file holds no request of the profiling phase")
    configuration = made.mapping(made.mapping(run.get("beside")).get("input_config"))
    common = {
        "engine": engine,
        "model": _model(configuration),
        "concurrency": made.clients(clients, _concurrency(configuration)),
    }
    if (kind := made.mapping(configuration.get("endpoint")).get("type")) in ("chat", "completions"):
        common["api"] = f"openai-{kind}"
    return (partial(_request, number, each, common) for number, each in enumerate(measured))


def _is_warm_up(each: dict[str, Any]) -> bool:
    return made.mapping(each.get("metadata")).get("benchmark_phase") == "warmup"


def _concurrency(configuration: dict[str, Any]) -> Any:
    """Of releases before 0.10 `loadgen`, since then the last phase that has one."""
    phases = [made.mapping(each).get("concurrency") for each in made.listed(configuration.get("phases"))]
    found = [each for each in phases if type(each) is int]
    return found[-1] if found else made.mapping(configuration.get("loadgen")).get("concurrency")


def _model(configuration: dict[str, Any]) -> str | None:
    models = configuration.get("models") or made.mapping(configuration.get("endpoint")).get("model_names")
    if isinstance(models, dict):
        models = models.get("items")
    first = made.listed(models)[:1]
    name = made.mapping(first[0]).get("name") if first and isinstance(first[0], dict) else (first or [None])[0]
    return name if isinstance(name, str) else None


def _request(number: int, line: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    metadata, metrics = made.mapping(line["metadata"]), made.mapping(line.get("metrics"))
    error = line.get("error")
    status = "cancelled" if metadata.get("was_cancelled") else "error" if error else "ok"
    ok = status == "ok"
    start = metadata["request_start_ns"] / 1e9
    issued = metadata.get("credit_issued_ns")
    ttft = _in_seconds(metrics, "time_to_first_token")
    e2e = _in_seconds(metrics, "request_latency")
    # A stream of one chunk has no gaps; an answer that was not streamed has no first token.
    gaps = _in_seconds(metrics, "inter_chunk_latency") or []
    usage = _value(metrics, "usage_completion_tokens")
    output = usage if usage is not None else _value(metrics, "output_sequence_length")
    return made.record(
        number,
        "aiperf",
        **common,
        prompt=f"{metadata.get('conversation_id') or metadata.get('session_num', number)}"
        f"-{metadata.get('turn_index') or 0}",
        status=status,
        error=None if ok else made.failure(*_error(error, status)),
        launched_at=made.seconds(start if issued is None else issued / 1e9),
        sent_at=made.seconds(start),
        ttft_s=made.seconds(ttft),
        e2e_s=made.seconds(e2e if ok else (metadata["request_end_ns"] - metadata["request_start_ns"]) / 1e9),
        event_s=made.events(ttft, gaps) if ok else [],
        prompt_tokens=_either(metrics, "usage_prompt_tokens", "input_sequence_length"),
        cached_tokens=_value(metrics, "usage_prompt_cache_read_tokens"),
        output_tokens=output if ok else None,
        token_source=None if not ok else "tokenizer" if usage is None else "engine",
        stream=ttft is not None or not ok,
    )


def _error(error: Any, status: str) -> tuple[Any, str, int | None]:
    told = made.mapping(error)
    code = told.get("code")
    return told.get("message") or error or status, str(told.get("type") or status), code if type(code) is int else None


def _value(metrics: dict[str, Any], name: str) -> Any:
    value = made.mapping(metrics.get(name)).get("value")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _either(metrics: dict[str, Any], *names: str) -> Any:
    return next((value for value in (_value(metrics, name) for name in names) if value is not None), None)


def _in_seconds(metrics: dict[str, Any], name: str) -> Any:
    """A metric of time, or a list of them, in seconds; None where it is missing. KeyError for a unit unknown."""
    metric = made.mapping(metrics.get(name))
    value = metric.get("value")
    if value is None:
        return None
    scale = IN_SECONDS[metric["unit"]]
    return [each * scale for each in value] if isinstance(value, list) else value * scale
