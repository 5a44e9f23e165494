"""PowerInfer's server, a llama.cpp server of November 2023 with sparse activation. Run on a CPU at d3ebd7c."""

from __future__ import annotations

import os
import shutil

from llmpar.engines import flags, gguf, memory
from llmpar.engines.base import Device, Engine, Launch, Settings, Unsupported

SEQUENCES, LENGTH = 8, 2048  # where nothing is said


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server's command line; it has slots as llama.cpp has, and refuses a request that finds none free. Raises
    Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    if os.path.isdir(model) or not model.endswith(".gguf"):
        raise Unsupported(
            f"PowerInfer needs a .powerinfer.gguf file, and --model is '{model}': "
            "get a ReLU model converted for it (its README lists them)"
        )
    sequences, length = settings.max_sequences or SEQUENCES, settings.max_total_tokens or LENGTH
    slots = (
        2 * sequences
    )  # a slot is free again only after its client had the last event, so N clients need more than N
    if settings.kv_bytes is not None:
        each = device.kv_bytes_per_token or _kv_bytes_per_token(model)
        if each is None:
            raise Unsupported(
                f"--kv-bytes: the header of '{model}' does not say how much a token holds: give --max-sequences instead"
            )
        sequences = min(sequences, settings.kv_bytes // (2 * each * length))
        slots = 2 * sequences
        if sequences < 1:
            raise Unsupported(
                f"--kv-bytes: {settings.kv_bytes} bytes hold less than the two slots of {length} tokens "
                f"({2 * each * length} bytes) that one client needs"
            )
    budget = None
    if device.gpu_memory_bytes is not None and settings.kv_bytes is not None and device.weight_bytes is not None:
        budget = -(-(device.weight_bytes + settings.kv_bytes + memory.REST_BYTES) // memory.GIB)
    words = flags.as_argv(
        ("-m", model),
        ("-c", slots * length),
        ("-np", slots),
        ("-cb", True),
        ("--vram-budget", budget),
        ("--host", flags.host(settings)),
        ("--port", port),
    )
    notes = [
        f"PowerInfer does not queue: for {sequences} clients it gets {slots} slots, and more clients have requests "
        "refused; "
        "--max-sequences N is for N clients",
        f"PowerInfer goes on past a slot's {length} tokens and forgets the oldest: --max-total-tokens is the size of "
        "a slot, no limit",
        "PowerInfer gains only with ReLU models; others run dense",
        "PowerInfer has no /health, no metrics and no key; errors are 404 with plain text",
    ]
    return flags.local(settings, [executable() or "build/bin/server", *words], port, os.path.basename(model), notes)


def _kv_bytes_per_token(model: str) -> int | None:
    try:
        return gguf.kv_bytes_per_token(model)
    except (OSError, gguf.NotGguf):
        return None


def executable() -> str | None:
    """Its server: LLMPAR_POWERINFER, or build/bin/server under POWERINFER_HOME, or powerinfer-server on the PATH."""
    home = os.environ.get("POWERINFER_HOME")
    built = os.path.join(home, "build", "bin", "server") if home else None
    return (
        os.environ.get("LLMPAR_POWERINFER")
        or (built if built and os.path.exists(built) else None)
        or shutil.which("powerinfer-server")
    )


def needs(runtime: str) -> str | None:
    found = executable()
    if found and (os.path.exists(found) or shutil.which(found)):
        return None
    return (
        "PowerInfer is not here: build it with CMake (https://github.com/SJTU-IPADS/PowerInfer) and name its "
        "server in LLMPAR_POWERINFER"
    )


ENGINE = Engine(
    name="powerinfer",
    title="PowerInfer",
    api="llamacpp",
    owned_by=("llamacpp",),
    default_port=8080,
    supports=frozenset({"max_total_tokens", "max_sequences", "kv_bytes", "replicas", "gpus"}),
    runtimes=("local",),
    command=command,
    needs=needs,
    openai=None,
    always={"repeat_penalty": 1.0},  # servers of 2023 default to 1.1
    consequences=(
        ("unknown_model", r"error: unable to load model|failed to load model", "the model could not be loaded"),
    ),
    failures=(
        ("port_taken", r"couldn't bind to server socket", "the port is taken"),
        ("out_of_memory", r"CUDA error.*out of memory|ggml_cuda.*out of memory", "not enough memory"),
    ),
)
