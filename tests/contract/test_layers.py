"""Imports point one way, the lists of commands agree, and every command has help of one screen."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import called
import pytest

from llmpar import cli
from llmpar.cli import help

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "llmpar"
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
# The front door, `llmpar`, runs the others: tests/proc/test_front.py.
COMMANDS = sorted([*(name for name in SCRIPTS if name != "llmpar"), "llmpar-request"])
# Which rooms of llmpar/ a room may import. Ground files (those directly in llmpar/) have rows of their own.
GROUND = {
    "apikey",
    "blas",
    "clock",
    "exit_codes",
    "failure",
    "files",
    "foreground",
    "hostname",
    "http_session",
    "manifest",
    "outside",
    "parts",
    "procfs",
    "progress",
    "records",
    "runtime_directory",
    "shapes",
    "sizes",
    "sweep_folder",
    "sweeps",
    "visible_gpus",
    "wording",
}
ROOMS: dict[str, set[str]] = {
    "commands": {
        "apikey",
        "cli",
        "client",
        "clock",
        "dialects",
        "engines",
        "exit_codes",
        "failure",
        "files",
        "foreground",
        "machine",
        "manifest",
        "other_tools",
        "outside",
        "pool",
        "procfs",
        "progress",
        "prompts",
        "records",
        "render",
        "report",
        "results",
        "runtime_directory",
        "sampling",
        "search",
        "serving",
        "simulate",
        "sizes",
        "summary",
        "sweep_folder",
        "sweeps",
        "verdicts",
        "visible_gpus",
    },
    "render": {"outside", "report", "simulate", "results", "summary", "verdicts"},
    "report": {"outside", "results", "summary", "verdicts"},
    "search": {"blas", "results", "stats", "sweeps", "verdicts"},
    "verdicts": {"engines", "outside", "results", "sizes", "stats"},
    "results": {"sizes", "stats", "wording"},
    "summary": {"blas", "files", "outside", "records", "sampling", "sizes", "stats", "wording"},
    "machine": {
        "client",
        "clock",
        "engines",
        "exit_codes",
        "failure",
        "hostname",
        "runtime_directory",
        "sampling",
        "visible_gpus",
    },
    "serving": {
        "apikey",
        "client",
        "clock",
        "dialects",
        "engines",
        "exit_codes",
        "failure",
        "http_session",
        "procfs",
        "records",
        "sizes",
        "sweeps",
        "visible_gpus",
        "wording",
    },
    "pool": {"client", "exit_codes", "outside", "procfs", "records", "runtime_directory"},
    "client": {
        "apikey",
        "clock",
        "dialects",
        "exit_codes",
        "files",
        "hostname",
        "outside",
        "procfs",
        "records",
        "runtime_directory",
    },
    "sampling": {"clock", "engines", "hostname", "http_session", "outside", "procfs", "records"},
    "prompts": {"files", "http_session", "outside", "parts", "records"},
    "simulate": {"blas", "shapes", "sizes"},
    "dialects": {"engines", "outside"},
    "engines": set(),
    "other_tools": set(),
    "stats": {"blas"},
    "cli": {"exit_codes", "failure", "files", "outside", "parts", "records", "results", "sizes", "verdicts"},
    "apikey": {"files"},
    "failure": {"exit_codes"},
    "foreground": {"failure"},
    "parts": {"hostname", "procfs"},
    "sweep_folder": {"hostname", "parts", "sweeps", "wording"},
    "records": {"files", "shapes"},
    "runtime_directory": {"procfs"},
}
# Of a lower room only some modules may be imported from outside it.
ONLY = {
    ("report", "summary"): {"causes"},
    ("render", "summary"): {"causes"},
    ("machine", "client"): {"stamps"},
    ("serving", "client"): {"target"},
}
# Which modules may import a package of the outside; `commands` stands for all of that room.
OUTSIDE = {
    "click": {"cli", "commands"},
    "requests": {"http_session", "prompts.tokens", "sampling.scrape", "serving.readiness", "serving.running_server"},
    "pynvml": {
        "machine.gpu_facts",
        "sampling.nvml",
        "sampling.nvml_device",
        "sampling.nvml_gpm",
        "serving.gpu_memory",
        "serving.power_limit",
    },
}


def modules() -> dict[str, Path]:
    """Name below llmpar ("client.run", "cli") to path."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """All that a file imports, late imports too, as dotted names; `from a import b` gives both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative import"
            names.add(node.module)
            names |= {f"{node.module}.{name.name}" for name in node.names}
    return names


