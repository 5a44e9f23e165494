"""What an engine is to llmpar-serve: canonical settings in, one command line out.

Pure: no process is started here. Each engine is one file beside this one with an `ENGINE`, and `__init__` has the
table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llmpar.engines.startup import Startup

NO_GPUS, ALL_GPUS = "none", "all"  # values of gpus beside indices: the CPU; all, whether or not one was found here


class Unsupported(ValueError):
    """A setting this engine does not have, or a value it cannot take; the text says what to do."""


@dataclass(frozen=True)
class Settings:
    """Canonical settings; None means not given. Names are llmpar-serve's options with _ for -."""

    model: str | None = None
    version: str | None = None  # of the engine or its image
    runtime: str | None = None  # local or docker
    image: str | None = None  # a container image other than the engine's own; `version` still decides the flags
    dtype: str | None = None
    quantize: str | None = None
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None  # prompt and output of one sequence
    max_sequences: int | None = None  # generated at the same time
    kv_bytes: int | None = None  # memory for the KV cache, in bytes, on each device
    gpu_memory_utilization: float | None = (
        None  # share of the card for weights, cache and the rest, in place of kv_bytes
    )
    shards: int | None = None
    replicas: int | None = None
    speculate: int | None = None  # draft tokens a step; 0 is off
    speculate_method: str | None = None  # ngram unless said
    acceptance_length: float | None = None  # tokens a step that speculation is forced to yield; None: the text decides
    prefix_cache: bool | None = None  # off unless said
    port: int | None = None
    listen: str | None = None  # the IP address to listen on; loopback unless said
    gpus: str | None = None  # comma separated indices, NO_GPUS or ALL_GPUS
    seed: int | None = None
    power_limit_w: float | None = None  # of each GPU while the servers run; llmpar-serve sets it and puts it back
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
    path: str | None = (
        None  # a folder that comes first on its PATH: engines call programs of their own environment by name
    )
    container: str | None = None  # its name, when argv is docker's
    model: str = ""  # the name to ask for
    notes: tuple[str, ...] = ()  # what a person should know: an approximation made, a trap avoided
    host: str = "127.0.0.1"  # at which this machine reaches it
    profiler: tuple[str, ...] = ()  # words before argv; the first is also what its processes are called

    @property
    def words(self) -> tuple[str, ...]:
        """What is executed."""
        return (*self.profiler, *self.argv)


@dataclass(frozen=True)
class OpenAi:
    """How an engine's OpenAI routes differ from one another in what they take. False: a request for it is refused."""

    top_k: bool = True
    top_k_off: int | None = None  # the value that means off; None leaves the field out
    top_p_of_1: bool = True  # False: 1 is left out, which means the same
    zero_temperature: bool = True
    ignore_eos: bool = True
    seed: bool = True
    cache_prompt: bool = False  # whether each request says if a cached prefix may be used
    generation_config: bool = False  # top_k and a full length go into this field, as JSON in a string
    usage: bool = True  # whether a stream can be asked for token counts at its end
    running_usage: bool = False  # and with each event


@dataclass(frozen=True)
class Metrics:
    """Where an engine's own metrics are and what they are called.""" ""

    path: str = "/metrics"
    prefix: str = ""  # how the names of all its samples begin
    # Canonical field (sampling/engine_metrics.py) -> names behind the prefix; the first that is there wins.
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cache_info: str | None = None  # the sample whose labels say how many tokens the KV cache holds
    counters_at_end: bool | None = None  # token counters move only when a request ends; None where unknown
    hits_in_prompt: bool | None = (
        None  # prompt tokens count those found in the prefix cache; None: it counts queries itself
    )


@dataclass(frozen=True)
class Engine:
    """All that the rest of llmpar knows of one engine."""

    name: str
    title: str
    api: str  # default dialect
    default_port: int
    supports: frozenset[str]  # names of Settings; model, port, runtime, engine_args are understood by all
    runtimes: tuple[str, ...]  # ("local", "docker"), the first found is used
    command: Callable[[Settings, Device, str], Launch]  # settings, device, runtime; raises Unsupported
    needs: Callable[[str], str | None]  # runtime -> None, or what is missing and how to install it
    packages: tuple[str, ...] = ()  # Python distributions it is installed from; the first that is there counts
    version_at: tuple[str, str] | None = None  # path and key of the JSON where its server gives its version
    metrics: Metrics | None = None
    openai: OpenAi | None = OpenAi()  # None: no OpenAI routes
    always: Mapping[str, Any] = field(
        default_factory=dict
    )  # fields of every request, against the server's own defaults
    failures: tuple[tuple[str, str, str], ...] = ()  # (outcome, regular expression over a line of the log, what to say)
    consequences: tuple[
        tuple[str, str, str], ...
    ] = ()  # the same, of lines that follow any failure: they count where no line names one
    startup: Startup | None = None  # what its log says of a start
    defaults: Mapping[str, Any] = field(default_factory=dict)  # where nothing is said, if other than llmpar-serve's own
    owned_by: tuple[str, ...] = ()  # what /v1/models may say of its models' owner; forks keep the word
    # The file of a model's name, of an engine that reserves the cache of all its sequences at its start.
    cache_model: Callable[[str | None], str] | None = None
    first_request_decides: bool = False  # the sampling of the first request since its start holds for all later ones
    first_request_compiles: bool = False  # the first request of a kind of sampling waits for kernels that it needs
