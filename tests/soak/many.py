"""60,000 prompts through every form of client: each is asked once, and has one record.

python -m tests.soak 0 SEED many PROMPTS; the server answers at once, so that the time is the client's.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FIND = "find set -name '*.txt' -print0"
# With `parallel` a process is started for each prompt; without a pool it is one of Python's, so a share must do.
FORMS = {
    "turns, names by find": f"{FIND} | llmpar-request --stdin",
    "turns, find -exec": "find set -name '*.txt' -exec llmpar-request {} +",
    "turns, xargs": f"{FIND} | xargs -0 llmpar-request",
    "turns, xargs -P": f"{FIND} | xargs -0 -P4 -n1000 llmpar-request",
    "threads": "llmpar-request --threads 8 --stdin < list",
    "threads, kept connections": "llmpar-request --keep-alive --threads 8 --stdin < list",
    "asyncio": "llmpar-request --asyncio 8 --stdin < list",
    "asyncio, names by find": f"{FIND} | llmpar-request --asyncio 8 --stdin",
    "queue": "parallel --will-cite -j8 -N0 llmpar-request --queue list ::: 1 2 3 4 5 6 7 8",
    "pool, names by list": "parallel --will-cite -j8 llmpar-request :::: list",
    "pool, names by find": f"{FIND} | parallel --will-cite -0 -j8 llmpar-request",
    "cold": "head -n COLD list | LLMPAR_POOL=no parallel --will-cite -j4 llmpar-request",
}
COLD_SHARE = 100
ANSWER = (
    b'data: {"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
    b"\n\ndata: [DONE]\n\n"
)


class Result(NamedTuple):
    """`unlike`: prompts that were asked, or have records, any other number of times than once."""

    asked: int
    unlike: int
    seconds: float
    peak_bytes: int  # memory of the largest process so far


class _Server(asyncio.Protocol):
    """Answers at once and counts what it was asked."""

    counts: Counter[str] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, mark, body = self.data.partition(b"\r\n\r\n")
        size = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if not mark or len(body) < int(size):
            return
        self.data = b""
        self.counts[json.loads(body)["prompt"]] += 1
        kept = b"connection: keep-alive" in head.lower()
        end = b"keep-alive" if kept else b"close"
        fields = b"content-type: text/event-stream\r\ncontent-length: %d\r\nconnection: %s" % (len(ANSWER), end)
        self.transport.write(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n" + ANSWER)
        if not kept:
            self.transport.close()


def _serve(control: Connection) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Server, "127.0.0.1", 0, backlog=1024)
        control.send(server.sockets[0].getsockname()[1])
        while await loop.run_in_executor(None, control.recv):
            control.send(dict(_Server.counts))
            _Server.counts.clear()

    asyncio.run(run())


@contextmanager
def server() -> Iterator[tuple[str, Connection]]:
    """The address of a server, and a pipe that gives the counts of each prompt since the last time."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}", ours
    finally:
        ours.send(False)
        process.join()


def prompts(folder: Path, count: int, deep: int = 0) -> list[str]:
    """So many prompt files in folder/set, and their names in folder/list; `deep`: folders with names of 200 letters."""
    where = "/".join(["set", *["x" * 200] * deep])
    (folder / where).mkdir(parents=True)
    names = [f"{where}/{number:06d}.txt" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_text(f"Prompt {number}.")
    (folder / "list").write_text("".join(f"{name}\n" for name in names))
    return names


def ask(form: str, folder: Path, names: list[str], url: str, counts: Connection, stack: str = "") -> Result:
    """All prompts through one form. `stack`: a limit in KiB, a quarter of which is what a command line may hold."""
    command = FORMS[form]
    if "COLD" in command:
        names = names[: max(1, len(names) // COLD_SHARE)]
        command = command.replace("COLD", str(len(names)))
    out = folder / "out"
    out.unlink(missing_ok=True)
    environment = os.environ | {
        "PATH": f"{ROOT / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LLMPAR_PYTHON": sys.executable,
        "LLMPAR_BASE_URL": url,
        "LLMPAR_MODEL": "m",
    }
    command = command.replace("llmpar-request", f"llmpar-request --no-text --output {shlex.quote(str(out))}")
    began = time.monotonic()
    limit = f"ulimit -s {stack}; " if stack else ""
    done = subprocess.run(["bash", "-c", limit + command], cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert done.returncode == 0, f"{form}: exit {done.returncode}: {done.stderr[-600:]}"
    recorded: Counter[str] = Counter()
    with out.open("rb") as stream:  # not all at once: a child's peak is never less than what its parent held
        for line in stream:
            record = json.loads(line)
            assert record["status"] == "ok", f"{form}: {record['error']}"
            recorded[record["prompt"]] += 1
    counts.send(True)
    had = recorded, Counter(counts.recv())
    wanted = {Path(name).name for name in names}, {f"Prompt {number}." for number in range(len(names))}
    unlike = 0
    for found, names_wanted in zip(had, wanted, strict=True):
        unlike += sum(found[name] != 1 for name in names_wanted) + len(found.keys() - names_wanted)
    return Result(len(names), unlike, seconds, peak)


HEADER = f"{'form':26} prompts  unlike  seconds  a second  MiB"


def run(count: int) -> int:
    """Every form with so many prompts, a line each; prompts that were not asked once in all."""
    unlike = 0
    with tempfile.TemporaryDirectory(prefix="llmpar-many-") as name, server() as (url, counts):
        folder = Path(name)
        os.environ["XDG_RUNTIME_DIR"] = name
        names = prompts(folder, count)
        for form in FORMS:
            found = ask(form, folder, names, url, counts)
            unlike += found.unlike
            rate = found.asked / found.seconds
            numbers = f"{found.asked:7} {found.unlike:7} {found.seconds:8.0f} {rate:9.0f} {found.peak_bytes >> 20:4}"
            print(f"{form:26} {numbers}", flush=True)
    return unlike
