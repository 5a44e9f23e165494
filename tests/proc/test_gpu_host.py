"""scripts/gpu-host with fake engines: every GPU its own sessions, kept results, and what comes home."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from engines_on_path import llama_server

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def host(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A GPU host with two GPUs and one table; gives a function that runs a script there."""
    if not (root / ".venv" / ".ready-run").exists():
        pytest.skip("the scripts would make .venv look ready")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    llama_server(tmp_path, "--tokens 4 --gap-ms 2", before=f"echo \"gpu '$CUDA_VISIBLE_DEVICES'\" >> '{tmp_path}/gpus'")
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    for number in range(4):
        (prompts / f"{number}.txt").write_text(f"Prompt {number}: say something.")
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "clients.tsv").write_text(
        "engine\tmodel\tmax_sequences\tclients\tprompts\tmax_tokens\tcount\twarmup\n"
        f"llamacpp\t{tmp_path}/m.gguf\t2\t1,2\t{prompts}\t4\t4\t1\n"
    )
    (tables / "both.tsv").write_text((tables / "clients.tsv").read_text())
    (tmp_path / "sessions.tsv").write_text(
        "session\tseconds\tgpu\tcells\none\t5\t0\tclients:*-r1\ntwo\t5\t1\tclients:*-r2\n"
        "late\t5\tall\tboth:c002-r1\nnamed\t5\t-\tclients:c001-r3\n"
    )
    environment = os.environ | {
        "LLMPAR_GPU_HOST": f"{tmp_path}/host",
        "LLMPAR_GPU_TABLES": str(tables),
        "LLMPAR_GPU_SESSIONS": f"{tmp_path}/sessions.tsv",
        "LLMPAR_RUNS": f"{tmp_path}/runs",
        "LLMPAR_GPU_COUNT": "2",
        "LLMPAR_PYTHON": sys.executable,
        "LLMPAR_SAMPLE": "no",
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [f"scripts/gpu-host/{script}", *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_each_gpu_has_its_own_sessions_and_what_was_measured_is_kept(host: Run, tmp_path: Path) -> None:
    done = host("side-by-side", "--seconds", "110", "--last", "50")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    runs = tmp_path / "runs"
    found = sorted(str(path.parent.relative_to(runs)) for path in runs.glob("gpu-*/*/*/summary.json"))
    assert found == [
        "gpu-0/clients/c001-r1",
        "gpu-0/clients/c002-r1",
        "gpu-1/clients/c001-r2",
        "gpu-1/clients/c002-r2",
        "gpu-all/both/c002-r1",
    ]
    for path in found:
        summary = json.loads((runs / path / "summary.json").read_text())
        assert (summary["n"]["ok"], summary["server"]["engine"]) == (4, "llamacpp")
    assert sorted((tmp_path / "gpus").read_text().splitlines()) == ["gpu ''", "gpu '0'", "gpu '1'"], (
        "one server start a session"
    )

    again = host("side-by-side", "--seconds", "110", "--last", "50")
    assert again.returncode == 0 and again.stdout.count("measured already") == 3
    assert len((tmp_path / "gpus").read_text().splitlines()) == 3

    brought = tmp_path / "home"
    assert host("collect", str(brought)).returncode == 0
    with tarfile.open(brought / "results.tar.xz.0") as packed:
        assert {f"./{path}/summary.json" for path in found} <= set(packed.getnames())
    with tarfile.open(brought / "records.tar.xz.0") as packed:
        assert sum(name.endswith("requests.jsonl") for name in packed.getnames()) == 5


def test_what_does_not_fit_into_the_time_is_not_begun(host: Run, tmp_path: Path) -> None:
    done = host("side-by-side", "--seconds", "44", "--last", "0")
    assert done.stdout.count("not begun") >= 2, done.stdout
    assert not list(tmp_path.glob("runs/*/*/*/requests.jsonl"))


def test_an_engine_that_does_not_start_is_told_of_when_it_is_unpacked(host: Run, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "vllm-1.0.dist-info").mkdir(parents=True)
    (site / "vllm-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nvllm = thing:main\n")
    (site / "thing.py").write_text("def main():\n    print('1.0')\n")
    carried = tmp_path / "carried" / "vllm"

    def pack() -> None:
        carried.mkdir(parents=True, exist_ok=True)
        with tarfile.open(carried / "part.aa", "w:xz") as packed:
            packed.add(site, ".")
        digest = hashlib.sha256((carried / "part.aa").read_bytes()).hexdigest()
        (carried / "SHA256SUMS").write_text(f"{digest}  part.aa\n")

    (carried / "..").resolve().mkdir(parents=True)
    pack()
    (carried / "SHA256SUMS").write_text((carried / "SHA256SUMS").read_text() + f"{'0' * 64}  part.ab\n")
    assert "vllm: 1 of 2 parts are here" in host("prepare", str(carried.parent)).stderr
    pack()
    assert "vllm is unpacked: 1.0" in host("prepare", str(carried.parent)).stderr
    (site / "thing.py").write_text("import what_is_not_there\n")
    pack()
    for path in sorted((tmp_path / "host").glob("site-vllm*/**/*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "host" / "site-vllm").rmdir()
    said = host("prepare", str(carried.parent)).stderr
    assert "vllm is unpacked, but does not start: ModuleNotFoundError: No module named 'what_is_not_there'" in said
