"""A fake libnvidia-ml under the real pynvml: C functions with NVML's own signatures, made with ctypes.

pynvml's calls go through as they would to the library: a wrong type or number of arguments is refused, structures are
filled at their addresses, error codes come back as return values, a function the "driver" lacks is missing by name.
"""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable
from ctypes import POINTER, c_int, c_int32, c_uint, c_uint64, c_ulonglong, c_void_p
from dataclasses import dataclass, field
from typing import Any

import pynvml as nv

GIB = 1 << 30


@dataclass
class Mig:
    uuid: str
    gpu_instance: int
    compute_instance: int = 0
    memory_total: int = 10 * GIB
    memory_used: int = 4 * GIB
    processes: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Gpu:
    """One GPU. `errors`: NVML codes by function name, or by field identifier. `lost`: seconds from the fake's start
    (from, to)."""

    uuid: str = "GPU-00000000-fake"
    name: str = "Fake H200"
    memory_total: int = 140 * GIB
    memory_used: int = 30 * GIB
    processes: list[tuple[int, int]] = field(default_factory=list)
    util: tuple[int, int] = (93, 41)
    power_w: float = 400.0
    energy_start_mj: int = 1_000_000_000
    energy_wrap_mj: int | None = None
    energy_step_s: float = 0.0  # the counter moves only so often
    clocks: dict[int, int] = field(default_factory=lambda: {nv.NVML_CLOCK_SM: 1980, nv.NVML_CLOCK_MEM: 3201})
    temperature: int = 61
    limits: int = 0x4
    gpm: dict[int, float] | None = field(
        default_factory=lambda: {
            nv.NVML_GPM_METRIC_SM_UTIL: 88.0,
            nv.NVML_GPM_METRIC_SM_OCCUPANCY: 21.0,
            nv.NVML_GPM_METRIC_ANY_TENSOR_UTIL: 34.0,
            nv.NVML_GPM_METRIC_HMMA_TENSOR_UTIL: 34.0,
            nv.NVML_GPM_METRIC_DRAM_BW_UTIL: 71.0,
            nv.NVML_GPM_METRIC_PCIE_TX_PER_SEC: 2.0,
        }
    )
    fields: dict[int, Callable[[float], float]] = field(default_factory=dict)  # more field values, or others
    errors: dict[Any, int] = field(default_factory=dict)
    migs: list[Mig] = field(default_factory=list)
    lost: tuple[float, float] | None = None
    lost_code: int = nv.NVML_ERROR_GPU_IS_LOST

    def energy_mj(self, seconds: float) -> int:
        if self.energy_step_s:
            seconds = seconds // self.energy_step_s * self.energy_step_s
        value = self.energy_start_mj + int(self.power_w * seconds * 1000)
        return value % self.energy_wrap_mj if self.energy_wrap_mj else value

    def field_value(self, identifier: int, seconds: float) -> float | None:
        own = {
            nv.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION: lambda _: self.energy_mj(seconds),
            nv.NVML_FI_DEV_POWER_INSTANT: lambda _: self.power_w * 1000,
            nv.NVML_FI_DEV_POWER_AVERAGE: lambda _: self.power_w * 990,
            nv.NVML_FI_DEV_MEMORY_TEMP: lambda _: self.temperature + 9,
            nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX: lambda _: 1000 * seconds,
            nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX: lambda _: 2000 * seconds,
        } | self.fields
        return own[identifier](seconds) if identifier in own else None


class Refused(Exception):
    def __init__(self, code: int):
        self.code = code


H, U, UP = c_void_p, c_uint, POINTER(c_uint)
LLP, IP = POINTER(c_ulonglong), POINTER(c_int)


