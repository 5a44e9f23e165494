"""docs/engines.md names the engines and their settings as the code has them, docs/records.md the server record as it is written."""

from __future__ import annotations

import re
from pathlib import Path

from llmpar import serve
from llmpar.engines import ENGINES
from llmpar.engines.base import Launch, Settings


def test_the_matrix_of_settings_is_that_of_the_code(root: Path) -> None:
    text = (root / "docs" / "engines.md").read_text()
    head = re.search(r"^\| setting \| (.*) \|$", text, re.M)
    assert head and head[1].split(" | ") == list(ENGINES)
    rows = {name: cells.split(" | ") for name, cells in re.findall(r"^\| `([a-z_]+)` \| ((?:yes|-)(?: \| (?:yes|-))*) \|$", text, re.M)}
    assert set(rows) == set().union(*(engine.supports for engine in ENGINES.values())) - {"model", "port", "runtime", "engine_args"}
    for setting, cells in rows.items():
        assert cells == ["yes" if setting in engine.supports else "-" for engine in ENGINES.values()], setting


def test_each_engine_has_its_row_with_runtimes_port_and_api(root: Path) -> None:
    text = (root / "docs" / "engines.md").read_text()
    text = text.split("proven how |", 1)[1].split("\n\n", 1)[0]
    rows = dict(re.findall(r"^\| `([a-z0-9]+)` [^|]*\| ([^|]*\|[^|]*) \|", text, re.M))
    assert set(rows) == set(ENGINES)
    for name, engine in ENGINES.items():
        assert rows[name] == f"{', '.join(engine.runtimes)} | {engine.default_port}, `{engine.api}`"


def test_outcomes_are_those_that_can_be_written(root: Path) -> None:
    from llmpar import serving

    told = set(re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| ", (root / "docs" / "engines.md").read_text().split("| outcome |", 1)[1].split("\n\n", 1)[0], re.M))
    named = {name for row in told for name in re.findall(r"`([a-z_]+)`", row)}
    known = {outcome for engine in ENGINES.values() for outcome, _, _ in engine.failures} | {outcome for outcome, _, _ in serving.FAILURES}
    assert named == known | {"ok", "timeout", "refused", "crashed", "cancelled", "failed"}


def test_the_server_record(root: Path, tmp_path: Path) -> None:
    section = (root / "docs" / "records.md").read_text().split("## server, version 1\n", 1)[1].split("\n## ", 1)[0]
    named = {name for row in re.findall(r"^\| (`[^|]*?) \|", section, re.M) for name in re.findall(r"`([a-z0-9_]+)`", row)}
    made = serve.ServerRecord(str(tmp_path), ENGINES["vllm"], Settings(model="m"), "local", [Launch(("true",), 1, model="m")])
    assert named == set(made.fields)
