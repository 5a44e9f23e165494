"""GPU and engine samples joined to a summary over its steady window, else over the whole run; causes named."""

from __future__ import annotations

from typing import Any

from llmpar.summary import energy
from llmpar.summary.causes import engine_causes, frontend_causes, gpu_causes, sequences

# Ends of outputs cut some drafts short: 1% was seen with 8 draft tokens.


def join(summary: dict[str, Any], gpu: list[dict[str, Any]], engine: list[dict[str, Any]], tokens_between: Any) -> None:
    """Fill the summary's `gpu`, `engine` and `joined`.

    `gpu`, `engine`: the sample records. `tokens_between(start, end)`: output tokens received between two instants.
    """
    window = summary["window"]
    over = "steady" if window["steady"] else "run"
    start = window["start_at"] if window["steady"] else summary["started_at"]
    end = window["end_at"] if window["steady"] else summary["ended_at"]
    if start is None or end is None or not (gpu or engine):
        return
    tokens = tokens_between(start, end)
    joined: dict[str, Any] = {
        "over": over,
        "start_at": start,
        "end_at": end,
        "output_tokens": tokens,
        "energy_per_output_token_j": None,
        "energy_per_output_token_resolution_j": None,
        "queue_s_mean": None,
        "prefill_s_mean": None,
        "decode_s_mean": None,
        "acceptance_length": None,
        "causes": [],
    }
    if gpu:
        from llmpar.sampling import gpu_figures as gpu_samples

        summary["gpu"] = gpu_samples.reduce(sorted(gpu, key=_when), start, end)
        joined |= energy.per_output_token(summary["gpu"], tokens)
    if engine:
        from llmpar.sampling import engine_figures

        samples = sorted(engine, key=_when)
        figures = summary["engine"] = engine_figures.reduce(samples, start, end)
        joined |= split(figures)
        joined["acceptance_length"] = acceptance(summary.get("cell"), summary.get("server"), figures)
        inside = [sample for sample in samples if start <= sample["at"] <= end]
        joined["causes"] += engine_causes(figures, inside, sequences(summary))
    if gpu:
        joined["causes"] += gpu_causes(summary["gpu"])
        if engine and any(cause["code"] == "gpu_idle" for cause in joined["causes"]):
            joined["causes"] += frontend_causes(inside)
    summary["joined"] = joined


def _when(sample: dict[str, Any]) -> tuple[float, str]:
    return float(sample.get("at") or 0.0), repr(sorted(sample.items(), key=lambda item: item[0]))


def acceptance(
    cell: dict[str, Any] | None, server: dict[str, Any] | None, engine: dict[str, Any]
) -> dict[str, float | None] | None:
    """Tokens that a step with drafts yielded, and the length that was forced, None where the text decided; None without
    drafts."""
    observed = engine.get("spec_tokens_per_step")
    if observed is None:
        return None
    settings = (cell or {}).get("server") or (server or {}).get("settings") or {}
    return {"forced": settings.get("acceptance_length"), "observed": observed}


def split(engine: dict[str, Any]) -> dict[str, float | None]:
    """Mean seconds that a request waited in the engine's queue, read its prompt, and wrote: by the engine's own
    account."""
    requests = engine.get("requests")
    return {
        "queue_s_mean": engine.get("queue_s_mean"),
        "prefill_s_mean": engine["prefill_s"] / requests if requests and engine.get("prefill_s") is not None else None,
        "decode_s_mean": engine["decode_s"] / requests if requests and engine.get("decode_s") is not None else None,
    }
