"""What the engines' files share: versions, Docker's part of a command line, finding an engine on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence

from llmpar.engines.base import ALL_GPUS, NO_GPUS, Launch, Settings, Unsupported

LOOPBACK = "127.0.0.1"

# What a log says when a launch fails, in any engine that runs on PyTorch: (outcome, pattern, what to say).
TORCH_FAILURES: tuple[tuple[str, str, str], ...] = (
    (
        "out_of_memory",
        r"OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|HIP out of memory|No available memory for the "
        r"cache blocks"
        r"|Not enough memory to handle|larger than the available KV cache memory|less than desired GPU memory "
        r"utilization"
        r"|requested memory for kv|KV cache is needed, which is larger|larger than the maximum number of tokens that "
        r"can be stored in KV cache",
        "not enough memory: lower --max-total-tokens, --max-sequences or --kv-bytes, or quantise",
    ),
    (
        "unknown_model",
        r"Repository ?Not ?Found|is not a local folder and is not a valid model identifier|GatedRepoError|Cannot "
        r"access gated repo"
        r"|does not appear to have a file named|LocalEntryNotFoundError: |OfflineModeIsEnabled|Incorrect "
        r"path_or_model_id"
        r"|model_id.{0,80}not found|Can't load the configuration of",
        "the model is not known or may not be read: see its name, HF_TOKEN and the network",
    ),
    (
        "no_gpu",
        r"No CUDA GPUs are available|Found no NVIDIA driver|NVIDIA driver on your system is too old|no NVIDIA GPU "
        r"detected"
        r"|Failed to infer device type|could not select device driver|CUDA driver version is insufficient|libcuda\.so",
        "no usable NVIDIA GPU: llmpar-doctor says what is missing",
    ),
    ("port_taken", r"[Aa]ddress already in use|port is already allocated", "the port is taken"),
    ("disk_full", r"No space left on device", "the disk is full"),
)


def host(settings: Settings) -> str:
    """The address that a server listens on: loopback, unless another was asked for."""
    return settings.listen or LOOPBACK


def bracketed(address: str) -> str:
    """An address as it stands before a port, in a URL or an option."""
    return f"[{address}]" if ":" in address else address


def reached_at(address: str) -> str:
    """The address at which this machine reaches what listens on `address`."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(address, address)


def need_model(settings: Settings) -> str:
    if not settings.model:
        raise Unsupported("no model was named: give --model")
    return settings.model


def choose(setting: str, value: str | None, known: Iterable[str], engine: str) -> str | None:
    """The value if the engine is known to take it. Raises Unsupported with the values that it takes."""
    known = tuple(known)
    if value is None or value in known:
        return value
    raise Unsupported(
        f"{engine} does not know --{setting} '{value}': it takes {', '.join(known)} "
        "(another of its own values goes through --engine-args)"
    )


def as_argv(*pairs: tuple[str, object]) -> list[str]:
    """Those flags whose value is not None; True stands for a flag without a value, False for none."""
    out: list[str] = []
    for name, value in pairs:
        if value is None or value is False:
            continue
        out += [name] if value is True else [name, str(value)]
    return out


def no_speculation(settings: Settings, engine: str, why: str = "") -> None:
    """Raise Unsupported where speculation is asked of an engine or version that has none; 0 is off everywhere."""
    if settings.speculate:
        raise Unsupported(f"{engine} has no speculation{why}: leave --speculate out or 0")


def ngram_only(settings: Settings, engine: str) -> None:
    """Raise Unsupported for a method other than n-gram, which needs a draft model that no canonical setting names."""
    if settings.speculate and settings.speculate_method not in (None, "ngram"):
        raise Unsupported(
            f"{engine} is launched with n-gram speculation only; '{settings.speculate_method}' needs a draft model: "
            "give the engine's own flags through --engine-args"
        )


def ngram_config(settings: Settings) -> list[tuple[str, object]]:
    """The flag for n-gram speculation of vLLM from 0.8 on, and of engines made from it; none where it is off."""
    if not settings.speculate:
        return []
    config: dict[str, object] = {
        "method": "ngram",
        "num_speculative_tokens": settings.speculate,
        "prompt_lookup_max": 4,
        "prompt_lookup_min": 2,
    }
    if settings.acceptance_length is not None:
        config["rejection_sample_method"] = "synthetic"
        config["synthetic_acceptance_length"] = settings.acceptance_length
    return [("--speculative-config", json.dumps(config, separators=(",", ":")))]


def inner_port(port: int, number: int) -> int:
    """A port for an engine's inside, derived from its own so that two engines on a machine do not share it; `number`:
    1, 2 or 3."""
    return 20000 + (port + 2500 * number) % 10000


def local(
    settings: Settings,
    argv: Sequence[str],
    port: int,
    model: str,
    notes: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """A Launch of a local process: extra arguments last, GPUs by CUDA_VISIBLE_DEVICES, no hub for a local model."""
    env = dict(environment or {})
    if settings.gpus not in (None, ALL_GPUS):
        env["CUDA_VISIBLE_DEVICES"] = "" if settings.gpus == NO_GPUS else str(settings.gpus)
    if os.path.isdir(model):
        env["HF_HUB_OFFLINE"] = "1"
    own = any(word.startswith("llmpar.engines.") for word in argv[:3])  # a server of ours calls nothing by name
    folder = os.path.dirname(argv[0]) if os.path.isabs(argv[0]) and not own else None
    return Launch((*argv, *settings.engine_args), port, env, path=folder, model=model, notes=tuple(notes))
