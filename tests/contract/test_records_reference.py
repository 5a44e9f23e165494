"""docs/records.md has a section for every kind and version, whose first column names exactly the fields that are
written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import orjson
import pytest
from fake import fake_engine
from unit.made import study

from llmpar import records, sweeps

# Kinds whose fields other tests hold against the reference.
ELSEWHERE = {
    "manifest": "proc/test_manifest.py",
    "file": "proc/test_manifest.py",
    "card": "unit/test_calibrate.py",
    "answer": "unit/test_search.py",
    "ended": "proc/test_searches.py",
    "engine": "proc/test_sample_engine.py",
    "gpu": "contract/test_gpu_reference.py",
    "host": "contract/test_gpu_reference.py",
    "server": "contract/test_serve_docs.py",
    "summary": "unit/test_summary_docs.py",
    "verdict": "unit/test_summary_docs.py",
    "prompt": "proc/test_prompts_command.py",
    "prompt_set": "proc/test_prompts_command.py",
}
COMMANDS = {
    "request": "llmpar-request prompt.txt",
    "clock": "llmpar-clock 'env LC_ALL=C'",
    "cell": "llmpar-cells table.tsv",
    "claim": "llmpar-claims --format json study.jsonl",
    "pick": "llmpar-pick --format json --price 2 study.jsonl",
    "prediction": "llmpar-simulate --format json --card 4090 --model vicuna-7b-v1.5 --prompt-tokens 100 table.tsv",
    "plan": "llmpar-plan --format json study.jsonl",
}


def section(root: Path, kind: str) -> str:
    text = (root / "docs" / "records.md").read_text()
    return text.split(f"## {kind}, version {records.VERSIONS[kind][-1]}\n", 1)[1].split("\n## ", 1)[0]


def test_every_kind_has_its_section_and_its_test(root: Path) -> None:
    text = (root / "docs" / "records.md").read_text()
    assert set(re.findall(r"^## ([a-z_]+), version (\d+)$", text, re.M)) == {
        (kind, str(known[-1])) for kind, known in records.VERSIONS.items()
    }
    assert set(COMMANDS) | set(ELSEWHERE) == set(records.VERSIONS) and not set(COMMANDS) & set(ELSEWHERE)
    for kind, name in ELSEWHERE.items():
        assert re.search(rf"\b{kind}", (root / "tests" / name).read_text())


@pytest.mark.parametrize("kind", sorted(COMMANDS))
def test_fields(kind: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompt.txt").write_text("hello")
    (tmp_path / "table.tsv").write_text("engine\tclients\nvllm\t1,2\n")
    (tmp_path / "study.jsonl").write_bytes(b"".join(map(records.encode, study())))
    with fake_engine(engine="vllm", tokens=3) as engine:
        monkeypatch.setenv("LLMPAR_BASE_URL", engine.url)
        done = subprocess.run(["bash", "-c", COMMANDS[kind]], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    named = {
        name
        for row in re.findall(r"^\| (`[^|]*?) \|", section(root, kind), re.M)
        for name in re.findall(r"`([a-z0-9_]+)`", row)
    }
    written = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert written
    for each in written:
        assert each["kind"] == kind and set(each) == named


def test_settings_of_a_cells_load(root: Path) -> None:
    row = next(line for line in section(root, "cell").splitlines() if line.startswith("| `load` |"))
    assert set(re.findall(r"`([a-z_]+)`", row)) - {"load"} == set(sweeps.LOAD)
