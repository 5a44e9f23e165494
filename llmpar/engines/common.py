"""What the engines' files share: versions, Docker's part of a command line, finding an engine on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llmpar.engines.base import Launch, Settings, Unsupported

CHECKOUT = Path(__file__).resolve().parents[2]
GHCR = "ghcr.io"
LOOPBACK = "127.0.0.1"

# What a log says when a launch fails, in any engine that runs on PyTorch: (outcome, pattern, what to say).
TORCH_FAILURES: tuple[tuple[str, str, str], ...] = (
    ("out_of_memory", r"OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|HIP out of memory|No available memory for the cache blocks"
            r"|Not enough memory to handle|larger than the available KV cache memory|less than desired GPU memory utilization"
            r"|requested memory for kv|KV cache is needed, which is larger|larger than the maximum number of tokens that can be stored in KV cache",
     "not enough memory: lower --max-total-tokens, --max-sequences or --kv-bytes, or quantise"),
    ("unknown_model", r"Repository ?Not ?Found|is not a local folder and is not a valid model identifier|GatedRepoError|Cannot access gated repo"
              r"|does not appear to have a file named|LocalEntryNotFoundError: |OfflineModeIsEnabled|Incorrect path_or_model_id"
              r"|model_id.{0,80}not found|Can't load the configuration of",
     "the model is not known or may not be read: see its name, HF_TOKEN and the network"),
    ("no_gpu", r"No CUDA GPUs are available|Found no NVIDIA driver|NVIDIA driver on your system is too old|no NVIDIA GPU detected"
            r"|Failed to infer device type|could not select device driver|CUDA driver version is insufficient|libcuda\.so",
     "no usable NVIDIA GPU: llmpar-doctor says what is missing"),
    ("port_taken", r"[Aa]ddress already in use|port is already allocated", "the port is taken"),
    ("disk_full", r"No space left on device", "the disk is full"),
)


def number(text: str | None) -> tuple[int, ...] | None:
    """A version as numbers that compare: `v0.4.0.post1` is (0, 4, 0). None for none, `latest` and other words."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text or "")
    return tuple(int(part) for part in found[1].split(".")) if found else None


def older(text: str | None, *than: int) -> bool:
    """Whether a version is before another; no version is the newest."""
    parts = number(text)
    return parts is not None and parts < than


def tag(text: str, letter: str = "v") -> str:
    """An image tag: numbers get the letter in front, words stay."""
    return letter + text if text[:1].isdigit() else text


def need_model(settings: Settings) -> str:
    if not settings.model:
        raise Unsupported("no model was named: give --model")
    return settings.model


def choose(setting: str, value: str | None, known: Iterable[str], engine: str) -> str | None:
    """The value if the engine is known to take it. Raises Unsupported with the values that it takes."""
    known = tuple(known)
    if value is None or value in known:
        return value
    raise Unsupported(f"{engine} does not know --{setting} '{value}': it takes {', '.join(known)} "
                      "(another of its own values goes through --engine-args)")


def flags(*pairs: tuple[str, object]) -> list[str]:
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
        raise Unsupported(f"{engine} is launched with n-gram speculation only; '{settings.speculate_method}' needs a draft model: "
                          "give the engine's own flags through --engine-args")


