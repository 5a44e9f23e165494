"""Ollama: `ollama serve`, configured by its environment. Read in its docs/api.md, docs/faq.md and envconfig; not run
here."""

from __future__ import annotations

import os
import shutil

from llmpar.engines import docker, flags
from llmpar.engines.base import Device, Engine, Launch, OpenAi, Settings, Unsupported


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server and its environment; the model is loaded by the first request. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    if os.path.exists(model):
        raise Unsupported(
            f"Ollama serves models by name, and --model is the file '{model}': import it with 'ollama create NAME -f "
            "Modelfile', "
            "or use --engine llamacpp for a .gguf file"
        )
    if settings.prefix_cache is False:
        raise Unsupported(
            "Ollama always reuses the prompt that its slot holds: give --prefix-cache, and prompts that differ"
        )
    if settings.version and runtime == "local":
        raise Unsupported(
            "version: a local Ollama is the one that is installed, and server.json names it; leave --version out, "
            "or give a tag of its image with --runtime docker"
        )
    if settings.engine_args:
        raise Unsupported(
            "'ollama serve' takes no flags for --engine-args: set its OLLAMA_… variables around llmpar-serve"
        )
    environment = {
        name: str(value)
        for name, value in (
            # Else it unloads the model after five minutes, and loads a second one beside it where it is asked for.
            ("OLLAMA_KEEP_ALIVE", -1),
            ("OLLAMA_MAX_LOADED_MODELS", 1),
            ("OLLAMA_NOPRUNE", 1),
            ("OLLAMA_NUM_PARALLEL", settings.max_sequences),
            ("OLLAMA_CONTEXT_LENGTH", settings.max_total_tokens),
        )
        if value is not None
    }
    notes = [
        "Ollama reuses the prompt that its slot holds: a prompt seen before costs no prefill",
        "Ollama answers 503 above 512 waiting requests: for more set OLLAMA_MAX_QUEUE around llmpar-serve",
        "Ollama has no metrics: its queue and cache are unknown",
    ]
    if runtime == "docker":
        argv = docker.docker(
            settings,
            f"ollama/ollama:{settings.version or 'latest'}",
            [],
            port=port,
            inner_port=11434,
            cache="",
            environment=environment,
            mounts=["-v", f"{_models()}:/root/.ollama/models"],
        )
        return docker.contained("ollama", argv, port, model, notes)
    address = f"{flags.bracketed(flags.host(settings))}:{port}"
    return flags.local(settings, ["ollama", "serve"], port, model, notes, {**environment, "OLLAMA_HOST": address})


def _models() -> str:
    return os.path.abspath(os.path.expanduser(os.environ.get("OLLAMA_MODELS") or "~/.ollama/models"))


def needs(runtime: str) -> str | None:
    """None, or what is missing and how to install it."""
    if runtime == "docker":
        return docker.needs_docker()
    return (
        None
        if shutil.which("ollama")
        else "ollama is not on the PATH: see https://ollama.com/download, or use --runtime docker"
    )


ENGINE = Engine(
    name="ollama",
    title="Ollama",
    api="ollama",
    default_port=11434,
    supports=frozenset({"version", "image", "max_total_tokens", "max_sequences", "replicas", "prefix_cache", "gpus"}),
    runtimes=("local", "docker"),
    command=command,
    needs=needs,
    version_at=("/api/version", "version"),
    openai=OpenAi(top_k=False, ignore_eos=False),
    defaults={"prefix_cache": True},
    failures=(
        ("port_taken", r"listen tcp .*: bind: address already in use", "the port is taken"),
        (
            "out_of_memory",
            r"model requires more system memory .*|cudaMalloc failed: out of memory|CUDA error: out of memory",
            "not enough memory: lower --max-total-tokens or --max-sequences",
        ),
        (
            "unknown_model",
            r"model '.*' not found|error loading model.*",
            "the model is not there: ollama pull it first",
        ),
    ),
)
