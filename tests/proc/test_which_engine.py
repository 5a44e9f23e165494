"""The main question end to end: engines of three APIs, asked the same by llmpar-request, stand beside each other in all
that judges."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from fake import fake_engine

ENGINES = {"tgi": "tgi", "vllm": "openai-completions", "llamacpp": "llamacpp"}
WISH = ["--max-tokens", "6", "--temperature", "0.1", "--top-k", "100", "--top-p", "0.3"]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def summaries(tmp_path: Path) -> list[str]:
    for number in range(24):
        Path(f"p{number:02d}").write_text(f"prompt {number}")
    made = []
    for engine, api in ENGINES.items():
        for repeat in (1, 2):
            name = f"{engine}-r{repeat}"
            cell = {
                "kind": "cell",
                "v": 1,
                "id": name,
                "sweep": "engines",
                "session": name,
                "repeat": repeat,
                "varies": {"engine": engine},
                "server": {"engine": engine, "model": "m", "version": f"{len(engine)}.0"},
                "load": {"clients": 4, "prompts": "p", "max_tokens": 6},
            }
            Path(f"{name}.cell.json").write_text(json.dumps(cell))
            with fake_engine(engine=engine, tokens=6, gap_ms=40) as server:
                run(
                    "parallel",
                    "-j4",
                    "llmpar-request",
                    "--base-url",
                    server.url,
                    "--engine",
                    engine,
                    "--api",
                    api,
                    "--model",
                    "fake",
                    *WISH,
                    "--output",
                    f"{name}.jsonl",
                    ":::",
                    *sorted(map(str, Path().glob("p??"))),
                )
            run("llmpar-summarise", "--cell", f"{name}.cell.json", f"{name}.jsonl", "-o", f"{name}.summary.json")
            made.append(f"{name}.summary.json")
    return made


def test_engines_of_three_apis_are_judged_as_having_had_the_same_work(summaries: list[str]) -> None:
    compared = [
        json.loads(line)
        for line in run(
            "llmpar-compare",
            "--by",
            "engine",
            "--base",
            "tgi",
            "--allow",
            "client_limited",
            "--format",
            "json",
            *summaries,
        ).splitlines()
    ]
    assert sorted((each["a"]["label"], each["b"]["label"]) for each in compared) == [
        ("llamacpp, version 8.0", "tgi, version 3.0"),
        ("vllm, version 4.0", "tgi, version 3.0"),
    ]
    for each in compared:
        assert (
            each["verdict"] != "not comparable"
            and each["effect"] is not None
            and each["a"]["sessions"] == each["b"]["sessions"] == 2
        )
    text = run("llmpar-report", "--format", "text", "--no-claims", *summaries)
    assert "different work" not in text and all(f"\n{engine} " in text for engine in ENGINES)
    # So small a load is limited by the client, so pick ranks none; it must not take the work for different.
    picked = subprocess.run(["llmpar-pick", *summaries], capture_output=True, text=True, timeout=60)
    assert picked.returncode == 6 and "limited by the client" in picked.stdout
    assert "not given the same work" not in picked.stdout
