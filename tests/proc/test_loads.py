"""Loads of a cell that are no plain list of prompts: a duration, a trace's times, a shared prefix, conversations."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optional
import pytest
from fake import Fake, fake_engine


@pytest.fixture(scope="module")
def server() -> Iterator[Fake]:
    with fake_engine(engine="vllm", tokens=4, gap_ms=5) as fake:
        yield fake


def measured(root: Path, server: Fake, **load: Any) -> tuple[list[dict[str, Any]], str]:
    """Records of one cell, and what scripts/run-cell said."""
    folder = Path("runs/c1")
    folder.mkdir(parents=True)
    whole = {"clients": 2, "launcher": "threads", "max_tokens": 4, "warmup": 1, "timeout_s": 20.0, "stream": True}
    cell = {"kind": "cell", "v": 1, "id": "c1", "session": "s", "sweep": "t", "server": {"engine": "vllm"}}
    cell["load"] = whole | load
    (folder / "cell.json").write_text(json.dumps(cell))
    done = subprocess.run(
        [str(root / "scripts/run-cell"), "runs", "c1"],
        env=os.environ | {"LLMPAR_BASE_URL": server.url, "LLMPAR_MODEL": "fake", "LLMPAR_SAMPLE": "no"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (folder / "requests.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], done.stderr


def test_prompts_of_a_cell_share_the_prefix_that_was_asked_for(root: Path, server: Fake) -> None:
    made, _ = measured(root, server, prompt_tokens=40, prefix_ratio=0.5, count=6)
    assert [each["status"] for each in made] == ["ok"] * 6 and len({each["prompt_sha256"] for each in made}) == 6
    texts = [path.read_text() for path in sorted(Path("runs/c1/prompts").glob("*.txt"))]
    assert len(texts) == 7, "one more for the warm-up, which would be asked twice otherwise"
    shared = os.path.commonprefix(texts)
    assert 18 <= len(shared.replace(".", " .").split()) <= 21
    warm = [json.loads(line) for line in Path("runs/c1/warmup.jsonl").read_text().splitlines()]
    assert {each["prompt"] for each in warm}.isdisjoint(each["prompt"] for each in made)


def test_an_open_load_at_the_times_of_a_trace(root: Path, server: Fake) -> None:
    optional.need("parallel")
    Path("t.csv").write_text("timestamp,input_tokens,output_tokens\n10,5,2\n10.25,6,3\n10.5,7,1\n")
    subprocess.run(["llmpar-prompts", "--from", "t.csv", "trace"], check=True, capture_output=True)
    made, _ = measured(root, server, launcher="open", process="trace", prompts="trace", warmup=0)
    made.sort(key=lambda each: each["scheduled_at"])
    assert [round(each["scheduled_at"] - made[0]["scheduled_at"], 3) for each in made] == [0.0, 0.25, 0.5]
    assert [each["output_tokens"] for each in made] == [2, 3, 1]


def test_a_load_that_ends_after_its_time(root: Path, server: Fake) -> None:
    made, said = measured(root, server, prompt_tokens=5, count=3, duration_s=600.0)
    assert len(made) == 3 and "ran out of its 3 prompts before 600" in said


@pytest.mark.parametrize("launcher", ["parallel", "queue"])
def test_fewer_requests_than_prompts_are_a_whole_load_of_a_duration(
    launcher: str, root: Path, server: Fake, tmp_path: Path
) -> None:
    optional.need("parallel")
    (tmp_path / "p").mkdir()
    (tmp_path / "p/one.txt").write_text("fake: gap_ms=200 tokens=4")
    made, _ = measured(root, server, launcher=launcher, prompts="p", count=5000, duration_s=1.0, warmup=0)
    assert 0 < len(made) < 5000 and {each["status"] for each in made} == {"ok"}


def test_conversations_count_once_each(root: Path, server: Fake, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.prompt.json").write_text('{"turns": ["one", "two"]}')
    made, _ = measured(root, server, prompts="p", count=3, api="openai-chat", warmup=0)
    assert sorted(each["turn"] for each in made) == [1, 1, 1, 2, 2, 2]
