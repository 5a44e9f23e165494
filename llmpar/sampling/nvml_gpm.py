"""GPU performance monitoring (GPM) of Hopper and later: what the SMs, tensor cores and memory did between two
readings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pynvml as nv

# Metric identifiers and the factor to the unit in the name: percent to ratio, MiB/s to bytes/s.
METRICS: dict[str, tuple[int, float]] = {
    "sm_util_ratio": (nv.NVML_GPM_METRIC_SM_UTIL, 0.01),
    "sm_occupancy_ratio": (nv.NVML_GPM_METRIC_SM_OCCUPANCY, 0.01),
    "tensor_ratio": (nv.NVML_GPM_METRIC_ANY_TENSOR_UTIL, 0.01),
    "tensor_hmma_ratio": (nv.NVML_GPM_METRIC_HMMA_TENSOR_UTIL, 0.01),
    "tensor_imma_ratio": (nv.NVML_GPM_METRIC_IMMA_TENSOR_UTIL, 0.01),
    "dram_ratio": (nv.NVML_GPM_METRIC_DRAM_BW_UTIL, 0.01),
    "fp16_ratio": (nv.NVML_GPM_METRIC_FP16_UTIL, 0.01),
    "fp32_ratio": (nv.NVML_GPM_METRIC_FP32_UTIL, 0.01),
    "pcie_tx_bytes_per_s": (nv.NVML_GPM_METRIC_PCIE_TX_PER_SEC, 1048576),
    "pcie_rx_bytes_per_s": (nv.NVML_GPM_METRIC_PCIE_RX_PER_SEC, 1048576),
    "nvlink_tx_bytes_per_s": (nv.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC, 1048576),
    "nvlink_rx_bytes_per_s": (nv.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, 1048576),
}
NOTHING: dict[str, Any] = {"gpm_s": None, **dict.fromkeys(METRICS)}
# Seconds between readings, less a little for late ticks. The counters add up, so nothing is lost between. They are
# refreshed every 0.1 s: of readings 0.08 s apart on an H100, one in six found no refresh between and said 0.
SHORTEST_S = 0.45


def offered(handle: Any) -> bool:
    """Whether the GPU and its driver offer these metrics."""
    try:
        return bool(nv.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice)
    except nv.NVMLError:
        return False


def open(handle: Any, gpu_instance: int | None) -> Gpm | None:
    """A GPM reader of a GPU or MIG instance; None where the GPU, its driver or its permissions do not offer it."""
    try:
        return Gpm(handle, gpu_instance) if offered(handle) else None
    except nv.NVMLError:
        return None


class Gpm:
    """Two samples in turn; each reading is of the time between them."""

    def __init__(self, handle: Any, gpu_instance: int | None):
        self._handle, self._gpu_instance = handle, gpu_instance
        self._samples = [nv.nvmlGpmSampleAlloc(), nv.nvmlGpmSampleAlloc()]
        self._taken_at: float | None = None
        self._broken = False
        self._asked = nv.c_nvmlGpmMetricsGet_t()
        self._asked.version = nv.NVML_GPM_METRICS_GET_VERSION
        self._asked.numMetrics = len(METRICS)

    def close(self) -> None:
        for sample in self._samples:
            try:
                nv.nvmlGpmSampleFree(sample)
            except nv.NVMLError:
                pass

    def _take(self) -> None:
        if self._gpu_instance is None:
            nv.nvmlGpmSampleGet(self._handle, self._samples[1])
        else:
            nv.nvmlGpmMigSampleGet(self._handle, self._gpu_instance, self._samples[1])

    def read(self, refused: Callable[[str, int], None]) -> dict[str, Any]:
        """The metrics since the last reading, null at first or when it is too soon; `refused` hears of NVML's
        errors."""
        figures = dict(NOTHING)
        now = time.monotonic()
        if self._broken or self._taken_at is not None and now - self._taken_at < SHORTEST_S:
            return figures
        try:
            self._take()
            if self._taken_at is not None:
                self._get(figures, now - self._taken_at)
            self._taken_at = now
            self._samples.reverse()
        except nv.NVMLError as error:
            self._taken_at = None
            # Another profiler may hold the counters; that does not change from one tick to the next.
            self._broken = error.value in (nv.NVML_ERROR_NOT_SUPPORTED, nv.NVML_ERROR_NO_PERMISSION)
            refused("gpm", error.value)
        return figures

    def _get(self, figures: dict[str, Any], elapsed: float) -> None:
        asked = self._asked
        asked.sample1, asked.sample2 = self._samples
        for place, (identifier, _) in enumerate(METRICS.values()):
            asked.metrics[place].metricId = identifier
        nv.nvmlGpmMetricsGet(asked)
        figures["gpm_s"] = round(elapsed, 6)
        for place, (name, (_, factor)) in enumerate(METRICS.items()):
            metric = asked.metrics[place]
            if metric.nvmlReturn == nv.NVML_SUCCESS and math.isfinite(metric.value):
                figures[name] = round(metric.value * factor, 6)
