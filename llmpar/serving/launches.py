"""Settings of a cell or the command line to the launches of an engine."""

from __future__ import annotations

import dataclasses
import ipaddress
import shlex
from typing import Any

from llmpar import exit_codes, sizes, sweeps, visible_gpus
from llmpar.dialects import Sampling
from llmpar.engines import ENGINES, flags, model_files
from llmpar.engines.base import ALL_GPUS, NO_GPUS, Device, Engine, Launch, Settings, Unsupported
from llmpar.failure import Failure

NSYS = (
    "nsys",
    "profile",
    "--trace",
    "cuda,nvtx,osrt",
    "--cuda-graph-trace",
    "node",
    "--trace-fork-before-exec",
    "true",
    "--force-overwrite",
    "true",
    "--output",
)


def from_cell(cell: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(engine, settings by name) of a cell record. Raises ValueError for a setting that llmpar-serve does not know, or
    of a wrong type."""
    if wrong := sweeps.cell_fault(cell):
        raise ValueError(wrong)
    server = {
        name: value for name, value in cell["server"].items() if name not in ("engine", "host") and value is not None
    }
    known = {each.name for each in dataclasses.fields(Settings)}
    unknown = sorted(set(server) - known)
    if unknown:
        raise ValueError(f"cell '{cell['id']}' has the unknown server setting '{unknown[0]}'")
    if "engine_args" in server:
        server["engine_args"] = tuple(shlex.split(server["engine_args"]))
    if "kv_bytes" in server:
        server["kv_bytes"] = sizes.parse(server["kv_bytes"])
    return str(cell["server"].get("engine") or sweeps.DEFAULTS["engine"]), server


def probe_sampling(engine: Engine, text: str | None, load: dict[str, Any] | None) -> tuple[Sampling | None, str | None]:
    """(sampling of the request that shows readiness, a note or None); None is the greedy one, right wherever nothing
    hangs on it.

    `text`: `temperature=0.1,top_k=100`, `load`: of a cell record. Raises ValueError for a name or value that is none.
    """
    if not (engine.first_request_decides or engine.first_request_compiles):
        if text:
            raise ValueError(f"{engine.name} does not depend on its first request: leave --probe-sampling out")
        return None, None
    kinds: dict[str, Any] = {
        "temperature": float,
        "top_k": int,
        "top_p": float,
        "ignore_eos": lambda word: word in ("yes", "true", "1"),
    }
    made = Sampling(max_tokens=2)
    if text is not None:
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name.strip() not in kinds:
                raise ValueError(f"--probe-sampling '{part}': give NAME=VALUE of {', '.join(kinds)}")
            setattr(made, name.strip(), kinds[name.strip()](value.strip()))
        return made, None
    if load is not None:
        for name in kinds:
            if load.get(name) is not None:
                setattr(made, name, load[name])
        return made, None
    if not engine.first_request_decides:
        return None, None
    return None, (
        f"{engine.name} takes the sampling of its first request for all later ones, and that is llmpar-serve's: "
        "temperature 0. "
        "For another, give it as --probe-sampling temperature=0.1,top_p=0.3 (a cell's is taken by itself)"
    )


def opened(address: str | None) -> str | None:
    """What to say of an address that others reach; None for loopback."""
    if address is None or ipaddress.ip_address(address).is_loopback:
        return None
    return f"others reach the engine on {address}, and it asks for no key: a firewall decides who"


def choose_runtime(engine: Engine, wanted: str | None, dry: bool) -> str:
    """The runtime to use: what was asked for, else the first that is here. Raises Failure naming what is missing."""
    if wanted or dry:
        chosen = wanted or next((each for each in engine.runtimes if engine.needs(each) is None), engine.runtimes[0])
        missing = None if dry else engine.needs(chosen)
        if missing:
            raise Failure(f"{engine.title}: {missing}", exit_codes.UNAVAILABLE)
        return chosen
    missing_all = []
    for each in engine.runtimes:
        missing = engine.needs(each)
        if missing is None:
            return each
        missing_all.append(missing)
    raise Failure(
        f"{engine.title} cannot run here: {missing_all[0]}",
        exit_codes.UNAVAILABLE,
        "; or ".join(missing_all[1:]) or None,
    )


def launches(engine: Engine, settings: Settings, device: Device, chosen: str, ports: list[int]) -> list[Launch]:
    """One launch for each replica, on its port and, where GPUs are named, on its own GPU. Raises Unsupported."""
    count = settings.replicas or 1
    named = _among_visible(settings.gpus, chosen)
    gpus = [each.strip() for each in (named or "").split(",") if each.strip()]
    shards = settings.shards or 1
    # One GPU named and several replicas: they share it. As many as replicas times shards: each has its own.
    apart = count > 1 and len(gpus) > 1
    if apart and len(gpus) != count * shards:
        raise Unsupported(
            f"gpus: {len(gpus)} GPUs do not divide among {count} replicas of {shards} shards; name one, or "
            f"{count * shards}"
        )
    device = model_files.measured(settings, device)
    made = []
    for index in range(count):
        own = gpus[index * shards : (index + 1) * shards] if apart else gpus
        alone = dataclasses.replace(settings, port=ports[index], gpus=",".join(own) or None, replicas=None)
        if count > 1:
            alone = dataclasses.replace(alone, listen=None)  # the balancer listens there
        launch = engine.command(alone, device, chosen)
        made.append(dataclasses.replace(launch, host=flags.reached_at(flags.host(alone))))
    return made


def _among_visible(gpus: str | None, chosen: str) -> str | None:
    """The setting `gpus` in names of the machine: of a job that a scheduler gave some GPUs, GPU 0 is the job's first.

    A local server inherits CUDA_VISIBLE_DEVICES where no GPU is named; a container does not. Raises Unsupported.
    """
    visible = visible_gpus.told()
    if visible is None or gpus == NO_GPUS:
        return gpus
    if gpus in (None, ALL_GPUS):
        return (",".join(visible) or NO_GPUS) if chosen == "docker" else gpus
    try:
        return visible_gpus.within(gpus, visible)
    except ValueError as error:
        raise Unsupported(str(error)) from None


def profiled(made: list[Launch], folder: str) -> list[Launch]:
    """The launches inside Nsight Systems, with reports `profile-N.nsys-rep` in the folder."""
    return [dataclasses.replace(each, profiler=(*NSYS, f"{folder}/profile-{index}")) for index, each in enumerate(made)]


def lookup(name: str) -> Engine:
    """The engine of that name. Raises Failure naming those there are."""
    if name not in ENGINES:
        raise Failure(f"unknown engine '{name}'", exit_codes.USAGE, "there are: " + ", ".join(ENGINES))
    return ENGINES[name]


def shell_line(launch: Launch) -> str:
    """The launch as a line for a shell."""
    words = [f'PATH={shlex.quote(launch.path)}:"$PATH"'] if launch.path else []
    words += [f"{name}={shlex.quote(value)}" for name, value in sorted(launch.environment.items())]
    return " ".join([*words, *(shlex.quote(word) for word in launch.words)])