class Library:
    """Stands where pynvml keeps its CDLL. `clock`: seconds; `calls` counts calls by name."""

    def __init__(
        self,
        gpus: list[Gpu],
        clock: Callable[[], float] = time.monotonic,
        driver: str = "580.1",
        missing: set[str] = frozenset(),
        init_code: int = 0,
    ):  # type: ignore[assignment]
        self.gpus, self.clock, self.driver, self.missing, self.init_code = gpus, clock, driver, missing, init_code
        self.begun = clock()
        self.calls: dict[str, int] = {}
        self.faults: list[str] = []
        self.open = 0
        self._handles: dict[int, tuple[Gpu, Mig | None]] = {}
        self._addresses: dict[int, int] = {}
        self._keep: list[Any] = []
        self._samples: dict[int, tuple[Gpu, float] | None] = {}
        for gpu in gpus:
            self._add(gpu, None)
            for mig in gpu.migs:
                self._add(gpu, mig)
        self._made: dict[str, Any] = {}

    def _add(self, gpu: Gpu, mig: Mig | None) -> None:
        cell = ctypes.create_string_buffer(8)
        self._keep.append(cell)
        self._handles[ctypes.addressof(cell)] = (gpu, mig)
        self._addresses[id(mig or gpu)] = ctypes.addressof(cell)

    @property
    def seconds(self) -> float:
        return self.clock() - self.begun

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in SIGNATURES or name in self.__dict__.get("missing", ()):
            raise AttributeError(name)
        if name not in self._made:
            body = getattr(Library, "do_" + name)

            def call(*arguments: Any) -> int:
                self.calls[name] = self.calls.get(name, 0) + 1
                try:
                    if not self.open and not name.startswith("nvmlInit"):
                        return nv.NVML_ERROR_UNINITIALIZED
                    if SIGNATURES[name] and SIGNATURES[name][0] is H and arguments[0] in self._handles:
                        gpu = self._handles[arguments[0]][0]
                        self._check_lost(gpu)
                        if name in gpu.errors:
                            return gpu.errors[name]
                    return body(self, *arguments) or 0
                except Refused as refused:
                    return refused.code
                except Exception as error:  # a real library would crash
                    self.faults.append(f"{name}: {error!r}")
                    return nv.NVML_ERROR_UNKNOWN

            self._made[name] = ctypes.CFUNCTYPE(c_int, *SIGNATURES[name])(call)
        return self._made[name]

    def _check_lost(self, gpu: Gpu) -> None:
        if gpu.lost and gpu.lost[0] <= self.seconds < gpu.lost[1]:
            raise Refused(gpu.lost_code)

    def _of(self, handle: int, whole: bool = False) -> tuple[Gpu, Mig | None]:
        if handle not in self._handles:
            raise Refused(nv.NVML_ERROR_INVALID_ARGUMENT)
        gpu, mig = self._handles[handle]
        if mig is not None and whole:
            raise Refused(nv.NVML_ERROR_NOT_SUPPORTED)  # what MIG instances do not answer
        return gpu, mig

    @staticmethod
    def _text(address: int, size: int, text: str) -> None:
        data = text.encode() + b"\0"
        if len(data) > size:
            raise Refused(nv.NVML_ERROR_INSUFFICIENT_SIZE)
        ctypes.memmove(address, data, len(data))

    def do_nvmlInitWithFlags(self, flags: int) -> int:
        if any(gpu.lost and gpu.lost[0] <= self.seconds < gpu.lost[1] for gpu in self.gpus) and len(self.gpus) == 1:
            return nv.NVML_ERROR_DRIVER_NOT_LOADED
        if self.init_code:
            return self.init_code
        self.open += 1
        return 0

    def do_nvmlShutdown(self) -> None:
        self.open -= 1

    def do_nvmlSystemGetDriverVersion(self, address: int, size: int) -> None:
        self._text(address, size, self.driver)

    def do_nvmlSystemGetCudaDriverVersion_v2(self, out: Any) -> None:
        out[0] = 13000

    do_nvmlSystemGetCudaDriverVersion = do_nvmlSystemGetCudaDriverVersion_v2

    def do_nvmlDeviceGetCount_v2(self, out: Any) -> None:
        out[0] = len(self.gpus)

    def do_nvmlDeviceGetHandleByIndex_v2(self, index: int, out: Any) -> int | None:
        if index >= len(self.gpus):
            return nv.NVML_ERROR_INVALID_ARGUMENT
        self._check_lost(self.gpus[index])
        out[0] = self._addresses[id(self.gpus[index])]
        return None

    def do_nvmlDeviceGetUUID(self, handle: int, address: int, size: int) -> None:
        gpu, mig = self._of(handle)
        self._text(address, size, mig.uuid if mig else gpu.uuid)

    def do_nvmlDeviceGetName(self, handle: int, address: int, size: int) -> None:
        gpu, mig = self._of(handle)
        self._text(address, size, gpu.name + (" MIG" if mig else ""))

    def do_nvmlDeviceGetVbiosVersion(self, handle: int, address: int, size: int) -> None:
        self._of(handle, True)
        self._text(address, size, "96.00.AA")

    def do_nvmlDeviceGetMigMode(self, handle: int, current: Any, pending: Any) -> None:
        gpu, _ = self._of(handle, True)
        current[0] = pending[0] = 1 if gpu.migs else 0

    def do_nvmlDeviceGetMaxMigDeviceCount(self, handle: int, out: Any) -> None:
        self._of(handle, True)
        out[0] = 7

    def do_nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, index: int, out: Any) -> int | None:
        gpu, _ = self._of(handle, True)
        if index >= len(gpu.migs):
            return nv.NVML_ERROR_NOT_FOUND
        out[0] = self._addresses[id(gpu.migs[index])]
        return None

    def do_nvmlDeviceGetGpuInstanceId(self, handle: int, out: Any) -> int | None:
        _, mig = self._of(handle)
        if mig is None:
            return nv.NVML_ERROR_NOT_SUPPORTED
        out[0] = mig.gpu_instance
        return None

    def do_nvmlDeviceGetComputeInstanceId(self, handle: int, out: Any) -> int | None:
        _, mig = self._of(handle)
        if mig is None:
            return nv.NVML_ERROR_NOT_SUPPORTED
        out[0] = mig.compute_instance
        return None

    def do_nvmlDeviceGetFieldValues(self, handle: int, count: int, values: Any) -> None:
        gpu, _ = self._of(handle, True)
        for place in range(count):
            value = values[place]
            value.timestamp = int(self.seconds * 1e6)
            identifier = value.fieldId
            found = gpu.field_value(identifier, self.seconds)
            links = nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX
            if identifier in gpu.errors:
                value.nvmlReturn = gpu.errors[identifier]
            elif found is None:
                value.nvmlReturn = nv.NVML_ERROR_NOT_SUPPORTED
            elif identifier in links and value.scopeId != 0xFFFFFFFF:
                value.nvmlReturn = nv.NVML_ERROR_INVALID_ARGUMENT
            elif identifier in (nv.NVML_FI_DEV_POWER_INSTANT, nv.NVML_FI_DEV_POWER_AVERAGE, nv.NVML_FI_DEV_MEMORY_TEMP):
                value.nvmlReturn, value.valueType, value.value.uiVal = 0, nv.NVML_VALUE_TYPE_UNSIGNED_INT, int(found)
            else:
                value.nvmlReturn, value.valueType, value.value.ullVal = (
                    0,
                    nv.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
                    int(found),
                )

    def do_nvmlDeviceGetTotalEnergyConsumption(self, handle: int, out: Any) -> None:
        out[0] = self._of(handle, True)[0].energy_mj(self.seconds)

    def do_nvmlDeviceGetPowerUsage(self, handle: int, out: Any) -> None:
        out[0] = int(self._of(handle, True)[0].power_w * 1000)

    def do_nvmlDeviceGetUtilizationRates(self, handle: int, out: Any) -> int | None:
        gpu, mig = self._of(handle)
        if mig is not None or gpu.migs:
            return nv.NVML_ERROR_NOT_SUPPORTED
        out[0].gpu, out[0].memory = gpu.util
        return None

    def do_nvmlDeviceGetMemoryInfo(self, handle: int, out: Any) -> None:
        gpu, mig = self._of(handle)
        out[0].total, out[0].used = (
            (mig or gpu).memory_total,
            (mig or gpu).memory_used + GIB,
        )  # v1 counts the reserve as used
        out[0].free = out[0].total - out[0].used

    def do_nvmlDeviceGetMemoryInfo_v2(self, handle: int, out: Any) -> int | None:
        gpu, mig = self._of(handle)
        if out[0].version != nv.nvmlMemory_v2:
            return nv.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
        out[0].total, out[0].used, out[0].reserved = (mig or gpu).memory_total, (mig or gpu).memory_used, GIB
        return None

    def do_nvmlDeviceGetComputeRunningProcesses_v3(self, handle: int, count: Any, infos: Any) -> int | None:
        gpu, mig = self._of(handle)
        processes = (mig or gpu).processes
        if count[0] < len(processes):
            count[0] = len(processes)
            return nv.NVML_ERROR_INSUFFICIENT_SIZE
        count[0] = len(processes)
        for place, (pid, used) in enumerate(processes):
            infos[place].pid, infos[place].usedGpuMemory = pid, used
        return None

    def do_nvmlDeviceGetClockInfo(self, handle: int, kind: int, out: Any) -> None:
        out[0] = self._of(handle, True)[0].clocks[kind]

    do_nvmlDeviceGetMaxClockInfo = do_nvmlDeviceGetClockInfo

    def do_nvmlDeviceGetTemperature(self, handle: int, sensor: int, out: Any) -> None:
        out[0] = self._of(handle, True)[0].temperature

    def do_nvmlDeviceGetCurrentClocksEventReasons(self, handle: int, out: Any) -> None:
        out[0] = self._of(handle, True)[0].limits

    do_nvmlDeviceGetCurrentClocksThrottleReasons = do_nvmlDeviceGetCurrentClocksEventReasons

    def do_nvmlDeviceGetPcieThroughput(self, handle: int, counter: int, out: Any) -> None:
        self._of(handle, True)
        out[0] = 5000 + counter

    def do_nvmlDeviceGetCudaComputeCapability(self, handle: int, major: Any, minor: Any) -> None:
        self._of(handle)
        major[0], minor[0] = 9, 0

    def do_nvmlDeviceGetNumGpuCores(self, handle: int, out: Any) -> None:
        self._of(handle, True)
        out[0] = 16896

    def do_nvmlDeviceGetEnforcedPowerLimit(self, handle: int, out: Any) -> None:
        self._of(handle, True)
        out[0] = 700_000

    do_nvmlDeviceGetPowerManagementDefaultLimit = do_nvmlDeviceGetEnforcedPowerLimit

    def do_nvmlDeviceGetPowerManagementLimitConstraints(self, handle: int, low: Any, high: Any) -> None:
        self._of(handle, True)
        low[0], high[0] = 200_000, 700_000

    def do_nvmlDeviceGetEccMode(self, handle: int, current: Any, pending: Any) -> None:
        self._of(handle, True)
        current[0] = pending[0] = 1

    def do_nvmlDeviceGetPersistenceMode(self, handle: int, out: Any) -> None:
        self._of(handle, True)
        out[0] = 1

    def do_nvmlDeviceGetCurrPcieLinkGeneration(self, handle: int, out: Any) -> None:
        self._of(handle, True)
        out[0] = 5

    do_nvmlDeviceGetMaxPcieLinkGeneration = do_nvmlDeviceGetCurrPcieLinkGeneration

    def do_nvmlDeviceGetCurrPcieLinkWidth(self, handle: int, out: Any) -> None:
        self._of(handle, True)
        out[0] = 16

    def do_nvmlDeviceGetPciInfo_v3(self, handle: int, out: Any) -> None:
        self._of(handle, True)
        out[0].busId = "00000000:1B:00.0"

    def do_nvmlGpmQueryDeviceSupport(self, handle: int, out: Any) -> int | None:
        gpu, _ = self._of(handle, True)
        if out[0].version != nv.NVML_GPM_SUPPORT_VERSION:
            return nv.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
        out[0].isSupportedDevice = gpu.gpm is not None
        return None

    def do_nvmlGpmSampleAlloc(self, out: Any) -> None:
        cell = ctypes.create_string_buffer(64)
        self._keep.append(cell)
        self._samples[ctypes.addressof(cell)] = None
        out[0] = ctypes.cast(cell, nv.c_nvmlGpmSample_t)

    def do_nvmlGpmSampleFree(self, sample: int) -> None:
        del self._samples[sample]

    def do_nvmlGpmSampleGet(self, handle: int, sample: int) -> int | None:
        gpu, _ = self._of(handle, True)
        if sample not in self._samples or gpu.migs:
            return nv.NVML_ERROR_INVALID_ARGUMENT
        self._samples[sample] = (gpu, self.seconds)
        return None

    def do_nvmlGpmMigSampleGet(self, handle: int, instance: int, sample: int) -> int | None:
        gpu, _ = self._of(handle, True)
        if instance not in {mig.gpu_instance for mig in gpu.migs}:
            return nv.NVML_ERROR_INVALID_ARGUMENT
        self._samples[sample] = (gpu, self.seconds)
        return None

    def do_nvmlGpmMetricsGet(self, asked: Any) -> int | None:
        get = asked[0]
        if get.version != nv.NVML_GPM_METRICS_GET_VERSION:
            return nv.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
        first, second = (
            self._samples.get(ctypes.cast(sample, c_void_p).value or 0) for sample in (get.sample1, get.sample2)
        )
        if first is None or second is None or second[1] <= first[1]:
            return nv.NVML_ERROR_INVALID_ARGUMENT
        for place in range(get.numMetrics):
            metric = get.metrics[place]
            values = first[0].gpm or {}
            if metric.metricId in values:
                metric.nvmlReturn, metric.value = 0, values[metric.metricId]
            else:
                metric.nvmlReturn, metric.value = nv.NVML_ERROR_NOT_SUPPORTED, float("nan")
        return None


