"""Many hosts, each in namespaces of its own with an sshd: loads, clocks, losses. Skipped where there can be none."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hosts
import pytest

from llmpar import records

pytestmark = hosts.needed
ROOT = Path(__file__).resolve().parent.parent.parent
FAKE = ROOT / "tests" / "fake_engine.py"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Lab]:
    with hosts.lab(tmp_path_factory.mktemp("hosts") / "lab", "load1", "load2", "gpu1") as made:
        yield made


@pytest.fixture
def engine(lab: hosts.Lab, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A fake engine on gpu1: its address, and the log of what it was asked."""
    truth = tmp_path / "truth.jsonl"
    with serving(lab, truth) as port:
        yield f"http://{lab['gpu1'].address}:{port}", truth


@contextlib.contextmanager
def serving(lab: hosts.Lab, truth: Path, gap_ms: int = 5) -> Iterator[str]:
    command = ["nsenter", "-t", str(lab["gpu1"].pid), "--net", sys.executable, str(FAKE), "--host", "0.0.0.0"]
    command += ["--truth", str(truth), "--tokens", "8", "--gap-ms", str(gap_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    port = process.stdout.readline().strip().rsplit(":", 1)[1]
    yield port
    process.kill()
    process.wait()


def asked(truth: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in truth.read_text().splitlines()] if truth.exists() else []


def prompts(folder: Path, count: int, text: str = "say something") -> list[str]:
    folder.mkdir()
    for number in range(count):
        (folder / f"p{number:03d}.txt").write_text(f"{text} of {number}")
    return [str(path) for path in sorted(folder.iterdir())]


class Sweep:
    """`make` for a table of one cell, its load from two hosts."""

    def __init__(self, lab: hosts.Lab, url: str, folder: Path, count: int, text: str = "x", launcher: str = "queue"):
        prompts(folder / "prompts", count, text)
        table = folder / "t.tsv"
        table.write_text(
            f"engine\tclients\tlauncher\tprompts\tmax_tokens\twarmup\nvllm\t8\t{launcher}\t{folder}/prompts\t8\t0\n"
        )
        venv = Path(sys.executable).parent.parent
        self.lab, self.runs = lab, folder / "runs"
        self.command = lab.words(
            "make", "-C", str(ROOT), "-o", f"{venv}/.ready-run", f"VENV={venv}", f"RUNS={self.runs}", f"SWEEP={table}",
            f"BASE_URL={url}", "ENGINE=vllm", "MODEL=fake", "LOAD_HOSTS=load1,load2",
        )  # fmt: skip
        self.environment = lab.environment({"LLMPAR_SAMPLE": "no"})

    @property
    def cell(self) -> Path:
        (found,) = (path.parent for path in self.runs.glob("*/*/cell.json"))
        return found

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, "table"], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def make(self) -> tuple[int, str]:
        process = self.start()
        out = process.communicate(timeout=90)[0]
        return process.returncode, out

    def wait_until_out(self, truth: Path) -> None:
        hosts.wait_for(lambda: len(asked(truth)) >= 8, "the load does not begin")


def clean(lab: hosts.Lab) -> None:
    """Nothing of a load is left on a host."""
    for name in ("load1", "load2"):
        left = (
            lab[name].run("bash", "-c", "ls -A /root/.cache/llmpar/load 2>/dev/null | grep -v '^lock$' || true").stdout
        )
        assert left == ""


@pytest.mark.parametrize("launcher", ["queue", "parallel"])
def test_a_load_from_two_hosts_is_one_measurement(lab, engine, tmp_path, launcher):
    url, truth = engine
    sweep = Sweep(lab, url, tmp_path, 40, launcher=launcher)
    status, out = sweep.make()
    assert status == 0, out
    found = json.loads((sweep.cell / "summary.json").read_text())
    assert found["n"]["ok"] == found["workload"]["prompts"]["distinct"] == 40
    assert found["client"]["hosts"] == ["load1", "load2"]
    assert found["concurrency"]["asked"] == 8 and found["concurrency"]["peak"] <= 8
    assert [each["host"] for each in found["client"]["clocks"]] == ["load1", "load2"]
    assert {each["readings"] for each in found["client"]["clocks"]} == {2}
    assert found["client"]["crossing"]["wall_s"]["low"] > 0
    assert not {each["code"] for each in found["warnings"]} & {"clocks_unknown", "mixed_clients", "more_clients"}
    assert len(asked(truth)) == 41, "each prompt once, and the first look at the server"
    clean(lab)
    assert not (sweep.cell / "load").exists()


def test_a_killed_sshd_loses_no_record_and_the_cell_does_not_count(lab, tmp_path):
    truth = tmp_path / "truth.jsonl"
    with serving(lab, truth, gap_ms=100) as port:
        sweep = Sweep(lab, f"http://{lab['gpu1'].address}:{port}", tmp_path, 80)
        process = sweep.start()
        sweep.wait_until_out(truth)
        lab["load2"].kill_sshd()
        out = process.communicate(timeout=60)[0]
        assert process.returncode != 0 and "the load on 'load2' ended" in out, out
        assert not (sweep.cell / "requests.jsonl").exists()
        (load,) = (sweep.cell / "load").iterdir()
        there = Path("/root/.cache/llmpar/load", f"{load.name}-1")
        hosts.wait_for(
            lambda: lab["load2"].run("test", "-e", f"{there}/ended", check=False).returncode == 0, "the load goes on"
        )
        kept = lab["load2"].run("cat", f"{there}/requests.jsonl").stdout.splitlines()
        statuses = [json.loads(line)["status"] for line in kept]
        assert len(set(json.loads(line)["prompt"] for line in kept)) == len(kept)
        # What the engine saw of that host's prompts (every second one), finished or broken off, is what that host has.
        mine = {int(json.loads(line)["prompt"][1:4]): json.loads(line)["status"] for line in kept}
        seen = {int(each["prompt"].split()[-1]) for each in asked(truth) if each["prompt"].startswith("x of ")}
        assert {number for number in seen if number % 2} <= set(mine) and not any(number % 2 == 0 for number in mine)
        assert {number for number, status in mine.items() if status == "ok"} <= seen
        assert statuses.count("ok") >= 1
        lab["load2"].sshd()
        status, out = sweep.make()
        assert status == 0, out
        assert (load / "1" / "records").read_text().splitlines() == kept, "what the host still had was not fetched"
        assert len((sweep.cell / "requests.jsonl").read_text().splitlines()) == 80
        clean(lab)


def test_a_cut_link_does_not_hang_and_a_load_that_ended_well_meanwhile_counts(lab, tmp_path):
    truth = tmp_path / "truth.jsonl"
    with serving(lab, truth, gap_ms=50) as port:
        sweep = Sweep(lab, f"http://{lab['gpu1'].address}:{port}", tmp_path, 80)
        process = sweep.start()
        sweep.wait_until_out(truth)
        ctl = ("ip", "route")
        lab["load2"].run(*ctl, "add", "blackhole", "10.28.0.1/32")  # the engine stays in reach
        began = time.monotonic()
        out = process.communicate(timeout=80)[0]
        assert process.returncode not in (0, 124) and time.monotonic() - began < 60, out
        assert not (sweep.cell / "requests.jsonl").exists()
        lab["load2"].run(*ctl, "del", "blackhole", "10.28.0.1/32")
        before = len(asked(truth))
        status, out = sweep.make()
        assert status == 0 and "all 80 records are here now" in out, out
        assert len(asked(truth)) == before + 1, "it was sent anew"
        found = json.loads((sweep.cell / "summary.json").read_text())
        assert found["n"]["ok"] == 80 and found["client"]["hosts"] == ["load1", "load2"]
        clean(lab)


def test_a_load_that_hosts_cannot_share_is_refused(lab, engine, tmp_path):
    url, _ = engine
    sweep = Sweep(lab, url, tmp_path, 4, launcher="asyncio")
    status, out = sweep.make()
    assert status != 0 and "with LOAD_HOSTS there are parallel and queue" in out
    done = lab.run(str(ROOT / "scripts/load-hosts"), "load1,load2,gpu1", str(tmp_path), "8", "queue", "x")
    assert done.returncode == 2 and "8 clients do not divide among 3 hosts" in done.stderr
    loopback = {"LLMPAR_BASE_URL": "http://127.0.0.1:8000"}
    done = lab.run(str(ROOT / "scripts/load-hosts"), "load1,load2", str(tmp_path), "8", "queue", "x", env=loopback)
    assert done.returncode == 2 and "other hosts cannot reach http://127.0.0.1:8000" in done.stderr


def test_a_queue_over_hosts_sends_nothing(lab, engine, tmp_path):
    url, truth = engine
    (tmp_path / "list").write_text("".join(f"{name}\n" for name in prompts(tmp_path / "prompts", 8)))
    request = shlex.join([str(ROOT / "bin/llmpar-request"), "--base-url", url, "--queue", str(tmp_path / "list")])
    done = lab.run("parallel", "-S", "load1,load2", "-j4", "-N0", "--halt", "soon,fail=1", request, ":::", *"12345678")
    assert done.returncode == 2 and "every host would ask every prompt" in done.stderr
    assert "parallel -S 1/HOST,1/HOST" in done.stderr and not asked(truth)


def test_equal_numbers_of_two_parallels_are_no_second_attempts(lab, engine, tmp_path):
    url, _ = engine
    names = prompts(tmp_path / "prompts", 6)
    request = shlex.join([str(ROOT / "bin/llmpar-request"), "--base-url", url])
    for _ in range(2):
        done = lab.run(
            "unshare", "--fork", "--pid", "--mount-proc", "parallel", "-S", "load1", "-j2", request, ":::", *names
        )
        made = [records.decode(line.encode()) for line in done.stdout.splitlines()]
        assert [each["attempt"] for each in made] == [1] * 6 and {each["host"] for each in made} == {"load1"}


def test_a_second_queue_from_equal_numbers_sends_all_of_it(lab, engine, tmp_path):
    url, truth = engine
    (tmp_path / "list").write_text("".join(f"{name}\n" for name in prompts(tmp_path / "prompts", 6)))
    request = shlex.join([str(ROOT / "bin/llmpar-request"), "--base-url", url, "--queue", str(tmp_path / "list")])
    for round_ in (1, 2):
        done = lab.run(
            "unshare", "--fork", "--pid", "--mount-proc", "parallel", "-S", "1/load1", "--env", "PATH", "-N0",
            f"parallel -j2 -N0 {request} ::: 1 2", ":::", "1",
        )  # fmt: skip
        made = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["status"] for each in made] == ["ok"] * 6, done.stderr
        assert len({each["prompt"] for each in made}) == 6 and len(asked(truth)) == 6 * round_


