"""GPU and engine samples joined to a summary over its steady window, else over the whole run."""

from __future__ import annotations

from typing import Any


def join(summary: dict[str, Any], gpu: list[dict[str, Any]], engine: list[dict[str, Any]],
         tokens_between: Any) -> None:
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
    joined: dict[str, Any] = {"over": over, "start_at": start, "end_at": end, "output_tokens": tokens,
                              "energy_per_output_token_j": None, "causes": []}
    if gpu:
        from llmpar import gpu as gpu_samples

        summary["gpu"] = gpu_samples.reduce(sorted(gpu, key=_when), start, end)
        energy = (summary["gpu"] or {}).get("energy_j")
        if isinstance(energy, int | float) and tokens:
            joined["energy_per_output_token_j"] = energy / tokens
    if engine:
        from llmpar import metrics

        summary["engine"] = metrics.reduce(sorted(engine, key=_when), start, end)
    summary["joined"] = joined


def _when(sample: dict[str, Any]) -> tuple[float, str]:
    return float(sample.get("at") or 0.0), repr(sorted(sample.items(), key=lambda item: item[0]))
