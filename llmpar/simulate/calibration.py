"""What the microbenchmark measured, as a card record."""

from __future__ import annotations

import os
import re
from importlib import resources
from typing import Any

from llmpar.simulate import cards
from llmpar.simulate.models import Refused


def source() -> str:
    """The microbenchmark's text: it runs in another Python, which has torch and not llmpar."""
    return resources.files("llmpar.simulate").joinpath("microbenchmark.py").read_text()


def environment(gpu: int) -> dict[str, str]:
    """Of this process, with one GPU visible; an index counts among those that were visible before."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    chosen = visible[gpu] if gpu < len(visible) else str(gpu)
    # Of two orders of devices nvidia-smi's is the one that users see.
    return os.environ | {"CUDA_VISIBLE_DEVICES": chosen, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def record(measured: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """The `card` record. Raises KeyError for a missing figure, Refused for figures that cannot be.

    Bandwidth and arithmetic are those of the datasheet where the card is known: predictions take shares of them, which
    were fitted so. For other cards they are what was measured over the shares that known cards reach.
    """
    title = str(measured["title"])
    points = {key: list(measured[key]) for key in cards.POINTS}
    if len(points["tokens"]) != len(points["dense_ms"]) or len(points["head_tokens"]) != len(points["head_ms"]):
        raise Refused("as many times as token counts are needed")
    if min(*points["dense_ms"], *points["head_ms"]) <= 0:
        raise Refused("a time of 0 was measured")
    try:
        known = cards.card(title)
        bandwidth, flops = known.bandwidth_bytes_per_s, known.tensor_flops
    except Refused:
        bandwidth = measured["measured_bandwidth_bytes_per_s"] / cards.MEMORY_REACHED
        flops = measured["measured_tensor_flops"] / cards.TENSOR_REACHED
    return {
        "kind": "card",
        "v": 1,
        "name": name or re.sub(r"[^a-z0-9]+", "-", title.lower().removeprefix("nvidia ")).strip("-"),
        "title": title,
        "memory_bytes": int(measured["memory_bytes"]),
        "bandwidth_bytes_per_s": float(bandwidth),
        "tensor_flops": float(flops),
        "measured_bandwidth_bytes_per_s": float(measured["measured_bandwidth_bytes_per_s"]),
        "measured_tensor_flops": float(measured["measured_tensor_flops"]),
        "table_model": "llama-3.1-8b",
        **points,
        "torch": measured["torch"],
    }
