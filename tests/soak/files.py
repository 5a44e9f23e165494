"""Every reader of files on changed files: documented exit codes only, no traceback, bounded time."""

from __future__ import annotations

import contextlib
import io
import random
import shlex
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from llmpar import cli, records
from tests.soak.mutate import changed

DOCUMENTED = {0, 2, 3, 4, 5, 6}
SLOWEST_S = 20  # of one file of some kilobytes, on a busy machine


class Slow(BaseException):
    """The time of one file is up."""


@dataclass
class Reader:
    """A command, or a function with the exceptions that it documents, and the files that it reads, by name.

    `arguments` is a command line without `llmpar-`; its words name files in braces, with `_` for `.`. `changing` are
    those that are changed.
    """

    name: str
    files: dict[str, bytes]
    arguments: str = ""
    changing: tuple[str, ...] = ()
    call: Callable[[Path], Any] | None = None
    refusals: tuple[type[Exception], ...] = ()
    mutate: Callable[[random.Random, bytes], bytes] = changed
    slow: bool = False  # draws, or simulates: some a second


def lines(given: list[dict[str, Any]]) -> bytes:
    return b"".join(map(records.encode, given))


def run(reader: Reader, folder: Path) -> int | str:
    """The exit code, or the name of a refusal. Raises what no reader may raise."""
    if reader.call is not None:
        try:
            reader.call(folder)
        except reader.refusals as error:
            return type(error).__name__
        return 0
    command, *arguments = shlex.split(reader.arguments)
    words = [
        each.format(**{"here": folder, **{name.replace(".", "_"): folder / name for name in reader.files}})
        for each in arguments
    ]
    module = import_module("llmpar.commands." + {"import": "import_"}.get(command, command.replace("-", "_")))
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        code = cli.run(f"llmpar-{command}", module.main.command, words)
    finally:
        sys.stdout, sys.stderr = before
    said = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
    shown = out.buffer.getvalue() if command != "plot" else b""  # type: ignore[attr-defined]
    assert code in DOCUMENTED, f"exit {code}: {said[-600:]}"
    assert "Traceback" not in said and "\x1b" not in said and b"\x1b" not in shown, said[-600:]
    return code


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    def up(number: int, frame: Any) -> None:
        raise Slow(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(reader: Reader, cases: int, seed: int) -> Counter[str]:
    """So many changed files to one reader; how they were taken. Raises AssertionError naming reader, seed and case."""
    counts: Counter[str] = Counter()
    for case in range(cases):
        chance = random.Random(f"{seed} {reader.name} {case}")
        target = chance.choice(reader.changing or tuple(reader.files))
        with tempfile.TemporaryDirectory() as folder:
            write(reader, Path(folder), {target: reader.mutate(chance, reader.files[target])})
            try:
                with limit(SLOWEST_S):
                    counts[str(run(reader, Path(folder)))] += 1
            except (Exception, Slow) as error:
                message = f"{reader.name}, seed {seed}, case {case}, {target}: {type(error).__name__} {error}"
                raise AssertionError(message) from error
    return counts


def write(reader: Reader, folder: Path, instead: dict[str, bytes]) -> None:
    """The reader's files, some of them with other bytes."""
    for name, data in (reader.files | instead).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
