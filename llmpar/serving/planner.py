"""What cannot run on this machine, told from the settings and the model's files before anything is started."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmpar import sizes
from llmpar.engines import Device, Engine, Settings, check, gguf, memory, model_files
from llmpar.engines.base import NO_GPUS
from llmpar.failure import Failure
from llmpar.serving import gpu_memory, launches

# Words of engines' own flags that store the KV cache in fewer bytes than the model's type.
KV_TYPES = ("--kv-cache-dtype", "--cache-type-k", "-ctk")


def refusal(server: Mapping[str, Any]) -> str | None:
    """Why these server settings of a cell cannot run here; None where they may. Whether the engine is installed is not
    asked."""
    named = {name: value for name, value in server.items() if name not in ("engine", "host") and value is not None}
    try:
        engine = launches.lookup(str(server.get("engine")))
        if "kv_bytes" in named:
            named["kv_bytes"] = sizes.parse(named["kv_bytes"])
        if "engine_args" in named:
            named["engine_args"] = tuple(shlex.split(named["engine_args"]))
        settings = Settings(**named)
        check(engine, settings)
        device = Device(gpu_memory.gpu_memory(), None)
        ports = [engine.default_port + number for number in range(settings.replicas or 1)]
        launches.launches(engine, settings, device, settings.runtime or engine.runtimes[0], ports)
    except (ValueError, Failure) as error:
        return str(error)
    return memory.shortage(settings, *_device(engine, settings, device))


def _device(engine: Engine, settings: Settings, device: Device) -> tuple[Device, int]:
    """The memory that the engine takes from, the model's sizes, and the sequences whose cache it lays out at once."""
    if device.gpu_memory_bytes is None or settings.gpus == NO_GPUS:
        device = replace(device, gpu_memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    sequences = 1
    if engine.cache_model:
        sequences = settings.max_sequences or 1
        try:
            settings = replace(settings, model=engine.cache_model(settings.model))
            device = replace(device, kv_bytes_per_token=_whole_cache(str(settings.model)))
        except (OSError, SystemExit, gguf.NotGguf):
            pass  # the launch says what is wrong with the model
    device = model_files.measured(settings, device)
    if any(word.split("=")[0] in KV_TYPES for word in settings.engine_args):
        device = replace(device, kv_bytes_per_token=None)
    return device, sequences


def _whole_cache(path: str) -> int | None:
    """Bytes of one token in the cache; None where layers keep a sliding window only, so that length does not tell."""
    found = gguf.header(path)
    if found.get(f"{found.get('general.architecture')}.attention.sliding_window"):
        return None
    return gguf.kv_bytes_per_token(path)
