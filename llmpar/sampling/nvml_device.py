"""One GPU, or one MIG instance: its readings through NVML, each at its own pace.

A field that a GPU or its driver does not have is null in every sample and is asked for once. Names and units follow
NVIDIA's NVML API reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pynvml as nv

from llmpar import clock
from llmpar.sampling import nvml_gpm

# The driver or the GPU is gone; everything that is open is void.
LOST = frozenset(
    {
        nv.NVML_ERROR_UNINITIALIZED,
        nv.NVML_ERROR_DRIVER_NOT_LOADED,
        nv.NVML_ERROR_GPU_IS_LOST,
        nv.NVML_ERROR_RESET_REQUIRED,
        nv.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
# This will not change while we look.
UNSUPPORTED = frozenset(
    {
        nv.NVML_ERROR_NOT_SUPPORTED,
        nv.NVML_ERROR_FUNCTION_NOT_FOUND,
        nv.NVML_ERROR_NO_PERMISSION,
        nv.NVML_ERROR_INVALID_ARGUMENT,
        nv.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        26,
    }
)  # 26: DEPRECATED
# So many readings that answer "unknown error" in one sample, and answered before, are a GPU that fell off the bus.
# Where they never answered it is what stands between us and the driver (a sandbox, say): those fields are null.
UNKNOWN_IS_LOST = 3
ALL_LINKS = 0xFFFFFFFF
# Seconds between two readings of a kind, less a little for late ticks: only power is read at each tick. The load is a
# mean over 0.2 s in the driver itself; the rest is cumulative, or slow. Between its readings a field is null. The dear
# ones took 3.4 ms (energy) and 0.84 ms (each direction of NVLink) of CPU time a call on an H100, all others 0.004 to
# 0.12 ms.
EVERY_S = {"load": 0.19, "memory": 0.45, "slow": 0.95, "dear": 1.95}
DEAR = ("energy_counter_j", "nvlink_tx_bytes", "nvlink_rx_bytes")
CLOCK_LIMITS = (
    (0x001, "idle"),
    (0x002, "application_clocks"),
    (0x004, "power_cap"),
    (0x008, "hardware_slowdown"),
    (0x010, "sync_boost"),
    (0x020, "software_thermal"),
    (0x040, "hardware_thermal"),
    (0x080, "power_brake"),
    (0x100, "display_clocks"),
    (0x200, "board_limit"),
    (0x400, "reliability"),
)
# Field identifiers by name: (identifier, scope, factor to the unit in the name).
FIELDS: dict[str, tuple[int, int, float]] = {
    "energy_counter_j": (nv.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, 0, 1e-3),
    "power_instant_w": (nv.NVML_FI_DEV_POWER_INSTANT, 0, 1e-3),
    "power_average_w": (nv.NVML_FI_DEV_POWER_AVERAGE, 0, 1e-3),
    "memory_temperature_c": (nv.NVML_FI_DEV_MEMORY_TEMP, 0, 1),
    "nvlink_tx_bytes": (nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, ALL_LINKS, 1024),
    "nvlink_rx_bytes": (nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, ALL_LINKS, 1024),
    "pcie_tx_bytes": (getattr(nv, "NVML_FI_DEV_PCIE_COUNT_TX_BYTES", 197), 0, 1),
    "pcie_rx_bytes": (getattr(nv, "NVML_FI_DEV_PCIE_COUNT_RX_BYTES", 198), 0, 1),
}
VALUE = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


class Lost(Exception):
    """The GPU or the driver is gone; the code is NVML's."""

    def __init__(self, code: int):
        super().__init__(str(nv.NVMLError(code)))
        self.code = code


