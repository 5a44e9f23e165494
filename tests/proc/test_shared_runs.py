"""Hosts that share a folder of results, and rows that are for one of them. Their names are told (LLMPAR_HOST)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engines_on_path import llama_server

ROOT = Path(__file__).resolve().parent.parent.parent
# The engine starts on neither host before both have begun: hosts that waited for one another would never end.
MEETING = """
touch '{folder}/begun.'"$LLMPAR_HOST"
for ((tries = 0; tries < 600; tries++)); do
  [ -e '{folder}/begun.a' ] && [ -e '{folder}/begun.b' ] && break
  sleep 0.1
done
[ "$tries" != 600 ] || exit 1
"""


class Shared:
    """A table and a folder of results that hosts `a` and `b` have in common."""

    def __init__(self, folder: Path, rows: str):
        prompts = folder / "prompts"
        prompts.mkdir()
        (prompts / "p.txt").write_text("say something")
        table = folder / "t.tsv"
        table.write_text("engine\tmodel\tclients\tprompts\tmax_tokens\tcount\twarmup\t" + rows)
        venv = Path(sys.executable).parent.parent
        self.run, self.locks = folder / "runs" / "t", folder / "locks"
        self.row = f"llamacpp\t{folder}/m.gguf\t1\t{prompts}\t4\t2\t0\t"
        table.write_text(table.read_text().replace("ROW", self.row))
        self.command = ["make", "-C", str(ROOT), "-o", f"{venv}/.ready-run", f"VENV={venv}", f"SWEEP={table}"]
        self.command += [f"RUNS={folder}/runs"]

    def start(self, host: str, *words: str) -> subprocess.Popen[str]:
        environment = os.environ | {"LLMPAR_SAMPLE": "no", "LLMPAR_HOST": host}
        environment["LLMPAR_LOCKS"] = f"{self.locks}/{host}"
        return subprocess.Popen(
            [*self.command, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def summary(self, cell: str) -> dict[str, Any]:
        return json.loads((self.run / cell / "summary.json").read_text())


def test_hosts_measure_into_one_folder_at_the_same_time(tmp_path: Path) -> None:
    llama_server(tmp_path, "--tokens 4", before=MEETING.format(folder=tmp_path))
    shared = Shared(tmp_path, "max_sequences\nROW1\nROW2\n")
    assert subprocess.run([*shared.command, f"{shared.run}/cells.mk"], capture_output=True).returncode == 0
    cells = sorted(path.parent.name for path in shared.run.glob("*/cell.json"))
    assert len(cells) == 2
    started = [shared.start(host, f"{shared.run}/{cell}/summary.json") for host, cell in zip("ab", cells, strict=True)]
    for process in started:
        out = process.communicate(timeout=120)[0]
        assert process.returncode == 0, out
    for host, cell in zip("ab", cells, strict=True):
        found = shared.summary(cell)
        assert found["host"]["host"] == host and found["client"]["hosts"] == [host]
        assert (shared.run / (shared.run / cell / "started").read_text().strip() / "server.json").exists()
    first, second = (shared.summary(cell)["server"] for cell in cells)
    assert first["started_at"] < second["ended_at"] and second["started_at"] < first["ended_at"]


def test_a_row_of_another_host_is_not_measured_here(tmp_path: Path) -> None:
    llama_server(tmp_path, "--tokens 4")
    shared = Shared(tmp_path, "host\nROWa,b.example\n")
    process = shared.start("a", "-k", "table")
    out = process.communicate(timeout=120)[0]
    (mine,) = shared.run.glob("*/summary.json")
    assert process.returncode != 0 and json.loads(mine.read_text())["host"]["host"] == "a"
    (other,) = shared.run.glob("*/not-run")
    assert other.read_text() == "for host b.example\n" and not (other.parent / "requests.jsonl").exists()
    assert f"cell '{other.parent.name}' is for host b.example, and this is a: not run here" in out
    # There, by its short name too, it is measured, and what the first host measured is not measured again.
    kept = (mine.parent / "requests.jsonl").stat().st_mtime_ns
    process = shared.start("b", "table")
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    assert json.loads((other.parent / "summary.json").read_text())["host"]["host"] == "b"
    assert (mine.parent / "requests.jsonl").stat().st_mtime_ns == kept and not other.exists()


@pytest.mark.parametrize(
    "held, wanted, free",
    [
        (None, None, False),
        (None, "0", False),
        ("0", None, False),
        ("0", "0", False),
        ("0", "1", True),
        ("0,1", "1", False),
    ],
)
def test_a_machine_measures_one_thing_on_a_gpu(
    tmp_path: Path, held: str | None, wanted: str | None, free: bool
) -> None:
    """Jobs that a scheduler gave different GPUs run side by side; whoever was given none needs the whole machine."""

    def script(gpus: str | None, words: str) -> list[str]:
        told = "unset CUDA_VISIBLE_DEVICES" if gpus is None else f"export CUDA_VISIBLE_DEVICES={gpus}"
        return ["bash", "-c", f"{told}; . {ROOT}/scripts/machine-lock; {words}"]

    holder = subprocess.Popen(
        script(held, "lock_machine && echo held && read -r"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout and holder.stdin and holder.stdout.readline() == "held\n"
    try:
        assert (subprocess.run(script(wanted, "lock_machine -n")).returncode == 0) is free
    finally:
        holder.stdin.close()
        holder.wait()
    assert subprocess.run(script(wanted, "lock_machine -n")).returncode == 0
