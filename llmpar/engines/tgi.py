"""Text Generation Inference (Hugging Face). Launcher and router of 1.4.4 and 3.3.7 read and run, on a CPU."""

from __future__ import annotations

import shutil

from llmpar.engines import docker, flags, installed, memory, startup
from llmpar.engines.base import Device, Engine, Launch, Metrics, OpenAi, Settings, Unsupported

DEFAULT_VERSION = "3.3.7"
DTYPES = ("float16", "bfloat16")  # all that both versions know
FIRST_TOTAL = 2048  # --max-total-tokens of version 1 where it is not given
QUANTIZE = ("awq", "eetq", "gptq", "bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4")
QUANTIZE_LATER = ("fp8", "marlin", "exl2", "compressed-tensors")


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The launcher's command line, in a container or not. Raises Unsupported."""
    version = settings.version or DEFAULT_VERSION
    first = installed.older(version, 2)
    port = settings.port or ENGINE.default_port
    model, mounts = (
        docker.in_container(flags.need_model(settings)) if runtime == "docker" else (flags.need_model(settings), [])
    )
    quantize = flags.choose(
        "quantize", settings.quantize, QUANTIZE if first else QUANTIZE + QUANTIZE_LATER, f"TGI {version}"
    )
    if quantize and settings.dtype and not quantize.startswith("bitsandbytes"):
        # The shard ends with "Only 1 can be set between `dtype` and `quantize`", minutes after the start.
        raise Unsupported(
            f"TGI does not take a dtype with --quantize {quantize}: its shards would exit. Leave --dtype out"
        )
    if settings.prefix_cache and first:
        raise Unsupported(f"TGI {version} has no prefix cache: version 3 has")
    if (
        settings.max_input_tokens
        and settings.max_total_tokens
        and settings.max_input_tokens >= settings.max_total_tokens
    ):
        raise Unsupported("TGI needs --max-input-tokens below --max-total-tokens: the rest is for the output")
    if first and settings.max_total_tokens is None and (settings.max_input_tokens or 0) >= FIRST_TOTAL:
        raise Unsupported(
            f"TGI {version} has {FIRST_TOTAL} total tokens by default, and --max-input-tokens is "
            f"{settings.max_input_tokens}: "
            "give --max-total-tokens as well"
        )
    dtype = flags.choose("dtype", settings.dtype, DTYPES, f"TGI {version}")
    fraction = memory.fraction_of_card(settings, device)
    prefill = settings.max_input_tokens if first and (settings.max_input_tokens or 0) > 4096 else None
    words = flags.as_argv(
        ("--model-id", model),
        ("--dtype", dtype),
        ("--quantize", quantize),
        # Without --num-shard it takes every GPU that it sees.
        ("--num-shard", settings.shards or 1),
        ("--max-input-length" if first else "--max-input-tokens", settings.max_input_tokens),
        ("--max-total-tokens", settings.max_total_tokens),
        ("--max-batch-prefill-tokens", prefill),  # 4096 by default, and must not be below the input
        ("--max-batch-size", settings.max_sequences),
        ("--cuda-memory-fraction", fraction),
        ("--speculate", settings.speculate or None),
    )
    notes = [
        "TGI answers 429 above 128 requests, waiting ones counted: for more clients add "
        "--engine-args '--max-concurrent-requests N'"
    ]
    if first and settings.max_input_tokens is None and settings.max_total_tokens:
        notes.append(f"TGI {version} takes prompts of at most 1024 tokens where --max-input-tokens is not given")
    env = {} if first or settings.prefix_cache else {"PREFIX_CACHING": "0"}
    if runtime == "docker":
        argv = docker.docker(
            settings,
            f"{docker.GHCR}/huggingface/text-generation-inference:{version}",
            words,
            port=port,
            inner_port=80,
            cache="/data",
            options=["--shm-size", "1g"],
            environment=env,
            mounts=mounts,
        )
        return docker.contained("tgi", argv, port, model, notes)
    # Two launchers on one machine must not share sockets and rendezvous ports.
    words += flags.as_argv(
        ("--hostname", flags.host(settings)),
        ("--port", port),
        ("--shard-uds-path", f"/tmp/llmpar-tgi-{port}"),
        ("--master-port", flags.inner_port(port, 1)),
        ("--prometheus-port", None if first else flags.inner_port(port, 2)),
    )
    return flags.local(settings, ["text-generation-launcher", *words], port, model, notes, env)


def needs(runtime: str) -> str | None:
    if runtime == "docker":
        return docker.needs_docker()
    return (
        None
        if shutil.which("text-generation-launcher")
        else "text-generation-launcher is not on the PATH: use --runtime docker"
    )


ENGINE = Engine(
    name="tgi",
    title="Text Generation Inference",
    api="tgi",
    default_port=9091,
    supports=frozenset(
        {
            "version",
            "image",
            "dtype",
            "quantize",
            "max_input_tokens",
            "max_total_tokens",
            "max_sequences",
            "kv_bytes",
            "gpu_memory_utilization",
            "shards",
            "replicas",
            "speculate",
            "prefix_cache",
            "gpus",
        }
    ),
    runtimes=("docker", "local"),
    command=command,
    needs=needs,
    version_at=("/info", "version"),
    openai=OpenAi(top_k=False, top_p_of_1=False, zero_temperature=False, ignore_eos=False),
    startup=startup.TGI,
    metrics=Metrics(
        prefix="tgi_",
        names={
            "running": ("batch_current_size",),
            "waiting": ("queue_size",),
            "kv_used_tokens": ("batch_current_max_tokens",),
            "requests_total": ("request_success",),
            "prompt_tokens_total": ("request_input_length_sum",),
            "generation_tokens_total": ("request_generated_tokens_sum",),
            "spec_drafts_total": ("request_skipped_tokens_count",),
            "spec_accepted_tokens_total": ("request_skipped_tokens_sum",),
            "queue_s_total": ("request_queue_duration_sum",),
            "queue_requests_total": ("request_queue_duration_count",),
        },
        counters_at_end=True,
    ),
    failures=(
        (
            "bad_setting",
            r"Only 1 can be set between `dtype` and `quantize`",
            "TGI does not take a dtype with this quantisation: leave --dtype out",
        ),
        ("bad_setting", r"ArgumentValidation\(", "TGI refused its settings"),
        ("unknown_model", r"Error: DownloadError", "the weights could not be downloaded"),
        *flags.TORCH_FAILURES,
    ),
)
