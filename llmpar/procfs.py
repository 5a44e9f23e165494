"""What /proc says of a process: its parent, its process group and session, when it started."""

from __future__ import annotations

import os
import time

# Where fields of /proc/PID/stat lie behind the name in brackets, which may hold anything.
_STATE, _PARENT, _SESSION, _START_TICKS = 0, 1, 3, 19


def _stat(pid: int | str) -> list[bytes] | None:
    """The fields behind the name; None for a process that is not there."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields if len(fields) > _START_TICKS else None


def members(session: int) -> list[int]:
    """Pids of a session that still live (zombies do not)."""
    pids = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        fields = _stat(name)
        if fields and int(fields[_SESSION]) == session and fields[_STATE] not in (b"Z", b"X"):
            pids.append(int(name))
    return pids


def name(pid: int) -> str:
    """A process's own name, at most 15 bytes of it; empty once it has gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def process_key(pid: int) -> str | None:
    """A name for a living process that no later process with the same number has: `PID-STARTTICKS`; None if there is
    none."""
    fields = _stat(pid)
    return f"{pid}-{fields[_START_TICKS].decode()}" if fields else None


def is_parallel(pid: int) -> bool:
    """Whether a process of this host is a GNU parallel: a number from another host may be that of any process here."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = stream.read().split(b"\0")
    except OSError:
        return False
    return any(os.path.basename(word) in (b"parallel", b"sem", b"sql", b"env_parallel") for word in words[:4])


def fan_out_key(pid: int) -> str:
    """The name of the process that starts others, also where it has gone or cannot be seen."""
    return process_key(pid) or f"{pid}-0"


def parent_of(pid: int) -> int | None:
    """The parent's pid, 0 for a process without one in this namespace, None for a process that is not there."""
    fields = _stat(pid)
    return int(fields[_PARENT]) if fields else None


def process_start() -> int:
    """Epoch nanoseconds when this process started (execve keeps the time of the fork): to 10 ms, the kernel's tick."""
    fields = _stat("self")
    if fields is None:
        return time.time_ns()
    boot = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return boot + int(fields[_START_TICKS]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
