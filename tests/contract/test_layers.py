"""Imports point one way, the lists of commands agree, and every command has help of one screen."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "llmpar"
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
COMMANDS = sorted([*SCRIPTS, "llmpar-request"])
# Modules that talk to the outside: everything else under llmpar/ is pure, unless it is a command or a renderer.
OUTSIDE = {"cli", "serve", "serving", "launch", "readiness", "exchange", "pool", "request", "clients", "nvml", "nvml_gpm", "nvml_facts", "host", "scrape", "tokenise"}
FORBIDDEN = {"click", "requests", "pynvml"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_command_imports_another() -> None:
    for path in (PACKAGE / "commands").glob("*.py"):
        others = {name for name in imports(path) if name.startswith("llmpar.commands.")}
        assert not others, f"{path.name} imports {others}"


def test_only_commands_are_above_the_modules() -> None:
    for path in modules():
        if path.parent.name != "commands":
            assert not any(name.startswith("llmpar.commands") for name in imports(path)), path


def test_rendering_and_wire_do_not_reach_up() -> None:
    for path in (PACKAGE / "dialects").glob("*.py"):
        bad = {name for name in imports(path) if name.startswith(("llmpar.engines", "llmpar.render", "llmpar.cli"))}
        assert not bad, f"{path.name} imports {bad}"


def test_pure_modules_know_no_outside() -> None:
    pure = [path for path in modules() if path.parent == PACKAGE or path.parent.name == "dialects"]
    checked = 0
    for path in pure:
        if path.stem in OUTSIDE or path.stem == "__init__" and path.parent == PACKAGE:
            continue
        found = {name.split(".")[0] for name in imports(path)} & FORBIDDEN
        assert not found, f"{path.relative_to(ROOT)} imports {found}"
        checked += 1
    assert checked > 10


def test_the_package_itself_imports_nothing() -> None:
    assert imports(PACKAGE / "__init__.py") == set()


def test_entry_points_bin_modules_and_readme_agree() -> None:
    assert sorted(path.name for path in (ROOT / "bin").glob("llmpar-*")) == COMMANDS
    for name, target in SCRIPTS.items():
        module = target.split(":")[0].rsplit(".", 1)[1]
        assert module.rstrip("_") == name.removeprefix("llmpar-").replace("-", "_")
        assert (PACKAGE / "commands" / f"{module}.py").exists(), module
    known = {path.stem.rstrip("_") for path in (PACKAGE / "commands").glob("*.py")} - {"__init", ""}
    assert known == {name.removeprefix("llmpar-").replace("-", "_") for name in COMMANDS}
    rows = set(re.findall(r"^\| `(llmpar-[a-z-]+)`", (ROOT / "README.md").read_text(), re.M))
    assert rows == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_one_screen_with_an_example(name: str) -> None:
    done = subprocess.run([ROOT / "bin" / name, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"Usage: {name}" in done.stdout
    assert "xit" in done.stdout, "help says what the exit status means"
    assert len(done.stdout.splitlines()) <= 80
    assert subprocess.run([ROOT / "bin" / name, "-h"], capture_output=True, text=True).stdout == done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_version_and_bad_option(name: str) -> None:
    done = subprocess.run([ROOT / "bin" / name, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()[0]) == (0, name)
    bad = subprocess.run([ROOT / "bin" / name, "--no-such-option"], capture_output=True, text=True, timeout=60)
    assert bad.returncode == 2 and "no such option" in bad.stderr.lower() and "Traceback" not in bad.stderr


def test_python_used_is_the_venv() -> None:
    assert sys.version_info >= (3, 11)