def own(path: Path) -> set[str]:
    """The project's modules that a file imports, as names below llmpar."""
    known = modules()
    below = {name.removeprefix("llmpar.") for name in imports(path) if name.startswith("llmpar.")}
    return {name.removesuffix(".__init__") for name in known if name.removesuffix(".__init__") in below}


def test_every_room_imports_only_the_rooms_of_its_row() -> None:
    arrows, into = set(), set()
    for name, path in modules().items():
        room = name.split(".")[0]
        for other in own(path):
            target = other.split(".")[0]
            if target == room:
                continue
            assert target in ROOMS.get(room, set()), (
                f"{path.relative_to(ROOT)} imports {other}: ROOMS has no such arrow"
            )
            arrows.add((room, target))
            if "." in other and (room, target) in ONLY:
                assert other.split(".")[1] in ONLY[room, target], f"{path.relative_to(ROOT)} imports {other}"
                into.add(((room, target), other.split(".")[1]))
    stale = {(room, target) for room, targets in ROOMS.items() for target in targets} - arrows
    assert not stale, f"ROOMS allows what nothing does: {sorted(stale)}"
    unused = {(pair, module) for pair, modules_allowed in ONLY.items() for module in modules_allowed} - into
    assert not unused, f"ONLY allows what nothing does: {sorted(unused)}"


def test_numpy_is_loaded_by_the_rooms_that_use_it() -> None:
    """With one thread: by a room's own __init__, before any of its files imports it at its top."""
    for path in modules().values():
        at_top = {
            name.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import)
            for name in node.names
        }
        if "numpy" in at_top:
            assert 'blas.load("numpy")' in (path.parent / "__init__.py").read_text(), path.relative_to(ROOT)


def test_rooms_form_no_circle() -> None:
    levels: dict[str, int] = {}

    def level(room: str, above: tuple[str, ...]) -> int:
        assert room not in above, f"circle: {' -> '.join((*above, room))}"
        if room not in levels:
            levels[room] = 1 + max((level(target, (*above, room)) for target in ROOMS.get(room, ())), default=0)
        return levels[room]

    for room in ROOMS:
        level(room, ())


def test_every_module_is_in_a_room_or_a_ground_file() -> None:
    known = set(ROOMS) | GROUND | {"__init__"}
    assert {name.split(".")[0] for name in modules()} <= known


def test_modules_inside_a_room_form_no_circle() -> None:
    graph = {name: {other for other in own(path) if other != name} for name, path in modules().items()}
    state: dict[str, int] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"circle: {' -> '.join((*above, name))}"
        if name not in state:
            for other in graph.get(name, ()):
                visit(other, (*above, name))
            state[name] = 1

    for name in graph:
        visit(name, ())


def test_a_long_module_is_explained() -> None:
    """Past 340 lines a second noun is usually hiding inside: ARCHITECTURE.md says why these are one thing."""
    papers = (ROOT / "ARCHITECTURE.md").read_text()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        assert len(path.read_text().splitlines()) <= 340 or f"`{name}`" in papers, (
            f"llmpar/{name}: split it, or say why"
        )


def test_no_command_imports_another() -> None:
    for path in (PACKAGE / "commands").glob("*.py"):
        others = {name for name in imports(path) if name.startswith("llmpar.commands.")}
        assert not others, f"{path.name} imports {others}"


@pytest.mark.parametrize("package", OUTSIDE)
def test_packages_of_the_outside_stay_in_their_files(package: str) -> None:
    users = {name for name, path in modules().items() if any(other.split(".")[0] == package for other in imports(path))}
    for name in users:
        assert name in OUTSIDE[package] or name.split(".")[0] in OUTSIDE[package], f"llmpar.{name} imports {package}"
    unused = OUTSIDE[package] - users - {name.split(".")[0] for name in users}
    assert not unused, f"OUTSIDE allows {sorted(unused)}, which do not import {package}"


def test_nothing_below_the_commands_reaches_click() -> None:
    """Through the project's own modules too."""
    graph = {name: own(path) for name, path in modules().items()}
    for name in graph:
        if name.split(".")[0] in ("commands", "cli"):
            continue
        seen, todo = set(), [name]
        while todo:
            for other in graph.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        assert not any(other.split(".")[0] == "cli" for other in seen), f"llmpar.{name} reaches llmpar.cli"


