"""GPU samples reduced to figures."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpar.sampling import gpu_figures


def sample(at: float, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "gpu",
        "v": 1,
        "at": at,
        "host": "h",
        "gpu": 0,
        "uuid": "GPU-0",
        "mig": None,
        "missed": 0,
        "error": None,
        **fields,
    }


def run(seconds: float = 10.0, step: float = 0.1, watts: float = 300.0, **fields: Any) -> list[dict[str, Any]]:
    return [
        sample(at, energy_counter_j=5000 + watts * at, power_w=watts, **fields)
        for at in (step * n for n in range(round(seconds / step) + 1))
    ]


def test_energy_is_read_between_samples() -> None:
    found = gpu_figures.reduce(run(), 2.03, 7.58)
    assert found["energy_j"] == pytest.approx(300 * 5.55)
    assert found["energy_source"] == "counter"
    assert found["energy_resolution_j"] == pytest.approx(30)  # what the counter grew from one sample to the next
    assert found["power_w"]["mean"] == pytest.approx(300)
    assert found["gaps"] == {"n": 0, "longest_s": 0.0}


@given(
    st.lists(st.tuples(st.floats(0.01, 0.5), st.floats(50, 700)), min_size=5, max_size=60),
    st.floats(0.1, 0.4),
    st.floats(0.6, 0.9),
)
def test_energy_of_any_load_is_within_its_resolution(
    steps: list[tuple[float, float]], first: float, last: float
) -> None:
    at, joules = 100.0, 0.0
    points, samples = [(at, 0.0)], [sample(at, energy_counter_j=0.0)]
    for length, watts in steps:
        at, joules = at + length, joules + watts * length
        points.append((at, joules))
        samples.append(sample(at, energy_counter_j=joules))
    start, end = 100 + first * (at - 100), 100 + last * (at - 100)
    truth = gpu_figures.at_instant(points, end) - gpu_figures.at_instant(points, start)  # type: ignore[operator]
    found = gpu_figures.reduce(samples, start, end)
    assert found["energy_j"] == pytest.approx(truth, abs=1e-6)
    assert found["energy_resolution_j"] >= min(watts * length for length, watts in steps) - 1e-6


def test_a_counter_that_moves_in_steps_is_read_at_its_steps() -> None:
    samples = [
        sample(at / 10, energy_counter_j=200.0 * (at // 5) * 0.5, power_w=200.0) for at in range(101)
    ]  # every 0.5 s
    found = gpu_figures.reduce(samples, 2.2, 7.4)
    assert found["energy_j"] == pytest.approx(200 * 5.2)
    assert found["energy_resolution_j"] == pytest.approx(100)


def test_between_two_readings_the_counter_grows_as_power_does() -> None:
    """Energy is dear to read, so a reading may be seconds from the next; what happened between is not spread evenly."""
    watts = [100.0 if at < 35 else 700.0 for at in range(101)]
    joules = [0.0]
    for sooner, later in itertools.pairwise(watts):
        joules.append(joules[-1] + (sooner + later) / 20)
    samples = [
        sample(at / 10, power_w=watts[at], energy_counter_j=1.002 * joules[at] if at % 20 == 0 else None)
        for at in range(101)
    ]
    found = gpu_figures.reduce(samples, 2.9, 6.1)
    assert found["energy_source"] == "counter"
    assert found["energy_j"] == pytest.approx(1.002 * (joules[61] - joules[29]), rel=2e-3)
    assert found["energy_resolution_j"] == pytest.approx(70, rel=0.02), "one sample's time at the highest power"


def test_a_counter_that_wraps_goes_on() -> None:
    samples = run()
    for each in samples:
        each["energy_counter_j"] = (gpu_figures.WRAP_J - 900 + 300 * each["at"]) % gpu_figures.WRAP_J
    found = gpu_figures.reduce(samples, 1, 9)
    assert (
        found["energy_j"] == pytest.approx(2400)
        and found["energy_source"] == "counter"
        and found["counter_resets"] == 0
    )


def test_a_counter_that_is_reset_gives_way_to_power() -> None:
    samples = run()
    for each in samples:
        if each["at"] > 5:
            each["energy_counter_j"] = 300 * (each["at"] - 5)
    found = gpu_figures.reduce(samples, 1, 9)
    assert (found["energy_source"], found["counter_resets"]) == ("power", 1)
    assert found["energy_j"] == pytest.approx(2400, rel=1e-3)


def test_without_a_counter_power_is_integrated() -> None:
    samples = [sample(at / 10, power_w=100.0 + at) for at in range(101)]
    found = gpu_figures.reduce(samples, 2.0, 6.0)
    assert found["energy_source"] == "power" and found["energy_j"] == pytest.approx(4 * 140)
    assert found["power_w"]["max"] == 160


def test_energy_is_null_where_samples_do_not_reach_the_edges() -> None:
    assert gpu_figures.reduce(run(5.0), 1, 9)["energy_j"] is None
    assert gpu_figures.reduce([], 1, 9)["energy_j"] is None
    assert gpu_figures.reduce([sample(3, power_w=3.0)], 1, 9)["energy_j"] is None


def test_several_gpus_add_up_and_average() -> None:
    samples = [
        each
        | {
            "gpu": index,
            "uuid": f"GPU-{index}",
            "gpu_util_ratio": 0.5 + index / 4,
            "memory_used_bytes": 100 * (index + 1),
        }
        for index in (0, 1)
        for each in run(watts=100 * (index + 1))
    ]
    found = gpu_figures.reduce(samples, 1, 9)
    assert (found["gpus"], found["gpus_chosen_by"]) == (2, "all")
    assert found["energy_j"] == pytest.approx(8 * 300)
    assert found["power_w"]["mean"] == pytest.approx(300)
    assert found["memory_used_bytes"]["max"] == 300
    assert found["gpu_util_ratio"]["mean"] == pytest.approx(0.625) and found["gpu_util_ratio"]["max"] == 0.75


def test_gpus_without_the_engine_do_not_count() -> None:
    samples = run(engine_memory_bytes=70) + [
        each | {"gpu": 1, "uuid": "GPU-1", "engine_memory_bytes": None} for each in run(watts=50)
    ]
    found = gpu_figures.reduce(samples, 1, 9)
    assert (found["gpus"], found["gpus_chosen_by"]) == (1, "engine")
    assert found["energy_j"] == pytest.approx(2400)
    assert found["engine_memory_bytes"]["max"] == 70


def test_mig_instances_share_their_parents_energy() -> None:
    samples = [
        each | {"uuid": f"MIG-{n}", "mig": {"instance": n}, "memory_used_bytes": 10 * (n + 1)}
        for n in (0, 1)
        for each in run()
    ]
    found = gpu_figures.reduce(samples, 1, 9)
    assert (found["gpus"], found["instances"]) == (1, 2)
    assert found["energy_j"] == pytest.approx(2400) and found["power_w"]["mean"] == pytest.approx(300)
    assert found["memory_used_bytes"]["max"] == 30


def test_a_mean_is_of_time_not_of_samples() -> None:
    samples = [
        sample(0, tensor_ratio=0.0),
        sample(1, tensor_ratio=0.0),
        sample(9, tensor_ratio=1.0),
        sample(9.1, tensor_ratio=1.0),
        sample(10, tensor_ratio=1.0),
    ]
    assert gpu_figures.reduce(samples, 0, 10)["tensor_ratio"]["mean"] == pytest.approx(0.5)


def test_nulls_leave_no_trace() -> None:
    samples = run(sm_util_ratio=None)
    samples[50]["sm_util_ratio"] = 0.25
    found = gpu_figures.reduce(samples, 1, 9)
    assert found["sm_util_ratio"] == {"mean": 0.25, "max": 0.25, "n": 1}
    assert found["dram_ratio"] is None and found["clock_limits"] is None


def test_limits_errors_missed_and_gaps() -> None:
    samples = run(clock_limits=[])
    for each in samples[20:40]:
        each["clock_limits"] = ["power_cap"]
    samples[60] = sample(samples[60]["at"], missed=4, error={"type": "gpu_lost", "message": "", "nvml": 15})
    del samples[61:70]
    found = gpu_figures.reduce(samples, 0, 10)
    assert found["clock_limits"] == {"power_cap": pytest.approx(20 / 91)}
    assert (found["errors"], found["missed"]) == (1, 4)
    assert found["gaps"] == {"n": 1, "longest_s": pytest.approx(1.1)}


def test_byte_counters_make_rates() -> None:
    samples = [each | {"pcie_tx_bytes": 5000 * each["at"], "pcie_rx_bytes": None} for each in run()]
    found = gpu_figures.reduce(samples, 1, 9)
    assert found["pcie_tx_bytes_per_s"]["mean"] == pytest.approx(5000) and found["pcie_rx_bytes_per_s"] is None
    samples[50]["pcie_tx_bytes"] = 1.0
    assert gpu_figures.reduce(samples, 1, 9)["pcie_tx_bytes_per_s"] is None  # reset: not known


@given(st.permutations(range(30)))
def test_order_does_not_matter(order: list[int]) -> None:
    samples = run(2.9)
    assert gpu_figures.reduce([samples[place] for place in order], 0.5, 2.5) == gpu_figures.reduce(samples, 0.5, 2.5)