@pytest.mark.skipif(not FAKETIME.exists(), reason="no libfaketime: apt-get install faketime")
@pytest.mark.parametrize("offset", [0.05, 0.25, -3])
def test_a_clock_that_is_off_is_found_within_its_bound(lab, offset):
    far = f"{lab.ssh} load2 env LD_PRELOAD={FAKETIME} FAKETIME={offset:+g}"
    done = lab.run(str(ROOT / "bin/llmpar-clock"), far, f"{lab.ssh} load1", f"{lab.ssh} nowhere.invalid")
    assert done.returncode == 4 and "the clock of" in done.stderr
    off, right = (json.loads(line) for line in done.stdout.splitlines())
    assert (off["host"], right["host"]) == ("load2", "load1")
    assert abs(off["offset_s"] - offset) <= off["error_s"] + 1e-4 and off["error_s"] < 0.02
    assert abs(right["offset_s"]) <= right["error_s"] < 0.02


def test_a_command_over_ssh_ends_with_its_connection(lab, tmp_path):
    mark = tmp_path / "pids"
    script = f"{ROOT}/scripts/while-connected bash -c 'echo $$ >> {mark}; sleep 987 & wait'"
    process = subprocess.Popen(
        lab.words("bash", "-c", f"tail -f /dev/null --pid=$$ | $LLMPAR_SSH load1 {shlex.quote(script)}"),
        env=lab.environment(), start_new_session=True,
    )  # fmt: skip
    hosts.wait_for(lambda: mark.exists() and lab["load1"].processes("sleep"), "the command does not start")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    hosts.wait_for(lambda: not lab["load1"].processes("sleep"), "it outlives its connection")
