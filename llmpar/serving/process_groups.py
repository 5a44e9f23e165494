"""Processes in a session of their own: started, found, and ended with all that they started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable

from llmpar.procfs import members, name

TERM_S = 20.0  # from TERM to KILL: vLLM took 4 s once and 61 s once with a stream open
KILL_S = 10.0


def die_with_parent() -> None:
    # PR_SET_PDEATHSIG: where llmpar-serve is killed with -9, the engine still gets a TERM.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)


def end(process: subprocess.Popen[bytes], term_s: float = TERM_S, spare: str | None = None) -> bool:
    """TERM, then KILL, every process of the session that `process` leads; False where one outlived even that."""
    return end_session(process.pid, term_s, process.poll, spare)


def end_session(
    session: int, term_s: float, reap: Callable[[], int | None] = lambda: 0, spare: str | None = None
) -> bool:
    """TERM to all of a session, after `term_s` seconds KILL; False where one outlived even that.

    `spare`: processes whose name begins so get no TERM, because they end by themselves once the others have.
    """
    for number, patience in ((signal.SIGTERM, term_s), (signal.SIGKILL, KILL_S)):
        for pid in members(session):
            if spare and number == signal.SIGTERM and name(pid).startswith(spare):
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        limit = time.monotonic() + patience
        while time.monotonic() < limit:
            # The leader looks dead while its threads still give its memory back; it can be reaped when they are done.
            if not members(session) and reap() is not None:
                return True
            time.sleep(0.02)
    return not members(session)
