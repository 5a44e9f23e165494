"""Aphrodite Engine, a relative of vLLM. Flags read in 0.5.2 (March 2024), 0.6.5 and 0.21, which is close to vLLM
again."""

from __future__ import annotations

from dataclasses import replace

from llmpar.engines import docker, flags, installed, memory, startup, vllm
from llmpar.engines.base import Device, Engine, Launch, OpenAi, Settings

QUANTIZE = ("aqlm", "awq", "bnb", "exl2", "gguf", "gptq", "quip", "squeezellm", "marlin")
DTYPE = {"float16": "half", "float32": "float"}  # its own words


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server's command line. The image of 2024 takes its settings from the environment. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    python, version = None, settings.version
    if runtime != "docker":
        python = installed.python_of("aphrodite", "aphrodite", "aphrodite")
        version = installed.same_version(settings, installed.installed(python, "aphrodite-engine", "aphrodite_engine"))
    if not installed.older(version, 0, 20):
        words = _rebased(settings)
        if runtime == "docker":
            return _later_image(settings, port, model, words)
        # Through its command: only that falls back where compiled kernels are missing.
        argv = [
            installed.script_of(python, "aphrodite"),
            "serve",
            model,
            *words,
            "--host",
            flags.host(settings),
            "--port",
            str(port),
        ]
        return flags.local(
            settings, argv, port, model, environment={"APHRODITE_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        )
    flags.no_speculation(settings, "Aphrodite as launched here", " before 0.20")
    dtype = DTYPE.get(settings.dtype or "", settings.dtype)
    quantize = flags.choose("quantize", settings.quantize, QUANTIZE, "Aphrodite")
    fraction = memory.fraction_of_card(settings, device)
    if runtime == "docker" and installed.older(settings.version, 0, 6):
        return _first_image(settings, port, model, dtype, quantize, fraction)
    words = flags.as_argv(
        ("--dtype", dtype),
        ("--quantization", quantize),
        ("--max-model-len", settings.max_total_tokens),
        ("--max-num-seqs", settings.max_sequences),
        ("--gpu-memory-utilization", fraction),
        ("--tensor-parallel-size", settings.shards if (settings.shards or 1) > 1 else None),
        ("--seed", settings.seed),
        (_prefix(settings), settings.prefix_cache),
    )
    if runtime == "docker":
        return _later_image(settings, port, model, words)
    argv = [
        python or "python",
        "-m",
        "aphrodite.endpoints.openai.api_server",
        "--model",
        model,
        *words,
        "--host",
        flags.host(settings),
        "--port",
        str(port),
    ]
    return flags.local(settings, argv, port, model)


def _rebased(settings: Settings) -> list[str]:
    """Flags from 0.20 on, rebased on vLLM's V1 engine (0.21 read and run)."""
    flags.ngram_only(settings, "Aphrodite")
    return flags.as_argv(
        ("--dtype", settings.dtype),
        ("--quantization", settings.quantize),
        ("--max-model-len", settings.max_total_tokens),
        ("--max-num-seqs", settings.max_sequences),
        ("--gpu-memory-utilization", memory.given_fraction(settings)),
        ("--kv-cache-memory-bytes", settings.kv_bytes),
        ("--tensor-parallel-size", settings.shards if (settings.shards or 1) > 1 else None),
        ("--seed", settings.seed),
        ("--enable-prefix-caching" if settings.prefix_cache else "--no-enable-prefix-caching", True),
        ("--generation-config", "aphrodite"),
        *flags.ngram_config(settings),
    )


def _later_image(settings: Settings, port: int, model: str, words: list[str]) -> Launch:
    inside, mounts = docker.in_container(model)
    argv = docker.docker(
        settings,
        f"alpindale/aphrodite-openai:{installed.tag(settings.version or 'latest')}",
        ["--model", inside, *words, "--port", "2242"],
        port=port,
        inner_port=2242,
        cache="/root/.cache/huggingface",
        options=["--ipc=host"],
        mounts=mounts,
    )
    return docker.contained("aphrodite", argv, port, inside, ["the images after 0.6 are not verified"])


def _prefix(settings: Settings) -> str:
    return "--context-shift" if installed.older(settings.version, 0, 6) else "--enable-prefix-caching"


def _first_image(
    settings: Settings, port: int, model: str, dtype: str | None, quantize: str | None, fraction: float | None
) -> Launch:
    """alpindale/aphrodite-engine, of 2024 and without tags by version: its entry point makes flags of its
    environment."""
    inside, mounts = docker.in_container(model)
    more = flags.as_argv(
        ("--max-num-seqs", settings.max_sequences),
        ("--seed", settings.seed),
        ("--context-shift", settings.prefix_cache),
    ) + list(settings.engine_args)
    environment = {
        name: str(value)
        for name, value in (
            ("MODEL_NAME", inside),
            ("DATATYPE", dtype),
            ("QUANTIZATION", quantize),
            ("CONTEXT_LENGTH", settings.max_total_tokens),
            ("GPU_MEMORY_UTILIZATION", fraction),
            ("NUM_GPUS", settings.shards if (settings.shards or 1) > 1 else None),
            ("CMD_ADDITIONAL_ARGUMENTS", " ".join(more) or None),
        )
        if value is not None
    }
    argv = docker.docker(
        replace(settings, engine_args=()),
        "alpindale/aphrodite-engine",
        [],
        port=port,
        inner_port=7860,
        cache="",
        options=["--ipc=host"],
        environment=environment,
        mounts=mounts,
    )
    return docker.contained(
        "aphrodite", argv, port, inside, ["this image keeps its models inside: each start downloads the model again"]
    )


def needs(runtime: str) -> str | None:
    if runtime == "docker":
        return docker.needs_docker()
    return installed.needs_python("aphrodite", "aphrodite", "aphrodite-engine", "aphrodite")


ENGINE = Engine(
    name="aphrodite",
    title="Aphrodite Engine",
    api="openai-completions",
    owned_by=("vllm", "pygmalionai"),
    default_port=2242,
    supports=frozenset(
        {
            "version",
            "image",
            "dtype",
            "quantize",
            "max_total_tokens",
            "max_sequences",
            "kv_bytes",
            "gpu_memory_utilization",
            "shards",
            "replicas",
            "speculate",
            "speculate_method",
            "prefix_cache",
            "gpus",
            "seed",
        }
    ),
    runtimes=("local", "docker"),
    command=command,
    needs=needs,
    packages=("aphrodite-engine",),
    version_at=("/version", "version"),
    openai=OpenAi(top_k_off=-1, running_usage=True),
    startup=startup.VLLM,
    metrics=replace(vllm.METRICS, prefix="aphrodite:"),
    failures=flags.TORCH_FAILURES,
)
