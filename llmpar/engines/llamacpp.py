"""llama.cpp: `llama-server` where it is on PATH, else the same server from the xllamacpp package, or its image."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

from llmpar.engines import docker, gguf, startup
from llmpar.engines.base import Device, Engine, Launch, Metrics, OpenAi, Settings, Unsupported
from llmpar.engines.flags import as_argv, host, local
from llmpar.engines.llamacpp_server import model_path

SEQUENCES, LENGTH = 4, 2048  # where nothing is said
MOST_SEQUENCES = 256  # LLAMA_MAX_SEQ
IMAGE = "ghcr.io/ggml-org/llama.cpp"


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """`-c` is shared out among the slots: it is slots times length. KV bytes buy slots of the given length."""
    model = settings.model or "gemma3-270m"
    length, notes = settings.max_total_tokens or LENGTH, []
    sequences = settings.max_sequences or SEQUENCES
    if settings.kv_bytes is not None:
        each = device.kv_bytes_per_token or _kv_bytes_per_token(model)
        if each is None:
            raise Unsupported(
                f"kv_bytes: the size of a token of '{model}' in the KV cache is unknown; give max_sequences instead"
            )
        fit = settings.kv_bytes // (each * length)
        if fit < 1:
            raise Unsupported(
                f"kv_bytes: {settings.kv_bytes} bytes hold less than one sequence of {length} tokens "
                f"({each * length} bytes)"
            )
        # max_sequences is an upper bound, here as on engines that share their cache out while they run.
        sequences = min(settings.max_sequences or MOST_SEQUENCES, fit)
        notes.append(
            f"kv_bytes: {sequences} sequences of {length} tokens at {each} bytes a token take "
            f"{sequences * length * each} bytes"
        )
    if settings.speculate_method not in (None, "ngram"):
        raise Unsupported(
            f"speculate_method: '{settings.speculate_method}' is not available; llamacpp has ngram "
            "(a draft model goes through --engine-args '--spec-type draft-simple -md FILE')"
        )
    port = settings.port or ENGINE.default_port
    flags = as_argv(
        ("-c", length * sequences),
        ("-np", sequences),
        ("--port", port),
        ("--metrics", True),
        ("--slots", True),
        ("--no-cache-prompt", not settings.prefix_cache),
        ("--cache-ram", None if settings.prefix_cache else 0),
        ("--spec-type", "ngram-simple" if settings.speculate else None),
        ("--spec-ngram-simple-size-n", 3 if settings.speculate else None),
        ("--spec-ngram-simple-size-m", settings.speculate or None),
        ("--seed", settings.seed),
        ("-sm", "layer" if (settings.shards or 1) > 1 else None),
    )
    if (settings.shards or 1) > 1:
        notes.append("llama.cpp shards by layers over all visible GPUs")

    name = os.path.basename(model)
    if runtime == "docker":
        if not os.path.exists(model):
            raise Unsupported(f"model: '{model}' is not a file; llama.cpp's image needs a .gguf file")
        folder, file = os.path.split(os.path.abspath(model))
        argv = docker.docker(
            settings,
            f"{IMAGE}:{settings.version or 'server-cuda'}",
            ["-m", f"/m/{file}", "-a", name, "-ngl", "all", "--host", "0.0.0.0", *flags],
            port=port,
            inner_port=port,
            cache="",
            mounts=["-v", f"{folder}:/m:ro"],
        )
        return docker.contained("llamacpp", argv, port, name, notes)
    if settings.version:
        raise Unsupported(
            "version: a local llama.cpp is the one that is installed, and server.json names it; leave "
            "--engine-version out, "
            "or give a tag of its image with --runtime docker"
        )
    if shutil.which("llama-server"):
        start = ["llama-server", "-m", model if os.path.exists(model) else model_path(model), "-a", name, "-ngl", "all"]
    else:
        start = [sys.executable, "-m", "llmpar.engines.llamacpp_server", "-m", model, "-a", name]
    return local(settings, [*start, "--host", host(settings), *flags], port, name, notes)


def _kv_bytes_per_token(model: str) -> int | None:
    try:
        return gguf.kv_bytes_per_token(model_path(model))
    except (OSError, gguf.NotGguf):
        return None


def needs(runtime: str) -> str | None:
    """None, or what is missing and how to install it."""
    if runtime == "docker":
        return docker.needs_docker()
    if shutil.which("llama-server") or importlib.util.find_spec("xllamacpp"):
        return None
    return "neither llama-server nor the xllamacpp package is here; type: llmpar setup (in a checkout: make setup)"


ENGINE = Engine(
    name="llamacpp",
    title="llama.cpp",
    api="llamacpp",
    owned_by=("llamacpp",),
    default_port=8080,
    supports=frozenset(
        {
            "version",
            "image",
            "max_total_tokens",
            "max_sequences",
            "kv_bytes",
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
    packages=("xllamacpp",),
    cache_model=lambda name: model_path(name or "gemma3-270m"),
    version_at=("/props", "build_info"),
    openai=OpenAi(top_k_off=0, cache_prompt=True),
    always={"min_p": 0},  # the server's own default is 0.05
    startup=startup.LLAMACPP,
    metrics=Metrics(
        prefix="llamacpp:",
        names={
            "running": ("requests_processing",),
            "waiting": ("requests_deferred",),
            "kv_usage_ratio": ("kv_cache_usage_ratio",),  # until May 2025; /slots tells since
            "prompt_tokens_total": ("prompt_tokens_total",),
            "generation_tokens_total": ("tokens_predicted_total",),
            "spec_drafts_total": ("spec_decode_num_drafts_total",),
            "spec_draft_tokens_total": ("spec_decode_num_draft_tokens_total",),
            "spec_accepted_tokens_total": ("spec_decode_num_accepted_tokens_total",),
            "prefix_hits_total": ("prompt_tokens_cached_total",),
            "prefill_s_total": ("prompt_seconds_total",),
            "decode_s_total": ("tokens_predicted_seconds_total",),
        },
        counters_at_end=True,
        hits_in_prompt=False,
    ),
    failures=(
        ("unknown_model", r"error: unknown model .*", "the model is not there"),
        ("out_of_memory", r"failed to allocate|unable to allocate .*buffer|cudaMalloc failed", "out of memory"),
        ("port_taken", r"couldn't bind HTTP server socket|bind.*[Aa]ddress already in use", "the port is taken"),
    ),
    consequences=(("unknown_model", r"failed to load model.*|error loading model.*", "the model could not be loaded"),),
)
