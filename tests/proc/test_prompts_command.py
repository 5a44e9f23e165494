"""llmpar-prompts as a process: what lands on the disk, what is refused, what stays as it was."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from fake import fake_engine


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["llmpar-prompts", *arguments], input=stdin, capture_output=True, text=True, timeout=60)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes_and_a_check_that_can_fail(tmp_path: Path) -> None:
    first = run("-n", "12", "--tokens", "40", "--deviation", "9", "--seed", "3", "a")
    second = run("-n", "12", "--tokens", "40", "--deviation", "9", "--seed", "3", "deep/b")
    assert first.returncode == second.returncode == 0
    assert contents(Path("a")) == contents(Path("deep/b")) and len(contents(Path("a"))) == 13
    told = json.loads(first.stdout)
    assert (
        told["kind"] == "prompt_set" and told["count"] == 12 and told["sha256"] == json.loads(second.stdout)["sha256"]
    )
    assert run("--check", "a").returncode == 0
    victim = sorted(Path("a").glob("*.txt"))[4]
    victim.write_text("changed")
    failed = run("--check", "a")
    assert failed.returncode == 5 and failed.stdout == "" and f"'{victim.name}' was changed" in failed.stderr


def test_again_it_leaves_the_set_alone_and_replaces_another_only_when_told(tmp_path: Path) -> None:
    run("-n", "3", "a")
    before = {path.name: path.stat().st_mtime_ns for path in Path("a").iterdir()}
    again = run("-n", "3", "a")
    assert again.returncode == 0 and "unchanged" in again.stderr
    assert before == {path.name: path.stat().st_mtime_ns for path in Path("a").iterdir()}
    other = run("-n", "2", "a")
    assert other.returncode == 2 and "--replace" in other.stderr and len(list(Path("a").glob("*.txt"))) == 3
    assert run("-n", "2", "--replace", "a").returncode == 0 and len(list(Path("a").glob("*.txt"))) == 2
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    refused = run("-n", "2", "--replace", "mine")
    assert refused.returncode == 2 and Path("mine/letter.txt").read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["a", "mine"]


def test_files_of_ones_own_are_indexed(tmp_path: Path) -> None:
    Path("mine").mkdir()
    Path("mine/with space.txt").write_text("Why?\n")
    Path("mine/b.txt").write_text("two words")
    done = run("--index", "mine")
    assert done.returncode == 0 and json.loads(done.stdout)["tokens"] == 2 + 2
    assert run("--check", "mine").returncode == 0
    Path("mine/b.txt").write_bytes(b"\xff")
    assert run("--index", "mine").returncode == 3


def test_conversions_from_files_and_standard_input(tmp_path: Path) -> None:
    Path("chats.json").write_text(
        json.dumps(
            [{"id": str(n), "conversations": [{"from": "human", "value": f"Question {n} of some"}]} for n in range(6)]
        )
    )
    assert run("--from", "chats.json", "-n", "4", "--seed", "2", "s").returncode == 0
    assert [path.name for path in sorted(Path("s").glob("*.txt"))] == [f"chats-{n}.txt" for n in range(1, 5)]
    assert run("--from", "-", "--format", "jsonl", "j", stdin='{"prompt":"a"}\n{"prompt":"b"}\n').returncode == 0
    assert {path.name: path.read_text() for path in Path("j").glob("*.txt")} == {
        "prompt-1.txt": "a",
        "prompt-2.txt": "b",
    }
    assert run("--from", "-", "t", stdin="one\n\ntwo").returncode == 0
    assert run("--from", "chats.json", "-n", "9", "x").returncode == 6
    assert run("--from", "chats.json", "--least", "90", "x").returncode == 6
    bad = run("--from", "-", "--format", "jsonl", "x", stdin='{"prompt":"a"}\n{"prompt"')
    assert bad.returncode == 0 and "line 2" in bad.stderr, "one unusable entry costs one entry, and it is said"
    assert [path.read_text() for path in Path("x").glob("*.txt")] == ["a"]
    none = run("--from", "-", "--format", "jsonl", "y", stdin='{"prompt"')
    assert none.returncode == 3 and "line 1" in none.stderr and not Path("y").exists()
    assert run("--from", "nosuch.json", "x").returncode == 2


def test_a_server_counts(tmp_path: Path) -> None:
    with fake_engine() as server:
        assert run("-n", "3", "--tokens", "21", "--base-url", server.url, "a").returncode == 0
    assert all(len(path.read_text().split()) == 21 for path in Path("a").glob("*.txt"))  # the fake counts words
    assert '"token_source":"server"' in Path("a/.manifest.jsonl").read_text()
    gone = run("-n", "3", "--base-url", server.url, "b")
    assert gone.returncode == 4 and not Path("b").exists()


def test_records_have_the_fields_that_the_reference_lists(root: Path, tmp_path: Path) -> None:
    told = json.loads(run("-n", "1", "a").stdout)
    entry = json.loads(Path("a/.manifest.jsonl").read_text())
    reference = (root / "docs/records.md").read_text()
    for record in (told, entry):
        section = reference.split(f"## {record['kind']}, version {record['v']}\n")[1].split("\n## ")[0]
        listed = [
            name
            for line in section.splitlines()
            if line.startswith("| `")
            for name in re.findall(r"`([a-z0-9_]+)`", line.split("|")[1])
        ]
        assert sorted(record) == sorted(listed)
