"""DeepSpeed-MII's persistent deployment with its REST gateway. Keywords read in 0.3.1 (no later changes seen)."""

from __future__ import annotations

from dataclasses import replace

from llmpar.engines import flags, installed, memory, model_files
from llmpar.engines.base import ALL_GPUS, NO_GPUS, Device, Engine, Launch, OpenAi, Settings, Unsupported

DEPLOYMENT = "llmpar"  # part of the path of its route
# mii.serve returns once its processes run: wait for a signal, then end them.
PROGRAM = (
    "import mii,signal; client=mii.serve({words}); ends={{signal.SIGTERM,signal.SIGINT}}; "
    "signal.pthread_sigmask(signal.SIG_BLOCK,ends); signal.sigwait(ends); client.terminate_server()"
)


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """A Python that serves and waits. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    quantize = flags.choose("quantize", settings.quantize, ("wf6af16",), "DeepSpeed-MII")
    own = (model_files.config(model) or {}).get("torch_dtype")
    if settings.dtype not in (None, "auto", own, {"float16": "half"}.get(str(own))):
        raise Unsupported(f"DeepSpeed-MII runs a model in its own type{f', {own}' if own else ''}: leave --dtype out")
    state: dict[str, object] = {}
    if settings.max_sequences is not None:
        state["max_ragged_sequence_count"] = settings.max_sequences
    if settings.kv_bytes is not None:
        state["memory_config"] = {"mode": "reserve", "size": memory.bytes_kept_free(settings, device)}
    words: dict[str, object] = {"deployment_name": DEPLOYMENT, "tensor_parallel": settings.shards or 1}
    if settings.max_total_tokens is not None:
        words["max_length"] = settings.max_total_tokens
    if quantize:
        words["quantization_mode"] = quantize
    if state:
        words["inference_engine_config"] = {"state_manager": state}
    if settings.gpus == NO_GPUS:
        raise Unsupported("DeepSpeed-MII has no engine for a CPU: name a GPU")
    if settings.gpus not in (None, ALL_GPUS):
        words["device_map"] = [
            int(each) for each in str(settings.gpus).split(",")
        ]  # CUDA_VISIBLE_DEVICES does not work with MII
    # Fixed unless told: a second deployment on the machine would wait for the first one's ports without a word.
    words |= {
        "port_number": flags.inner_port(port, 1),
        "torch_dist_port": flags.inner_port(port, 2),
        "zmq_port_number": flags.inner_port(port, 3),
    }
    words |= {"enable_restful_api": True, "restful_api_host": flags.host(settings), "restful_api_port": port}
    text = ", ".join([repr(model), *(f"{name}={value!r}" for name, value in words.items())])
    python = installed.python_of("mii", "mii")
    installed.same_version(settings, installed.installed(python, "deepspeed-mii", "deepspeed_mii"))
    argv = [python or "python", "-c", PROGRAM.format(words=text)]
    notes = [
        "MII does not stream over REST: ask with --no-stream, and time to first token is unknown",
        "MII's gateway has 32 processes: more clients wait unseen in the TCP backlog; above about 100 it has hung",
        f"MII's inner ports, from {flags.inner_port(port, 1)} on, listen on all interfaces: keep them behind a "
        "firewall",
    ]
    if settings.engine_args:
        raise Unsupported("DeepSpeed-MII is started by a call and has no flags for --engine-args")
    launch = flags.local(replace(settings, gpus=None), argv, port, model, notes)
    return replace(launch, model=DEPLOYMENT)


def needs(runtime: str) -> str | None:
    return installed.needs_python("mii", "mii", "deepspeed-mii")


ENGINE = Engine(
    name="mii",
    title="DeepSpeed-MII",
    api="mii",
    default_port=28080,
    supports=frozenset(
        {"version", "dtype", "quantize", "max_total_tokens", "max_sequences", "kv_bytes", "shards", "gpus"}
    ),
    runtimes=("local",),
    command=command,
    needs=needs,
    packages=("deepspeed-mii",),
    openai=OpenAi(seed=False, usage=False),
    failures=flags.TORCH_FAILURES,
)