def optional(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function gives, or None where NVML refuses for any reason but a lost GPU. Raises Lost."""
    try:
        return function(*arguments)
    except nv.NVMLError as error:
        if error.value in LOST:
            raise Lost(error.value) from None
        return None


class Device:
    """One GPU, or one MIG instance of it."""

    def __init__(
        self,
        index: int,
        handle: Any,
        owns: Callable[[int], bool | None],
        parent: Device | None = None,
        instance: int = 0,
    ):
        """`owns`: whether a process is the engine's (None: nobody said which processes are)."""
        self.index, self.handle, self.parent = index, handle, parent
        self.uuid = str(optional(nv.nvmlDeviceGetUUID, handle) or "")
        self.name = optional(nv.nvmlDeviceGetName, handle)
        self.mig: dict[str, Any] | None = None
        self.unsupported: set[str] = set()
        self._owns, self._told = owns, -1
        self._answered: set[str] = set()
        self._unknown: set[str] = set()  # in this sample
        self._due = dict.fromkeys(EVERY_S, 0.0)
        self._memory_version: int | None = nv.nvmlMemory_v2
        self.open = True
        if parent is not None:
            self.mig = {
                "instance": instance,
                "gpu_instance": optional(nv.nvmlDeviceGetGpuInstanceId, handle),
                "compute_instance": optional(nv.nvmlDeviceGetComputeInstanceId, handle),
            }
        whole = parent or self
        self._gpm: nvml_gpm.Gpm | None = nvml_gpm.open(whole.handle, self.mig["gpu_instance"] if self.mig else None)
        if self._gpm is None:
            self.unsupported.add("gpm")

    def close(self) -> None:
        self.open = False
        if self._gpm is not None:
            self._gpm.close()
            self._gpm = None

    def _ask(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if name in self.unsupported:
            return None
        try:
            answer = function(*arguments)
        except nv.NVMLError as error:
            self._refused(name, error.value)
            return None
        self._answered.add(name)
        return answer

    def _refused(self, name: str, code: int) -> None:
        if code in LOST:
            raise Lost(code)
        if code in UNSUPPORTED:
            self.unsupported.add(name)
        elif code == nv.NVML_ERROR_UNKNOWN:
            self._unknown.add(name)

    def _now(self, kind: str) -> bool:
        """Whether it is time for readings of a kind."""
        now = time.monotonic()
        if now < self._due[kind]:
            return False
        self._due[kind] = now + EVERY_S[kind]
        return True

    def read(self, everything: bool = False) -> dict[str, Any]:
        """All readings that are due, the others null; at first all are, and with `everything`. Raises Lost."""
        self._unknown.clear()
        if everything:
            self._due = dict.fromkeys(EVERY_S, 0.0)
        began = time.monotonic_ns()
        sample: dict[str, Any] = {"at": clock.now()}
        whole = self.parent.handle if self.parent else self.handle
        slow, dear = self._now("slow"), self._now("dear")
        # The average stands in for the instant where a card has no other, so it is then read as often.
        each = "power_average_w" if "power_instant_w" in self.unsupported else "power_instant_w"
        fields = self._fields(whole, [name for name in FIELDS if name == each or (dear if name in DEAR else slow)])
        power, source = fields["power_instant_w"], "instant"
        if power is None:
            power, source = fields["power_average_w"], "average"
        if power is None:
            usage = self._ask("power_usage", nv.nvmlDeviceGetPowerUsage, whole)
            power, source = None if usage is None else usage / 1000, "usage"
        if dear and fields["energy_counter_j"] is None:
            counter = self._ask("energy_counter", nv.nvmlDeviceGetTotalEnergyConsumption, whole)
            fields["energy_counter_j"] = None if counter is None else counter / 1000
        sample |= {"power_w": power, "power_source": None if power is None else source, **fields}
        sample |= self._load(whole, self._now("load"), slow) | self._memory(self._now("memory"), slow)
        if self._gpm is not None:
            sample |= self._gpm.read(self._refused)
        else:
            sample |= nvml_gpm.NOTHING
        if slow and self._gpm is None and "pcie_tx_bytes" in self.unsupported:
            self._pcie(sample, whole)
        if len(self._unknown & self._answered) >= UNKNOWN_IS_LOST or self._unknown and not self._answered:
            raise Lost(nv.NVML_ERROR_UNKNOWN)
        sample["read_s"] = clock.duration(time.monotonic_ns() - began)
        # Said in the first sample and whenever it changes.
        sample["unsupported"] = sorted(self.unsupported) if len(self.unsupported) != self._told else None
        self._told = len(self.unsupported)
        return sample

    def _pcie(self, sample: dict[str, Any], handle: Any) -> None:
        """Without counters NVML watches the bus for 20 ms a direction, and we with it."""
        for name, counter in (
            ("pcie_tx_bytes_per_s", nv.NVML_PCIE_UTIL_TX_BYTES),
            ("pcie_rx_bytes_per_s", nv.NVML_PCIE_UTIL_RX_BYTES),
        ):
            kilobytes = self._ask(name, nv.nvmlDeviceGetPcieThroughput, handle, counter)
            sample[name] = None if kilobytes is None else kilobytes * 1024

    def _fields(self, handle: Any, names: Iterable[str]) -> dict[str, float | None]:
        readings: dict[str, float | None] = dict.fromkeys(FIELDS)
        wanted = [name for name in names if name not in self.unsupported]
        values = wanted and self._ask(
            "fields", nv.nvmlDeviceGetFieldValues, handle, [FIELDS[name][:2] for name in wanted]
        )
        for name, value in zip(wanted, values or (), strict=False):
            if value.nvmlReturn == nv.NVML_SUCCESS:
                number = getattr(value.value, VALUE[value.valueType]) if value.valueType < len(VALUE) else None
                readings[name] = None if number is None else round(number * FIELDS[name][2], 6)
                self._answered.add(name)
            else:
                self._refused(name, value.nvmlReturn)
        return readings

    def _load(self, whole: Any, now: bool, slow: bool) -> dict[str, Any]:
        load = self._ask("utilisation", nv.nvmlDeviceGetUtilizationRates, self.handle) if now else None
        reasons = self._ask("clock_limits", _clock_limits, whole) if slow else None
        readings = {
            "gpu_util_ratio": None if load is None else load.gpu / 100,
            "memory_util_ratio": None if load is None else load.memory / 100,
            "sm_clock_mhz": None,
            "memory_clock_mhz": None,
            "temperature_c": None,
            "clock_limits": None if reasons is None else [name for bit, name in CLOCK_LIMITS if reasons & bit],
        }
        if slow:
            readings["sm_clock_mhz"] = self._ask("sm_clock", nv.nvmlDeviceGetClockInfo, whole, nv.NVML_CLOCK_SM)
            readings["memory_clock_mhz"] = self._ask(
                "memory_clock", nv.nvmlDeviceGetClockInfo, whole, nv.NVML_CLOCK_MEM
            )
            readings["temperature_c"] = self._ask(
                "temperature", nv.nvmlDeviceGetTemperature, whole, nv.NVML_TEMPERATURE_GPU
            )
        return readings

    def _memory(self, now: bool, slow: bool) -> dict[str, Any]:
        memory = None
        if now and self._memory_version is not None:
            memory = self._ask("memory_v2", nv.nvmlDeviceGetMemoryInfo, self.handle, self._memory_version)
            if "memory_v2" in self.unsupported:
                self._memory_version = None
        if now and memory is None:
            memory = self._ask("memory", nv.nvmlDeviceGetMemoryInfo, self.handle)
        running = self._ask("processes", nv.nvmlDeviceGetComputeRunningProcesses, self.handle) if slow else None
        processes = None
        engine: int | None = None
        if running is not None:
            processes = []
            for process in running:
                mine = self._owns(process.pid)
                processes.append({"pid": process.pid, "memory_bytes": process.usedGpuMemory, "engine": mine})
                if mine and process.usedGpuMemory is not None:
                    engine = (engine or 0) + process.usedGpuMemory
        return {
            "memory_used_bytes": None if memory is None else memory.used,
            "memory_total_bytes": None if memory is None else memory.total,
            "engine_memory_bytes": engine,
            "processes": processes,
        }


def _clock_limits(handle: Any) -> int:
    try:
        return int(nv.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except nv.NVMLError as error:
        if error.value not in UNSUPPORTED:
            raise
    return int(nv.nvmlDeviceGetCurrentClocksThrottleReasons(handle))  # the same under its name before driver 535
