"""LMDeploy's API server. Flags read in 0.16.0; not run here."""

from __future__ import annotations

from llmpar.engines import common, memory
from llmpar.engines.base import Device, Engine, Launch, Settings

DEFAULT_VERSION = "0.18.0"
QUANTIZE = ("awq", "gptq", "fp8")  # names of checkpoint formats


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server's command line, in a container or not. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = common.need_model(settings)
    common.no_speculation(settings, "LMDeploy without a draft model",
                          ": eagle and the like go through --engine-args '--speculative-algorithm … --speculative-draft-model …'")
    words = common.flags(
        ("--dtype", settings.dtype), ("--model-format", common.choose("quantize", settings.quantize, QUANTIZE, "LMDeploy")),
        ("--session-len", settings.max_total_tokens), ("--max-batch-size", settings.max_sequences),
        ("--cache-max-entry-count", memory.fraction_of_free(settings, device) if settings.kv_bytes is not None else None),
        ("--tp", settings.shards if (settings.shards or 1) > 1 else None), ("--enable-prefix-caching", bool(settings.prefix_cache)))
    if runtime == "docker":
        inside, mounts = common.in_container(model)
        argv = common.docker(settings, f"openmmlab/lmdeploy:{common.tag(settings.version or DEFAULT_VERSION)}",
                             ["lmdeploy", "serve", "api_server", inside, *words, "--server-port", "23333"], port=port,
                             inner_port=23333, cache="/root/.cache/huggingface", options=["--ipc=host"], mounts=mounts)
        return common.contained("lmdeploy", argv, port, inside)
    python = common.python_of("lmdeploy", "lmdeploy", "lmdeploy")
    common.same_version(settings, common.installed(python, "lmdeploy"))
    argv = [common.script_of(python, "lmdeploy"), "serve", "api_server", model, *words, "--server-name", common.LOOPBACK,
            "--server-port", str(port)]
    return common.local(settings, argv, port, model)


def needs(runtime: str) -> str | None:
    return common.needs_docker() if runtime == "docker" else common.needs_python("lmdeploy", "lmdeploy", "lmdeploy", "lmdeploy")


ENGINE = Engine(
    name="lmdeploy", title="LMDeploy", api="openai-completions", default_port=23333,
    supports=frozenset({"version", "dtype", "quantize", "max_total_tokens", "max_sequences", "kv_bytes", "shards", "replicas",
                        "prefix_cache", "gpus"}),
    runtimes=("local", "docker"), command=command, needs=needs, metrics_path="/metrics", health_path="/health",
    failures=common.TORCH_FAILURES,
)
