"""Commands called in this process: the same bytes and statuses as a process of their own, without a second of imports.

For commands that read, compute and write. Tests start for real what starts processes, ends by a signal or owns a
terminal.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from unittest import mock

from llmpar import cli

MODULES = {"import": "import_"}


def run(
    command: Sequence[str], given: bytes = b"", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`command` is its name and arguments; `environment` is added to that of the test."""
    name, *arguments = command
    noun = name.removeprefix("llmpar-").replace("-", "_")
    made = importlib.import_module(f"llmpar.commands.{MODULES.get(noun, noun)}").main.command
    out, err = io.BytesIO(), io.BytesIO()
    before = signal.getsignal(signal.SIGTERM)
    with (
        mock.patch.dict(os.environ, environment or {}),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), "utf-8")),
        mock.patch.object(sys, "stdout", io.TextIOWrapper(out, "utf-8", write_through=True)),
        mock.patch.object(sys, "stderr", io.TextIOWrapper(err, "utf-8", write_through=True)),
    ):
        time.tzset()
        try:
            status = cli.run(name, made, arguments)
        finally:
            signal.signal(signal.SIGTERM, before)
        sys.stdout.flush()
        sys.stderr.flush()
        return subprocess.CompletedProcess(list(command), status, out.getvalue(), err.getvalue())


def run_text(
    command: Sequence[str], given: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Like `run`, with text in place of bytes."""
    done = run(command, given.encode(), environment)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
