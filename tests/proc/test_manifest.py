"""llmpar-manifest and llmpar-verify: what was changed, dropped or edited is named, whoever made the manifest anew."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import optional
import pytest
from fake import fake_engine

BIN = Path(__file__).resolve().parents[2] / "bin"


def run(*command: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells of two server sessions each, measured on a fake engine."""
    runs = tmp_path_factory.mktemp("measured") / "runs"
    prompt = runs.parent / "p.txt"
    prompt.write_text("Say something.")
    with fake_engine(engine="vllm", gap_ms=1, tokens=4) as engine:
        for name, which in (("a", "vllm"), ("b", "tgi")):
            for repeat in (1, 2):
                cell = runs / "two" / f"{name}-r{repeat}"
                cell.mkdir(parents=True)
                server = {"engine": which, "model": "fake"}
                record = {"kind": "cell", "v": 1, "id": cell.name, "sweep": "two", "session": f"{name}-r{repeat}"}
                record |= {"repeat": repeat, "varies": {"engine": which}, "server": server}
                record |= {"load": {"clients": 2, "max_tokens": 4}, "settings_sha256": name * 64}
                (cell / "cell.json").write_text(json.dumps(record) + "\n")
                request = [BIN / "llmpar-request", "--base-url", engine.url, "--engine", "vllm", "--model", "fake"]
                words = [*request, "--max-tokens", "4", "--threads", "2", *([str(prompt)] * 8)]
                done = subprocess.run(words, capture_output=True, text=True, timeout=60)
                assert done.returncode == 0, done.stderr
                (cell / "requests.jsonl").write_text(done.stdout)
                line = [
                    BIN / "llmpar-summarise",
                    "--cell",
                    f"two/{cell.name}/cell.json",
                    f"two/{cell.name}/requests.jsonl",
                ]
                made = subprocess.run(line, cwd=runs, capture_output=True, text=True, timeout=60)
                assert made.returncode == 0, made.stderr
                (cell / "summary.json").write_text(made.stdout)
    return runs


@pytest.fixture
def runs(measured: Path, tmp_path: Path) -> Path:
    shutil.copytree(measured, tmp_path / "runs")
    return tmp_path / "runs"


VERDICTS = "verdicts.jsonl=llmpar-compare --by engine --format json two"


def test_all_is_recomputed_to_the_same_bytes_anywhere(runs: Path, tmp_path: Path) -> None:
    done = run("llmpar-manifest", "--derive", VERDICTS, runs)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (runs / "manifest.jsonl").read_text().splitlines()]
    assert lines[0]["kind"] == "manifest" and {line["kind"] for line in lines[1:]} == {"file"}
    assert lines[0]["prompts"] == {
        "p.txt": json.loads((runs / "two/a-r1/requests.jsonl").open().readline())["prompt_sha256"]
    }
    shutil.move(runs, tmp_path / "elsewhere")
    done = run("llmpar-verify", tmp_path / "elsewhere")
    assert done.returncode == 0 and "verified: 14 files, 6 of them recomputed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("started", [None, "sessions/a-r1/20261126T161119Z-h-1"])
