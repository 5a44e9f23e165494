"""Readings through the real pynvml against a fake library."""

from __future__ import annotations

import os
from collections.abc import Iterator

import fake_nvml
import pynvml as nv
import pytest
from fake_nvml import GIB, Gpu, Library, Mig

from llmpar import records
from llmpar.machine import gpu_facts
from llmpar.sampling import engine_pids, nvml, nvml_device, nvml_gpm


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.monotonic", made)
    return made


@pytest.fixture(autouse=True)
def no_library() -> Iterator[None]:
    yield
    library = nv.nvmlLib
    fake_nvml.uninstall()
    assert library is None or not library.faults


def reader(clock: Clock, *gpus: Gpu, **more: object) -> nvml.Reader:
    owns = more.pop("owns", lambda pid: None)
    wanted = more.pop("wanted", ())
    fake_nvml.install(Library(list(gpus), clock, **more))  # type: ignore[arg-type]
    return nvml.Reader(owns, wanted)  # type: ignore[arg-type]


def test_units_and_names(clock: Clock) -> None:
    gpu = Gpu(power_w=512.5, limits=0x4 | 0x40)
    watch = reader(clock, gpu)
    watch.read()
    clock.now += 2
    (sample,) = watch.read()
    assert sample["energy_counter_j"] == pytest.approx(1_000_000 + 2 * 512.5)
    assert (sample["power_w"], sample["power_source"], sample["power_average_w"]) == (
        512.5,
        "instant",
        pytest.approx(507.375),
    )
    assert sample["clock_limits"] == ["power_cap", "hardware_thermal"]
    assert (sample["gpu_util_ratio"], sample["memory_util_ratio"]) == (0.93, 0.41)
    assert (sample["sm_clock_mhz"], sample["memory_clock_mhz"]) == (1980, 3201)
    assert (sample["temperature_c"], sample["memory_temperature_c"]) == (61, 70)
    assert sample["memory_used_bytes"] == 30 * GIB  # without the driver's reserve
    assert (sample["nvlink_tx_bytes"], sample["nvlink_rx_bytes"]) == (2000 * 1024, 4000 * 1024)
    assert (sample["gpm_s"], sample["tensor_ratio"], sample["sm_occupancy_ratio"], sample["dram_ratio"]) == (
        2,
        0.34,
        0.21,
        0.71,
    )
    assert sample["pcie_tx_bytes_per_s"] == 2 * 1048576
    assert sample["tensor_imma_ratio"] is None  # not told by this GPU
    assert records.decode(records.encode(sample)) == sample


@pytest.mark.parametrize(
    "field, function, others",
    [
        ("sm_clock_mhz", "nvmlDeviceGetClockInfo", ["memory_clock_mhz"]),
        ("temperature_c", "nvmlDeviceGetTemperature", []),
        ("gpu_util_ratio", "nvmlDeviceGetUtilizationRates", ["memory_util_ratio"]),
        ("processes", "nvmlDeviceGetComputeRunningProcesses_v3", ["engine_memory_bytes"]),
        ("power_instant_w", nv.NVML_FI_DEV_POWER_INSTANT, []),
        ("memory_temperature_c", nv.NVML_FI_DEV_MEMORY_TEMP, []),
    ],
)
@pytest.mark.parametrize("code", [nv.NVML_ERROR_NOT_SUPPORTED, nv.NVML_ERROR_NO_PERMISSION])
def test_a_missing_field_is_null_and_asked_for_once(
    clock: Clock, field: str, function: object, others: list[str], code: int
) -> None:
    gpu = Gpu(errors={function: code})
    watch = reader(clock, gpu)
    first = watch.read()[0]
    assert first["error"] is None and first[field] is None
    told = {name for name, value in first.items() if value is not None}
    assert {"energy_counter_j", "memory_used_bytes", "power_w"} <= told
    library = nv.nvmlLib
    before = library.calls.get(function, 0) if isinstance(function, str) else None
    gpu.errors.clear()  # it would answer now; nobody asks again
    clock.now += 1
    second = watch.read()[0]
    assert second[field] is None
    if before is not None:
        assert library.calls[function] == before
    assert first["unsupported"] and second["unsupported"] is None
    for other in others:
        assert second[other] is None


