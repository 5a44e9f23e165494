"""scripts/study: every sweep of a folder; what this machine cannot run is named and fails nothing, what fails does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from fake import fake_engine
from ready import venv

HEADER = "engine\tmodel\truntime\tclients\tprompts\tmax_tokens\tcount\twarmup\n"


@pytest.fixture
def study(root: Path, tmp_path: Path):
    """Runs the script on the tables in `study.tables`, results in `study.runs`."""
    tables, prompts = tmp_path / "tables", tmp_path / "prompts"
    tables.mkdir()
    prompts.mkdir()
    (prompts / "one.txt").write_text("Say something.")
    environment = os.environ | {
        "VENV": str(venv(tmp_path)),
        "RUNS": str(tmp_path / "runs"),
        "STUDY_TABLES": str(tables),
        "LLMPAR_SAMPLE": "no",
    }

    def run(*names: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(root / "scripts" / "study"), *names],
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=100,
        )

    run.tables, run.runs, run.row = tables, tmp_path / "runs", f"\t1,2\t{prompts}\t4\t6\t1\n"
    return run


def test_an_engine_that_is_not_here_is_named_with_its_reason_and_fails_nothing(study):
    (study.tables / "absent.tsv").write_text(HEADER + "sglang\tno-model\tlocal" + study.row)
    done = study()
    assert done.returncode == 0, done.stderr[-2000:]
    told = done.stdout.split("study: not run on this machine:\n")[1].splitlines()
    assert len(told) == 2 and all("sglang is not installed" in line for line in told)
    assert {path.parent.name for path in study.runs.glob("absent/*/not-run")} == {"c001", "c002"}


def test_sweeps_go_on_past_one_that_fails_and_name_it(study):
    (study.tables / "bad.tsv").write_text(HEADER + "vllm\tfake\t-\t1\t/nowhere\t4\t6\t1\n")
    (study.tables / "good.tsv").write_text(HEADER + "vllm\tfake\t-" + study.row)
    with fake_engine(engine="vllm", tokens=4) as engine:
        done = study(
            LLMPAR_BASE_URL=engine.url,
            LLMPAR_ENGINE="vllm",
            LLMPAR_MODEL="fake",
            LLMPAR_API="openai-completions",
            REPEATS="2",
        )
    assert done.returncode == 1
    assert "study: these sweeps did not finish: bad" in done.stderr
    summaries = [json.loads(path.read_text()) for path in study.runs.glob("good@*/*/summary.json")]
    # Two sessions of each cell, told apart though nobody here started the server; the warm-up is recorded and not
    # counted.
    assert len(summaries) == 4 and len({summary["session"] for summary in summaries}) == 2
    assert {summary["n"]["requests"] for summary in summaries} == {6}
    assert len(list(study.runs.glob("good@*/*/warmup.jsonl"))) == 4


def test_an_unknown_sweep_is_named(study):
    (study.tables / "good.tsv").write_text(HEADER + "vllm\tfake\t-" + study.row)
    done = study("nonsense")
    assert (done.returncode, done.stderr) == (2, "study: no sweep 'nonsense'; there are: good.tsv\n")
