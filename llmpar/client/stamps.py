"""Receive times from the kernel, and what shows that the client itself was late.

With SO_TIMESTAMPNS Linux hands each received segment's arrival time along with its bytes (Documentation/networking/
timestamping.rst): true however late the process gets to read. A read that takes several segments at once carries the
last one's time. The clock is CLOCK_REALTIME.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time

# asm-generic/socket.h; the socket module names it only from Python 3.14 on. Alpha, MIPS, PA-RISC and SPARC number
# their options otherwise: there the reads are stamped by the process.
_GENERIC = os.uname().machine in ("x86_64", "aarch64", "riscv64", "ppc64le", "s390x", "loongarch64")
SO_TIMESTAMPNS = 35 if sys.platform == "linux" and _GENERIC else None

_TIMESPEC = struct.Struct("qq")
SPACE = socket.CMSG_SPACE(_TIMESPEC.size)
_local = threading.local()


def enable(sock: socket.socket) -> bool:
    """Ask the kernel to stamp what this TCP socket receives; False where it cannot."""
    if SO_TIMESTAMPNS is None:
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def timeval(microseconds: int) -> bytes:
    """A struct timeval, for SO_RCVTIMEO."""
    return struct.pack("@ll", *divmod(microseconds, 1_000_000))


def stamp(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """Epoch nanoseconds in recvmsg's ancillary data, None where the kernel gave none."""
    for level, kind, data in ancillary:
        if kind == SO_TIMESTAMPNS and level == socket.SOL_SOCKET and len(data) == 16:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return seconds * 1_000_000_000 + nanoseconds
    return None


def clock_offset() -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC in nanoseconds; a change of it is a step or a slew of the wall clock."""
    return time.time_ns() - time.monotonic_ns()


def cpu_wait() -> int | None:
    """Nanoseconds that this thread has stood runnable without running, since its start; None where unknown.

    Second field of /proc/thread-self/schedstat (Documentation/scheduler/sched-stats.rst).
    """
    pid_and_file = getattr(_local, "schedstat", None)
    # A forked child inherits the descriptor, which still names its parent's thread.
    if pid_and_file is None or pid_and_file[0] != os.getpid():
        try:
            pid_and_file = (os.getpid(), os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            pid_and_file = (os.getpid(), -1)
        _local.schedstat = pid_and_file
    if pid_and_file[1] < 0:
        return None
    try:
        return int(os.pread(pid_and_file[1], 100, 0).split()[1])
    except (OSError, IndexError, ValueError):
        return None