HP = POINTER(c_void_p)
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "nvmlInitWithFlags": (U,),
    "nvmlShutdown": (),
    "nvmlSystemGetDriverVersion": (c_void_p, U),
    "nvmlSystemGetCudaDriverVersion": (IP,),
    "nvmlSystemGetCudaDriverVersion_v2": (IP,),
    "nvmlDeviceGetCount_v2": (UP,),
    "nvmlDeviceGetHandleByIndex_v2": (U, c_void_p),
    "nvmlDeviceGetUUID": (H, c_void_p, U),
    "nvmlDeviceGetName": (H, c_void_p, U),
    "nvmlDeviceGetVbiosVersion": (H, c_void_p, U),
    "nvmlDeviceGetMigMode": (H, UP, UP),
    "nvmlDeviceGetMaxMigDeviceCount": (H, UP),
    "nvmlDeviceGetMigDeviceHandleByIndex": (H, U, c_void_p),
    "nvmlDeviceGetGpuInstanceId": (H, UP),
    "nvmlDeviceGetComputeInstanceId": (H, UP),
    "nvmlDeviceGetFieldValues": (H, c_int32, c_void_p),
    "nvmlDeviceGetTotalEnergyConsumption": (H, POINTER(c_uint64)),
    "nvmlDeviceGetPowerUsage": (H, UP),
    "nvmlDeviceGetUtilizationRates": (H, POINTER(nv.c_nvmlUtilization_t)),
    "nvmlDeviceGetMemoryInfo": (H, POINTER(nv.c_nvmlMemory_t)),
    "nvmlDeviceGetMemoryInfo_v2": (H, POINTER(nv.c_nvmlMemory_v2_t)),
    "nvmlDeviceGetComputeRunningProcesses_v3": (H, UP, c_void_p),
    "nvmlDeviceGetClockInfo": (H, U, UP),
    "nvmlDeviceGetMaxClockInfo": (H, U, UP),
    "nvmlDeviceGetTemperature": (H, U, UP),
    "nvmlDeviceGetCurrentClocksEventReasons": (H, LLP),
    "nvmlDeviceGetCurrentClocksThrottleReasons": (H, LLP),
    "nvmlDeviceGetPcieThroughput": (H, U, UP),
    "nvmlDeviceGetCudaComputeCapability": (H, IP, IP),
    "nvmlDeviceGetNumGpuCores": (H, UP),
    "nvmlDeviceGetEnforcedPowerLimit": (H, UP),
    "nvmlDeviceGetPowerManagementDefaultLimit": (H, UP),
    "nvmlDeviceGetPowerManagementLimitConstraints": (H, UP, UP),
    "nvmlDeviceGetEccMode": (H, UP, UP),
    "nvmlDeviceGetPersistenceMode": (H, UP),
    "nvmlDeviceGetCurrPcieLinkGeneration": (H, UP),
    "nvmlDeviceGetMaxPcieLinkGeneration": (H, UP),
    "nvmlDeviceGetCurrPcieLinkWidth": (H, UP),
    "nvmlDeviceGetPciInfo_v3": (H, POINTER(nv.nvmlPciInfo_t)),
    "nvmlGpmQueryDeviceSupport": (H, POINTER(nv.c_nvmlGpmSupport_t)),
    "nvmlGpmSampleAlloc": (POINTER(nv.c_nvmlGpmSample_t),),
    "nvmlGpmSampleFree": (c_void_p,),
    "nvmlGpmSampleGet": (H, c_void_p),
    "nvmlGpmMigSampleGet": (H, U, c_void_p),
    "nvmlGpmMetricsGet": (POINTER(nv.c_nvmlGpmMetricsGet_t),),
}


