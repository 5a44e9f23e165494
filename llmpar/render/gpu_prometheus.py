"""One reading of the GPUs in Prometheus's text format."""

from __future__ import annotations

import time
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Gauge, generate_latest

# Numbers of a sample that are no measurement of the GPU.
NOT_A_GAUGE = frozenset({"v", "at", "gpu", "missed", "read_s"})


class Source(Protocol):
    def read(self, missed: int = 0) -> list[dict[str, Any]]: ...


def snapshot(source: Source, wait_s: float = 0.5) -> str:
    """Two readings, `wait_s` apart, so that metrics of a time between readings have a value; the text of the second,
    with what only the first had to tell."""
    before = {sample["uuid"]: sample for sample in source.read()}
    time.sleep(wait_s)
    return text(
        [
            before.get(sample["uuid"], {})
            | {name: value for name, value in sample.items() if value is not None or name == "error"}
            for sample in source.read()
        ]
    )


def text(samples: list[dict[str, Any]]) -> str:
    """Gauges `llmpar_gpu_FIELD{gpu,uuid,instance}`; a field that was not measured has no line."""
    registry = CollectorRegistry()
    labels = ("gpu", "uuid", "instance")
    gauges: dict[str, Gauge] = {}

    def put(name: str, help_text: str, identity: dict[str, str], value: float, **more: str) -> None:
        if name not in gauges:
            gauges[name] = Gauge(name, help_text, (*labels, *more), registry=registry)
        gauges[name].labels(**identity, **more).set(value)

    for sample in samples:
        mig = sample.get("mig")
        identity = {"gpu": str(sample["gpu"]), "uuid": sample["uuid"], "instance": str(mig["instance"]) if mig else ""}
        put("llmpar_gpu_up", "1 when the GPU answers", identity, 0 if sample["error"] else 1)
        for name, value in sample.items():
            if name not in NOT_A_GAUGE and isinstance(value, int | float) and not isinstance(value, bool):
                put(f"llmpar_gpu_{name}", f"field {name} of llmpar's gpu records", identity, value)
        for limit in sample.get("clock_limits") or ():
            put("llmpar_gpu_clock_limit", "1 for what limits the clocks now", identity, 1, limit=limit)
    return generate_latest(registry).decode()
