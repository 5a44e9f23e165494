"""GPU samples reduced to figures over a stretch of time. No I/O.

Energy comes from the GPU's own counter. Between its readings, which are seconds apart, its growth is spread as power
was sampled; between samples it is interpolated. Where there is no counter it is power integrated over time
(trapezoids), and `energy_source` says so. With MIG the counter is the whole GPU's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from statistics import median
from typing import Any

# Each figure below is reduced under its own name to {"mean", "max", "n"}; several GPUs are added up or averaged.
ADDED = (
    "power_w",
    "memory_used_bytes",
    "memory_total_bytes",
    "engine_memory_bytes",
    "pcie_tx_bytes_per_s",
    "pcie_rx_bytes_per_s",
    "nvlink_tx_bytes_per_s",
    "nvlink_rx_bytes_per_s",
)
AVERAGED = (
    "gpu_util_ratio",
    "memory_util_ratio",
    "sm_util_ratio",
    "sm_occupancy_ratio",
    "tensor_ratio",
    "tensor_hmma_ratio",
    "tensor_imma_ratio",
    "dram_ratio",
    "fp16_ratio",
    "fp32_ratio",
    "sm_clock_mhz",
    "memory_clock_mhz",
    "temperature_c",
    "memory_temperature_c",
)
# These belong to the whole GPU: its MIG instances repeat them.
OF_THE_WHOLE = frozenset(
    {
        "power_w",
        "sm_clock_mhz",
        "memory_clock_mhz",
        "temperature_c",
        "memory_temperature_c",
        "pcie_tx_bytes_per_s",
        "pcie_rx_bytes_per_s",
        "nvlink_tx_bytes_per_s",
        "nvlink_rx_bytes_per_s",
    }
)
# Cumulative counters: name of the rate they make, and the size at which a 32-bit one of their unit wraps.
COUNTERS = {
    "pcie_tx_bytes": "pcie_tx_bytes_per_s",
    "pcie_rx_bytes": "pcie_rx_bytes_per_s",
    "nvlink_tx_bytes": "nvlink_tx_bytes_per_s",
    "nvlink_rx_bytes": "nvlink_rx_bytes_per_s",
}
WRAP_J = 2**32 / 1000  # a millijoule counter of 32 bits
# Power that no card reaches: growth beyond it is no wrap but a new counter.
HIGHEST_W = 5000.0
# A hole in the samples of so many usual steps is a gap.
GAP_STEPS = 3.0

Sample = dict[str, Any]


def reduce(samples: list[Sample], start: float, end: float) -> dict[str, Any]:
    """Figures of `gpu` records over the instants from `start` to `end`.

    GPUs that hold memory of the engine's processes are taken (`gpus_chosen_by`: `engine`), else all (`all`). What no
    GPU told is null. `energy_j` is null where the samples do not reach both ends of the stretch within one gap.
    """
    units = _units(samples)
    chosen = {key: unit for key, unit in units.items() if any(sample.get("engine_memory_bytes") for sample in unit)}
    by = "engine" if chosen else "all"
    units = chosen or units
    wholes: dict[tuple[str, int], list[Sample]] = {}
    for (host, gpu, _), unit in units.items():
        wholes.setdefault((host, gpu), unit)  # of several instances of one GPU, the first speaks for the whole
    inside = {key: [sample for sample in unit if start <= sample["at"] <= end] for key, unit in units.items()}
    counted = [sample for unit in inside.values() for sample in unit]
    step = median([later["at"] - sooner["at"] for unit in units.values() for sooner, later in pairwise(unit)] or [0.0])
    reduced: dict[str, Any] = {
        "gpus": len(wholes),
        "gpus_chosen_by": by,
        "instances": sum(1 for key in units if key[2]),
        "samples": len(counted),
        "errors": sum(1 for sample in counted if sample.get("error")),
        "missed": sum(max(sample.get("missed") or 0 for sample in group) for group in _ticks(counted)),
        "step_s": round(step, 6),
        "gaps": _gaps(inside.values(), start, end, step),
    }
    reduced |= _energy(list(wholes.values()), start, end, step)
    for name in ADDED + AVERAGED:
        keys = [(*key, "") for key in wholes] if name in OF_THE_WHOLE else list(units)
        pool = [wholes[key[0], key[1]] if name in OF_THE_WHOLE else units[key] for key in keys]
        figures = [figure for figure in (_figure(unit, name, start, end) for unit in pool) if figure]
        reduced[name] = _together(figures, name in ADDED) if figures and len(figures) == len(pool) else None
    for counter, rate in COUNTERS.items():
        if reduced[rate] is None:
            rates = [_rate(unit, counter, start, end) for unit in wholes.values()]
            known = [value for value in rates if value is not None]
            if known and len(known) == len(rates):
                reduced[rate] = {"mean": sum(known), "max": None, "n": len(counted)}
    reduced["power_source"] = next((sample["power_source"] for sample in counted if sample.get("power_source")), None)
    reduced["clock_limits"] = _limits([sample for sample in counted if sample.get("clock_limits") is not None])
    return reduced


def _units(samples: Iterable[Sample]) -> dict[tuple[str, int, str], list[Sample]]:
    """Samples of each GPU or MIG instance by itself, in time."""
    found: dict[tuple[str, int, str], list[Sample]] = {}
    for sample in samples:
        instance = sample.get("uuid") or "mig" if sample.get("mig") else ""
        found.setdefault((str(sample.get("host")), int(sample.get("gpu") or 0), str(instance)), []).append(sample)
    return {key: sorted(unit, key=lambda sample: float(sample["at"])) for key, unit in sorted(found.items())}


def _ticks(samples: Iterable[Sample]) -> Iterable[list[Sample]]:
    """Samples by host and tick: the GPUs of one tick all tell of the same missed ones, so each GPU's own are
    grouped."""
    groups: dict[tuple[str, int], list[Sample]] = {}
    seen: dict[tuple[str, int, str], int] = {}
    for sample in sorted(samples, key=lambda each: float(each["at"])):
        unit = (str(sample.get("host")), int(sample.get("gpu") or 0), str(sample.get("uuid")))
        seen[unit] = seen.get(unit, 0) + 1
        groups.setdefault((unit[0], seen[unit]), []).append(sample)
    return groups.values()


def _gaps(units: Iterable[list[Sample]], start: float, end: float, step: float) -> dict[str, Any]:
    """Stretches without a good sample: how many, and the longest in seconds."""
    holes = []
    for unit in units:
        instants = [start, *(sample["at"] for sample in unit if not sample.get("error")), end]
        holes += [
            later - sooner for sooner, later in pairwise(instants) if later - sooner > max(GAP_STEPS * step, 1e-9)
        ]
    return {"n": len(holes), "longest_s": round(max(holes), 6) if holes else 0.0}


def _figure(unit: list[Sample], name: str, start: float, end: float) -> dict[str, Any] | None:
    """Time-weighted mean, and the highest: each sample stands for the time half way to its neighbours."""
    points = [
        (sample["at"], sample[name]) for sample in unit if start <= sample["at"] <= end and sample.get(name) is not None
    ]
    if not points:
        return None
    edges = [start, *((sooner[0] + later[0]) / 2 for sooner, later in pairwise(points)), end]
    weights = [later - sooner for sooner, later in pairwise(edges)]
    total = sum(weights)
    mean = (
        sum(value * weight for (_, value), weight in zip(points, weights, strict=True)) / total
        if total > 0
        else points[0][1]
    )
    return {"mean": mean, "max": max(value for _, value in points), "n": len(points)}


def _together(figures: list[dict[str, Any]], add: bool) -> dict[str, Any]:
    """Several GPUs: sums of what adds up (the sum of the maxima is a bound), means and the highest of the rest."""
    share = 1 if add else len(figures)
    return {
        "mean": sum(figure["mean"] for figure in figures) / share,
        "max": sum(figure["max"] for figure in figures) if add else max(figure["max"] for figure in figures),
        "n": sum(figure["n"] for figure in figures),
    }


def _limits(samples: list[Sample]) -> dict[str, float] | None:
    """Share of the samples in which each clock limit was on; null where no GPU tells."""
    if not samples:
        return None
    names = sorted({name for sample in samples for name in sample["clock_limits"]})
    return {name: sum(name in sample["clock_limits"] for sample in samples) / len(samples) for name in names}


# Counters.


def unwrapped(
    points: list[tuple[float, float]], wrap: float | None, most: Callable[[float], float]
) -> tuple[list[tuple[float, float]], int]:
    """A counter made to grow only: wraps undone, resets joined on (what was lost in a reset counts as nothing).

    `points`: (instant, value). `wrap`: where the counter starts again from 0, None for never. `most(seconds)`: the
    largest growth that is possible. Returns the points, from 0, and the number of resets.
    """
    grown: list[tuple[float, float]] = []
    total, resets = 0.0, 0
    for place, (at, value) in enumerate(points):
        if place:
            before_at, before = points[place - 1]
            growth = value - before
            if growth < 0:
                across = growth + wrap if wrap is not None else -1.0
                if 0 <= across <= most(at - before_at):
                    growth = across
                else:
                    growth, resets = max(0.0, min(value, most(at - before_at))), resets + 1
            total += growth
        grown.append((at, total))
    return grown, resets


def at_instant(points: list[tuple[float, float]], instant: float) -> float | None:
    """The value at an instant by linear interpolation; None before the first point and after the last."""
    place = bisect_left(points, (instant, float("-inf")))
    if place < len(points) and points[place][0] == instant:
        return points[place][1]
    if place in (0, len(points)):
        return None
    (before, low), (after, high) = points[place - 1], points[place]
    return low + (high - low) * (instant - before) / (after - before)


def _energy(units: list[list[Sample]], start: float, end: float, step: float) -> dict[str, Any]:
    """Joules of all GPUs; source `counter` or `power` (`mixed` where GPUs differ)."""
    total, sources, resolution, resets = 0.0, set(), 0.0, 0
    for unit in units:
        value, source, fine, again = _energy_of(unit, start, end, step)
        resets += again
        if value is None or fine is None:
            return {"energy_j": None, "energy_source": None, "energy_resolution_j": None, "counter_resets": resets}
        total, resolution = total + value, resolution + fine
        sources.add(source)
    if not units:
        return {"energy_j": None, "energy_source": None, "energy_resolution_j": None, "counter_resets": 0}
    return {
        "energy_j": total,
        "energy_source": sources.pop() if len(sources) == 1 else "mixed",
        "energy_resolution_j": resolution,
        "counter_resets": resets,
    }


def _energy_of(
    unit: list[Sample], start: float, end: float, step: float
) -> tuple[float | None, str, float | None, int]:
    points = [
        (sample["at"], sample["energy_counter_j"]) for sample in unit if sample.get("energy_counter_j") is not None
    ]
    resets = 0
    if points:
        # The counter moves in steps of its own: only the instants at which it moved tell when.
        moved = [points[0], *(later for sooner, later in pairwise(points) if later[1] != sooner[1])]
        grown, resets = unwrapped(moved, WRAP_J, lambda seconds: HIGHEST_W * max(seconds, 0.001))
        grown = _between(grown, unit)
        low, high = _reach(grown, start, step), _reach(grown, end, step)
        if low is not None and high is not None and not resets:
            # At each edge the counter may be one of its steps old.
            within = [
                (later[1] - sooner[1], later[0] - sooner[0])
                for sooner, later in pairwise(grown)
                if later[0] > start and sooner[0] < end
            ]
            return high - low, "counter", max((joules for joules, _ in within), default=0.0), 0
    powers = [(sample["at"], sample["power_w"]) for sample in unit if sample.get("power_w") is not None]
    value = _integral(powers, start, end, step)
    if value is None:
        return None, "power", None, resets
    most = max((power for at, power in powers if start <= at <= end), default=0.0)
    return value, "power", most * step, resets


def _between(grown: list[tuple[float, float]], unit: list[Sample]) -> list[tuple[float, float]]:
    """The counter with a point at each sample between two of its readings that has power: the growth follows the
    power."""
    powers = [
        (sample["at"], sample["power_w"])
        for sample in unit
        if sample.get("power_w") is not None and sample.get("energy_counter_j") is None
    ]
    pieces = grown[:1]
    for (before, low), (after, high) in pairwise(grown):
        inside = powers[bisect_right(powers, (before, float("inf"))) : bisect_left(powers, (after, float("-inf")))]
        if inside:
            joules = _cumulated([(before, inside[0][1]), *inside, (after, inside[-1][1])])
            if joules[-1] > 0:
                pieces += [
                    (at, low + (high - low) * part / joules[-1])
                    for (at, _), part in zip(inside, joules[1:-1], strict=True)
                ]
        pieces.append((after, high))
    return pieces


def _reach(points: list[tuple[float, float]], instant: float, step: float) -> float | None:
    """The value at an instant, carried on from the nearest point where the samples end within a gap of it."""
    inside = at_instant(points, instant)
    if inside is not None or len(points) < 2:
        return inside
    near, other = (points[0], points[1]) if instant < points[0][0] else (points[-1], points[-2])
    if abs(instant - near[0]) > max(GAP_STEPS * step, 0.2):
        return None
    return near[1] + (instant - near[0]) * (other[1] - near[1]) / (other[0] - near[0])


def _integral(points: list[tuple[float, float]], start: float, end: float, step: float) -> float | None:
    """Watts over time, by trapezoids; None where samples are missing at an edge."""
    first, last = bisect_left(points, (start, float("-inf"))), bisect_right(points, (end, float("inf")))
    low, high = _reach(points, start, step), _reach(points, end, step)
    if low is None or high is None:
        return None
    line = [(start, low), *(point for point in points[first:last] if start < point[0] < end), (end, high)]
    return _cumulated(line)[-1]


def _cumulated(line: list[tuple[float, float]]) -> list[float]:
    """Watts over time, by trapezoids, up to each point."""
    return list(
        accumulate(
            ((later[0] - sooner[0]) * (sooner[1] + later[1]) / 2 for sooner, later in pairwise(line)), initial=0.0
        )
    )


def _rate(unit: list[Sample], name: str, start: float, end: float) -> float | None:
    """A byte counter's growth a second between the first and the last sample inside; None where it was reset."""
    points = [
        (sample["at"], float(sample[name]))
        for sample in unit
        if start <= sample["at"] <= end and sample.get(name) is not None
    ]
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return None
    grown, resets = unwrapped(points, None, lambda seconds: float("inf"))
    return None if resets else grown[-1][1] / (points[-1][0] - points[0][0])