def test_a_passing_fault_is_null_once_and_asked_for_again(clock: Clock) -> None:
    gpu = Gpu(errors={"nvmlDeviceGetTemperature": nv.NVML_ERROR_TIMEOUT})
    watch = reader(clock, gpu)
    assert watch.read()[0]["temperature_c"] is None
    gpu.errors.clear()
    clock.now += 1
    assert watch.read()[0]["temperature_c"] == 61


def test_functions_that_an_old_driver_lacks(clock: Clock) -> None:
    missing = {
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlGpmQueryDeviceSupport",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetMigMode",
    }
    watch = reader(clock, Gpu(), missing=missing)
    watch.read()
    clock.now += 2
    (sample,) = watch.read()
    assert sample["clock_limits"] == ["power_cap"]  # under its older name
    assert sample["memory_used_bytes"] == 31 * GIB
    assert (sample["power_w"], sample["power_source"], sample["power_instant_w"]) == (400.0, "usage", None)
    assert sample["energy_counter_j"] is not None
    assert sample["tensor_ratio"] is None and sample["gpm_s"] is None


def test_only_power_is_read_at_each_tick(clock: Clock) -> None:
    watch = reader(clock, Gpu())
    samples = []
    for _ in range(20):
        samples += watch.read()
        clock.now += 0.1
    told = {name: sum(sample[name] is not None for sample in samples) for name in samples[0]}
    assert (told["power_w"], told["power_instant_w"]) == (20, 20)
    assert (told["energy_counter_j"], told["nvlink_tx_bytes"]) == (1, 1), "these cost the most"
    assert (told["gpu_util_ratio"], told["memory_used_bytes"], told["tensor_ratio"]) == (10, 4, 3)
    assert {
        told[name]
        for name in (
            "power_average_w",
            "memory_temperature_c",
            "sm_clock_mhz",
            "temperature_c",
            "clock_limits",
            "processes",
        )
    } == {2}
    assert nv.nvmlLib.calls["nvmlDeviceGetComputeRunningProcesses_v3"] == 2
    (last,) = watch.read(everything=True)
    assert all(
        last[name] is not None for name in ("energy_counter_j", "temperature_c", "memory_used_bytes", "processes")
    )


def test_where_only_the_average_is_told_it_is_read_at_each_tick(clock: Clock) -> None:
    watch = reader(clock, Gpu(errors={nv.NVML_FI_DEV_POWER_INSTANT: nv.NVML_ERROR_NOT_SUPPORTED}))
    for _ in range(5):
        sample = watch.read()[0]
        assert sample["power_w"] == sample["power_average_w"] and sample["power_source"] == "average"
        clock.now += 0.1


def test_without_counters_the_bus_is_watched_once_a_second(clock: Clock) -> None:
    watch = reader(clock, Gpu(gpm=None))
    rates = []
    for _ in range(20):
        rates.append(watch.read()[0]["pcie_tx_bytes_per_s"])
        clock.now += 0.1
    assert [rate for rate in rates if rate is not None] == [5000 * 1024] * 2
    assert nv.nvmlLib.calls["nvmlDeviceGetPcieThroughput"] == 4  # two directions


def test_gpm_readings_too_close_together_are_left_out(clock: Clock) -> None:
    watch = reader(clock, Gpu())
    found = []
    for _ in range(5):
        found.append(watch.read()[0]["gpm_s"])
        clock.now += 0.3
    assert found == [None, None, pytest.approx(0.6), None, pytest.approx(0.6)]


