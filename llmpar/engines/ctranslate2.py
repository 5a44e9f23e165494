"""CTranslate2: a library without a server, so llmpar's own (ctranslate2_server.py) is launched over it. Run here on a
CPU."""

from __future__ import annotations

import os
from pathlib import Path

from llmpar.engines import flags, installed
from llmpar.engines.base import Device, Engine, Launch, Metrics, OpenAi, Settings, Unsupported

SERVER = Path(__file__).with_name("ctranslate2_server.py")
QUANTIZE = ("int8", "int8_float16", "int8_bfloat16", "int8_float32", "int16")
DTYPE = {"half": "float16", "float": "float32"}


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server's command line, under the Python that has ctranslate2. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    if not os.path.exists(os.path.join(model, "model.bin")):
        raise Unsupported(
            f"CTranslate2 needs a converted model, and '{model}' has no model.bin: ct2-transformers-converter "
            f"--model {model} --output_dir DIR --copy_files tokenizer.json, then --model DIR"
        )
    dtype = DTYPE.get(settings.dtype or "", settings.dtype)
    quantize = flags.choose("quantize", settings.quantize, QUANTIZE, "CTranslate2")
    if quantize == "int8" and dtype:
        quantize = f"int8_{dtype}"  # 8-bit weights, and this type for the rest
    elif quantize and dtype and not quantize.endswith(dtype):
        raise Unsupported(
            f"CTranslate2 has one compute type: --quantize {quantize} and --dtype {dtype} contradict each other"
        )
    words = flags.as_argv(
        ("--model", model),
        ("--compute-type", quantize or dtype),
        ("--max-length", settings.max_total_tokens),
        ("--max-batch-size", settings.max_sequences),
        ("--seed", settings.seed),
        ("--host", flags.host(settings)),
        ("--port", port),
    )
    python = installed.python_of("ctranslate2", "ctranslate2")
    installed.same_version(settings, installed.installed(python, "ctranslate2"))
    notes = [
        "CTranslate2 has no server: this is llmpar's own over its Generator; a batch starts and ends together",
        "CTranslate2 sets no limit on memory: take a smaller --max-sequences, or MIG",
    ]
    launch = flags.local(
        settings, [python or "python", str(SERVER), *words], port, os.path.basename(os.path.abspath(model)), notes
    )
    return launch


def needs(runtime: str) -> str | None:
    return installed.needs_python("ctranslate2", "ctranslate2", "ctranslate2 tokenizers")


ENGINE = Engine(
    name="ctranslate2",
    title="CTranslate2 (llmpar's own server over it)",
    api="openai-completions",
    default_port=8010,
    supports=frozenset(
        {"version", "dtype", "quantize", "max_total_tokens", "max_sequences", "replicas", "gpus", "seed"}
    ),
    runtimes=("local",),
    command=command,
    needs=needs,
    packages=("ctranslate2",),
    openai=OpenAi(top_k_off=0, running_usage=True),
    metrics=Metrics(
        prefix="ctranslate2:",
        names={
            "running": ("num_requests_running",),
            "waiting": ("num_requests_waiting",),
            "prompt_tokens_total": ("prompt_tokens_total",),
            "generation_tokens_total": ("generation_tokens_total",),
        },
        counters_at_end=False,
    ),
    failures=(
        (
            "missing_package",
            r"No module named '?(ctranslate2|tokenizers)",
            "a package is missing from its Python: pip install ctranslate2 tokenizers",
        ),
        (
            "unknown_model",
            r"Unable to open file 'model\.bin'|no tokenizer\.json in|has an invalid payload size|Unsupported model "
            r"binary version",
            "the model is not a converted one with its tokenizer",
        ),
        ("bad_setting", r"Requested \S+ compute type, but", "the device does not have this compute type"),
        ("out_of_memory", r"CUDA failed with error out of memory|std::bad_alloc", "not enough memory"),
        ("port_taken", r"Address already in use", "the port is taken"),
    ),
)
