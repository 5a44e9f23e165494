"""`transformers serve` (Hugging Face), with continuous batching. Flags of 5.23 read and run on a CPU."""

from __future__ import annotations

from llmpar.engines import flags, installed
from llmpar.engines.base import Device, Engine, Launch, OpenAi, Settings, Unsupported

QUANTIZE = ("bnb-4bit", "bnb-8bit")
BLOCK_TOKENS = 256  # of its paged cache, named so that blocks can be counted


def command(settings: Settings, device: Device, runtime: str) -> Launch:
    """The server's command line. It batches only when told to, so it is told to. Raises Unsupported."""
    port = settings.port or ENGINE.default_port
    model = flags.need_model(settings)
    blocks = None
    if settings.kv_bytes is not None:
        if device.kv_bytes_per_token is None:
            raise Unsupported(
                "transformers counts its KV cache in blocks, and the model's bytes per token are not known here: "
                "download the model first, or give --engine-args '--cb-num-blocks N'"
            )
        blocks = settings.kv_bytes // (device.kv_bytes_per_token * BLOCK_TOKENS)
        if blocks < 1:
            raise Unsupported(f"--kv-bytes {settings.kv_bytes} is less than one block of {BLOCK_TOKENS} tokens")
    words = flags.as_argv(
        ("--dtype", settings.dtype),
        ("--quantization", flags.choose("quantize", settings.quantize, QUANTIZE, "transformers")),
        ("--continuous-batching", True),
        ("--cb-block-size", BLOCK_TOKENS if blocks else None),
        ("--cb-num-blocks", blocks),
        ("--default-seed", settings.seed),
        ("--host", flags.host(settings)),
        ("--port", port),
    )
    python = installed.python_of("transformers", "transformers", "transformers")
    installed.same_version(settings, installed.installed(python, "transformers"))
    argv = [installed.script_of(python, "transformers"), "serve", model, *words]
    notes = [
        "transformers refuses fields outside its schema: top_k and full length go into generation_config, as JSON in "
        "a string"
    ]
    return flags.local(settings, argv, port, model, notes)


def needs(runtime: str) -> str | None:
    return installed.needs_python(
        "transformers", "transformers", "torch 'transformers[serving]' accelerate", "transformers"
    )


ENGINE = Engine(
    name="transformers",
    title="transformers serve",
    api="openai-completions",
    default_port=8000,
    supports=frozenset({"version", "dtype", "quantize", "kv_bytes", "replicas", "gpus", "seed"}),
    runtimes=("local",),
    command=command,
    needs=needs,
    packages=("transformers",),
    openai=OpenAi(generation_config=True, usage=False),
    first_request_decides=True,
    failures=(
        (
            "bad_setting",
            r"No such option|Error: Invalid value|Got unexpected extra argument",
            "this version of transformers does not know one of the flags",
        ),
        (
            "missing_package",
            r"Missing dependencies for serving|pip install .?transformers\[serving\]",
            "pip install 'transformers[serving]'",
        ),
        *flags.TORCH_FAILURES,
    ),
)