def test_gpm_taken_by_another_profiler_is_given_up(clock: Clock) -> None:
    gpu = Gpu(errors={"nvmlGpmSampleGet": nv.NVML_ERROR_NO_PERMISSION})
    watch = reader(clock, gpu)
    for _ in range(3):
        assert watch.read()[0]["tensor_ratio"] is None
        clock.now += 1
    assert nv.nvmlLib.calls["nvmlGpmSampleGet"] == 1


def test_memory_of_the_engine_is_that_of_its_descendants(clock: Clock) -> None:
    family = engine_pids.from_environment(f"{os.getppid()} nonsense")
    watch = reader(clock, Gpu(processes=[(os.getpid(), 7 * GIB), (1, GIB)]), owns=family.owns)
    (sample,) = watch.read()
    assert sample["engine_memory_bytes"] == 7 * GIB
    assert [process["engine"] for process in sample["processes"]] == [True, False]


def test_memory_that_the_driver_does_not_tell_is_null(clock: Clock) -> None:
    watch = reader(
        clock, Gpu(processes=[(os.getpid(), nv.NVML_VALUE_NOT_AVAILABLE_ulonglong.value)]), owns=lambda pid: True
    )
    (sample,) = watch.read()
    assert sample["processes"] == [{"pid": os.getpid(), "memory_bytes": None, "engine": True}]
    assert sample["engine_memory_bytes"] is None


def test_several_gpus_and_a_choice(clock: Clock) -> None:
    gpus = [Gpu(uuid=f"GPU-{index}", power_w=100.0 * (index + 1)) for index in range(4)]
    assert [sample["power_w"] for sample in reader(clock, *gpus).read()] == [100, 200, 300, 400]
    assert [sample["gpu"] for sample in reader(clock, *gpus, wanted=("2", "GPU-0")).read()] == [0, 2]
    with pytest.raises(nvml.Unavailable, match="no GPU '9'"):
        reader(clock, *gpus, wanted=("9",))


def test_mig_instances_have_their_memory_and_the_parents_power(clock: Clock) -> None:
    migs = [Mig("MIG-a", 1, memory_used=3 * GIB, processes=[(5, GIB)]), Mig("MIG-b", 2, memory_used=6 * GIB)]
    watch = reader(clock, Gpu(migs=migs), owns=lambda pid: pid == 5)
    watch.read()
    clock.now += 1
    first, second = watch.read()
    assert [sample["uuid"] for sample in (first, second)] == ["MIG-a", "MIG-b"]
    assert first["mig"] == {"instance": 0, "gpu_instance": 1, "compute_instance": 0}
    assert (first["memory_used_bytes"], second["memory_used_bytes"]) == (3 * GIB, 6 * GIB)
    assert (first["engine_memory_bytes"], second["engine_memory_bytes"]) == (GIB, None)
    assert first["power_w"] == second["power_w"] == 400
    assert first["gpu_util_ratio"] is None  # NVML has none for a GPU with MIG
    assert first["tensor_ratio"] == 0.34  # GPM asks by instance


@pytest.mark.parametrize("code", sorted(nvml_device.LOST))
def test_a_lost_gpu_makes_samples_with_an_error_and_comes_back(clock: Clock, code: int) -> None:
    gpu = Gpu(lost=(1.0, 3.0), lost_code=code)
    watch = reader(clock, gpu)
    seen = []
    for _ in range(12):
        (sample,) = watch.read(missed=2)
        assert sample["missed"] == 2 and sample["uuid"] == gpu.uuid
        assert (sample["error"] is None) == (sample.get("power_w") is not None)
        seen.append(sample["error"]["nvml"] if sample["error"] else None)
        clock.now += 0.5
    assert seen[:2] == [None, None] and seen[2:6] == [code] * 4
    assert seen[-1] is None  # opened again
    assert nv.nvmlLib.calls["nvmlInitWithFlags"] <= 5  # not at every tick
    watch.close()


