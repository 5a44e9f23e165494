"""The Makefile that came with llmpar: run in the directory at hand, or copied there with its tables to be edited."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmpar import exit_codes
from llmpar.failure import Failure
from llmpar.machine import checkup, installation


def environment() -> dict[str, str]:
    """What the Makefile and the scripts have to know of this installation."""
    variables = dict(os.environ, LLMPAR_PYTHON=sys.executable)
    if installation.how() == installation.CHECKOUT:
        variables["VENV"] = str(installation.home() / ".venv")
    else:
        variables.update(LLMPAR_INSTALLED=installation.how(), VENV=sys.prefix, PYTHON=sys.executable)
        # Of a user's installation the commands are not in the prefix's bin.
        beside = os.path.dirname(shutil.which(sys.argv[0]) or "")
        variables["PATH"] = os.pathsep.join(filter(None, (beside, os.environ.get("PATH", ""))))
    return variables


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            package = {"flock": "util-linux", "awk": "mawk"}.get(tool, tool)
            raise Failure(f"'{tool}' is missing", exit_codes.UNAVAILABLE, f"type: {checkup.installer()} {package}")


def run(target: str, settings: dict[str, Any], words: Sequence[str], flags: Sequence[str] = ()) -> None:
    """Become make, with the Makefile of this installation, in the directory at hand."""
    need("make", "bash", "perl", "flock", "awk")
    given = [f"{name.upper()}={value}" for name, value in settings.items() if value is not None]
    for word in words:
        if not word.partition("=")[0].isidentifier() or "=" not in word:
            raise Failure(
                f"'{word}' is not NAME=VALUE", exit_codes.USAGE, "for example REPEATS=3; `llmpar sweep --help`"
            )
    makefile = str(installation.home() / "Makefile")
    os.execvpe("make", ["make", "-f", makefile, *flags, target, *given, *words], environment())


def tables() -> list[str]:
    """Names of sweep tables: those of the directory at hand and those that came with llmpar."""
    folders = (Path("sweeps"), installation.home() / "sweeps")
    names = {
        path.relative_to(folder).with_suffix("").as_posix() for folder in folders for path in folder.rglob("*.tsv")
    }
    return sorted(names)


MAKEFILE = """\
# Made by `llmpar init`. `make help` lists what there is; settings go into config.mk, tables into sweeps/.
llmpar := $(shell llmpar home)
ifeq ($(llmpar),)
$(error llmpar is not installed, or not on the PATH)
endif
export VENV := $(word 2,$(llmpar))
export PYTHON := $(word 3,$(llmpar))
export LLMPAR_INSTALLED := $(word 4,$(llmpar))
include $(firstword $(llmpar))/Makefile
"""


def copy_project(target: Path) -> int:
    """Copy tables, prompts, claims and a Makefile to a folder; how many files were there already and are kept."""
    kept = 0
    for name in ("sweeps", "prompts", "prompts-short", "study"):
        for source in sorted((installation.home() / name).rglob("*")):
            copy = target / source.relative_to(installation.home())
            if source.is_file() and copy.exists():
                kept += 1
            elif source.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
    makefile = target / "Makefile"
    if makefile.exists():
        return kept + 1
    makefile.write_text(MAKEFILE)
    return kept
