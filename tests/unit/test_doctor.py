"""What is found lacking, and the command that fixs it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llmpar.client import stamps
from llmpar.machine import checkup, host


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return host.record()


def found(facts: dict[str, Any], name: str) -> checkup.Finding:
    return next(finding for finding in checkup.findings(facts) if finding.check == name)


def test_what_lacks_has_a_command(facts: dict[str, Any]) -> None:
    bare = facts | {
        "software": {"python": "3.11.2", "packages": {}, "tools": {}},
        "gpus": [],
        "gpus_reason": "no driver",
    }
    states = {finding.check: finding for finding in checkup.findings(bare)}
    assert states["parallel"].state == checkup.MISSING and "install parallel" in str(states["parallel"].fix)
    for name in ("nginx", "docker", "curl", "gpu", "xllamacpp"):
        assert states[name].state == checkup.NOTE and states[name].fix
    assert all(finding.fix for finding in states.values() if finding.state == checkup.MISSING)
    assert all(finding.needed_for for finding in states.values())


@pytest.mark.parametrize(
    "change, name",
    [
        ({"load_1min": 1000.0}, "cpu"),
        ({"cpu_governor": "powersave"}, "cpu governor"),
        ({"clock_source": "hpet"}, "clock source"),
    ],
)
def test_what_makes_figures_less_sure_is_a_note(facts: dict[str, Any], change: dict[str, Any], name: str) -> None:
    quiet = facts | {"load_1min": 0.0, "cpu_governor": None, "clock_source": "tsc"}
    assert found(quiet, name).state == checkup.OK
    assert found(quiet | change, name).state == checkup.NOTE


@pytest.mark.parametrize("answer, state", [("exit 1", checkup.NOTE), ("echo 28.0", checkup.OK)])
def test_docker_without_its_daemon(
    facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, state: str
) -> None:
    tool = tmp_path / "docker"
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    client = facts | {"software": facts["software"] | {"tools": facts["software"]["tools"] | {"docker": "28.0"}}}
    assert found(client, "docker").state == state


def test_a_cgroup_quota_counts_as_cpus(facts: dict[str, Any]) -> None:
    loaded = facts | {"cpus_usable": 64, "load_1min": 2.0, "cgroup": {"cpus": None, "memory_bytes": None}}
    assert found(loaded, "cpu").state == checkup.OK
    assert found(loaded | {"cgroup": {"cpus": 2.0, "memory_bytes": None}}, "cpu").state == checkup.NOTE


def test_few_open_files(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 524288))
    finding = found(facts, "open files")
    assert (finding.state, finding.fix) == (checkup.NOTE, "ulimit -n 65536")


def test_a_runtime_directory_of_somebody_else(facts: dict[str, Any], tmp_path: Path) -> None:
    mine = Path(os.environ["XDG_RUNTIME_DIR"]) / "llmpar"
    assert found(facts, "runtime directory").found == str(mine)
    mine.chmod(0o755)
    assert found(facts, "runtime directory").state == checkup.MISSING


def test_kernel_stamps_are_looked_at_for_real(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(facts, "kernel time stamps").found.endswith("on loopback")
    monkeypatch.setattr(stamps, "SO_TIMESTAMPNS", None)
    assert found(facts, "kernel time stamps").found == "not offered"


def test_gpu_with_and_without_counters(facts: dict[str, Any]) -> None:
    gpu = facts | {"gpus": [{"name": "Fake", "gpm": False}], "driver": "1", "cuda": "2", "gpus_reason": None}
    names = [finding.check for finding in checkup.gpu(gpu)]
    assert names == ["gpu", "gpu counters"]
    assert [finding.check for finding in checkup.gpu(gpu | {"gpus": [{"name": "Fake", "gpm": True}]})] == ["gpu"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["llmpar-doctor", *arguments], capture_output=True, text=True, timeout=60, env=os.environ | environment
    )


def test_the_command() -> None:
    done = run("--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"check", "state", "found", "needed_for", "fix"} == set(rows[0])
    assert done.returncode == (4 if any(row["state"] == "missing" for row in rows) else 0)
    made = json.loads(run("--host").stdout)
    assert list(made)[:2] == ["kind", "v"] and made["kind"] == "host"
    assert run("--host", "--json").returncode == 2


def test_something_missing_is_exit_status_4(tmp_path: Path) -> None:
    runtime = tmp_path / "open"
    runtime.mkdir()
    (runtime / "llmpar").mkdir(mode=0o755)
    (runtime / "llmpar").chmod(0o755)
    done = run("-q", XDG_RUNTIME_DIR=str(runtime))
    assert done.returncode == 4
    assert "MISSING runtime directory" in done.stdout and "mktemp -d" in done.stdout
