"""The GPUs' power limit for as long as servers run: set before they start, put back when they have ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from llmpar import exit_codes
from llmpar.failure import Failure


@contextlib.contextmanager
def capped(limit_w: float | None, indices: set[int] | None, say: Any) -> Iterator[None]:
    """Hold the GPUs of `indices` (None: all) at `limit_w` watts; None leaves them alone.

    Raises Failure where there is no GPU, the limit is outside what a GPU takes, or the driver does not let this user
    set it; what was set by then is put back. A SIGKILL leaves the limit as it is: the next reboot, or nvidia-smi -pl,
    ends it.
    """
    if limit_w is None:
        yield
        return
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no driver, no library: whatever the reason, there is no GPU to limit
        raise Failure("power_limit_w cannot run here: no GPU with NVIDIA's driver", exit_codes.UNAVAILABLE) from None
    before: dict[int, int] = {}
    try:
        count = pynvml.nvmlDeviceGetCount()
        for index in sorted(range(count) if indices is None else indices):
            before[index] = _set(pynvml, index, limit_w)
        yield
    finally:
        for index, milliwatts in before.items():
            try:
                pynvml.nvmlDeviceSetPowerManagementLimit(pynvml.nvmlDeviceGetHandleByIndex(index), milliwatts)
            except pynvml.NVMLError as error:
                say(
                    f"the power limit of GPU {index} could not be put back: {error}",
                    f"put it back: sudo nvidia-smi -i {index} -pl {milliwatts / 1000:g}",
                )
        pynvml.nvmlShutdown()


def _set(pynvml: Any, index: int, limit_w: float) -> int:
    """Set one GPU's limit; the one it had, in milliwatts."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        low, high = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
        if not low <= limit_w * 1000 <= high:
            raise Failure(
                f"power_limit_w is {limit_w:g}: GPU {index} takes {low / 1000:g} to {high / 1000:g} W", exit_codes.USAGE
            )
        had = int(pynvml.nvmlDeviceGetPowerManagementLimit(handle))
        pynvml.nvmlDeviceSetPowerManagementLimit(handle, round(limit_w * 1000))
        return had
    except pynvml.NVMLError as error:
        raise Failure(
            f"power_limit_w cannot run here: the driver refuses to set the power limit of GPU {index}: {error}",
            exit_codes.UNAVAILABLE,
            "run as root, or have it set beforehand (sudo nvidia-smi -pl W) and leave power_limit_w out",
        ) from None
