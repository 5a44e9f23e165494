"""kill -9 at random moments, in every role and form of a load, of a sweep, of a search and of what writes files; then
what is there is counted, and the same is run again.

python -m tests.soak 0 SEED kills KILLS
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests import pools
from tests.proc.engines_on_path import llama_server
from tests.soak.ground import PATIENCE_S, ROOT, Ground, alive, ground, left, living, settled, wait, whole, words

CLIENTS = 6
CELLS, COUNT = 2, 8


@dataclass
class Tally:
    """Of one role in one form: kills, records lost that were reported, records doubled, things left over, and what was
    measured twice or not at all when it was run again."""

    kills: int = 0
    lost: int = 0
    doubled: int = 0
    left: int = 0
    again: int = 0
    said: list[str] = field(default_factory=list)


def in_role(role: str, ground: Ground, process: psutil.Popen) -> list[psutil.Process]:
    """The living processes of a role."""
    if role in ("pool parent", "pool worker"):
        leads = role == "pool parent"
        return living(pid for pid in pools.processes() if (pools.group(pid) == pid) == leads)
    if role == "launcher":
        return living(pools.launchers())
    if role in ("request", "summarise", "prompts", "make"):
        return [process] if alive(process) else []
    part = {
        "parallel": "/parallel ",
        "run-session": "scripts/run-session",
        "search": "scripts/search",
        "run-cell": "scripts/run-cell",
        "sampler": "sample_engine",
        "cold": "llmpar.commands.request",
        "serve": "llmpar.commands.serve",
    }[role]
    return [each for each in ground.tree(process) if part in words(each) + " " and alive(each)]


def kill(chance: random.Random, role: str, ground: Ground, process: psutil.Popen, latest_s: float) -> bool:
    """Kill one process of the role after a random while; False where the load was over by then."""
    limit = time.monotonic() + PATIENCE_S
    victims: list[psutil.Process] = []
    while not victims:
        if process.poll() is not None or time.monotonic() > limit:
            return False
        victims = in_role(role, ground, process)
        time.sleep(0.005)
    time.sleep(chance.uniform(0, latest_s))
    victims = in_role(role, ground, process)
    if not victims:
        return False
    with contextlib.suppress(psutil.Error):
        chance.choice(sorted(victims, key=lambda each: each.pid)).kill()
        return True
    return False


def counted(records: list[dict[str, Any]], before: list[dict[str, Any]], tally: Tally) -> None:
    """Records that were there at the kill are still there, and no prompt has two."""
    ids = {record["id"] for record in records}
    tally.lost += sum(record["id"] not in ids for record in before)
    doubled = [name for name, count in Counter(record["prompt"] for record in records).items() if count > 1]
    tally.doubled += len(doubled)
    tally.said += [f"doubled: {doubled}"] if doubled else []


PARALLEL = ["parallel", "--will-cite", f"-j{CLIENTS}"]
OWN = ["llmpar-request", "--output", "out"]
LOGGED = [*PARALLEL, "--joblog", "joblog"]
SAMPLER = ["llmpar-sample-engine", "--interval", "0.05", "-o", "engine.jsonl", "--"]
FORMS = {
    "pool": [*LOGGED, *OWN, ":::"],
    "pool, output by parallel": [*LOGGED, "llmpar-request", ":::"],
    "queue": [*PARALLEL, "-N0", *OWN, "--queue", "list", ":::"],
    "cold": [*LOGGED, "env", "LLMPAR_POOL=no", *OWN, ":::"],
    "threads": [*OWN, "--threads", str(CLIENTS)],
    "asyncio": [*OWN, "--asyncio", str(CLIENTS)],
    "sampled": [*SAMPLER, *PARALLEL, *OWN, ":::"],
}


def load(role: str, form: str, chance: random.Random, ground: Ground, tally: Tally) -> None:
    """One load, one kill; with a second load that sweeps up after the first."""
    given = [str(number) for number in range(CLIENTS)] if form == "queue" else ground.files
    process = ground.start([*FORMS[form], *given])
    if form == "asyncio" or form == "threads" or form == "cold":
        wait(lambda: ground.server.counters()["running"] or process.poll() is not None)
    hit = kill(chance, role, ground, process, 0.5)
    before = whole(ground.folder / "out") if form != "pool, output by parallel" else []
    tally.kills += hit
    tally.left += note(tally, "alive", settled(ground, process))
    found = ground.records()
    counted(found, before, tally)
    reported = set()
    if (ground.folder / "joblog").exists() and role != "parallel":
        for line in (ground.folder / "joblog").read_text().splitlines()[1:]:
            columns = line.split("\t")
            if columns[6] in ("0", "7") and columns[7] == "0":
                reported.add(Path(columns[8].split()[-1]).name)
    lost = reported - {record["prompt"] for record in found}
    tally.lost += note(tally, "reported and lost", sorted(lost))
    if hit and role in ("pool parent", "pool worker"):
        missing = {Path(name).name for name in ground.files} - {record["prompt"] for record in found}
        tally.lost += note(tally, "no record", sorted(missing))
    if left(ground):
        # What a killed pool leaves goes with the next one of this user.
        ground.start(["parallel", "--will-cite", "-j1", "llmpar-request", ":::", ground.files[0]]).wait(PATIENCE_S)
        with contextlib.suppress(AssertionError):
            wait(lambda: not left(ground), 10)
    tally.left += note(tally, "left", left(ground))


def note(tally: Tally, what: str, found: list[str]) -> int:
    tally.said += [f"{what}: {found}"] if found else []
    return len(found)


def summarise(role: str, form: str, chance: random.Random, ground: Ground, tally: Tally) -> None:
    from tests.unit.made_requests import request

    lines = [json.dumps(request(number, number * 0.01)) + "\n" for number in range(3000)]
    (ground.folder / "r.jsonl").write_text("".join(lines))
    command = ["llmpar-summarise", "-o", "summary.json", "r.jsonl"]
    process = ground.start(command)
    tally.kills += kill(chance, role, ground, process, 1.0)
    process.wait(PATIENCE_S)
    path = ground.folder / "summary.json"
    if path.exists():
        json.loads(path.read_bytes())
    assert ground.start(command).wait(PATIENCE_S) == 0
    tally.again += json.loads(path.read_bytes())["n"]["ok"] != 3000
    tally.left += note(tally, "left", left(ground))


def replace(role: str, form: str, chance: random.Random, ground: Ground, tally: Tally) -> None:
    command = ["llmpar-prompts", "-n", "200", "--replace", "set", "--seed"]
    assert ground.start([*command, "1"]).wait(PATIENCE_S) == 0
    process = ground.start([*command, "2"])
    tally.kills += kill(chance, role, ground, process, 1.0)
    process.wait(PATIENCE_S)
    tally.lost += ground.start(["llmpar-prompts", "--check", "set"]).wait(PATIENCE_S) != 0
    assert ground.start([*command, "3"]).wait(PATIENCE_S) == 0
    tally.left += note(tally, "left", left(ground))


GOALS = {
    "sweep": ["table"],
    "find": ["find", "SLO=ttft-p95<10s", "MOST=2"],
    "best": ["best", "SLO=ttft-p95<10s", "MOST=2"],
}
SPACE = "engine\tmodel\tmax_sequences\tprompts\tmax_tokens\twarmup\nllamacpp\t{model}\t1,2\t{prompts}\t3\t0\n"


def make(ground: Ground, form: str) -> list[str]:
    venv, folder = Path(sys.executable).parent.parent, ground.folder
    command = ["make", "-C", str(ROOT), "-o", f"{venv}/.ready-run", f"VENV={venv}", f"RUNS={folder}/runs"]
    command += [f"SWEEP={folder}/table.tsv", *GOALS[form]]
    if form == "best":  # servers of its own, each a process to kill
        llama_server(folder, options="--ttft-ms 20 --gap-ms 5 --slots $slots")
        (folder / "space.tsv").write_text(SPACE.format(model=folder / "m.gguf", prompts=folder / "prompts"))
        return [*command, f"SPACE={folder}/space.tsv"]
    return [*command, f"BASE_URL={ground.server.url}", "ENGINE=vllm", "MODEL=fake", "API=openai-completions"]


def measured(ground: Ground) -> dict[str, tuple[int, bytes]]:
    paths = (ground.folder / "runs").glob("*/*/requests.jsonl")
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def sweep(role: str, form: str, chance: random.Random, ground: Ground, tally: Tally) -> None:
    command, served = make(ground, form), form != "best"
    sampling = "yes" if role == "sampler" else "no"
    process = ground.start(command, served, LLMPAR_SAMPLE=sampling)
    tally.kills += kill(chance, role, ground, process, 2.0)
    tally.left += note(tally, "alive", settled(ground, process))
    before = measured(ground)
    if form == "sweep":
        tally.lost += sum(data.count(b"\n") != COUNT for _, data in before.values())
    asked = len(ground.server.truth())
    done = ground.start(command, served, LLMPAR_SAMPLE="no")
    code = done.wait(3 * PATIENCE_S)  # a search may start a server a dozen times
    after = measured(ground)
    tally.again += code != 0
    if code:
        tally.said.append((ground.folder / "said").read_text()[-600:])
    kept = [path for path in before if after.get(path) != before[path]]
    tally.again += note(tally, "measured again", kept)
    if form == "sweep":
        for _, data in after.values():
            found = [json.loads(line) for line in data.splitlines()]
            tally.doubled += len(found) != COUNT or len({record["prompt"] for record in found}) != COUNT
        tally.again += len(after) != CELLS
        new = len(after) - len(before)
        sent = len(ground.server.truth()) - asked
        # A warm-up for each cell, and one request that shows what answers.
        if sent != new * (COUNT + 1) + (1 if new else 0):
            tally.again += 1
            tally.said.append(f"{sent} requests for {new} cells")
    tally.left += note(tally, "alive", settled(ground, done)) + note(tally, "left", left(ground))


SCENES: list[tuple[str, str, Callable[..., None], int]] = [
    *[(role, "pool", load, 8) for role in ("launcher", "pool parent", "pool worker", "parallel")],
    *[(role, "pool, output by parallel", load, 5) for role in ("launcher", "pool parent", "pool worker")],
    *[(role, "queue", load, 7) for role in ("launcher", "pool parent", "pool worker", "parallel")],
    ("cold", "cold", load, 6),
    ("parallel", "cold", load, 4),
    ("request", "threads", load, 8),
    ("request", "asyncio", load, 8),
    ("sampler", "sampled", load, 6),
    ("summarise", "file", summarise, 6),
    ("prompts", "--replace", replace, 8),
    *[(role, "sweep", sweep, 3) for role in ("make", "run-session", "run-cell", "parallel", "launcher", "pool worker")],
    ("sampler", "sweep", sweep, 2),
    *[(role, "find", sweep, 1) for role in ("make", "search", "run-cell")],
    *[(role, "best", sweep, 1) for role in ("make", "search", "run-cell", "serve", "parallel", "pool worker")],
]


Chosen = Callable[[str, str], bool]


def run(kills: int, seed: int, only: Chosen = lambda role, form: True) -> dict[tuple[str, str], Tally]:
    """So many kills over all roles and forms, by their weights. Raises what only a fault of this harness raises."""
    scenes = [scene for scene in SCENES if only(scene[0], scene[1])]
    weight = sum(scene[3] for scene in scenes)
    found: dict[tuple[str, str], Tally] = {}
    for role, form, scene, share in scenes:
        tally = found[role, form] = Tally()
        for number in range(max(1, round(kills * share / weight))):
            for attempt in range(3):  # a load that was over by then is no kill
                had = tally.kills
                with ground() as place:
                    scene(role, form, random.Random(f"{seed} {role} {form} {number} {attempt}"), place, tally)
                if tally.kills > had:
                    break
        line(role, form, tally)
    return found


HEADER = f"{'role':12} {'form':26} kills  lost  doubled left over  again"


def line(role: str, form: str, tally: Tally) -> None:
    numbers = f"{tally.kills:5} {tally.lost:5} {tally.doubled:8} {tally.left:9} {tally.again:6}"
    print(f"{role:12} {form:26} {numbers}", *tally.said[:4], sep="\n    " if tally.said else "", flush=True)
