"""PowerInfer's server, a llama.cpp server of November 2023 with sparse activation. Flags read in its source; not run here."""

from __future__ import annotations

import os
import shutil

from llmpar.engines import flags, memory
from llmpar.engines.base import Device, Engine, Launch, Settings, Unsupported


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server's command line; it has slots as llama.cpp has, one unless asked. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    if os.path.isdir(model) or not model.endswith(".gguf"):
        raise Unsupported(
            f"PowerInfer needs a .powerinfer.gguf file, and --model is '{model}': "
            "get a ReLU model converted for it (its README lists them)"
        )
    slots = settings.max_sequences or 1
    context = memory.context_tokens(settings, device)
    budget = None
    if device.gpu_memory_bytes is not None and settings.kv_bytes is not None and device.weight_bytes is not None:
        budget = -(-(device.weight_bytes + settings.kv_bytes + memory.REST_BYTES) // memory.GIB)
    words = flags.as_argv(
        ("-m", model),
        ("-c", context),
        ("-np", slots if slots > 1 else None),
        ("-cb", slots > 1),
        ("--vram-budget", budget),
        ("--host", flags.LOOPBACK),
        ("--port", port),
    )
    notes = [
        "PowerInfer gains only with ReLU models; others run dense",
        "PowerInfer has no /health, no metrics and no key; errors are 404 with plain text",
    ]
    return flags.local(settings, [executable() or "build/bin/server", *words], port, os.path.basename(model), notes)


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
    return "PowerInfer is not here: build it with CMake (https://github.com/SJTU-IPADS/PowerInfer) and name its server in LLMPAR_POWERINFER"


ENGINE = Engine(
    name="powerinfer",
    title="PowerInfer",
    api="llamacpp",
    default_port=8080,
    supports=frozenset({"max_total_tokens", "max_sequences", "kv_bytes", "replicas", "gpus"}),
    runtimes=("local",),
    command=command,
    needs=needs,
    openai=None,
    always={"repeat_penalty": 1.0},  # servers of 2023 default to 1.1
    failures=(
        ("unknown_model", r"error: unable to load model|failed to load model", "the model could not be loaded"),
        ("port_taken", r"couldn't bind to server socket", "the port is taken"),
        ("out_of_memory", r"CUDA error.*out of memory|ggml_cuda.*out of memory", "not enough memory"),
    ),
)
