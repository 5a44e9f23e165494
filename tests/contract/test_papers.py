"""Documents that are made from the code say what the code says: `make golden` rewrites them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from contract.test_layers import COMMANDS, ROOMS

PAGE = """# {name}

{job}.

```
{help}```
"""


def held(path: Path, text: str, rewrite: bool) -> None:
    """Compare a file with what it should hold, or write it."""
    if rewrite:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists() and path.read_text() == text, f"'{path.name}' is not current: type make golden"


def jobs(root: Path) -> dict[str, str]:
    """Command to its row in the index of commands."""
    index = (root / "docs" / "commands" / "README.md").read_text()
    return dict(re.findall(r"^\| \[`(llmpar-[a-z-]+)`\]\(\1\.md\) \| (.+) \|$", index, re.M))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_current_page(name: str, root: Path, rewrite: bool) -> None:
    environment = {**os.environ, "COLUMNS": "110"}
    text = subprocess.run(
        [name, "--help-all"], capture_output=True, text=True, timeout=60, env=environment, check=True
    ).stdout
    job = jobs(root)[name]
    page = PAGE.format(name=name, job=job[0].upper() + job[1:], help=text.rstrip() + "\n")
    held(root / "docs" / "commands" / f"{name}.md", page, rewrite)


def test_no_page_is_of_a_command_that_is_gone(root: Path) -> None:
    pages = {path.stem for path in (root / "docs" / "commands").glob("llmpar-*.md")}
    assert pages == set(COMMANDS)


def floors() -> list[list[str]]:
    """Rooms from the top down: each stands above all that it imports."""
    heights: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in heights:
            heights[room] = 1 + max((height(target) for target in ROOMS.get(room, ())), default=0)
        return heights[room]

    for room in ROOMS:
        height(room)
    return [sorted(room for room in ROOMS if heights[room] == floor) for floor in range(max(heights.values()), 0, -1)]


def picture() -> str:
    """One line a room, the upper floors first, with the rooms it may import."""
    lines = []
    for floor in floors():
        for room in floor:
            targets = sorted(ROOMS[room] & set(ROOMS) | ROOMS[room])
            lines.append(
                f"{room:<18}-> {', '.join(targets) if len(targets) < 12 else 'every room below'}".rstrip(" ->")
            )
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def test_the_picture_of_the_rooms_is_current(root: Path, rewrite: bool) -> None:
    path = root / "ARCHITECTURE.md"
    text = path.read_text()
    whole = re.sub(
        r"(<!-- rooms -->\n```\n).*?(```\n)", lambda match: match[1] + picture() + match[2], text, flags=re.S
    )
    held(path, whole, rewrite)


def test_the_index_names_every_document(root: Path) -> None:
    index = (root / "docs" / "README.md").read_text()
    for path in sorted((root / "docs").glob("*.md")):
        assert path.name == "README.md" or f"({path.name})" in index, f"docs/README.md does not name {path.name}"


def test_links_between_documents_lead_somewhere(root: Path) -> None:
    papers = [
        *root.glob("*.md"),
        *(root / "docs").rglob("*.md"),
        *(root / "tests").glob("*.md"),
        *(root / "bench").glob("README.md"),
    ]
    for path in papers:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.relative_to(root)} links to {target}"
