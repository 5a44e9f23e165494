"""What llmpar-sample-gpu says beside a load whose size is known.

Usage: python bench/sampler_proof.py INTO. Needs PyTorch and a GPU. Runs the same phases under the sampler at 10 and at
100 Hz, as a wrapper would, and prints for each phase what was sampled beside what the phase itself counted:
multiplications for the tensor cores, bytes for memory and the bus, allocations for memory in use. Writes
INTO/gpu-10hz.jsonl, INTO/gpu-100hz.jsonl and INTO/proof.json. What fails is said, and the rest goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pynvml as nv

from llmpar.sampling import gpu_figures, nvml_device

# Not counted at a phase's start: readings that cover the time before it, and clocks that still change.
SETTLE_S = 0.7
FLOP_PER_CYCLE = 4096  # of one SM of compute capability 9.0: dense, 16 bits in, 32 bits added up
SIDE = 8192
COPY_BYTES = 4 << 30
BUS_BYTES = 1 << 30
SMI = [
    "nvidia-smi",
    "--query-gpu=power.draw.instant,power.draw.average,utilization.gpu,memory.used,clocks.sm,temperature.gpu",
    "--format=csv,noheader,nounits",
]
SAMPLED = (
    "gpu_util_ratio",
    "sm_util_ratio",
    "sm_occupancy_ratio",
    "tensor_ratio",
    "dram_ratio",
    "power_w",
    "power_instant_w",
    "power_average_w",
    "sm_clock_mhz",
    "memory_clock_mhz",
    "temperature_c",
    "memory_temperature_c",
    "memory_used_bytes",
    "engine_memory_bytes",
    "pcie_rx_bytes_per_s",
    "pcie_tx_bytes_per_s",
)


def attempt(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function gives; None and a line about it where it fails."""
    try:
        return function(*arguments)
    except Exception as error:
        print(f"{what}: failed: {type(error).__name__}: {error}", flush=True)
        return None


class Load:
    """The phases. Each works for a given time and returns how much it did a second, in the unit of its name."""

    def __init__(self) -> None:
        import torch

        self.torch = torch
        made = {"device": "cuda", "dtype": torch.bfloat16}
        self.a, self.b = (torch.randn(SIDE, SIDE, **made) for _ in range(2))
        self.c = torch.empty(SIDE, SIDE, **made)
        self.source = torch.empty(COPY_BYTES, device="cuda", dtype=torch.uint8).random_()
        self.target = torch.empty_like(self.source)
        self.host = attempt("pinned memory", lambda: torch.empty(BUS_BYTES, dtype=torch.uint8, pin_memory=True))
        for _ in range(20):
            torch.matmul(self.a, self.b, out=self.c)
            self.target.copy_(self.source)
        torch.cuda.synchronize()

    def repeat(self, seconds: float, amount: float, step: Callable[[], Any]) -> float:
        """Amounts a second; the GPU is never further behind than a few milliseconds."""
        torch, done, began = self.torch, 0, time.perf_counter()
        events: list[Any] = []
        while time.perf_counter() - began < seconds:
            step()
            events.append(torch.cuda.Event())
            events[-1].record()
            if len(events) > 8:
                events.pop(0).synchronize()
            done += 1
        torch.cuda.synchronize()
        return done * amount / (time.perf_counter() - began)

    def idle(self, seconds: float) -> None:
        time.sleep(seconds)

    def matmul_flop(self, seconds: float) -> float:
        return self.repeat(seconds, 2 * SIDE**3, lambda: self.torch.matmul(self.a, self.b, out=self.c))

    def copy_bytes(self, seconds: float) -> float:
        return self.repeat(seconds, 2 * COPY_BYTES, lambda: self.target.copy_(self.source))

    def bus_bytes(self, seconds: float) -> float:
        return self.repeat(seconds, BUS_BYTES, lambda: self.target[:BUS_BYTES].copy_(self.host, non_blocking=True))

    def facts(self) -> dict[str, Any]:
        """What the card can do at most, and what was allocated on it."""
        device = self.torch.cuda.get_device_properties(0)
        nv.nvmlInit()
        handle = nv.nvmlDeviceGetHandleByIndex(0)
        width = attempt("bus width", nv.nvmlDeviceGetMemoryBusWidth, handle)
        clock = attempt("memory clock", nv.nvmlDeviceGetMaxClockInfo, handle, nv.NVML_CLOCK_MEM)
        return {
            "name": device.name,
            "capability": f"{device.major}.{device.minor}",
            "multiprocessors": device.multi_processor_count,
            "memory_bytes_per_s": None if width is None or clock is None else width / 8 * 2 * clock * 1e6,
            "allocated_bytes": self.torch.cuda.memory_reserved(),
            "torch": self.torch.__version__,
        }


