"""docs/serve.md has every outcome, docs/records.md the server record as it is written."""

from __future__ import annotations

import re
from pathlib import Path

from llmpar.engines import ENGINES
from llmpar.engines.base import Launch, Settings
from llmpar.serving import causes, record


def test_outcomes_are_those_that_can_be_written(root: Path) -> None:
    told = set(
        re.findall(
            r"^\| ((?:`[a-z_]+`(?:, )?)+) \| ",
            (root / "docs" / "serve.md").read_text().split("| outcome |", 1)[1].split("\n\n", 1)[0],
            re.M,
        )
    )
    named = {name for row in told for name in re.findall(r"`([a-z_]+)`", row)}
    rows = [*causes.FAILURES, *(row for engine in ENGINES.values() for row in (*engine.failures, *engine.consequences))]
    known = {outcome for outcome, _, _ in rows}
    assert named == known | {"ok", "timeout", "refused", "crashed", "killed", "cancelled", "failed"}


def test_the_server_record(root: Path, tmp_path: Path) -> None:
    section = (root / "docs" / "records.md").read_text().split("## server, version 1\n", 1)[1].split("\n## ", 1)[0]
    named = {
        name for row in re.findall(r"^\| (`[^|]*?) \|", section, re.M) for name in re.findall(r"`([a-z0-9_]+)`", row)
    }
    made = record.ServerRecord(
        str(tmp_path), ENGINES["vllm"], Settings(model="m"), "local", [Launch(("true",), 1, model="m")]
    )
    assert named == set(made.fields)