def test_one_lost_gpu_of_two_does_not_silence_the_other_for_good(clock: Clock) -> None:
    watch = reader(clock, Gpu(uuid="GPU-0", lost=(1.0, 1000.0)), Gpu(uuid="GPU-1"))
    assert [sample["error"] for sample in watch.read()] == [None, None]
    for _ in range(6):
        clock.now += 1
        samples = watch.read()
    good = [sample["uuid"] for sample in samples if sample["error"] is None]
    assert good == ["GPU-1"]


def test_unknown_errors_everywhere_are_a_lost_gpu_but_one_is_not(clock: Clock) -> None:
    gpu = Gpu(errors={"nvmlDeviceGetTemperature": nv.NVML_ERROR_UNKNOWN})
    watch = reader(clock, gpu)
    assert watch.read()[0]["error"] is None
    gpu.errors |= dict.fromkeys(
        ["nvmlDeviceGetClockInfo", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo_v2"], nv.NVML_ERROR_UNKNOWN
    )
    clock.now += 1
    assert watch.read()[0]["error"]["nvml"] == nv.NVML_ERROR_UNKNOWN


def test_readings_that_never_answered_are_no_lost_gpu(clock: Clock) -> None:
    """A sandbox that lets only some of the driver's calls through."""
    barred = [
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetCurrentClocksEventReasons",
        nv.NVML_FI_DEV_MEMORY_TEMP,
    ]
    watch = reader(clock, Gpu(errors=dict.fromkeys(barred, nv.NVML_ERROR_UNKNOWN)))
    for _ in range(3):
        (sample,) = watch.read()
        assert sample["error"] is None
        assert (
            sample["sm_clock_mhz"],
            sample["temperature_c"],
            sample["clock_limits"],
            sample["memory_temperature_c"],
        ) == (None,) * 4
        assert (sample["power_w"], sample["gpu_util_ratio"]) == (400.0, 0.93)
        clock.now += 1


@pytest.mark.parametrize(
    "code, words",
    [
        (nv.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded"),
        (nv.NVML_ERROR_NO_PERMISSION, "may not open"),
        (nv.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "updated"),
        (nv.NVML_ERROR_UNKNOWN, "NVML says"),
    ],
)
def test_why_there_is_no_gpu(clock: Clock, code: int, words: str) -> None:
    with pytest.raises(nvml.Unavailable, match=words):
        reader(clock, Gpu(), init_code=code)


def test_a_driver_without_gpus(clock: Clock) -> None:
    with pytest.raises(nvml.Unavailable, match="sees no GPU"):
        reader(clock)


def test_facts(clock: Clock) -> None:
    fake_nvml.install(
        Library(
            [
                Gpu(),
                Gpu(
                    uuid="GPU-1",
                    migs=[Mig("MIG-a", 1)],
                    gpm=None,
                    errors={
                        "nvmlDeviceGetVbiosVersion": nv.NVML_ERROR_NOT_SUPPORTED,
                        "nvmlDeviceGetEccMode": nv.NVML_ERROR_NOT_SUPPORTED,
                    },
                ),
            ],
            clock,
        )
    )
    found = gpu_facts.facts()
    assert (found["driver"], found["cuda"]) == ("580.1", "13.0")
    first, second = found["gpus"]
    assert (
        first
        | {
            "name": "Fake H200",
            "vbios": "96.00.AA",
            "power_limit_w": 700,
            "ecc": True,
            "mig": False,
            "compute_capability": "9.0",
            "pcie_generation": 5,
            "pcie_width": 16,
            "pci": "00000000:1B:00.0",
            "gpm": True,
        }
        == first
    )
    assert second | {"vbios": None, "ecc": None, "mig": True, "gpm": False} == second
    assert nv.nvmlLib.open == 0


def test_every_metric_has_a_field_when_there_is_none() -> None:
    assert set(nvml_gpm.NOTHING) == {"gpm_s", *nvml_gpm.METRICS}
