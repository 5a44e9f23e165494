"""Time llmpar-summarise over a file beside a bare orjson.loads loop over it; prints a table. Called by bench/summarise."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time

BARE = "import orjson, sys\nwith open(sys.argv[1], 'rb', buffering=1 << 20) as stream:\n    for line in stream:\n        orjson.loads(line)\n"


def timed(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Wall and CPU seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    path, count = sys.argv[1], int(sys.argv[2])
    summarise = [sys.executable, "-m", "llmpar.commands.summarise", path]
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
    bare = statistics.median(wall for wall, _ in taken["bare orjson.loads"])
    print(f"{count} records, {os.path.getsize(path) / 1e6:.0f} MB, {len(os.sched_getaffinity(0))} processors, {rounds} rounds")
    print(f"{'':32}{'wall s':>8}{'CPU s':>8}{'ratio':>8}   spread of ratio")
    for name, each in taken.items():
        walls = [wall for wall, _ in each]
        ratios = [wall / bare for wall in walls]
        cpu = statistics.median(cpu for _, cpu in each)
        print(f"{name:32}{statistics.median(walls):8.2f}{cpu:8.2f}{statistics.median(ratios):8.2f}   {min(ratios):.2f} to {max(ratios):.2f}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest resident memory of a process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
