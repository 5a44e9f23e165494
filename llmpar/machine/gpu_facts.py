"""What does not change about the GPUs of this machine, for the host record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml as nv

from llmpar import visible_gpus
from llmpar.sampling import nvml, nvml_device, nvml_gpm


def facts() -> dict[str, Any]:
    """`driver`, `cuda` and `gpus`, each GPU with what NVML tells of it; null for what it does not. Raises
    nvml.Unavailable."""
    nvml.start()
    try:
        cuda = nvml_device.optional(nv.nvmlSystemGetCudaDriverVersion)
        machine: dict[str, Any] = {
            "driver": nvml_device.optional(nv.nvmlSystemGetDriverVersion),
            "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
            "gpus": [],
        }
        for index in range(nvml_device.optional(nv.nvmlDeviceGetCount) or 0):
            handle = nvml_device.optional(nv.nvmlDeviceGetHandleByIndex, index)
            if handle is not None:
                machine["gpus"].append(_gpu(index, handle))
        _mark_used(machine["gpus"])
        return machine
    except nvml_device.Lost as error:
        raise nvml.Unavailable(f"NVML says: {error}") from None
    finally:
        nvml.stop()


def _gpu(index: int, handle: Any) -> dict[str, Any]:
    def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        return nvml_device.optional(function, handle, *arguments)

    def watts(function: Callable[..., Any]) -> float | None:
        value = ask(function)
        return None if value is None else value / 1000

    def mode(function: Callable[..., Any]) -> bool | None:
        value = ask(function)
        return None if value is None else bool(value[0] if isinstance(value, list | tuple) else value)

    memory = ask(nv.nvmlDeviceGetMemoryInfo)
    capability = ask(nv.nvmlDeviceGetCudaComputeCapability)
    pci = ask(nv.nvmlDeviceGetPciInfo)
    limits = ask(nv.nvmlDeviceGetPowerManagementLimitConstraints)
    return {
        "index": index,
        "name": ask(nv.nvmlDeviceGetName),
        "uuid": ask(nv.nvmlDeviceGetUUID),
        "pci": _text(pci.busId) if pci is not None else None,
        "memory_bytes": None if memory is None else memory.total,
        "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
        "cores": ask(nv.nvmlDeviceGetNumGpuCores),
        "vbios": ask(nv.nvmlDeviceGetVbiosVersion),
        "power_limit_w": watts(nv.nvmlDeviceGetEnforcedPowerLimit),
        "power_default_w": watts(nv.nvmlDeviceGetPowerManagementDefaultLimit),
        "power_max_w": None if limits is None else limits[1] / 1000,
        "sm_clock_max_mhz": ask(nv.nvmlDeviceGetMaxClockInfo, nv.NVML_CLOCK_SM),
        "memory_clock_max_mhz": ask(nv.nvmlDeviceGetMaxClockInfo, nv.NVML_CLOCK_MEM),
        "ecc": mode(nv.nvmlDeviceGetEccMode),
        "mig": mode(nv.nvmlDeviceGetMigMode),
        "persistence": mode(nv.nvmlDeviceGetPersistenceMode),
        "pcie_generation": ask(nv.nvmlDeviceGetCurrPcieLinkGeneration),
        "pcie_generation_max": ask(nv.nvmlDeviceGetMaxPcieLinkGeneration),
        "pcie_width": ask(nv.nvmlDeviceGetCurrPcieLinkWidth),
        "gpm": nvml_gpm.offered(handle),
    }


def _mark_used(gpus: list[dict[str, Any]]) -> None:
    """Whether each GPU is visible to this process (CUDA_VISIBLE_DEVICES): others of the machine belong to others."""
    names = visible_gpus.told()
    uuids = [str(gpu["uuid"]) for gpu in gpus]
    whole = any(name.startswith("MIG-") for name in names or ())  # an instance's name does not tell its GPU
    chosen = range(len(gpus)) if names is None or whole else visible_gpus.indices(names, uuids)
    for place, gpu in enumerate(gpus):
        gpu["used"] = place in chosen


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
