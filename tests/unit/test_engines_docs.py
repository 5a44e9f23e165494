"""docs/engines.md says what the table of engines says, and scripts/engines runs what the page says was run."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpar.engines import COMMON, ENGINES
from llmpar.engines.base import Settings


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "engines.md").read_text()


def rows(page: str, first: str) -> list[list[str]]:
    """The cells of the table whose head begins with `first`, its head included."""
    lines = page.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip().strip("`") for cell in line.strip().strip("|").split("|")])
    return [row for row in table if not set("".join(row)) <= set("-")]


def test_settings(page: str) -> None:
    head, *body = rows(page, "setting")
    assert head[1:] == list(ENGINES)
    names = [row[0].removeprefix("--").replace("-", "_") for row in body]
    assert set(names) == set(Settings.__dataclass_fields__) - COMMON
    for name, row in zip(names, body, strict=True):
        for engine, cell in zip(head[1:], row[1:], strict=True):
            assert (cell == "yes") == (name in ENGINES[engine].supports), (engine, name)


def test_runtimes_ports_and_apis(page: str) -> None:
    _, *body = rows(page, "engine")
    assert [(row[0], tuple(row[1].split(", ")), int(row[2]), row[3]) for row in body] == [
        (name, engine.runtimes, engine.default_port, engine.api) for name, engine in ENGINES.items()
    ]


def test_what_is_said_to_be_run_is_run(page: str, root: Path) -> None:
    _, *body = rows(page, "engine")
    said = {row[0] for row in body if "run on a CPU" in row[4]}
    script = (root / "scripts" / "engines").read_text()
    assert said == {name for name in ENGINES if f"--engine {name} " in script}


def test_the_readme_says_the_same(page: str, root: Path) -> None:
    _, *body = rows((root / "README.md").read_text(), "engine")
    assert {(row[1].strip("`"), tuple(row[2].split(", "))) for row in body} == {
        (name, engine.runtimes) for name, engine in ENGINES.items()
    }
    _, *detailed = rows(page, "engine")
    assert {row[1] for row in body if "**run** on a CPU" in row[3]} == {
        row[0] for row in detailed if "run on a CPU" in row[4]
    }
    assert all("not run" in row[3] for row in body if "**run**" not in row[3])
