"""The GPU's memory before and after an engine: how much there is, who holds it, and the wait until it is free."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from llmpar import visible_gpus
from llmpar.engines.base import Launch


def gpu_memory(gpus: str | None = None) -> int | None:
    """Bytes of the smallest GPU of those named, else of those visible to this process; None without one.

    `gpus`: as in the settings, counted among the visible ones. Raises ValueError where fewer are visible.
    """
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        names = visible_gpus.told()
        if gpus and all(word.strip().isdecimal() for word in gpus.split(",")):
            names = visible_gpus.words(visible_gpus.within(gpus, names))
        sizes = [int(nvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in _handles(nvml, names)]
        return min(sizes, default=None)
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _handles(nvml: Any, names: Sequence[str] | None) -> list[Any]:
    """NVML's handles of GPUs, or instances of them, by index or UUID; of all for None."""
    every = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if names is None:
        return every
    found = []
    for name in names:
        if name.startswith("MIG-"):
            found.append(nvml.nvmlDeviceGetHandleByUUID(name))
        else:
            found += [every[place] for place in visible_gpus.indices([name], _uuids(nvml))]
    return found


def _uuids(nvml: Any) -> list[str]:
    count = nvml.nvmlDeviceGetCount()
    return [str(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index))) for index in range(count)]


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
    """Indices of the GPUs that the servers may use, empty for none; None: any of them, or nobody can tell."""
    lists = [visible_gpus.told({**os.environ, **each.environment}) for each in made]
    if any(names is None for names in lists):
        return None
    names = [name for each in lists for name in each or ()]
    if all(name.isdecimal() for name in names):
        return {int(name) for name in names}
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        uuids = _uuids(nvml)
        found = [visible_gpus.indices([name], uuids) for name in names]
        return {place for each in found for place in each} if all(found) else None
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


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
