"""Prompt sets on the disk: a directory with one file a prompt and its manifest, written whole or not at all."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmpar import files, parts, records
from llmpar.prompts.prompt import BadPrompts, Prompt

MANIFEST = ".manifest.jsonl"


class Occupied(Exception):
    """The directory holds something else; the text says what, `hint` what to do."""

    def __init__(self, message: str, hint: str):
        super().__init__(message)
        self.hint = hint


def digests(where: Path) -> dict[str, str]:
    """Name and SHA-256 of each file, hidden ones left out, sorted by name. Raises BadPrompts for one that is none."""
    return {
        path.name: hashlib.sha256(_read(path)).hexdigest()
        for path in sorted(where.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }


def _read(path: Path) -> bytes:
    try:
        return files.read(str(path), files.PROMPT_LIMIT, 10)
    except files.TooLong as error:
        raise BadPrompts(f"cannot read '{path}': {error}; no prompt is so long") from None


def manifest(where: Path) -> list[dict[str, Any]]:
    """The manifest's records. Raises FileNotFoundError, records.BadRecord."""
    path = where / MANIFEST
    with path.open("rb") as stream:
        return list(records.read(stream, str(path)))


def texts(where: Path) -> dict[str, str]:
    """The files' contents by name. Raises BadPrompts for one that is not UTF-8."""
    by_name = {}
    for name in digests(where):
        try:
            by_name[name] = _read(where / name).decode()
        except UnicodeDecodeError as error:
            raise BadPrompts(f"cannot read '{where / name}': not UTF-8 at byte {error.start}") from None
    return by_name


def write(where: Path, entries: list[dict[str, Any]], made: list[Prompt], replace: bool) -> bool:
    """Put the set in place whole; whether anything changed. Another set gives way only when `replace` says so, and what
    is no prompt set never does: Occupied.
    """
    lines = b"".join([records.encode(entry) for entry in entries])
    if where.is_dir() and any(where.iterdir()):
        kept = where / MANIFEST
        if not kept.is_file():
            raise Occupied(
                f"'{where}' is not empty and no prompt set: it has no {MANIFEST}", "choose another directory"
            )
        if kept.read_bytes() == lines and not differences(entries, digests(where)):
            return False
        if not replace:
            raise Occupied(f"'{where}' holds another prompt set", "--replace puts the new one in its place")
    where.parent.mkdir(parents=True, exist_ok=True)
    parts.clear(str(where))
    part = Path(parts.name(str(where)))
    part.mkdir()
    try:
        for entry, prompt in zip(entries, made, strict=True):
            (part / entry["name"]).write_bytes(prompt.data())
        (part / MANIFEST).write_bytes(lines)
        if where.exists():
            _exchange(part, where)  # the old set is in `part` now, and goes with it
        else:
            part.rename(where)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return True


def _exchange(first: Path, other: Path) -> None:
    """Let two directories swap names at once, so that neither name is ever without a whole set."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.renameat2(-100, os.fsencode(first), -100, os.fsencode(other), 2) == 0:  # AT_FDCWD, RENAME_EXCHANGE
            return
    except AttributeError:
        pass
    aside = first.with_name(first.name + ".old")  # a file system that cannot: two steps
    other.rename(aside)
    first.rename(other)
    aside.rename(first)


def set_hash(entries: Iterable[tuple[str, str]]) -> str:
    """One SHA-256 for a set, from (file name, its SHA-256) in any order: that of the lines `sha256  name`, sorted by
    name."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(entries)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def differences(manifest: list[dict[str, Any]], files: dict[str, str]) -> list[str]:
    """What a directory (name -> SHA-256) has otherwise than its manifest says; empty when they agree."""
    told = {str(entry.get("name")): entry.get("sha256") for entry in manifest}
    found = [f"'{name}' is missing" for name in sorted(told.keys() - files.keys())]
    found += [f"'{name}' is not in the manifest" for name in sorted(files.keys() - told.keys())]
    found += [f"'{name}' was changed" for name in sorted(told.keys() & files.keys()) if told[name] != files[name]]
    return found