# Arguments that C sees as pointers to the first of several.
ARRAYS = {
    ("nvmlDeviceGetFieldValues", 2): nv.c_nvmlFieldValue_t,
    ("nvmlDeviceGetComputeRunningProcesses_v3", 2): nv.c_nvmlProcessInfo_v3_t,
    ("nvmlDeviceGetHandleByIndex_v2", 1): c_void_p,
    ("nvmlDeviceGetMigDeviceHandleByIndex", 2): c_void_p,
}
for (_name, _place), _kind in ARRAYS.items():

    def _wrap(body: Any, place: int, kind: Any) -> Any:
        def call(self: Library, *arguments: Any) -> Any:
            given = list(arguments)
            given[place] = ctypes.cast(given[place], POINTER(kind)) if given[place] else None
            return body(self, *given)

        return call

    setattr(Library, "do_" + _name, _wrap(getattr(Library, "do_" + _name), _place, _kind))


def install(library: Library) -> Library:
    """Put the fake where pynvml looks; functions looked up before are forgotten."""
    nv.nvmlLib = library
    nv._nvmlGetFunctionPointer_cache.clear()
    return library


def uninstall() -> None:
    nv.nvmlLib = None
    nv._nvmlGetFunctionPointer_cache.clear()


def from_json(text: str) -> Library:
    """A library from a scenario: {"gpus": [{Gpu's fields, "migs": [{Mig's fields}]}], "missing": [...], "init_code":
    0}."""
    scenario = json.loads(text)
    gpus = []
    for given in scenario["gpus"]:
        given["migs"] = [Mig(**mig) for mig in given.get("migs", ())]
        given["errors"] = {int(key) if key.isdigit() else key: code for key, code in given.get("errors", {}).items()}
        gpus.append(Gpu(**given))
    return Library(gpus, missing=set(scenario.get("missing", ())), init_code=scenario.get("init_code", 0))
