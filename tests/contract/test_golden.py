"""tests/cases/read: what people read of known results, word for word. `make golden` rewrites them; read the diff."""

from __future__ import annotations

import subprocess
from pathlib import Path

import optional
import pytest
from unit.made import study, summary
from unit.made_requests import request

from llmpar import records

CASES = sorted(path for path in (Path(__file__).resolve().parents[1] / "cases" / "read").iterdir() if path.is_dir())


def closed_loop(count: int) -> list[dict]:
    """Requests of two clients in turn, 16 tokens each, 10 to 13 ms apart."""
    return [
        request(
            number,
            number // 2 * 0.25,
            tuple(round(0.02 + (0.01 + number % 4 / 1000) * place, 6) for place in range(16)),
            concurrency=2,
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Summaries of a study of two engines, nights of which the last is slow, and what single cases name."""
    folder = tmp_path_factory.mktemp("results")
    made = study()
    made += [
        summary(
            20 + night % 3 / 10 + (8 if night == 9 else 0), sweep=f"night-{night}", repeat=night, load={"clients": 8}
        )
        for night in range(1, 10)
    ]
    for each in made:
        (folder / "runs" / each["cell"]["sweep"] / each["cell"]["id"]).mkdir(parents=True, exist_ok=True)
        (folder / "runs" / each["cell"]["sweep"] / each["cell"]["id"] / "summary.json").write_bytes(
            records.encode(each)
        )
    for name, each in (
        ("whole", summary(20.0, server={"engine": "vllm"}, varies=("engine",))),
        ("other", summary(21.0, server={"engine": "tgi"}, varies=("engine",))),
        ("other-prompts", summary(15.0, server={"engine": "tgi"}, varies=("engine",), prompts="q" * 64)),
        ("failed", summary(12.0, server={"engine": "tgi"}, varies=("engine",), failed=9, warnings=("failures",))),
    ):
        (folder / f"{name}.json").write_bytes(records.encode(each))
    (folder / "requests.jsonl").write_bytes(b"".join(map(records.encode, closed_loop(120))))
    (folder / "sweep.tsv").write_text("engine\tmodel\tspeculate\tclients\nvllm\tm\t0,2\t8,16\n")
    (folder / "bad.tsv").write_text("engine\tmodel\tclents\nvllm\tm\t8\n")
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path, results: Path, rewrite: bool) -> None:
    line = (case / "cmd").read_text()
    if "jq" in line:
        optional.need("jq")
    done = subprocess.run(["bash", "-c", line], cwd=results, capture_output=True, text=True, timeout=60)
    for name, text in (("status", f"{done.returncode}\n"), ("stdout", done.stdout), ("stderr", done.stderr)):
        text = text.replace(str(results), "$PWD")
        if rewrite:
            (case / name).write_text(text)
        assert (case / name).read_text() == text, name
