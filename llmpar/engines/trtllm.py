"""TensorRT-LLM through trtllm-serve; also the road for Optimum-NVIDIA, a library over it that has no server of its own.

Flags read in the source, not run here. Speculation and the prefix cache are settings of its YAML file alone; the file
is handed over by bash's process substitution, so that the printed line is all there is. One line of JSON is YAML too.
"""

from __future__ import annotations

import json
import shlex
import shutil

from llmpar.engines import docker, flags, installed, memory
from llmpar.engines.base import Device, Engine, Launch, Metrics, OpenAi, Settings, Unsupported

DEFAULT_VERSION = "1.2.1"


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server's command line, in a container or not. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    flags.ngram_only(settings, "TensorRT-LLM")
    if settings.quantize:
        raise Unsupported(
            "TensorRT-LLM takes the quantisation from the checkpoint: leave --quantize out and name a quantised model"
        )
    version = settings.version or (DEFAULT_VERSION if runtime == "docker" else None)
    inside, mounts = docker.in_container(model) if runtime == "docker" else (model, [])
    fraction = memory.fraction_of_free(settings, device) if settings.kv_bytes is not None else None
    words = flags.as_argv(
        ("--max_seq_len", settings.max_total_tokens),
        ("--max_batch_size", settings.max_sequences),
        ("--kv_cache_free_gpu_memory_fraction", fraction),
        ("--tp_size", settings.shards if (settings.shards or 1) > 1 else None),
        ("--host", "0.0.0.0" if runtime == "docker" else flags.host(settings)),
        ("--port", 8000 if runtime == "docker" else port),
    )
    yaml: dict[str, object] = {
        "kv_cache_config": {"enable_block_reuse": bool(settings.prefix_cache)},
        "enable_iter_perf_stats": True,
    }
    if settings.dtype:
        yaml["dtype"] = settings.dtype
    if fraction is not None:
        yaml["kv_cache_config"] = {
            "enable_block_reuse": bool(settings.prefix_cache),
            "free_gpu_memory_fraction": fraction,
        }
    if settings.speculate:
        yaml["speculative_config"] = {"decoding_type": "NGram", "max_draft_len": settings.speculate}
    serve = shlex.join(["trtllm-serve", inside, *words, *settings.engine_args])
    flag = "--extra_llm_api_options" if installed.older(version, 1, 2) else "--config"
    script = f"exec {serve} {flag} <(echo {shlex.quote(json.dumps(yaml, separators=(',', ':')))})"
    notes = ["GET /metrics is JSON that is gone once read: sample it from one place only"]
    forced = _forced(settings)
    without = Settings(gpus=settings.gpus, image=settings.image, listen=settings.listen)
    if runtime == "docker":
        argv = docker.docker(
            without,
            f"nvcr.io/nvidia/tensorrt-llm/release:{version}",
            ["bash", "-c", script],
            port=port,
            inner_port=8000,
            cache="/root/.cache/huggingface",
            options=["--ipc=host"],
            environment=forced,
            mounts=mounts,
        )
        return docker.contained("trtllm", argv, port, inside, notes)
    return flags.local(without, ["bash", "-c", script], port, model, notes, forced)


def _forced(settings: Settings) -> dict[str, str]:
    """What forces acceptance. With n-gram drafts it is read as a whole number of draft tokens, and 0 means off."""
    if settings.acceptance_length is None:
        return {}
    accepted = settings.acceptance_length - 1
    if accepted < 1 or accepted != int(accepted):
        raise Unsupported(
            "TensorRT-LLM forces a whole number of accepted draft tokens, at least 1: "
            f"give --acceptance-length 2, 3, …, not {settings.acceptance_length:g}"
        )
    return {"TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS": str(int(accepted))}


def needs(runtime: str) -> str | None:
    if runtime == "docker":
        return docker.needs_docker()
    return (
        None
        if shutil.which("trtllm-serve")
        else "trtllm-serve is not on the PATH: pip install tensorrt-llm, or use --runtime docker"
    )


ENGINE = Engine(
    name="trtllm",
    title="TensorRT-LLM (also for Optimum-NVIDIA)",
    api="openai-completions",
    default_port=8000,
    supports=frozenset(
        {
            "version",
            "image",
            "dtype",
            "max_total_tokens",
            "max_sequences",
            "kv_bytes",
            "shards",
            "replicas",
            "speculate",
            "speculate_method",
            "acceptance_length",
            "prefix_cache",
            "gpus",
        }
    ),
    runtimes=("docker", "local"),
    command=command,
    needs=needs,
    packages=("tensorrt-llm",),
    version_at=("/version", "version"),
    openai=OpenAi(top_k_off=0),
    # Names of /prometheus/metrics, which it has where return_perf_metrics is on. /metrics is JSON.
    metrics=Metrics(
        prefix="trtllm_",
        names={
            "running": ("num_requests_running",),
            "waiting": ("num_requests_waiting",),
            "kv_usage_ratio": ("kv_cache_utilization",),
            "requests_total": ("request_success_total",),
            "prompt_tokens_total": ("prompt_tokens_total",),
            "generation_tokens_total": ("generation_tokens_total",),
            "spec_draft_tokens_total": ("spec_decode_num_draft_tokens_total",),
            "spec_accepted_tokens_total": ("spec_decode_num_accepted_tokens_total",),
            "queue_s_total": ("request_queue_time_seconds_sum",),
            "queue_requests_total": ("request_queue_time_seconds_count",),
            "prefill_s_total": ("request_prefill_time_seconds_sum",),
            "decode_s_total": ("request_decode_time_seconds_sum",),
        },
        counters_at_end=True,  # all but the drafts are counted where a request ends
    ),
    failures=flags.TORCH_FAILURES,
)
