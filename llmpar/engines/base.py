"""What an engine is to llmpar-serve: canonical settings in, one command line out.

Pure: no process is started here. Each engine is one file beside this one with an `ENGINE`, and `__init__` has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


class Unsupported(ValueError):
    """A setting this engine does not have, or a value it cannot take; the text says what to do."""


@dataclass(frozen=True)
class Settings:
    """Canonical settings; None means not given. Names are llmpar-serve's options with _ for -."""

    model: str | None = None
    version: str | None = None  # of the engine or its image
    runtime: str | None = None  # local or docker
    dtype: str | None = None
    quantize: str | None = None
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None  # prompt and output of one sequence
    max_sequences: int | None = None  # generated at the same time
    kv_bytes: int | None = None  # memory for the KV cache, in bytes, on each device
    shards: int | None = None
    replicas: int | None = None
    speculate: int | None = None  # draft tokens a step; 0 is off
    speculate_method: str | None = None  # ngram unless said
    prefix_cache: bool | None = None  # off unless said
    port: int | None = None
    gpus: str | None = None  # comma separated indices
    seed: int | None = None
    engine_args: tuple[str, ...] = ()  # passed through as they are

    def given(self) -> dict[str, Any]:
        """The settings that were given a value."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) not in (None, ())}


@dataclass(frozen=True)
class Device:
    """What of the machine a translation needs. Bytes are None where no GPU was found and none was named."""

    gpu_memory_bytes: int | None = None  # total of one GPU
    weight_bytes: int | None = None  # of the model's weights on one GPU, where known
    kv_bytes_per_token: int | None = None


@dataclass(frozen=True)
class Launch:
    """One server process or container: what to run, and where it then answers."""

    argv: tuple[str, ...]
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)  # added to the surrounding one
    container: str | None = None  # its name, when argv is docker's
    model: str = ""  # the name to ask for
    notes: tuple[str, ...] = ()  # what a person should know: an approximation made, a trap avoided
    profiler: tuple[str, ...] = ()  # words before argv; the first is also what its processes are called

    @property
    def words(self) -> tuple[str, ...]:
        """What is executed."""
        return (*self.profiler, *self.argv)


@dataclass(frozen=True)
class Engine:
    """One row of the table."""

    name: str
    title: str
    api: str  # default dialect
    default_port: int
    supports: frozenset[str]  # names of Settings; model, port, runtime, engine_args are understood by all
    runtimes: tuple[str, ...]  # ("local", "docker"), the first found is used
    command: Callable[[Settings, Device, str], Launch]  # settings, device, runtime; raises Unsupported
    needs: Callable[[str], str | None]  # runtime -> None, or what is missing and how to install it
    metrics_path: str | None = None  # Prometheus or engine's own; None where it has none
    health_path: str | None = None
    failures: tuple[tuple[str, str, str], ...] = ()  # (outcome, regular expression over the log, what to say)
    first_request_decides: bool = False  # the sampling of the first request since its start holds for all later ones