def test_the_package_itself_imports_nothing() -> None:
    assert imports(PACKAGE / "__init__.py") == set()


def test_entry_points_bin_modules_and_index_agree() -> None:
    assert sorted(path.name for path in (ROOT / "bin").glob("llmpar-*")) == COMMANDS
    for name, target in SCRIPTS.items():
        if name == "llmpar":
            continue
        module = target.split(":")[0].rsplit(".", 1)[1]
        assert module.rstrip("_") == name.removeprefix("llmpar-").replace("-", "_")
        assert (PACKAGE / "commands" / f"{module}.py").exists(), module
    known = {path.stem.rstrip("_") for path in (PACKAGE / "commands").glob("*.py")} - {"__init", "", "front"}
    assert known == {name.removeprefix("llmpar-").replace("-", "_") for name in COMMANDS}
    index = (ROOT / "docs" / "commands" / "README.md").read_text()
    rows = set(re.findall(r"^\| \[`(llmpar-[a-z-]+)`\]\(\1\.md\) \|", index, re.M))
    assert rows == set(COMMANDS)


def click_command(name: str) -> cli.Command:
    module = name.removeprefix("llmpar-").replace("-", "_")
    place = importlib.import_module(f"llmpar.commands.{'import_' if module == 'import' else module}")
    found: cli.Command = place.main.command
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_one_layout(name: str) -> None:
    """A sentence, examples, what is read and written, exit status; then the options."""
    command = click_command(name)
    sentence, examples, *prose, statuses = help.parts(inspect.cleandoc(command.help or ""))
    assert re.fullmatch(r"[A-Z][^.]*(\.\w[^.]*)*\.", " ".join(sentence.split())), "one sentence"
    head, *lines = examples.split("\n")
    assert head == "\b" and lines and all(line.startswith("  ") and len(line) <= 118 for line in lines)
    assert any(name in line for line in lines)
    assert prose and not any("\b" in each or "xit status" in each for each in prose)
    text = " ".join(statuses.split())
    assert re.fullmatch(r"Exit status: (0 [^;]+|COMMAND's own); .+\.", text) and "; 2 " in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen_of_80_by_24(name: str) -> None:
    def said(option: str) -> str:
        done = called.run_text([name, option], environment={"COLUMNS": "80"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    lines = said("--help").splitlines()
    assert lines[0].startswith(f"Usage: {name}") and len(lines) <= 24 and max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert f"  {name}" in text or f"-- {name}" in text or f"| {name}" in text or f" {name} " in text, "no example"
    assert "Exit status: " in text and "--help-all" in text
    assert said("-h").splitlines() == lines
    whole = said("--help-all")
    for option in click_command(name).params:
        assert getattr(option, "hidden", True) or option.opts[-1] in whole


@pytest.mark.parametrize("name", COMMANDS)
def test_version_and_bad_option(name: str) -> None:
    done = subprocess.run([ROOT / "bin" / name, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()[0]) == (0, name)
    bad = called.run_text([name, "--no-such-option"])
    assert bad.returncode == 2 and "no such option" in bad.stderr.lower() and "Traceback" not in bad.stderr


def test_python_used_is_the_venv() -> None:
    assert sys.version_info >= (3, 11)


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("llmpar-serve", "--shards", "--tp"),
        ("llmpar-serve", "--max-sequences", "--max-num-seqs"),
        ("llmpar-serve", "--max-total-tokens", "--max-model-len"),
        ("llmpar-serve", "--gpu-memory-utilization", "--gpu-memory-utilization"),
        ("llmpar-arrivals", "--rate", "--request-rate"),
        ("llmpar-arrivals", "--shape", "--burstiness"),
        ("llmpar-arrivals", "--count", "--num-prompts"),
        ("llmpar-prompts", "--count", "--num-prompts"),
        ("llmpar-summarise", "--clients", "--max-concurrency"),
        ("llmpar-import", "--clients", "--max-concurrency"),
        ("llmpar-until", "--clients", "--max-concurrency"),
    ],
)
def test_options_may_have_the_names_of_other_tools(name: str, ours: str, theirs: str) -> None:
    assert any({ours, theirs} <= set(option.opts) for option in click_command(name).params)
