"""llmpar-sample-gpu as a process, over the fake library."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llmpar.sampling import engine_pids

GIB = 1 << 30


@pytest.fixture
def scenario(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(*gpus: dict[str, Any]) -> None:
        monkeypatch.setenv("FAKE_NVML", json.dumps({"gpus": list(gpus)}))
        monkeypatch.setenv("PYTHONPATH", str(root / "tests" / "fake_nvml" / "site"))

    return put


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["llmpar-sample-gpu", *arguments], capture_output=True, text=True, timeout=60, **more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def no_gpu(scenario: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario()
    monkeypatch.setenv("FAKE_NVML", json.dumps({"gpus": [], "init_code": 12}))  # library not found


def test_without_a_gpu_it_says_so(no_gpu: None) -> None:
    done = run("--duration", "1")
    assert done.returncode == 4 and done.stdout == ""
    assert "no GPU to sample" in done.stderr and "llmpar-doctor" in done.stderr


def test_without_a_gpu_the_command_runs_all_the_same(no_gpu: None, tmp_path: Path) -> None:
    done = run("--output", "gpu.jsonl", "--", "sh", "-c", "echo out; exit 3")
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert "running the command without" in done.stderr
    assert not (tmp_path / "gpu.jsonl").exists()


def test_beside_a_command(scenario: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario({"processes": [[os.getpid(), 5 * GIB]]}, {"uuid": "GPU-1"})
    monkeypatch.setenv("LLMPAR_SERVER_PIDS", str(os.getpid()))
    (tmp_path / "gpu.jsonl").write_text('{"kind":"gpu","v":1,"at":1}\n{"kind":"torn')
    # The command ends once three ticks are written, however slow this machine is.
    done = run(
        "--hz",
        "20",
        "--output",
        "gpu.jsonl",
        "--",
        "sh",
        "-c",
        "until [ $(wc -l < gpu.jsonl) -gt 7 ]; do sleep 0.05; done; echo done; exit 5",
    )
    assert (done.returncode, done.stdout) == (5, "done\n"), done.stderr
    first, *made = (tmp_path / "gpu.jsonl").read_text().splitlines()
    assert first == '{"kind":"gpu","v":1,"at":1}' and made.pop(0) == '{"kind":"torn'
    samples = [json.loads(line) for line in made]
    assert [sample["uuid"] for sample in samples[:4]] == ["GPU-00000000-fake", "GPU-1"] * 2
    assert {
        sample["engine_memory_bytes"] for sample in samples if sample["gpu"] == 0 and sample["processes"] is not None
    } == {5 * GIB}
    instants = [sample["at"] for sample in samples]
    assert instants == sorted(instants)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_command(scenario: Any, tmp_path: Path, number: signal.Signals) -> None:
    scenario({})
    script = (
        f"trap 'echo caught > caught; exit 9' {number.name.removeprefix('SIG')}; : > ready; while :; do sleep "
        "0.05; done"
    )
    child = subprocess.Popen(
        ["llmpar-sample-gpu", "--output", "gpu.jsonl", "--", "sh", "-c", script], stderr=subprocess.PIPE
    )
    while not (tmp_path / "ready").exists() and child.poll() is None:
        pass
    child.send_signal(number)
    assert child.wait(30) == 9
    assert (tmp_path / "caught").read_text() == "caught\n"
    assert lines(tmp_path / "gpu.jsonl")[0]["kind"] == "gpu"


def test_a_command_that_a_signal_ended(scenario: Any) -> None:
    scenario({})
    assert run("--output", "gpu.jsonl", "--", "sh", "-c", "kill -KILL $$").returncode == 128 + 9


def test_a_command_that_is_not_there(scenario: Any) -> None:
    scenario({})
    done = run("--output", "gpu.jsonl", "--", "no-such-command")
    assert done.returncode == 127 and "cannot run 'no-such-command'" in done.stderr


def test_standard_output_belongs_to_the_command(scenario: Any) -> None:
    scenario({})
    done = run("--", "echo", "out")
    assert (done.returncode, done.stdout) == (0, "out\n")
    assert lines(Path("gpu.jsonl"))[0]["kind"] == "gpu"
    assert run("--prometheus", "--output", "x", "--", "true").returncode == 2


def test_spellings_of_earlier_releases_warn_and_work(scenario: Any) -> None:
    scenario({"gpm": None})
    done = run("--hz", "50", "--seconds=0.3")
    assert done.returncode == 0 and len(done.stdout.splitlines()) >= 2
    assert done.stderr.splitlines() == [
        "llmpar-sample-gpu: --hz is now --interval; the old spelling will go in a later release",
        "llmpar-sample-gpu: --seconds is now --duration; the old spelling will go in a later release",
    ]


def test_alone_it_writes_records_and_stops(scenario: Any) -> None:
    scenario({"gpm": None})
    done = run("--interval", "0.02", "--duration", "0.3")
    assert done.returncode == 0
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(samples) >= 1 and samples[0]["power_w"] == 400 and "gpm" in samples[0]["unsupported"]


def test_prometheus_text(scenario: Any) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    scenario({}, {"uuid": "GPU-1", "power_w": 50})
    done = run("--prometheus")
    found = {
        (sample.name, sample.labels["gpu"]): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }
    assert found["llmpar_gpu_power_w", "0"] == 400 and found["llmpar_gpu_power_w", "1"] == 50
    assert found["llmpar_gpu_up", "0"] == 1 and found["llmpar_gpu_tensor_ratio", "0"] == pytest.approx(0.34)


def test_table(scenario: Any) -> None:
    scenario({"migs": [{"uuid": "MIG-1", "gpu_instance": 1}]})
    header, row, *_ = run("--table", "--interval", "0.2", "--duration", "0.5").stdout.splitlines()
    assert header.split()[:4] == ["gpu", "util%", "SM%", "occ%"]
    assert row.split()[:2] == ["0.0", "-"] and "power_cap" in row


def test_a_reader_that_leaves_is_no_fault(scenario: Any) -> None:
    scenario({})
    done = subprocess.run(
        ["bash", "-c", "set -o pipefail; llmpar-sample-gpu --interval 0.02 | head -n 1"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["kind"] == "gpu"


def test_descendants_belong_to_the_engine() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 30 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout
        grandchild = int(child.stdout.readline())
        family = engine_pids.Family([child.pid])
        assert family.owns(child.pid) and family.owns(grandchild)
        assert family.owns(os.getpid()) is False
        assert engine_pids.from_environment(None).owns(grandchild) is None
    finally:
        os.kill(grandchild, signal.SIGTERM)
        child.wait()
