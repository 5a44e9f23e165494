"""A model's own files on this machine, read for its sizes. Nothing is downloaded."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmpar.engines import memory
from llmpar.engines.base import Device, Settings

SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
)
LARGEST = 10**7
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "model.bin", "*.gguf")


def folder(model: str | None) -> Path | None:
    """Where the model lies: a directory, or its newest snapshot in the hub cache of LLMPAR_DATA, HF_HOME or the
    home."""
    if not model:
        return None
    if os.path.isdir(model):
        return Path(model)
    name = "models--" + model.replace("/", "--")
    home = os.path.expanduser("~/.cache/huggingface")
    for base in (os.environ.get("LLMPAR_DATA"), os.environ.get("HF_HOME"), home):
        for hub in (Path(base or home) / "hub", Path(base or home)):
            found = sorted((hub / name / "snapshots").glob("*/config.json"), key=lambda each: each.stat().st_mtime)
            if found:
                return found[-1].parent
    return None


def config(model: str | None) -> dict[str, Any] | None:
    """The model's config.json; None where it is not here or cannot be read."""
    where = folder(model)
    try:
        value = json.loads((where / "config.json").read_bytes()) if where else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    inner = value.get("text_config")
    found: dict[str, Any] = inner if isinstance(inner, dict) else value
    # Sizes are counts; what is none of a model's is not known.
    sizes = {name: size for name in SIZES if (size := found.get(name)) is not None}
    wrong = [name for name, size in sizes.items() if type(size) is not int or not 0 < size < LARGEST]
    return {name: item for name, item in found.items() if name not in wrong}


def stored_bytes(model: str | None) -> int | None:
    """Bytes of the weight files, of the first kind that is there; None where there are none."""
    if model and os.path.isfile(model):
        return os.path.getsize(model)
    where = folder(model)
    for pattern in WEIGHTS if where else ():
        sizes = [each.stat().st_size for each in where.glob(pattern)]  # type: ignore[union-attr]
        if sizes:
            return sum(sizes)
    return None


def measured(settings: Settings, device: Device) -> Device:
    """The device with what its None fields can be told from the model's files; unknown ones stay None.

    Weights in files count as they are, unless the engine changes them while loading (a dtype or an on-the-fly
    quantisation that the files do not have): then they are counted from the configuration.
    """
    shards = settings.shards or 1
    configuration = config(settings.model)
    weights, per_token = device.weight_bytes, device.kv_bytes_per_token
    if configuration is not None and per_token is None:
        try:
            per_token = memory.kv_bytes_per_token(configuration, shards)
        except (KeyError, TypeError, ZeroDivisionError):
            pass
    if weights is None:
        stored = stored_bytes(settings.model)
        own = configuration.get("torch_dtype") or configuration.get("dtype") if configuration else None
        loaded = settings.dtype in (None, "auto", own, {"float16": "half"}.get(str(own)))
        in_files = configuration is not None and "quantization_config" in configuration
        if stored is not None and (in_files or loaded and settings.quantize is None):
            weights = stored // shards
        elif configuration is not None:
            try:
                weights = memory.weight_bytes(configuration, settings.dtype, settings.quantize, shards)
            except (KeyError, ValueError, TypeError):
                weights = stored // shards if stored is not None else None
    return replace(device, weight_bytes=weights, kv_bytes_per_token=per_token)
