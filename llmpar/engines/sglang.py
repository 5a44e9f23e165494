"""SGLang. Flags read in 0.5.23; not run here."""

from __future__ import annotations

from llmpar.engines import docker, flags, installed, memory, startup
from llmpar.engines.base import Device, Engine, Launch, Metrics, OpenAi, Settings

DEFAULT_VERSION = "0.5.23"
QUANTIZE = (
    "awq",
    "gptq",
    "bitsandbytes",
    "gguf",
    "fp8",
    "w8a8_int8",
    "w8a8_fp8",
    "gptq_marlin",
    "awq_marlin",
    "compressed-tensors",
    "mxfp4",
    "modelopt",
)


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server's command line, in a container or not. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    flags.ngram_only(settings, "SGLang")
    words = flags.as_argv(
        ("--dtype", settings.dtype),
        ("--quantization", flags.choose("quantize", settings.quantize, QUANTIZE, "SGLang")),
        ("--context-length", settings.max_total_tokens),
        ("--max-running-requests", settings.max_sequences),
        ("--mem-fraction-static", memory.fraction_of_card(settings, device)),
        ("--tp-size", settings.shards if (settings.shards or 1) > 1 else None),
        ("--random-seed", settings.seed),
        ("--disable-radix-cache", not settings.prefix_cache),
        ("--speculative-algorithm", "NGRAM" if settings.speculate else None),
        # Its count holds the token that is verified as well, and its drafts are a tree ten wide unless told: N drafts
        # in a chain.
        ("--speculative-num-draft-tokens", settings.speculate + 1 if settings.speculate else None),
        ("--speculative-ngram-max-bfs-breadth", 1 if settings.speculate else None),
        ("--enable-metrics", True),
    )
    notes = []
    if settings.speculate and settings.max_sequences is None:
        notes.append(
            "SGLang generates for at most 48 requests at a time under speculation, unless --max-sequences says "
            "otherwise"
        )
    forced = _forced(settings)
    if runtime == "docker":
        inside, mounts = docker.in_container(model)
        argv = docker.docker(
            settings,
            f"lmsysorg/sglang:{installed.tag(settings.version or DEFAULT_VERSION)}",
            [
                "python3",
                "-m",
                "sglang.launch_server",
                "--model-path",
                inside,
                *words,
                "--host",
                "0.0.0.0",
                "--port",
                "30000",
            ],
            port=port,
            inner_port=30000,
            cache="/root/.cache/huggingface",
            options=["--shm-size", "32g", "--ipc=host"],
            environment=forced,
            mounts=mounts,
        )
        return docker.contained("sglang", argv, port, inside, notes)
    python = installed.python_of("sglang", "sglang")
    installed.same_version(settings, installed.installed(python, "sglang"))
    argv = [
        python or "python",
        "-m",
        "sglang.launch_server",
        "--model-path",
        model,
        *words,
        "--host",
        flags.host(settings),
        "--port",
        str(port),
    ]
    return flags.local(settings, argv, port, model, notes, forced)


def _forced(settings: Settings) -> dict[str, str]:
    """What forces acceptance; `real-draft-token` makes the text of tokens that were drafted."""
    if settings.acceptance_length is None:
        return {}
    return {
        "SGLANG_SIMULATE_ACC_LEN": f"{settings.acceptance_length:g}",
        "SGLANG_SIMULATE_ACC_METHOD": "match-expected",
        "SGLANG_SIMULATE_ACC_TOKEN_MODE": "real-draft-token",
    }


def needs(runtime: str) -> str | None:
    return docker.needs_docker() if runtime == "docker" else installed.needs_python("sglang", "sglang", "sglang")


ENGINE = Engine(
    name="sglang",
    title="SGLang",
    api="openai-completions",
    owned_by=("sglang",),
    default_port=30000,
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
            "acceptance_length",
            "prefix_cache",
            "gpus",
            "seed",
        }
    ),
    runtimes=("local", "docker"),
    command=command,
    needs=needs,
    packages=("sglang",),
    version_at=("/get_server_info", "version"),
    openai=OpenAi(top_k_off=-1, running_usage=True),
    startup=startup.SGLANG,
    first_request_compiles=True,
    metrics=Metrics(
        prefix="sglang:",
        names={
            "running": ("num_running_reqs",),
            "waiting": ("num_queue_reqs",),
            "kv_usage_ratio": ("full_token_usage", "token_usage"),  # the latter in whole percents
            "kv_capacity_tokens": ("max_total_num_tokens",),
            "preemptions_total": ("num_retracted_requests_total",),
            "requests_total": ("num_requests_total",),
            "prompt_tokens_total": ("prompt_tokens_total",),
            "generation_tokens_total": ("generation_tokens_total",),
            "spec_acceptance_ratio": ("spec_accept_rate",),
            "acceptance_length": ("spec_accept_length",),
            "prefix_hits_total": ("cached_tokens_total",),
            "queue_s_total": ("queue_time_seconds_sum",),
            "queue_requests_total": ("queue_time_seconds_count",),
        },
        counters_at_end=True,
        hits_in_prompt=True,
    ),
    failures=(
        (
            "out_of_memory",
            r"Not enough memory\. Please try to (increase|reduce) --mem-fraction-static.*",
            "not enough memory for the KV cache",
        ),
        *flags.TORCH_FAILURES,
    ),
)
