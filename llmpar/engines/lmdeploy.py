"""LMDeploy's API server. Flags of 0.16.0 to 0.18.0; its PyTorch engine ran on an H100."""

from __future__ import annotations

from llmpar.engines import docker, flags, installed, memory
from llmpar.engines.base import Device, Engine, Launch, Metrics, OpenAi, Settings

DEFAULT_VERSION = "0.18.0"
NOTES = [
    "LMDeploy renews its counts of running and waiting requests and its KV use every 10 s; samples between repeat them"
]
QUANTIZE = ("awq", "gptq", "fp8")  # names of checkpoint formats


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server's command line, in a container or not. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    flags.no_speculation(
        settings,
        "LMDeploy without a draft model",
        ": eagle and the like go through --engine-args '--speculative-algorithm … --speculative-draft-model …'",
    )
    words = flags.as_argv(
        ("--dtype", settings.dtype),
        ("--model-format", flags.choose("quantize", settings.quantize, QUANTIZE, "LMDeploy")),
        ("--session-len", settings.max_total_tokens),
        ("--max-batch-size", settings.max_sequences),
        (
            "--cache-max-entry-count",
            memory.fraction_of_free(settings, device) if settings.kv_bytes is not None else None,
        ),
        ("--tp", settings.shards if (settings.shards or 1) > 1 else None),
        ("--enable-prefix-caching", bool(settings.prefix_cache)),
    )
    if runtime == "docker":
        inside, mounts = docker.in_container(model)
        argv = docker.docker(
            settings,
            f"openmmlab/lmdeploy:{installed.tag(settings.version or DEFAULT_VERSION)}",
            ["lmdeploy", "serve", "api_server", inside, *words, "--server-port", "23333"],
            port=port,
            inner_port=23333,
            cache="/root/.cache/huggingface",
            options=["--ipc=host"],
            mounts=mounts,
        )
        return docker.contained("lmdeploy", argv, port, inside, NOTES)
    python = installed.python_of("lmdeploy", "lmdeploy", "lmdeploy")
    installed.same_version(settings, installed.installed(python, "lmdeploy"))
    argv = [
        installed.script_of(python, "lmdeploy"),
        "serve",
        "api_server",
        model,
        *words,
        "--server-name",
        flags.host(settings),
        "--server-port",
        str(port),
    ]
    return flags.local(settings, argv, port, model, NOTES)


def needs(runtime: str) -> str | None:
    return (
        docker.needs_docker()
        if runtime == "docker"
        else installed.needs_python("lmdeploy", "lmdeploy", "lmdeploy", "lmdeploy")
    )


ENGINE = Engine(
    name="lmdeploy",
    title="LMDeploy",
    api="openai-completions",
    default_port=23333,
    supports=frozenset(
        {
            "version",
            "image",
            "dtype",
            "quantize",
            "max_total_tokens",
            "max_sequences",
            "kv_bytes",
            "shards",
            "replicas",
            "prefix_cache",
            "gpus",
        }
    ),
    runtimes=("local", "docker"),
    command=command,
    needs=needs,
    packages=("lmdeploy",),
    openai=OpenAi(top_k_off=0),
    metrics=Metrics(
        prefix="lmdeploy:",
        names={
            "running": ("num_requests_running",),
            "waiting": ("num_requests_waiting",),
            "kv_usage_ratio": ("gpu_cache_usage_perc",),
            "requests_total": ("request_success_total",),
            "prompt_tokens_total": ("prompt_tokens_total",),
            "generation_tokens_total": ("generation_tokens_total",),
            "spec_drafts_total": ("spec_decode_num_drafts_total",),
            "spec_draft_tokens_total": ("spec_decode_num_draft_tokens_total",),
            "spec_accepted_tokens_total": ("spec_decode_num_accepted_tokens_total",),
            "prefix_hits_total": ("cached_tokens_total",),
            "queue_s_total": ("request_queue_time_seconds_sum",),
            "queue_requests_total": ("request_queue_time_seconds_count",),
            "prefill_s_total": ("request_prefill_time_seconds_sum",),
            "decode_s_total": ("request_decode_time_seconds_sum",),
        },
        counters_at_end=False,
        hits_in_prompt=True,
    ),
    failures=flags.TORCH_FAILURES,
)