PHASES = (
    ("idle", 2.5, "idle"),
    ("bf16 matmul", 4.0, "matmul_flop"),
    ("copy in memory", 3.0, "copy_bytes"),
    ("copy from host", 2.0, "bus_bytes"),
    ("idle again", 1.5, "idle"),
)


def smi() -> dict[str, Any]:
    """What nvidia-smi says now, and when it was asked."""
    before = time.time()
    done = subprocess.run(SMI, capture_output=True, text=True, timeout=10)
    return {"asked_at": before, "answered_at": time.time(), "says": done.stdout.strip() or done.stderr.strip()}


def under_sampler(load: Load, hz: int, into: Path) -> dict[str, Any]:
    """The phases while llmpar-sample-gpu runs beside them."""
    output = into / f"gpu-{hz}hz.jsonl"
    output.unlink(missing_ok=True)
    length = sum(seconds for _, seconds, _ in PHASES) + 3
    sampler = subprocess.Popen(
        [
            "bin/llmpar-sample-gpu",
            "--gpu",
            "0",
            "--hz",
            str(hz),
            "--pid",
            str(os.getpid()),
            "--output",
            str(output),
            "--",
            "sleep",
            str(length),
        ]
    )
    process = psutil.Process(sampler.pid)
    deadline = time.monotonic() + 5
    while not (output.exists() and output.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    before, began = process.cpu_times(), time.monotonic()
    told: list[dict[str, Any]] = []
    asking = threading.Timer(4.5, lambda: told.append(attempt("nvidia-smi", smi) or {}))
    asking.start()
    phases = []
    for name, seconds, what in PHASES:
        start = time.time()
        amount = attempt(name, getattr(load, what), seconds)
        phases.append({"phase": name, "start": start, "end": time.time(), what: amount})
    after, ended = process.cpu_times(), time.monotonic()
    asking.join()
    sampler.terminate()  # passed on to `sleep`
    sampler.wait(10)
    samples = [json.loads(line) for line in output.read_text().splitlines()]
    cost = (after.user + after.system - before.user - before.system) / (ended - began)
    return {
        "hz": hz,
        "sampler_cpu_s_per_s": round(cost, 5),
        **described(samples),
        "nvidia_smi": told,
        "phases": [judged(phase, samples) for phase in phases],
    }


def described(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """How the samples came: times, errors, fields that are never there, how often the driver's own values move."""
    first = [each for each in samples if each["uuid"] == samples[0]["uuid"]]
    steps = [later["at"] - sooner["at"] for sooner, later in zip(first, first[1:], strict=False)]
    reads = [each["read_s"] for each in first if each.get("read_s") is not None]
    names = [
        name
        for name in first[0]
        if name not in ("kind", "v", "at", "host", "gpu", "uuid", "mig", "missed", "error", "unsupported")
    ]

    def moves(name: str) -> float | None:
        values = [(each["at"], each[name]) for each in first if each.get(name) is not None]
        times = [later[0] for sooner, later in zip(values, values[1:], strict=False) if later[1] != sooner[1]]
        return round(median(b - a for a, b in zip(times, times[1:], strict=False)), 4) if len(times) > 2 else None

    return {
        "samples": len(first),
        "errors": [each["error"] for each in samples if each["error"]][:3],
        "missed": sum(each["missed"] for each in first),
        "step_s": [round(f(steps), 4) for f in (min, median, max)],
        "read_ms": [round(1e3 * f(reads), 3) for f in (min, median, max)],
        "unsupported": sorted({name for each in first for name in each.get("unsupported") or ()}),
        "never_measured": [name for name in names if all(each.get(name) is None for each in first)],
        "with_gpm": sum(each.get("gpm_s") is not None for each in first),
        "moves_every_s": {
            name: moves(name) for name in ("energy_counter_j", "power_instant_w", "power_average_w", "gpu_util_ratio")
        },
    }


def judged(phase: dict[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What was sampled within a phase, reduced as llmpar-summarise does it."""
    start, end = phase["start"] + SETTLE_S, phase["end"] - 0.1
    found = gpu_figures.reduce(samples, start, end)
    bare = gpu_figures.reduce([{**each, "energy_counter_j": None} for each in samples], start, end)
    within = [each for each in samples if start <= each["at"] <= end]
    means = {}
    for name in SAMPLED:
        values = [each[name] for each in within if each.get(name) is not None]
        means[name] = sum(values) / len(values) if values else None  # not all are read at each tick
    return {
        **phase,
        "samples": len(within),
        "seconds": end - start,
        "means": means,
        "energy_source": found["energy_source"],
        "energy_counter_j": found["energy_j"] if found["energy_source"] == "counter" else None,
        "energy_resolution_j": found["energy_resolution_j"],
        "energy_from_power_j": bare["energy_j"],
        "clock_limits": found["clock_limits"],
        "processes": next((each["processes"] for each in reversed(within) if each.get("processes") is not None), None),
    }


def calls(repeats: int = 40) -> dict[str, list[float] | None]:
    """CPU and wall milliseconds of one call each into the driver, by NVML's name."""
    nv.nvmlInit()
    handle = nv.nvmlDeviceGetHandleByIndex(0)
    asked: dict[str, Callable[[], Any]] = {
        name: (lambda name=name, more=more: getattr(nv, name)(handle, *more))
        for name, more in (
            ("nvmlDeviceGetUtilizationRates", ()),
            ("nvmlDeviceGetMemoryInfo", (nv.nvmlMemory_v2,)),
            ("nvmlDeviceGetComputeRunningProcesses", ()),
            ("nvmlDeviceGetClockInfo", (nv.NVML_CLOCK_SM,)),
            ("nvmlDeviceGetTemperature", (nv.NVML_TEMPERATURE_GPU,)),
            ("nvmlDeviceGetCurrentClocksEventReasons", ()),
            ("nvmlDeviceGetTotalEnergyConsumption", ()),
            ("nvmlDeviceGetPowerUsage", ()),
        )
    }
    asked |= {
        f"field {name}": (lambda field=field: nv.nvmlDeviceGetFieldValues(handle, [field[:2]]))
        for name, field in nvml_device.FIELDS.items()
    }
    sample = attempt("GPM", nv.nvmlGpmSampleAlloc)
    if sample is not None:
        asked["nvmlGpmSampleGet"] = lambda: nv.nvmlGpmSampleGet(handle, sample)
    found: dict[str, list[float] | None] = {}
    for name, ask in asked.items():
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            for _ in range(repeats):
                ask()
        except nv.NVMLError:
            found[name] = None
            continue
        found[name] = [
            round(1e3 * (end - begin) / repeats, 3)
            for begin, end in ((cpu, time.thread_time()), (wall, time.perf_counter()))
        ]
    return found


def table(run: dict[str, Any], facts: dict[str, Any]) -> str:
    """One row a phase: what was sampled, and in brackets what follows from what the phase did."""

    def share(value: float | None, expected: float | None = None) -> str:
        text = "-" if value is None else f"{100 * value:.1f}"
        return text if expected is None else f"{text} ({100 * expected:.1f})"

    def plain(value: float | None, form: str = ".0f") -> str:
        return "-" if value is None else format(value, form)

    lines = [
        "| phase | n | util % | SM % | occupancy % | tensor % | DRAM % | W | instant W | average W | J counter | J "
        "from power | "
        "bus GB/s | MHz | C | process GiB | GPU GiB | limits |",
        "|---" + "|---:" * 16 + "|---|",
    ]
    for phase in run["phases"]:
        means, clock = phase["means"], phase["means"]["sm_clock_mhz"]
        flop, moved, bus = (phase.get(name) for name in ("matmul_flop", "copy_bytes", "bus_bytes"))
        tensor = (
            flop / (facts["multiprocessors"] * FLOP_PER_CYCLE * clock * 1e6)
            if flop and clock and facts["capability"] == "9.0"
            else None
        )
        dram = moved / facts["memory_bytes_per_s"] if moved and facts["memory_bytes_per_s"] else None
        pcie = means["pcie_rx_bytes_per_s"]
        lines.append(
            "| "
            + " | ".join(
                [
                    phase["phase"],
                    str(phase["samples"]),
                    share(means["gpu_util_ratio"]),
                    share(means["sm_util_ratio"]),
                    share(means["sm_occupancy_ratio"]),
                    share(means["tensor_ratio"], tensor),
                    share(means["dram_ratio"], dram),
                    plain(means["power_w"]),
                    plain(means["power_instant_w"]),
                    plain(means["power_average_w"]),
                    plain(phase["energy_counter_j"], ".1f"),
                    plain(phase["energy_from_power_j"], ".1f"),
                    plain(None if pcie is None else pcie / 1e9, ".2f") + (f" ({bus / 1e9:.2f})" if bus else ""),
                    plain(clock),
                    plain(means["temperature_c"]),
                    *(
                        plain(None if means[name] is None else means[name] / 2**30, ".2f")
                        for name in ("engine_memory_bytes", "memory_used_bytes")
                    ),
                    ", ".join(f"{name} {value:.0%}" for name, value in (phase["clock_limits"] or {}).items()) or "-",
                ]
            )
            + " |"
        )
    return "\n".join(lines)


def main() -> int:
    into = Path(sys.argv[1])
    # While PyTorch starts, which takes about as long, nothing else uses the GPU.
    cost = subprocess.Popen(["bench/sampler", "10", "8"])
    load = attempt("load", Load)
    cost.wait(60)
    if load is None:
        return 4
    facts = attempt("facts", load.facts) or {"capability": None, "multiprocessors": 0, "memory_bytes_per_s": None}
    print(f"\nCard and load: {json.dumps(facts)}")
    each = attempt("calls", calls)
    print(f"\nCPU and wall milliseconds a call: {json.dumps(each)}", flush=True)
    runs = []
    for hz in (10, 100):
        run = attempt(f"{hz} Hz", under_sampler, load, hz, into)
        if run is None:
            continue
        runs.append(run)
        print(
            f"\n{hz} Hz; in brackets what the phase itself counted, as a share of the most at that "
            f"clock\n\n{table(run, facts)}\n"
        )
        print(json.dumps({name: value for name, value in run.items() if name != "phases"}))
        print(
            f"processes in the matmul phase: {json.dumps(run['phases'][1]['processes'])}, ours is {os.getpid()}",
            flush=True,
        )
    (into / "proof.json").write_text(json.dumps({"facts": facts, "calls_ms": each, "runs": runs}, indent=1) + "\n")
    return 0 if len(runs) == 2 else 1


if __name__ == "__main__":
    sys.exit(main())
