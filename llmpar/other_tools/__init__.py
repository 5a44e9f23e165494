"""Result files of other load generators to request records, as far as their data go: one file a tool.

What a file does not hold is null in the records; docs/metrics.md says how the tools' own definitions differ and which
releases were read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from llmpar.other_tools import aiperf, documents, evalscope, guidellm, inference_perf, vllm
from llmpar.other_tools import record as made
from llmpar.other_tools.record import BadImport

__all__ = ["FORMATS", "BadImport", "describe", "detect", "requests", "runs"]

REPORTS: dict[str, ModuleType] = {"vllm": vllm, "guidellm": guidellm}  # tools whose documents describe themselves
LISTS: dict[str, ModuleType] = {"aiperf": aiperf, "inference-perf": inference_perf, "evalscope": evalscope}
TOOLS = REPORTS | LISTS
FORMATS = tuple(TOOLS)


def detect(document: Any) -> str:
    """Which tool wrote a document. Raises BadImport."""
    if isinstance(document, dict):
        tool = document.get("tool")
        if isinstance(tool, str) and tool in LISTS:
            return tool
        for name, reader in REPORTS.items():
            if reader.wrote(document):
                return name
    raise BadImport(
        "not a result of vllm bench serve, SGLang's bench_serving, guidellm, aiperf (profile_export.jsonl), "
        "inference-perf (per_request_lifecycle_metrics.json) or evalscope perf (benchmark_data.db)"
    )


def runs(document: Any, form: str) -> list[dict[str, Any]]:
    """The single runs in a document: one, but for each benchmark of a GuideLLM report."""
    if not isinstance(document, dict):
        raise BadImport("not a JSON object")
    return guidellm.runs(document) if form == "guidellm" else [document]


def describe(run: dict[str, Any], form: str) -> str:
    """A run in a few words, so that a person can choose one of several."""
    if form in LISTS:
        return f"{len(made.listed(run.get('requests')))} requests"
    return str(REPORTS[form].describe(run))


def found_in(data: bytes, form: str | None, beside: Callable[[str], bytes | None]) -> list[tuple[dict[str, Any], str]]:
    """All runs in a file's bytes, each with its tool. `beside` reads a file of that name in the same folder, for what a
    tool keeps there (the clients asked for); None where there is none. Raises BadImport."""
    return [
        (run, kind)
        for document in documents.parsed(data, beside)
        for kind in [form or detect(document)]
        for run in runs(document, kind)
    ]


def requests(
    run: dict[str, Any],
    form: str,
    engine: str | None = None,
    clients: int | None = None,
    left_out: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Request records of one run. An entry that is none costs itself: `left_out` gets its number and what is wrong.
    Raises BadImport."""
    usable, wrong = 0, None
    for number, entry in enumerate(TOOLS[form].entries(run, engine, clients), 1):
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


LATEST, LONGEST = 1e11, 1e9  # epoch seconds, seconds: what no load generator measures


def _fault(record: dict[str, Any]) -> str | None:
    """What is wrong with a record's figures; None for a good one."""
    for names, low, high, types in (
        (("launched_at", "sent_at"), 0.0, LATEST, (int, float)),
        (("ttft_s", "e2e_s"), -LONGEST, LONGEST, (int, float)),
        (("prompt_tokens", "output_tokens"), 0, made.MOST, (int,)),
    ):
        for name in names:
            value = record[name]
            if value is not None and (type(value) not in types or not low <= value <= high):
                return f"{name} is {str(value)[:40]}"
    if not all(0 <= at <= LONGEST for at in record["event_s"]):
        return "its gaps are not durations"
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
