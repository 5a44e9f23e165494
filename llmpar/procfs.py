"""What /proc says of a process: its parent, its process group and session, when it started."""

from __future__ import annotations

import contextlib
import os
import time


def members(session: int) -> list[int]:
    """Pids of a session that still live (zombies do not)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
                if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
                    found.append(int(name))
    return found


def name(pid: int) -> str:
    """A process's own name, at most 15 bytes of it; empty once it has gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def process_key(pid: int) -> str | None:
    """A name for a living process that no later process with the same number has: `PID-STARTTICKS`; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return f"{pid}-{stream.read().rpartition(b')')[2].split()[19].decode()}"
    except (OSError, IndexError):
        return None


def parent_of(pid: int) -> int | None:
    """The parent's pid, 0 for a process without one in this namespace, None for a process that is not there."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return int(stream.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def process_start() -> int:
    """Epoch nanoseconds when this process started (execve keeps the time of the fork): to 10 ms, the kernel's tick.

    Field 22 of /proc/self/stat is in clock ticks since boot.
    """
    try:
        with open("/proc/self/stat", "rb") as stream:
            ticks = int(stream.read().rpartition(b")")[2].split()[19])
        boot = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return boot + ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, AttributeError):
        return time.time_ns()
