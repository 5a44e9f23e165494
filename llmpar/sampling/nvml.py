"""All GPUs at once: NVML opened and closed, and one sample of each GPU.

A lost GPU or a restarted driver makes samples with an `error`, and is looked for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pynvml as nv

from llmpar import clock, hostname
from llmpar.sampling.nvml_device import Device, Lost, optional


class Unavailable(Exception):
    """No GPU can be watched: no driver, no library, no GPU, or the one asked for is not there. The text says which."""


def start() -> None:
    """Open NVML. Raises Unavailable."""
    try:
        nv.nvmlInit()
    except nv.NVMLError as error:
        hint = {
            nv.NVML_ERROR_LIBRARY_NOT_FOUND: "NVIDIA's driver is not installed (libnvidia-ml.so.1 is not found)",
            nv.NVML_ERROR_DRIVER_NOT_LOADED: "NVIDIA's driver is installed, but not loaded",
            nv.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "NVIDIA's driver was updated and not reloaded yet",
            nv.NVML_ERROR_NO_PERMISSION: "this user may not open NVIDIA's devices",
        }
        raise Unavailable(hint.get(error.value, f"NVML says: {error}")) from None


def stop() -> None:
    """Close NVML; errors do not matter any more."""
    try:
        nv.nvmlShutdown()
    except nv.NVMLError:
        pass


def devices(owns: Callable[[int], bool | None], wanted: Sequence[str] = ()) -> list[Device]:
    """GPUs, or their MIG instances where MIG is on; `wanted`: indices or UUIDs, empty for all; lost ones are left out.

    Raises Unavailable where none is left.
    """
    all_devices: list[Device] = []
    lost: Lost | None = None
    for index in range(optional(nv.nvmlDeviceGetCount) or 0):
        try:
            all_devices += _parts(index, owns)
        except Lost as error:
            lost = error
    if not all_devices:
        raise Unavailable(f"NVML says: {lost}" if lost else "the driver runs, but sees no GPU")
    if not wanted:
        return all_devices
    chosen = [device for device in all_devices if any(_named(device, word) for word in wanted)]
    if not chosen:
        raise Unavailable(
            f"no GPU '{', '.join(wanted)}'; there are: "
            + ", ".join(f"{device.index} {device.uuid}" for device in all_devices)
        )
    return chosen


def _named(device: Device, word: str) -> bool:
    """Whether a word names a device or the GPU that it is an instance of: an index, or a UUID or its beginning."""
    if word.isdecimal():
        return str(device.index) == word
    return any(str(each.uuid).startswith(word) for each in (device, device.parent) if each)


def _parts(index: int, owns: Callable[[int], bool | None]) -> list[Device]:
    """A GPU, or its MIG instances. Raises Lost."""
    handle = optional(nv.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return []
    device = Device(index, handle, owns)
    mode = optional(nv.nvmlDeviceGetMigMode, handle)
    instances = []
    if mode and mode[0]:
        for place in range(optional(nv.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            instance = optional(nv.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
            if instance is not None:
                instances.append(Device(index, instance, owns, device, place))
    if instances:
        device.close()  # it speaks through its instances
    return instances or [device]


class Reader:
    """All GPUs at once. While any is lost NVML is opened again, at most once in `again_s` seconds: a lost GPU or a
    restarted driver may come back, and the others go on.
    """

    def __init__(
        self, owns: Callable[[int], bool | None] = lambda pid: None, wanted: Sequence[str] = (), again_s: float = 1.0
    ):
        """Raises Unavailable."""
        self._owns, self._wanted, self._again_s = owns, wanted, again_s
        self._lost: dict[str, Lost] = {}
        self._next_try = 0.0
        self._host = hostname.name()
        start()
        try:
            self.devices = devices(owns, wanted)
        except (Unavailable, Lost) as error:
            stop()
            raise error if isinstance(error, Unavailable) else Unavailable(f"NVML says: {error}") from None

    def close(self) -> None:
        for device in self.devices:
            device.close()
        stop()

    def read(self, missed: int = 0, everything: bool = False) -> list[dict[str, Any]]:
        """One `gpu` record of each GPU. `missed`: ticks that were missed before this one; `everything`: all fields, due
        or not."""
        if self._lost and time.monotonic() >= self._next_try:
            self._again()
        made = []
        for device in self.devices:
            head = {"kind": "gpu", "v": 1}
            identity = {
                "host": self._host,
                "gpu": device.index,
                "uuid": device.uuid,
                "mig": device.mig,
                "missed": missed,
            }
            try:
                if device.uuid in self._lost:
                    raise self._lost[device.uuid]
                sample = device.read(everything)
                made.append({**head, "at": sample.pop("at"), **identity, "error": None, **sample})
            except Lost as error:
                if device.uuid not in self._lost:
                    self._lost[device.uuid], self._next_try = error, time.monotonic() + self._again_s
                made.append(
                    {
                        **head,
                        "at": clock.now(),
                        **identity,
                        "error": {"type": "gpu_lost", "message": str(error), "nvml": error.code},
                    }
                )
        return made

    def _again(self) -> None:
        """Open NVML anew; what is not there again stays lost, and keeps its place among the devices."""
        self._next_try = time.monotonic() + self._again_s
        for device in self.devices:
            device.close()
        stop()
        try:
            start()
            by_uuid = {device.uuid: device for device in devices(self._owns, self._wanted)}
        except (Unavailable, Lost):
            gone = next(iter(self._lost.values()))
            self._lost |= {device.uuid: gone for device in self.devices if device.uuid not in self._lost}
            return
        self.devices = [by_uuid.pop(device.uuid, device) for device in self.devices] + list(by_uuid.values())
        here = {device.uuid for device in self.devices if device.open}
        self._lost = {uuid: error for uuid, error in self._lost.items() if uuid not in here}
