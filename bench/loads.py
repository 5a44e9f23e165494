"""One client's run against truthd: the command line, what it cost, what it says, what the server saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import truth

EVENTS = 64
CURL = "parallel --will-cite -j{clients} curl -s -o /dev/null"
# What each client is called in tables, and its command. {list} and {bodies} are files of names, a line each.
CLIENTS = {
    "curl": CURL + " -H Content-Type:application/json -d @{{}} {url}/v1/completions < {bodies}",
    "curl -sN": CURL.replace("-s -o", "-sN -o")
    + " -H Content-Type:application/json -d @{{}} {url}/v1/completions < {bodies}",
    "curl -w": CURL.replace("parallel", "parallel -q")
    + " -w '{{/}} %{{time_pretransfer}} %{{time_starttransfer}}\\n' -H Content-Type:application/json -d @{{}}"
    " {url}/v1/completions < {bodies} > {curl}",
    "pool": "parallel --will-cite -j{clients} llmpar-request {options} < {list} > {records}",
    "script": "parallel --will-cite -j{clients} {script} {options} < {list} > {records}",
    "cold": "LLMPAR_POOL=no parallel --will-cite -j{clients} llmpar-request {options} < {list} > {records}",
    "queue": "parallel --will-cite -j{clients} -N0 llmpar-request {options} --queue {list} ::: {{1..{clients}}} > "
    "{records}",
    "threads": "llmpar-request {options} --threads {clients} --stdin < {list} > {records}",
    "asyncio": "llmpar-request {options} --asyncio {clients} --stdin < {list} > {records}",
    "arrivals": "{arrivals} | parallel --will-cite --colsep '\\t' -j{clients} llmpar-request {options} --at {{1}} "
    "{{2}} > {records}",
}


@dataclass
class Work:
    """What all runs share. `cores`: the server's own core, and those of clients (None: the system's choice)."""

    folder: Path
    prompts: list[str]
    bodies: list[str]
    server_core: int | None
    client_cores: str | None


@dataclass
class Run:
    """One run's outcome; seconds."""

    count: int
    cpu_s: float
    wall_s: float
    first_s: float
    held: float
    late: list[float]
    scheduling: str
    errors: truth.Errors
    records: list[dict[str, Any]]
    served: list[truth.Served]
    private_bytes: list[int]
    foreign: float  # share of the machine that other processes used meanwhile

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu_s / self.count


def run(
    work: Work,
    client: str,
    clients: int,
    count: int,
    gap_ms: float,
    options: str = "",
    server: Sequence[str] = (),
    front: Any = None,
    memory_after_s: float | None = None,
    arrivals: str = "",
) -> Run:
    """Raises RuntimeError where the server saw another number of requests than were sent.

    `front` gives, for the server's URL, a context whose value is the URL to use instead. `memory_after_s`: look at the
    workers' memory this long after the start (which costs, so not where cost or truth is looked at).
    """
    here = work.folder / "run"
    here.mkdir(exist_ok=True)
    files = {name: here / name for name in ("list", "bodies", "records", "curl", "metre.json", "stderr")}
    for path in files.values():
        path.unlink(missing_ok=True)
    files["list"].write_text("".join(f"{name}\n" for name in work.prompts[:count]))
    files["bodies"].write_text("".join(f"{name}\n" for name in work.bodies[:count]))
    busy = busy_s()
    daemon = truth.Server(
        work.folder / "truthd",
        here / "truth.tsv",
        ["-n", str(EVENTS), "-g", str(round(gap_ms * 1000)), *server],
        work.server_core,
    )
    try:
        with (front or Direct)(daemon.url) as url:
            command = CLIENTS[client].format(
                clients=clients,
                options=f"{options} --max-tokens {EVENTS}",
                url=url,
                arrivals=arrivals,
                script=Path(__file__).resolve().parent.parent / "bin" / "llmpar-request",
                **{name: str(path) for name, path in files.items()},
            )
            environment = {**os.environ, "LLMPAR_BASE_URL": url, "LLMPAR_MODEL": "truth"}
            pinned = ["taskset", "-c", work.client_cores] if work.client_cores else []
            seen: list[int] = []
            watcher = None
            if memory_after_s is not None:
                watcher = threading.Thread(target=lambda: seen.extend(private(memory_after_s)))
                watcher.start()
            with open(files["stderr"], "wb") as stderr:
                subprocess.run(
                    [
                        *pinned,
                        sys.executable,
                        "-P",
                        str(Path(__file__).with_name("metre.py")),
                        str(files["metre.json"]),
                        "bash",
                        "-c",
                        command,
                    ],
                    env=environment,
                    stderr=stderr,
                    check=True,
                )
            if watcher is not None:
                watcher.join()
    finally:
        served = daemon.stop()
    busy = busy_s() - busy
    metre = json.loads(files["metre.json"].read_text())
    if len(served) != count:
        tail = files["stderr"].read_text(errors="replace")[-500:]
        raise RuntimeError(
            f"{client} at {clients}: the server saw {len(served)} requests of {count}; stderr ends: {tail}"
        )
    records, told = [], []
    if files["records"].exists():
        records = [json.loads(line) for line in files["records"].read_bytes().splitlines()]
        told = [truth.told(record) for record in records]
    elif files["curl"].exists():
        told = [
            truth.Told(name, None, [float(start) - float(sent)])
            for name, sent, start in map(str.split, files["curl"].read_text().splitlines())
        ]
    cpu = metre["user_s"] + metre["system_s"]
    foreign = max(busy - cpu - daemon.cpu_s, 0) / ((os.cpu_count() or 1) * metre["gone_s"])
    return Run(
        count,
        cpu,
        metre["wall_s"],
        min(one.received for one in served) / 1e9 - metre["started"],
        truth.held(served),
        truth.lateness(served),
        daemon.scheduling,
        truth.compare(told, served),
        records,
        served,
        seen,
        foreign,
    )


def busy_s() -> float:
    """Seconds that the machine's processors have been busy since its start (/proc/stat, proc(5))."""
    with open("/proc/stat") as stream:
        user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stream.readline().split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Direct:
    """No front: the server's own URL."""

    def __init__(self, url: str):
        self.url = url

    def __enter__(self) -> str:
        return self.url

    def __exit__(self, *_: object) -> None:
        pass


def private(after_s: float) -> list[int]:
    """Private bytes of each worker of the pools that run `after_s` seconds from now (smaps_rollup)."""
    time.sleep(after_s)
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if b"llmpar.commands.request import pool" in Path(f"/proc/{name}/cmdline").read_bytes():
                    parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    sizes = []
    for pid, parent in parents.items():
        if parent not in parents:  # the pool's own process
            continue
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        sizes.append(1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_")))
    return sizes
