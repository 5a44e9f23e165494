"""`make sweep HOSTS=`: engines on hosts of their own, their results here. Skipped where there can be no hosts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hosts
import psutil
import pytest
from engines_on_path import llama_server

pytestmark = hosts.needed
ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("gpu1", "gpu2")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Lab]:
    with hosts.lab(tmp_path_factory.mktemp("hosts") / "lab", *NAMES) as made:
        yield made


def engines(host: hosts.Host) -> list[psutil.Process]:
    mine, found = os.readlink(f"/proc/{host.pid}/ns/pid"), []
    for process in psutil.process_iter():
        try:
            if os.readlink(f"/proc/{process.pid}/ns/pid") == mine and any(
                "fake_engine" in w for w in process.cmdline()
            ):
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def test_a_host_with_another_llmpar_measures_nothing(tmp_path: Path) -> None:
    for name in ("sweep-there", "fingerprint", "while-connected"):
        (tmp_path / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    made = subprocess.run(["bash", tmp_path / "fingerprint", ROOT / "Makefile"], capture_output=True, text=True)
    assert len(made.stdout.strip()) == 16, made.stderr

    def sweep(fingerprint: str) -> subprocess.CompletedProcess[str]:
        settings = f"name=t makefile={ROOT}/Makefile fingerprint={fingerprint} settings=(VENV=/nowhere)\n"
        (tmp_path / "settings").write_text(settings + "MAKE=true have=\n: > have\nmkdir -p runs/t\n")
        return subprocess.run(["bash", tmp_path / "sweep-there"], capture_output=True, text=True, errors="replace")

    done = sweep("0123456789abcdef")
    assert (done.returncode, done.stdout) == (127, "") and "bring both hosts to the same version" in done.stderr
    done = sweep(made.stdout.strip())
    assert "bring both hosts" not in done.stderr and "ended" in done.stdout, done.stderr


def test_a_sweep_on_two_hosts(lab: hosts.Lab, tmp_path: Path) -> None:
    # While `slow` is there an answer takes a minute.
    llama_server(
        tmp_path,
        "--tokens 4 $pace",
        before=f"[ ! -e {tmp_path}/slow ] || pace='--gap-ms 60000'; echo >> {tmp_path}/starts",
    )
    (tmp_path / "slow").touch()
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/p.txt").write_text("say something")
    (tmp_path / "prompts/q.prompt.json").write_text('{"prompt": "say something else", "max_tokens": 3}')
    (tmp_path / "t.tsv").write_text(
        "engine\tmodel\tclients\tprompts\tmax_tokens\tcount\twarmup\thost\n"
        f"llamacpp\t{tmp_path}/m.gguf\t1\tprompts\t4\t2\t0\t\nllamacpp\t{tmp_path}/m.gguf\t2\tprompts\t4\t2\t0\tgpu2\n"
    )
    words = lab.words("make", "-f", str(ROOT / "Makefile"), f"VENV={hosts.ready(tmp_path)}", "SWEEP=t.tsv", "RUNS=runs")
    line = [*words, "HOSTS=gpu1,gpu2"]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*line, "sweep"], cwd=tmp_path, env=lab.environment(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    # A killed ssh ends the engine, whose answer would take a minute.
    process = start()
    hosts.wait_for(lambda: all(engines(lab[name]) for name in NAMES), "no engines", 90)
    killed = 0
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name() == "ssh":
                child.kill()
                killed += 1
    out = process.communicate(timeout=60)[0]
    assert killed == 2 and process.returncode != 0 and "the connection to 'gpu1' ended before its sweep did" in out, out
    hosts.wait_for(lambda: not any(engines(lab[name]) for name in NAMES), "an engine outlives its connection", 60)
    assert not list(tmp_path.glob("runs/*/*/requests.jsonl"))

    (tmp_path / "slow").unlink()
    process = start()
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    found = {path: json.loads(path.read_text()) for path in tmp_path.glob("runs/*/*/summary.json")}
    assert sorted((each["host"]["host"], each["cell"]["load"]["clients"]) for each in found.values()) == [
        ("gpu1", 1), ("gpu2", 1), ("gpu2", 2),
    ]  # fmt: skip
    assert all(f"t@{each['host']['host']}" == path.parent.parent.name for path, each in found.items())
    assert all(each["server"]["ended_at"] for each in found.values()) and "gpu1" in out and "gpu2" in out

    # Nothing is missing, so no engine starts; and nobody measures a row of a host that is not named.
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/requests.jsonl")}
    starts = len((tmp_path / "starts").read_text())
    process = start()
    assert process.wait(120) == 0 and len((tmp_path / "starts").read_text()) == starts
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/requests.jsonl")} == kept
    line[-1] = "HOSTS=gpu1"
    process = start()
    out = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and "for host gpu2, which is not one of gpu1" in out
    line[-1:] = ["HOSTS=gpu1", "BASE_URL=http://gpu1:1"]
    process = start()
    assert "leave BASE_URL and LOAD_HOSTS out" in process.communicate(timeout=60)[0] and process.returncode == 2
