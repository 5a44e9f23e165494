"""The engines that llmpar-serve knows: one file each, one row each."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from importlib import import_module

from llmpar.engines.base import Device, Engine, Launch, Metrics, OpenAi, Settings, Unsupported

__all__ = ["ENGINES", "Device", "Engine", "Launch", "Metrics", "OpenAi", "Settings", "Unsupported", "check"]


class _Table(Mapping[str, Engine]):
    """Engines by name. A file is imported when its engine is looked up: a request needs one of them, and soon."""

    def __init__(self, modules: Mapping[str, str]):
        self._modules = modules

    def __getitem__(self, name: str) -> Engine:
        engine: Engine = import_module(f"llmpar.engines.{self._modules[name]}").ENGINE
        return engine

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


# Name -> file.
ENGINES = _Table(
    {
        "tgi": "tgi",
        "vllm": "vllm",
        "aphrodite": "aphrodite",
        "llamacpp": "llamacpp",
        "mii": "mii",
        "powerinfer": "powerinfer",
        "ctranslate2": "ctranslate2",
        "trtllm": "trtllm",
        "transformers": "transformers_",
        "sglang": "sglang",
        "lmdeploy": "lmdeploy",
        "ollama": "ollama",
    }
)

# What every engine understands, through llmpar-serve itself.
COMMON = frozenset({"model", "port", "listen", "runtime", "power_limit_w", "engine_args"})


def check(engine: Engine, settings: Settings) -> None:
    """Raise Unsupported for a setting that the engine does not have, naming the engines that have it."""
    for name, value in settings.given().items():
        if name in COMMON | engine.supports or _is_met(engine, name, value):
            continue
        having = sorted(each.name for each in ENGINES.values() if name in each.supports)
        raise Unsupported(f"{engine.name} has no {name}; it is a setting of {', '.join(having) or 'no engine here'}")
    if settings.listen is not None:
        try:
            if ipaddress.ip_address(settings.listen).is_multicast or "%" in settings.listen:
                raise ValueError
        except ValueError:
            raise Unsupported(
                f"listen is '{settings.listen}': give an IP address of this machine, or 0.0.0.0 for every one"
            ) from None
    if settings.image and settings.runtime == "local":
        raise Unsupported("image is for containers: give --runtime docker, or leave --runtime out")
    if settings.runtime and settings.runtime not in engine.runtimes:
        raise Unsupported(f"{engine.name} runs {' or '.join(engine.runtimes)}, not '{settings.runtime}'")
    if settings.speculate_method and settings.speculate is None:
        raise Unsupported("speculate_method says nothing without speculate: give --speculate N, or 0 for none")
    if settings.acceptance_length is not None:
        _check_acceptance(settings.speculate or 0, settings.acceptance_length)


def _check_acceptance(speculate: int, length: float) -> None:
    if not speculate:
        raise Unsupported("acceptance_length forces what speculation yields: give --speculate N as well")
    if not 1 <= length <= speculate + 1:
        raise Unsupported(
            f"acceptance_length is {length:g}: with {speculate} draft tokens a step yields from 1 to "
            f"{speculate + 1} tokens"
        )


def _is_met(engine: Engine, name: str, value: object) -> bool:
    # Asking that something be off where it does not exist is met, and so is asking for the only method there is.
    return (
        (name in ("speculate", "prefix_cache") and not value)
        or (name in ("shards", "replicas") and value == 1)
        or (name == "speculate_method" and value == "ngram" and "speculate" in engine.supports)
    )
