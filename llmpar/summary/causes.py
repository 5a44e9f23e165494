"""Why a cell is as slow as it is: causes from engine and GPU samples, with the condition of each beside its name."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from llmpar.wording import shortened

KV_FULL = 0.95  # of the cache; the last blocks are seldom all given away
# Shares of the time from which on a cause is worth a line.
POWER_SHARE, THERMAL_SHARE, FULL_SHARE, WAIT_SHARE = 0.1, 0.05, 0.1, 0.25
GPU_BUSY = 0.85  # less than this is worth a line: something else than the GPU is waited for
# An engine answers for its metrics in 10-20 ms under full load; this long, its HTTP process has a queue of its own.
FRONT_SLOW_S, FRONT_SAMPLES = 0.1, 3
TITLES = {
    "kv_cache_full": "KV cache full",
    "preempted": "requests pre-empted",
    "sequences_full": "all of the engine's sequences in use",
    "requests_waited": "requests waited while the KV cache had room",
    "power_limited": "GPU clocks held down by the power limit",
    "thermal_limited": "GPU clocks held down by heat",
    "gpu_idle": "GPU waited for work",
    "frontend_slow": "the engine's HTTP process fell behind",
}


def sequences(summary: dict[str, Any]) -> int | None:
    """How many sequences the servers were told to work on at most, all together; None where they were not told."""
    settings = (summary.get("server") or {}).get("settings") or {}
    most = settings.get("max_sequences")
    return int(most) * int(settings.get("replicas") or 1) if most else None


def engine_causes(
    engine: dict[str, Any], inside: list[dict[str, Any]], sequences: int | None = None
) -> list[dict[str, str]]:
    """What held the engine back, by its samples in the window: a full KV cache while requests wait, or a full batch.

    `sequences`: the engine's limit, where it is known: with fewer running, requests wait for something else.
    """
    causes = []
    known = [sample for sample in inside if sample.get("waiting") is not None]
    full = [sample for sample in known if sample["waiting"] > 0 and (sample.get("kv_usage_ratio") or 0) >= KV_FULL]
    waiting = [sample for sample in known if sample["waiting"] > 0]
    most = max((sample["waiting"] for sample in known), default=0)
    if full:
        peak = max(sample["kv_usage_ratio"] for sample in full)
        causes.append(
            _cause(
                "kv_cache_full",
                f"KV cache {peak:.0%} full while up to {most} requests waited ({len(full) / len(known):.0%} of the "
                "time): "
                "more memory for it, fewer clients or shorter texts would help",
            )
        )
    elif known and any(sample.get("kv_usage_ratio") is not None for sample in known):
        running = max((sample.get("running") or 0 for sample in waiting), default=0)
        share = len(waiting) / len(known)
        if sequences is not None and running >= sequences and share >= FULL_SHARE:
            causes.append(
                _cause(
                    "sequences_full",
                    f"up to {most} requests waited while {running} ran, as many as the engine may run (max "
                    "sequences), and the KV cache had room: a higher limit would help",
                )
            )
        elif share >= WAIT_SHARE:
            limits = (
                "on sequences or on tokens a step"
                if sequences is None
                else f"on tokens a step (it may run {sequences} sequences)"
            )
            causes.append(
                _cause(
                    "requests_waited",
                    f"up to {most} requests waited while {running} ran and the KV cache had room "
                    f"({share:.0%} of the time): the engine's limit {limits}",
                )
            )
    preempted = engine.get("preemptions")
    if preempted:
        causes.append(
            _cause(
                "preempted",
                f"{preempted:.0f} times a running request was preempted for lack of KV cache, and its work repeated",
            )
        )
    return causes


def gpu_causes(gpu: dict[str, Any]) -> list[dict[str, str]]:
    """What held the GPU back: its power limit, heat, or nothing to do."""
    causes = []
    limits = gpu.get("clock_limits") or {}
    power = max(limits.get("power_cap", 0.0), limits.get("power_brake", 0.0))
    if power >= POWER_SHARE:
        causes.append(_cause("power_limited", f"the power limit held the clocks down {power:.0%} of the time"))
    heat = max(
        (limits.get(name, 0.0) for name in ("software_thermal", "hardware_thermal", "hardware_slowdown")), default=0.0
    )
    if heat >= THERMAL_SHARE:
        causes.append(_cause("thermal_limited", f"heat held the clocks down {heat:.0%} of the time"))
    load = gpu.get("gpu_util_ratio")
    if load is not None and load["mean"] < GPU_BUSY:
        causes.append(
            _cause(
                "gpu_idle",
                f"the GPU was busy only {load['mean']:.0%} of the time: the engine's own CPU work or the client held "
                "it back",
            )
        )
    return causes


def frontend_causes(inside: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Where the GPU waited: was it for the process that speaks HTTP? Its metrics come from it too, and then come
    late."""
    took = [sample["scrape_s"] for sample in inside if sample.get("running") and sample.get("scrape_s") is not None]
    if len(took) < FRONT_SAMPLES or (middle := median(took)) < FRONT_SLOW_S:
        return []
    return [
        _cause(
            "frontend_slow",
            f"the engine took {middle:.2g} s to answer for its metrics while requests ran: its HTTP process has "
            "fallen behind; more of them (vLLM: --api-server-count) or more replicas would help",
        )
    ]


def _cause(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


def onsets(summaries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """From which client count on each cause is there, over summaries that differ only in their clients.

    Returns `{"code", "clients", "from", "sentence"}` in order of the count: `clients` all counts with the cause, `from`
    the lowest from which on every higher one has it too, null where it comes and goes. A count's summaries (repeated
    sessions) must all have the cause. Summaries without samples do not count.
    """
    seen: dict[int, list[set[str]]] = {}
    for summary in summaries:
        clients = (summary.get("concurrency") or {}).get("asked")
        joined = summary.get("joined")
        if clients is not None and joined:
            seen.setdefault(int(clients), []).append({cause["code"] for cause in joined["causes"]})
    always = {clients: set.intersection(*causes) for clients, causes in seen.items()}
    starts = []
    for code in sorted(set().union(*always.values()) if always else ()):
        counts = sorted(clients for clients, causes in always.items() if code in causes)
        first = counts[0]
        steady = all(code in causes for clients, causes in always.items() if clients >= first)
        title = TITLES.get(code, code)
        if not steady:
            where = f"at {', '.join(map(str, counts))} clients"
        elif first == min(always):
            where = "at every client count" if len(always) > 1 else f"at {first} clients"
        else:
            where = f"from {first} clients on"
        starts.append(
            {"code": code, "clients": counts, "from": first if steady else None, "sentence": f"{title} {where}"}
        )
    return sorted(starts, key=lambda each: (each["clients"][0], each["code"]))


def held(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What held engine or GPU back, and from how many clients on: a line for each cause, with the groups that it is
    true of.

    `groups`: summaries that differ only in their clients, by the group's name.
    """
    names: dict[str, list[str]] = {}
    for name, summaries in groups.items():
        for each in onsets(summaries):
            names.setdefault(each["sentence"], []).append(name)
    return [
        sentence if len(which) == len(groups) else f"{shortened(which, 4)}: {sentence}"
        for sentence, which in names.items()
    ]
