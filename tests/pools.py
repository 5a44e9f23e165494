"""What tests of llmpar-request share: prompts, records, and the processes of the pools that a test started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0  # for a process to do what it does in milliseconds on an idle machine
MARK = b"import pool; pool()"


def prompts(texts: dict[str, str] | int, folder: str = "prompts") -> list[str]:
    """Prompt files in the working directory; a number makes so many plain ones."""
    Path(folder).mkdir(exist_ok=True)
    if isinstance(texts, int):
        texts = {f"p{number:03d}": f"tell me {number}" for number in range(texts)}
    for name, text in texts.items():
        (Path(folder) / name).write_text(text)
    return [f"{folder}/{name}" for name in texts]


def environment(**more: str) -> dict[str, str]:
    return os.environ | more


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, **{"capture_output": True, "text": True, "timeout": 60} | options)


def parallel(*options: str, start: bool = False, **more: Any) -> Any:
    """`parallel --will-cite OPTIONS`, run to its end or only started."""
    command = ["parallel", "--will-cite", *options]
    if start:
        return subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more)
    return run(command, **more)


def read(text: str) -> list[dict[str, Any]]:
    """The records in an output, every line whole."""
    return [json.loads(line) for line in text.splitlines()]


def wait_for(what: Callable[[], Any], why: str) -> Any:
    limit = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < limit, why
        time.sleep(0.01)
    return found


def mine(chosen: Callable[[list[bytes]], bool]) -> list[int]:
    """Processes of this test, by number: those with its runtime directory whose words on the command line are
    `chosen`."""
    ours = b"XDG_RUNTIME_DIR=" + os.environb[b"XDG_RUNTIME_DIR"]
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                if chosen(words) and ours in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(int(name))
            except OSError:
                pass
    return sorted(found)


def processes() -> list[int]:
    """Parents and workers of the pools of this test, oldest first."""
    return mine(lambda words: any(MARK in word for word in words))


def parent() -> int:
    """The one pool's parent process: it leads a process group of its own."""
    (found,) = wait_for(lambda: [pid for pid in processes() if group(pid) == pid], "no pool comes")
    return found


def group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def launchers() -> list[int]:
    """Launchers of this test that are alive, the script or the compiled one."""
    return mine(
        lambda words: (
            words[0].endswith(b"llmpar-request")
            or words[0].endswith(b"perl")
            and len(words) > 1
            and words[1].endswith(b"bin/llmpar-request")
        )
    )


def catches_term(pid: int) -> bool:
    """Whether a process handles SIGTERM, as a launcher does from when it has reached its pool."""
    try:
        caught = next(
            line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:")
        )
    except OSError:
        return False
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def nothing_left() -> None:
    """No process of a pool, no socket, lock or position in the runtime directory."""
    folder = Path(os.environ["XDG_RUNTIME_DIR"], "llmpar")
    wait_for(
        lambda: not processes() and (not folder.exists() or not list(folder.iterdir())),
        f"left: processes {processes()}, files {[path.name for path in folder.iterdir()] if folder.exists() else []}",
    )
