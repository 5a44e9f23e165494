"""What results are made of, so that anyone can check them: the hash of every file, and of every file that follows from
others the command that makes it again.

A manifest is JSONL: one `manifest` record, then a `file` record for each file below the folder. Paths are relative to
it. Commands read records and write to standard output; verifying runs them in the folder and compares bytes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

NAME = "manifest.jsonl"
NAMESPACE = "llmpar"  # of ssh-keygen -Y, so that a signature for something else does not pass for one of results
# What a manifest may ask to be run: these read records, write one result, and touch nothing else.
COMMANDS = ("summarise", "table", "compare", "claims", "pick", "plan")
# Files of a run that are no results: locks, make's stamps, what a report or picture can be drawn again from.
LEFT_OUT = ("cells.mk", "failed", "sweep.png", "report.html", "options", "not-run", "load.log")


class BadManifest(ValueError):
    """A manifest that cannot be used; the text says why."""


def files(folder: Path) -> list[str]:
    """The files of results below a folder, as relative paths in order."""
    names = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.is_file() and not hidden and path.suffix != ".part" and path.name not in LEFT_OUT:
            names.append(inside.as_posix())
    return sorted(name for name in names if name not in (NAME, f"{NAME}.sig"))


def described(folder: Path, name: str) -> dict[str, Any]:
    """Size, hash, and for JSONL the number of records: which of them is missing can then be said in records."""
    digest, size, count = hashlib.sha256(), 0, 0
    with (folder / name).open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
            size, count = size + len(part), count + part.count(b"\n")
    record = {"path": name, "bytes": size, "sha256": digest.hexdigest()}
    return record | {"records": count} if name.endswith((".jsonl", ".json")) else record


def derivations(folder: Path, names: list[str]) -> dict[str, list[str]]:
    """The command for each file that follows from others: summaries, tables of sweeps, claims, verdicts."""
    made: dict[str, list[str]] = {}
    present = set(names)
    for name in names:
        path = PurePosixPath(name)
        if path.name == "summary.json" and str(path.parent / "requests.jsonl") in present:
            made[name] = [
                "llmpar-summarise",
                *beside(folder, path.parent, present),
                str(path.parent / "requests.jsonl"),
            ]
    for name in names:
        path = PurePosixPath(name)
        if path.name == "sweep.txt":
            planned = cells_of(folder / path.parent)
            made[name] = ["llmpar-table", *(str(path.parent / cell / "summary.json") for cell in planned)]
    return made


def beside(folder: Path, cell: PurePosixPath, present: set[str]) -> Iterator[str]:
    """The options of scripts/summarise-cell for a cell."""
    record = read_json(folder / cell / "cell.json")
    # The server's start on which the cell was measured; earlier versions had one folder for all of a session's.
    session = cell.parent / "sessions" / str(record.get("session"))
    if str(cell / "started") in present:
        session = cell.parent / (folder / cell / "started").read_text("utf-8", "replace").strip()
    for option, path in (
        ("--cell", cell / "cell.json"),
        ("--server", session / "server.json"),
        ("--host", session / "host.json"),
        ("--gpu", cell / "gpu.jsonl"),
        ("--engine", cell / "engine.jsonl"),
        ("--clock", cell / "clock.jsonl"),
    ):
        if str(path) in present:
            yield from (option, str(path))
    for stamp in sorted((folder / cell.parent).glob(".slo-*")):
        objectives = stamp.read_text("utf-8", "replace").strip()
        if objectives and objectives != "none":
            yield from ("--slo", objectives)


def cells_of(run: Path) -> list[str]:
    """The cells of a sweep in order, from the list that make has."""
    try:
        lines = (run / "cells.mk").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    return next((line.split()[2:] for line in lines if line.startswith("CELLS := ")), [])


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def checked(command: list[str], name: str) -> list[str]:
    """The command of a manifest as arguments for this Python. Raises BadManifest for what none of ours would need."""
    tool = command[0].removeprefix("llmpar-") if command else ""
    if tool not in COMMANDS or not command[0].startswith("llmpar-"):
        raise BadManifest(f"'{name}' is made by '{' '.join(command[:1])}', not by one of {', '.join(COMMANDS)}")
    for word in command[1:]:
        path = PurePosixPath(word.partition("=")[2] or word)
        if path.is_absolute() or ".." in path.parts or word.startswith(("-o", "--output")):
            raise BadManifest(f"'{name}' is made with '{word}', which leads out of the folder")
    return [sys.executable, "-P", "-m", f"llmpar.commands.{tool}", *command[1:]]


def made(folder: Path, name: str, command: list[str]) -> tuple[bytes, str]:
    """What the command writes, and what it says on standard error where it fails. Raises BadManifest."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LLMPAR_")}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(checked(command, name), cwd=folder, capture_output=True, env=environment)
    return done.stdout, done.stderr.decode(errors="replace").strip() if done.returncode not in (0, 5, 6) else ""


def difference(have: bytes, want: bytes) -> str:
    """Where two texts of JSON lines begin to differ: `wall_s.value is 19.5, recomputed 19.6`."""
    lines = zip(have.splitlines(), want.splitlines(), strict=False)
    for number, (mine, theirs) in enumerate(lines, 1):
        if mine == theirs:
            continue
        try:
            field = next(_differ(orjson.loads(mine), orjson.loads(theirs), ""), None)
        except orjson.JSONDecodeError:
            field = None
        place = f"line {number}: " if have.count(b"\n") > 1 else ""
        if field:
            return f"{place}{field[0]} is {_short(field[1])}, recomputed {_short(field[2])}"
        return f"{place}'{mine[:60].decode(errors='replace')}', recomputed '{theirs[:60].decode(errors='replace')}'"
    return f"{len(have.splitlines())} lines, recomputed {len(want.splitlines())}"


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."


def _differ(mine: Any, theirs: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            yield from _differ(mine.get(key), theirs.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        for index, pair in enumerate(zip(mine, theirs, strict=True)):
            yield from _differ(*pair, f"{path}[{index}]")
    elif mine != theirs:
        yield path, mine, theirs
