"""The GPU's memory before and after an engine: how much there is, who holds it, and the wait until it is free."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from llmpar.engines.base import Launch


def gpu_memory() -> int | None:
    """Bytes of the smallest visible GPU; None without one."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        count = nvml.nvmlDeviceGetCount()
        sizes = [
            int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index)).total) for index in range(count)
        ]
        return min(sizes, default=None)
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def gpu_used() -> list[int] | None:
    """Bytes in use on each GPU; None without one."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        return [
            int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index)).used)
            for index in range(nvml.nvmlDeviceGetCount())
        ]
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _nvml() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml
    except Exception:  # no driver, no library: whatever the reason, there is no GPU to ask
        return None


def own_gpus(made: Sequence[Launch]) -> set[int] | None:
    """Indices of the GPUs that the servers may use; None: any of them."""
    told = [each.environment.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES")) for each in made]
    words = [
        word.strip() for one in told for word in ("all" if one is None else one).split(",") if word.strip()
    ]  # empty: none
    return {int(word) for word in words} if all(word.isdecimal() for word in words) else None


def wait_for_memory(before: list[int] | None, mine: set[int] | None = None, patience_s: float = 30.0) -> str | None:
    """Wait until the memory of each GPU, or of those in `mine`, is back near its level before the start; None, or what
    to warn of."""
    if before is None:
        return None
    limit = time.monotonic() + patience_s
    while True:
        now = gpu_used()
        left = [
            max(0, used - was)
            for index, (used, was) in enumerate(zip(now or [], before, strict=False))
            if mine is None or index in mine
        ]
        if all(each < 512 << 20 for each in left):
            return None
        if time.monotonic() > limit:
            return f"{max(left) / (1 << 30):.1f} GiB of GPU memory are still in use after the server's end"
        time.sleep(0.2)