def test_a_cell_is_recomputed_with_all_that_its_sweep_summarised(started: str | None, runs: Path, root: Path) -> None:
    """With the records of the server's start it was measured on, as scripts/summarise-cell reads them."""
    cell = runs / "two" / "a-r1"
    start = runs / "two" / (started or "sessions/a-r1")
    start.mkdir(parents=True)
    server = {"kind": "server", "v": 1, "id": "s", "engine": "vllm", "started_at": 1795709480.949133, "ready_s": 4.2}
    (start / "server.json").write_text(json.dumps(server) + "\n")
    (start / "host.json").write_text(json.dumps({"kind": "host", "v": 1, "host": "h"}) + "\n")
    host = json.loads((cell / "requests.jsonl").open().readline())["host"]
    clock = {"kind": "clock", "v": 1, "at": 1795709480.0, "host": host, "against": "other", "offset_s": 0.25}
    (cell / "clock.jsonl").write_text(json.dumps(clock | {"error_s": 0.001, "via": "ssh"}) + "\n")
    if started:
        (cell / "started").write_text(started + "\n")
    done = run(root / "scripts" / "summarise-cell", runs / "two", "a-r1")
    assert done.returncode == 0, done.stderr
    summary = json.loads((cell / "summary.json").read_text())
    assert summary["session"] == "two/a-r1@1795709480.949133" and summary["host"]["host"] == "h"
    assert summary["client"]["clocks"][0]["against"] == "other"
    assert run("llmpar-manifest", runs).returncode == 0
    done = run("llmpar-verify", runs)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_flipped_byte_a_dropped_record_an_edited_verdict_are_named(runs: Path) -> None:
    assert run("llmpar-manifest", "--derive", VERDICTS, runs).returncode == 0
    whole = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}

    def verified(path: Path, data: bytes) -> str:
        path.write_bytes(data)
        done = run("llmpar-verify", runs)
        path.write_bytes(whole[path])
        assert done.returncode == 5, done.stdout
        return done.stdout

    requests = runs / "two/a-r1/requests.jsonl"
    place = whole[requests].index(b'"e2e_s":0.') + len(b'"e2e_s":0.')
    flipped = bytearray(whole[requests])
    flipped[place] ^= 1
    assert "changed: two/a-r1/requests.jsonl: its bytes differ" in verified(requests, bytes(flipped))
    said = verified(requests, b"".join(whole[requests].splitlines(keepends=True)[:-1]))
    assert "changed: two/a-r1/requests.jsonl: 7 records, 8 in the manifest" in said
    assert "does not follow: two/a-r1/summary.json: n.requests is 8, recomputed 7" in said

    verdicts = runs / "verdicts.jsonl"
    record = json.loads(whole[verdicts].splitlines()[0])
    edited = whole[verdicts].replace(f'"verdict":"{record["verdict"]}"'.encode(), b'"verdict":"faster"', 1)
    assert edited != whole[verdicts]
    said = verified(verdicts, edited)
    assert f'does not follow: verdicts.jsonl: verdict is "faster", recomputed "{record["verdict"]}"' in said


def test_an_edited_summary_is_found_though_its_manifest_was_made_anew(runs: Path) -> None:
    summary = runs / "two/b-r2/summary.json"
    record = json.loads(summary.read_text())
    record["wall_s"]["value"] /= 2
    summary.write_text(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n")
    assert run("llmpar-manifest", runs).returncode == 0
    done = run("llmpar-verify", runs)
    assert done.returncode == 5 and "does not follow: two/b-r2/summary.json: wall_s.value is" in done.stdout


def test_a_signature_is_of_this_manifest_and_of_a_known_key(runs: Path, tmp_path: Path) -> None:
    optional.need("ssh-keygen")
    for name in ("mine", "other"):
        assert run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name).returncode == 0
    signers = tmp_path / "signers"
    signers.write_text("me@example.org " + (tmp_path / "mine.pub").read_text())
    assert run("llmpar-manifest", "--sign", tmp_path / "mine", runs).returncode == 0
    for words in ((), ("--signers", signers)):
        done = run("llmpar-verify", *words, "--no-recompute", runs)
        assert done.returncode == 0 and "Good" in done.stderr, done.stdout + done.stderr
    manifest = runs / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes().replace(b'"llmpar":"', b'"llmpar":"9', 1))
    done = run("llmpar-verify", "--signers", signers, "--no-recompute", runs)
    assert done.returncode == 5 and "is not one of manifest.jsonl as it is now" in done.stdout
    assert run("llmpar-manifest", "--sign", tmp_path / "other", runs).returncode == 0
    done = run("llmpar-verify", "--signers", signers, "--no-recompute", runs)
    assert done.returncode == 5 and "is none of" in done.stdout
    (runs / "manifest.jsonl.sig").unlink()
    assert "not signed" in run("llmpar-verify", "--signers", signers, "--no-recompute", runs).stdout


@pytest.mark.parametrize("command", [["rm", "-rf", "two"], ["llmpar-table", "/etc/passwd"], ["llmpar-table", "../x"]])
def test_a_manifest_runs_nothing_but_readers_of_the_folder(command: list[str], runs: Path) -> None:
    assert run("llmpar-manifest", runs).returncode == 0
    path = runs / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    next(line for line in lines if line.get("command"))["command"] = command
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    done = run("llmpar-verify", runs)
    assert done.returncode == 5 and "not recomputed: " in done.stdout and (runs / "two").exists()
