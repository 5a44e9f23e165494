"""Which version of an engine runs: what the server itself says, else the package installed beside its executable."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmpar.engines import Engine, Launch, installed


def running(engine: Engine, launch: Launch, get: Callable[[str], Any]) -> str | None:
    """The version, or None. `get` fetches a path of the server as JSON and gives None where there is none."""
    path, key = engine.version_at or ("", "")
    answer = get(path) if path else None
    version = answer.get(key) if isinstance(answer, dict) else None
    # llama.cpp says `b0-unknown` where it was built outside its repository.
    if isinstance(version, str) and version and not version.startswith("b0-"):
        return version
    executable = None if launch.container else shutil.which(launch.argv[0])
    if not executable:
        return None
    package = installed.installed(str(Path(executable).parent / "python"), *engine.packages)
    return " ".join(package) if package else None
