"""Facts of the machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import fake_nvml
import pytest

from llmpar import records
from llmpar.machine import host


def test_the_record_is_one() -> None:
    made = host.record()
    assert records.decode(records.encode(made)) == made
    assert made["cpus_usable"] >= 1 and made["memory_bytes"] > 1 << 20
    assert made["software"]["packages"]["orjson"] and made["software"]["tools"]["bash"]
    assert made["gpus"] or made["gpus_reason"]


def test_gpus_of_the_record() -> None:
    fake_nvml.install(fake_nvml.Library([fake_nvml.Gpu(name="Fake")]))
    try:
        made = host.gpus()
    finally:
        fake_nvml.uninstall()
    assert (made["driver"], made["gpus_reason"], made["gpus"][0]["name"]) == ("580.1", None, "Fake")


def limits(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text + "\n")


def test_the_tightest_limit_of_the_cgroup_and_its_parents_counts(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/a/b\n")
    limits(root / "a", cpu_max="400000 100000", memory_max="1000")
    limits(root / "a" / "b", cpu_max="max 100000", memory_max="4000")
    assert host.cgroup(str(root), str(own)) == {"cpus": 4.0, "memory_bytes": 1000}


def test_no_limits_and_old_limits(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("12:cpu:/x\n")
    limits(root / "cpu")
    assert host.cgroup(str(root), str(own)) == {"cpus": None, "memory_bytes": None}
    (root / "cpu" / "cpu.cfs_quota_us").write_text("150000")
    (root / "cpu" / "cpu.cfs_period_us").write_text("100000")
    limits(root / "memory")
    (root / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert host.cgroup(str(root), str(own)) == {"cpus": 1.5, "memory_bytes": None}


@pytest.mark.parametrize(
    "printed, version", [("GNU parallel 20240222", "20240222"), ("parallel [OPTIONS] from moreutils 0.67", None)]
)
def test_only_gnu_parallel_is_parallel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, version: str | None
) -> None:
    tool = tmp_path / "parallel"
    tool.write_text(f"#!/bin/sh\necho '{printed}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert host.tool_version("parallel") == version


def test_the_commit_is_that_of_the_checkout_alone(tmp_path: Path) -> None:
    inner = tmp_path / "checkout"
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(inner)]
    inner.mkdir()
    (inner / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "m"]):
        subprocess.run([*git, *command], check=True)
    clean = host.checkout(inner)
    assert len(clean["commit"]) == 40 and clean["changed"] is False
    (inner / "file").write_text("2")
    assert host.checkout(inner) == {"commit": clean["commit"], "changed": True}
    (inner / "installed").mkdir()
    assert host.checkout(inner / "installed") == {"commit": None, "changed": None}  # somebody else's checkout around it
    assert host.checkout(tmp_path)["commit"] is None


def test_a_copy_without_git_can_be_told_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPAR_COMMIT", "0123abcd")
    assert host.checkout(tmp_path) == {"commit": "0123abcd", "changed": None}
    monkeypatch.setenv("LLMPAR_COMMIT", "$(rm)")
    assert host.checkout(tmp_path)["commit"] is None


def test_a_scheduler_gives_some_of_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [fake_nvml.Gpu(name="A6000", uuid="GPU-aaa"), fake_nvml.Gpu(name="4090", uuid="GPU-bbb")]
    fake_nvml.install(fake_nvml.Library(gpus))
    try:
        used = {}
        for told in (None, "1", "GPU-bb", "", "0,1", "NoDevFiles"):
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            if told is not None:
                monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
            used[told] = [gpu["name"] for gpu in host.gpus()["gpus"] if gpu["used"]]
    finally:
        fake_nvml.uninstall()
    both, second = ["A6000", "4090"], ["4090"]
    assert used == {None: both, "1": second, "GPU-bb": second, "": [], "0,1": both, "NoDevFiles": []}


def test_the_name_of_a_pod_gives_way_to_that_of_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPAR_HOST", "node-1")
    assert host.record()["host"] == "node-1"
