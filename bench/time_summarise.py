"""Time llmpar-summarise over a file beside a bare orjson.loads loop over it, and its memory over this and larger files;
prints a table. Arguments: files, each with its number of records. Called by bench/summarise."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time

import psutil

BARE = (
    "import orjson, sys\nwith open(sys.argv[1], 'rb', buffering=1 << 20) as stream:\n    for line in stream:\n     "
    "   orjson.loads(line)\n"
)


def timed(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Wall and CPU seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def memory(command: list[str]) -> int:
    """The most bytes of memory that a command and its children held together, looked at every 20 ms: without what is
    mapped from files, which the kernel keeps only while there is room."""
    most, done = 0, subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root = psutil.Process(done.pid)
    while done.poll() is None:
        held = 0
        try:
            for process in (root, *root.children(recursive=True)):
                of_process = process.memory_info()
                held += of_process.rss - of_process.shared
        except psutil.NoSuchProcess:
            pass
        most = max(most, held)
        time.sleep(0.02)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command)
    return most


def main() -> None:
    path, count = sys.argv[1], int(sys.argv[2])
    summarise = [sys.executable, "-m", "llmpar.commands.summarise", path]
    sizes = dict(zip(map(int, sys.argv[2::2]), sys.argv[1::2], strict=True))
    commands = {
        "bare orjson.loads": ([sys.executable, "-c", BARE, path], None),
        "llmpar-summarise, one process": (["taskset", "-c", str(min(os.sched_getaffinity(0))), *summarise], None),
        "llmpar-summarise": (summarise, None),
    }
    rounds = int(os.environ.get("ROUNDS", "3"))
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, (command, environment) in commands.items():
            taken[name].append(timed(command, environment))
    bare_wall, bare_cpu = (statistics.median(each[place] for each in taken["bare orjson.loads"]) for place in (0, 1))
    print(
        f"{count} records, {os.path.getsize(path) / 1e6:.0f} MB, {len(os.sched_getaffinity(0))} processors, {rounds} "
        "rounds; ratios to bare orjson.loads"
    )
    print(f"{'':32}{'wall s':>8}{'ratio':>8}   spread{'CPU s':>15}{'ratio':>8}")
    for name, each in taken.items():
        wall, cpu = (statistics.median(one[place] for one in each) for place in (0, 1))
        spread = f"{min(one[0] for one in each) / bare_wall:.2f} to {max(one[0] for one in each) / bare_wall:.2f}"
        print(f"{name:32}{wall:8.2f}{wall / bare_wall:8.2f}   {spread}{cpu:9.2f}{cpu / bare_cpu:8.2f}")
    for size, records in sizes.items():
        held = memory([*summarise[:-1], records])
        print(f"memory of all its processes together, {size} records, at most: {held / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
