"""As much of torch as the microbenchmark uses: shapes are checked, and a product takes some microseconds of real
time."""

from __future__ import annotations

import time
from types import SimpleNamespace

__version__ = "2.0+fake"
float16, float32 = "float16", "float32"
version = SimpleNamespace(cuda="13.0")
backends = SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace(allow_fp16_reduced_precision_reduction=False)))


def device(name: str) -> str:
    assert name == "cuda"
    return name


class Tensor:
    def __init__(self, *shape: int):
        assert all(isinstance(size, int) and size > 0 for size in shape)
        self.shape = shape

    def normal_(self, *_: float) -> Tensor:
        return self

    def fill_(self, _: float) -> Tensor:
        return self

    def t(self) -> Tensor:
        return Tensor(*reversed(self.shape))

    def numel(self) -> int:
        return self.shape[0]

    def sum(self) -> None:
        time.sleep(1e-4)


def empty(*shape: int, dtype: str, device: str) -> Tensor:
    assert dtype in (float16, float32) and device == "cuda"
    return Tensor(*shape)


def mm(left: Tensor, right: Tensor) -> Tensor:
    assert left.shape[1] == right.shape[0], (left.shape, right.shape)
    time.sleep(2e-5)
    return Tensor(left.shape[0], right.shape[1])


class Event:
    def __init__(self, enable_timing: bool):
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        return 1e3 * (other.at - self.at)


cuda = SimpleNamespace(
    is_available=lambda: True,
    synchronize=lambda: None,
    Event=Event,
    get_device_properties=lambda device: SimpleNamespace(name="NVIDIA Fake 1"),
    mem_get_info=lambda: (40 << 30, 48 << 30),
)
