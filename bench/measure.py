"""The whole benchmark: prints its tables as they come and writes docs/benchmarks.md. Called by bench/run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import peers
import sections
import texts
import truth
from loads import EVENTS, Work

ROOT = Path(__file__).resolve().parent.parent
SIMULATED = ("intervals", "pairs", "equal")  # the quick tables of bench/simulate


def first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not there"
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def facts() -> str:
    """The machine and the versions, without names that say whose it is."""
    model = next(
        (line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    total = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, llmpar {first_line('git', '-C', str(ROOT), 'describe', '--always', '--dirty')}",
        f"{os.cpu_count()} processors ({model}), {total / 1024 / 1024:.0f} GiB, Linux "
        f"{platform.release().partition('-')[0]}",
        f"Python {platform.python_version()}, {first_line('parallel', '--version')}, "
        f"{' '.join(first_line('curl', '--version').split()[:2])}, "
        f"{first_line('gcc', '--version')}",
    ]
    return "".join(f"- {line}\n" for line in lines)


def script(name: str, *arguments: str) -> str:
    """What another benchmark of this folder prints."""
    sections.say(name)
    done = subprocess.run([str(ROOT / "bench" / name), *arguments], capture_output=True, text=True, check=False)
    text = done.stdout.strip("\n")
    if done.returncode:
        text += f"\nexit status {done.returncode}: {done.stderr.strip()[-300:]}"
    return text if "|" in text else f"```\n{text}\n```"


def main() -> None:
    quick = os.environ.get("QUICK", "") not in ("", "0")
    repeats = int(os.environ.get("REPEATS") or (1 if quick else 3))
    only = os.environ.get("ONLY", "").split()
    folder = ROOT / "bench" / "out"
    truth.build(folder / "truthd")
    count = int(os.environ.get("COUNT") or (256 if quick else 2000))
    prompts, bodies = texts.write(folder, max(count, 2048), EVENTS)
    cores = sorted(os.sched_getaffinity(0))
    # With SCHED_FIFO the server takes its core whenever it wants it; without, clients have to keep off.
    work = Work(folder, prompts, bodies, cores[-1], None)
    if not truth.fifo(folder / "truthd", folder / "truth.tsv") and len(cores) > 1:
        work.client_cores = ",".join(map(str, cores[:-1]))
    started = time.monotonic()
    parts = {
        "cost": ("What a request costs", lambda: sections.cost(work, repeats, count) + "\n" + sections.memory(work)),
        "truth": ("How true its times are", lambda: sections.truths(work, repeats, quick)),
        "shapes": ("Bursts, bodies, connections, other clients", lambda: sections.shapes(work, repeats)),
        "held": ("Requests in flight", lambda: sections.held(work, repeats, quick)),
        "open": ("A server that stalls", lambda: sections.open_loop(work, quick)),
        "peers": ("Other load clients", lambda: peers.section(work, quick)),
        "summarise": (
            "Summaries",
            lambda: (
                script("summarise", "10000" if quick else "300000")
                + "\n\n16 events a record:\n\n"
                + script("summarise", *(("10000", "16", "30000") if quick else ("1000000", "16", "5000000")))
            ),
        ),
        "simulate": (
            "Intervals and verdicts, simulated",
            lambda: script("simulate", "40" if quick else "100", *SIMULATED),
        ),
        "sampler": ("The GPU sampler", lambda: script("sampler", "10", "5" if quick else "10")),
    }
    text = [
        "# Benchmarks\n",
        "Written by `make bench`; the words that go with the numbers are in bench/words.md.\n",
        facts()
        + f"- {repeats} alternating repeat{'s' if repeats > 1 else ''}; numbers are medians (smallest to largest)\n"
        + (f"- {os.environ['NOTE']}\n" if os.environ.get("NOTE") else ""),
    ]
    words = dict(part.split("\n", 1) for part in (ROOT / "bench" / "words.md").read_text().split("\n## ")[1:])
    print("\n".join(text), flush=True)
    for key, (title, make) in parts.items():
        if only and key not in only:
            continue
        part = f"## {title}\n\n{words[title].strip()}\n\n{make()}"
        text.append(part)
        print(f"\n{part}", flush=True)
    text.append(f"## What limits the rest\n\n{words['What limits the rest'].strip()}\n")
    sections.say(f"took {(time.monotonic() - started) / 60:.1f} minutes")
    if quick or only:
        sections.say("docs/benchmarks.md is written by a whole run only (no QUICK, no ONLY)")
        return
    target = ROOT / "docs" / "benchmarks.md"
    part_file = target.with_name(target.name + ".part")
    part_file.write_text("\n".join(line.rstrip() for line in "\n".join(text).split("\n")))
    part_file.rename(target)
    sections.say("wrote docs/benchmarks.md")


if __name__ == "__main__":
    sys.exit(main())
