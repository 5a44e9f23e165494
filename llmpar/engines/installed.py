"""Engines installed on this machine: their Python, their scripts, their versions."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

from llmpar.engines.base import Settings, Unsupported

CHECKOUT = Path(__file__).resolve().parents[2]


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
    """The Python that a command belongs to: beside it (pipx and uv link commands to where it is), else its first
    line's."""
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


def same_version(settings: Settings, installed_package: tuple[str, str] | None) -> str | None:
    """The version to launch locally: what is installed, else what was asked. Raises Unsupported where they differ."""
    if installed_package is None:
        return settings.version
    asked, have = number(settings.version), number(installed_package[1])
    if asked is not None and have is not None and have[: len(asked)] != asked:
        name, there = installed_package
        wanted = settings.version.lstrip("v") if settings.version else ""
        raise Unsupported(
            f"version {settings.version} was asked for, and {name} {there} is installed: "
            f"pip install '{name}=={wanted}', use --runtime docker, or name another Python in LLMPAR_ENGINE_PYTHON"
        )
    return installed_package[1]


def needs_python(engine: str, module: str, install: str, executable: str | None = None) -> str | None:
    """None, or that the engine is not installed and how it would be."""
    if python_of(engine, module, executable) is not None or executable and shutil.which(executable):
        return None
    return f"{engine} is not installed: python3 -m venv .venv-{engine} && .venv-{engine}/bin/pip install {install}"