def ngram_config(settings: Settings) -> list[tuple[str, object]]:
    """The flag for n-gram speculation of vLLM from 0.8 on, and of engines made from it; none where it is off."""
    if not settings.speculate:
        return []
    config = {"method": "ngram", "num_speculative_tokens": settings.speculate, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
    return [("--speculative-config", json.dumps(config, separators=(",", ":")))]


# Docker

def data() -> str:
    """The models' cache on the host, mounted into containers: LLMPAR_DATA, else ~/.cache/huggingface."""
    return os.path.abspath(os.path.expanduser(os.environ.get("LLMPAR_DATA") or "~/.cache/huggingface"))


def in_container(model: str) -> tuple[str, list[str]]:
    """The model's name inside a container, and the mount that a local directory needs."""
    if os.path.isdir(model):
        return "/model", ["-v", f"{os.path.abspath(model)}:/model:ro"]
    return model, []


def docker(settings: Settings, image: str, command: Sequence[str], *, port: int, inner_port: int, cache: str,
           options: Sequence[str] = (), environment: Mapping[str, str] | None = None, mounts: Sequence[str] = ()) -> list[str]:
    """`docker run` for one server. `options` (such as --ipc=host) follow the GPUs, `environment` the cache's mount."""
    argv = ["docker", "run", *gpu_option(settings), *options, "-p", f"{port}:{inner_port}"]
    if cache:
        argv += ["-v", f"{data()}:{cache}"]
    argv += mounts
    # Only the name: Docker takes the value from the surrounding environment, so no secret is in a command line.
    argv += ["-e", "HF_TOKEN"] if os.environ.get("HF_TOKEN") else []
    for name, value in (environment or {}).items():
        argv += ["-e", f"{name}={value}"]
    return [*argv, image, *command, *settings.engine_args]


def gpu_option(settings: Settings) -> list[str]:
    """Docker's --gpus. Several need quotes of their own: Docker reads the value as one line of CSV."""
    if settings.gpus is None:
        return ["--gpus", "all"]
    chosen = f"device={settings.gpus}"
    return ["--gpus", f'"{chosen}"' if "," in settings.gpus else chosen]


def contained(engine: str, argv: Sequence[str], port: int, model: str, notes: Iterable[str] = ()) -> Launch:
    """A Launch of a container. The name is for the launcher, which adds it: `docker run --rm --name NAME ...`."""
    return Launch(tuple(argv), port, container=f"llmpar-{engine}-{port}", model=model, notes=tuple(notes))


def local(settings: Settings, argv: Sequence[str], port: int, model: str, notes: Iterable[str] = (),
          environment: Mapping[str, str] | None = None) -> Launch:
    """A Launch of a local process: extra arguments last, GPUs by CUDA_VISIBLE_DEVICES, no hub for a local model."""
    env = dict(environment or {})
    if settings.gpus is not None:
        env["CUDA_VISIBLE_DEVICES"] = settings.gpus
    if os.path.isdir(model):
        env["HF_HUB_OFFLINE"] = "1"
    return Launch((*argv, *settings.engine_args), port, env, model=model, notes=tuple(notes))


# On this machine

def python_of(engine: str, module: str, executable: str | None = None) -> str | None:
    """The Python that has the engine: LLMPAR_ENGINE_PYTHON, beside its executable on the PATH, .venv-ENGINE next to the
    checkout, this one where it has the module; None where none has it."""
    named = os.environ.get("LLMPAR_ENGINE_PYTHON")
    if named:
        return named
    found = shutil.which(executable) if executable else None
    if found:
        return _python_under(found)
    own = CHECKOUT / f".venv-{engine}" / "bin" / "python"
    if own.exists():
        return str(own)
    return sys.executable if importlib.util.find_spec(module) else None


def _python_under(script: str) -> str | None:
    """The Python that a command belongs to: beside it (pipx and uv link commands to where it is), else its first line's."""
    for name in ("python", "python3"):
        beside = Path(os.path.realpath(script)).parent / name
        if beside.exists():
            return str(beside)
    with open(script, "rb") as stream:
        first = stream.readline(512).decode("utf-8", "replace")
    words = first[2:].split() if first.startswith("#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = words[1:]
    return shutil.which(words[0]) if words and os.path.basename(words[0]).startswith("python") else None


def script_of(python: str | None, executable: str) -> str:
    """The engine's command: on the PATH, beside its Python, else its bare name."""
    if shutil.which(executable) or python is None:
        return executable
    beside = Path(python).parent / executable
    return str(beside) if beside.exists() else executable


def installed(python: str | None, *distributions: str) -> tuple[str, str] | None:
    """(distribution, version) of the first that is in the Python's site-packages, read from directory names alone."""
    if python is None:
        return None
    for packages in sorted((Path(python).parent.parent / "lib").glob("python*/site-packages")):
        for name in distributions:
            for info in packages.glob(f"{name.replace('-', '_')}-*.dist-info"):
                return name, info.name.removesuffix(".dist-info").split("-", 1)[1]
    return None


def same_version(settings: Settings, found: tuple[str, str] | None) -> str | None:
    """The version to launch locally: what is installed, else what was asked. Raises Unsupported where they differ."""
    if found is None:
        return settings.version
    asked, have = number(settings.version), number(found[1])
    if asked is not None and have is not None and have[: len(asked)] != asked:
        raise Unsupported(f"version {settings.version} was asked, and {found[0]} {found[1]} is installed: "
                          f"pip install '{found[0]}=={settings.version.lstrip('v') if settings.version else ''}', use --runtime docker, "
                          "or name another Python in LLMPAR_ENGINE_PYTHON")
    return found[1]


def needs_docker() -> str | None:
    return None if shutil.which("docker") else "docker is not installed: see https://docs.docker.com/engine/install"


def needs_python(engine: str, module: str, install: str, executable: str | None = None) -> str | None:
    """None, or that the engine is not installed and how it would be."""
    if python_of(engine, module, executable) is not None or executable and shutil.which(executable):
        return None
    return f"{engine} is not installed: python3 -m venv .venv-{engine} && .venv-{engine}/bin/pip install {install}"
