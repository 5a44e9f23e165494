"""Files of records in and one document out."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import click

from llmpar import exit_codes, files, parts, records
from llmpar.cli.messages import say
from llmpar.failure import Failure
from llmpar.outside import printable_words

MOST_SAID = 5  # records that are left out, each in words


@contextlib.contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """A file to read, `-` for standard input; a clear failure where it cannot be read."""
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(name, "rb", buffering=1 << 20)
    except OSError as error:
        raise Failure(f"cannot read '{name}': {error.strerror}", exit_codes.USAGE) from None
    with stream:
        yield stream


def read_whole(name: str, limit: int = files.TABLE_LIMIT) -> bytes:
    """All bytes of a file to read, `-` for standard input; a clear failure where it cannot be read or never ends."""
    with opened(name) as stream:
        try:
            return files.whole(stream, limit)
        except files.TooLong as error:
            raise Failure(f"cannot read '{name}': {error}", exit_codes.BAD_INPUT) from None


def read_text(name: str) -> str:
    """The same as text, with U+FFFD for what is not UTF-8."""
    return read_whole(name).decode("utf-8", "replace")


def summaries_in(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, with each folder replaced by its summaries: those of a cell, a sweep, or all of runs/."""
    found: list[str] = []
    for name in names:
        if not os.path.isdir(name):
            found.append(name)
            continue
        deep = (os.path.join(name, *["*"] * depth, "summary.json") for depth in range(3))
        inside = [
            path for pattern in deep for path in sorted(glob.glob(pattern), key=_natural) if "/removed/" not in path
        ]
        if not inside:
            raise Failure(f"there is no summary.json in '{name}'", exit_codes.TOO_LITTLE, "`llmpar sweep` makes them")
        found += inside
    return tuple(found)


def _natural(path: str) -> list[int | str]:
    """Sorts 8 before 16."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", path))]


def read_records(names: tuple[str, ...], seen: records.Read | None = None) -> Iterator[dict[str, Any]]:
    """Records of the files in turn, as if they were one; none named means standard input.

    Torn lines, and records that are left out for their shape, are said on stderr, unless the caller counts them itself
    in `seen`.
    """
    counted = seen if seen is not None else records.Read()
    for name in summaries_in(names) or ("-",):
        with opened(name) as stream:
            yield from records.read(stream, name, counted)
    if seen is None:
        say_left_out(counted)


def say_left_out(seen: records.Read) -> None:
    """On stderr: which files hold torn lines, and which records were left out for their shape."""
    context = click.get_current_context(silent=True)
    command = context and context.info_name or "llmpar"
    for name in seen.torn_names:
        say(command, f"'{name}' holds torn lines; they are left out")
    for wrong in seen.left_out[:MOST_SAID]:
        say(command, f"left out: {wrong}")
    if len(seen.left_out) > MOST_SAID:
        say(command, f"left out: {len(seen.left_out) - MOST_SAID} more records")


def read_summaries(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The summary records of the files. Raises Failure where there is none."""
    seen = records.Read()
    # What is shown of them is shown by terminals, in mail and in tables: nothing in their words may act there.
    summaries = [printable_words(record) for record in read_records(names, seen) if record["kind"] == "summary"]
    say_left_out(seen)
    if not summaries:
        code = exit_codes.BAD_INPUT if seen.left_out else exit_codes.TOO_LITTLE
        raise Failure("there is no summary record", code, "llmpar-summarise writes them")
    return summaries


def refuse_simulated(summaries: Sequence[dict[str, Any]], alone: bool = False) -> None:
    """A usage error where predictions are mixed with measurements; with `alone`, predictions by themselves may pass."""
    from llmpar.results import simulated

    try:
        simulated.refuse(summaries, alone)
    except simulated.Mixed as error:
        raise Failure(str(error), exit_codes.USAGE, simulated.HINT) from None


def refuse_terminal(output: str | None, what: str, name: str) -> None:
    """A clear end where a document that no terminal can show would be written to one."""
    if output in (None, "-") and sys.stdout.isatty():
        raise Failure(
            f"{what} is not for a terminal", exit_codes.USAGE, f"name a file: -o {name}, or send it to one: > {name}"
        )


@contextlib.contextmanager
def writing(path: str | None) -> Iterator[BinaryIO]:
    """Standard output, or a temporary file in the same folder, renamed when the block ends without an exception; a
    device or a pipe is written to as it is.
    """
    if path is None or path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # The file itself, not the name that points to it; and nothing but a file may be replaced, least of all /dev/null.
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        try:
            stream = open(path, "wb")
        except OSError as error:
            raise Failure(f"cannot write '{path}': {error.strerror}", exit_codes.USAGE) from None
        with stream:
            yield stream
        return
    parts.clear(path)
    part = parts.name(path)
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise Failure(f"cannot write '{path}': {error.strerror}", exit_codes.USAGE) from None
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
