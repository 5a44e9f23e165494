"""A folder with prompts, a runtime directory and a fake engine, and what is alive or left of the loads in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests import fake, pools

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0  # for what takes a second or two on an idle machine
PROMPTS = 30
TABLE = "engine\tclients\tprompts\tmax_tokens\tcount\twarmup\nvllm\t1,3\t{prompts}\t4\t8\t1\n"
SERVER = ("LLMPAR_BASE_URL", "LLMPAR_MODEL", "LLMPAR_ENGINE", "LLMPAR_METRICS_URLS")


class Ground:
    """A folder with prompts, a runtime directory and a fake engine."""

    def __init__(self, folder: Path, server: fake.Fake):
        self.folder, self.server = folder, server
        (folder / "prompts").mkdir()
        self.files = [f"prompts/p{number:02d}.txt" for number in range(PROMPTS)]
        for number, name in enumerate(self.files):
            (folder / name).write_text(f"tell me {number}\nfake: tokens=3 gap_ms={10 + number % 7 * 10}")
        (folder / "list").write_text("".join(f"{name}\n" for name in self.files))
        (folder / "table.tsv").write_text(TABLE.format(prompts=folder / "prompts"))

    def start(self, command: list[str], served: bool = True, **more: str) -> psutil.Popen:
        """`served`: by the fake engine; else the command starts its own."""
        environment = {name: value for name, value in os.environ.items() if served or name not in SERVER}
        return psutil.Popen(
            command,
            cwd=self.folder,
            env=environment | more,
            start_new_session=True,
            stdout=open(self.folder / "out", "ab"),
            stderr=open(self.folder / "said", "ab"),
            stdin=subprocess.DEVNULL,
        )

    def tree(self, process: psutil.Popen) -> list[psutil.Process]:
        """What came of the process and is alive, pools too: by the runtime directory, since numbers are given again."""
        # GNU parallel tries with processes of this name how many there may be; killed in that moment it leaves them.
        mine = pids(lambda words: words[:2] != [b"sleep", b"10101"])
        return [each for each in living(mine) if alive(each)]

    def records(self, name: str = "out") -> list[dict[str, Any]]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def pids(chosen: Callable[[list[bytes]], bool]) -> list[int]:
    return [pid for pid in pools.mine(chosen) if pid not in APART]


APART: set[int] = set()  # the engine, which is no part of a load


def living(numbers: Iterable[int]) -> list[psutil.Process]:
    found = []
    for pid in numbers:
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def settled(ground: Ground, process: psutil.Popen) -> list[str]:
    """Wait until nothing of it is alive; what still is after that."""
    limit = time.monotonic() + PATIENCE_S
    tree = ground.tree(process)
    while time.monotonic() < limit:
        process.poll()
        tree = list({*[each for each in tree if alive(each)], *ground.tree(process)})
        if not tree:
            return []
        time.sleep(0.02)
    found = [f"{each.pid} {words(each)[:80]}" for each in tree]
    for each in tree:
        with contextlib.suppress(psutil.Error):
            each.kill()
    return found


def left(ground: Ground) -> list[str]:
    """Files of pools, locks of queues and unfinished files."""
    runtime = Path(os.environ["XDG_RUNTIME_DIR"], "llmpar")
    found = [str(path) for path in runtime.iterdir()] if runtime.exists() else []
    return found + [str(path) for path in ground.folder.rglob("*") if path.name.endswith((".part", ".list", ".old"))]


def whole(path: Path) -> list[dict[str, Any]]:
    """The records of which the line end is there."""
    data = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def wait(what: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.01)


@contextlib.contextmanager
def ground() -> Iterator[Ground]:
    """A ground of its own: nothing that another one left is there."""
    before = os.environ.copy()
    with tempfile.TemporaryDirectory(prefix="llmpar-kills-") as name:
        folder = Path(name)
        (folder / "runtime").mkdir(mode=0o700)
        venv = Path(sys.executable).parent
        os.environ["PATH"] = f"{ROOT / 'bin'}:{venv}:{before['PATH']}"
        os.environ |= {"LLMPAR_PYTHON": sys.executable, "TMPDIR": name}
        with fake.fake_engine(folder, engine="vllm", gap_ms=5, tokens=4) as server:
            os.environ |= {
                "XDG_RUNTIME_DIR": str(folder / "runtime"),
                "LLMPAR_BASE_URL": server.url,
                "LLMPAR_MODEL": "fake",
                "LLMPAR_ENGINE": "vllm",
                "LLMPAR_METRICS_URLS": f"{server.url}/metrics",
            }
            try:
                yield Ground(folder, server)
            finally:
                for pid in pids(lambda words: True):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                os.environ.clear()
                os.environ.update(before)
                shutil.rmtree(folder / "runs", ignore_errors=True)
