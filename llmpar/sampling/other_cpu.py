"""CPU that is taken on this machine by processes that are neither the engine nor the client."""

from __future__ import annotations

import os
import time

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LEAST_S = 0.2  # between two readings: the kernel counts in ticks of 10 ms


def busy_s() -> tuple[float, int] | None:
    """CPU seconds that all processors spent on processes since boot, and how many there are; None where /proc is not
    read.

    User, nice, system and steal (what the hypervisor gave to others): not interrupts, which the network load brings.
    """
    try:
        with open("/proc/stat", "rb") as stream:
            lines = stream.read().splitlines()
        fields = [int(word) for word in lines[0].split()[1:]]
        count = sum(1 for line in lines if line.startswith(b"cpu")) - 1
        return (fields[0] + fields[1] + fields[2] + (fields[7] if len(fields) > 7 else 0)) / TICKS_PER_S, count
    except (OSError, ValueError, IndexError):
        return None


def session_s(session: int) -> float:
    """CPU seconds of all processes of a terminal session, and of their children that ended and were waited for."""
    total = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
            if int(fields[3]) == session:
                total += sum(map(int, fields[11:15]))
        except (OSError, ValueError, IndexError):
            continue
    return total / TICKS_PER_S


class OtherCpu:
    """Shares of the processors' time that others took, from reading to reading.

    The client is what runs in this process's terminal session: the load that was started beside it, its pool too.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float, float, float] | None = None

    def ratio(self, engine_cpu_s: float | None) -> float | None:
        """0 to 1 since the last reading; None at the first one, too soon after it, or without the engine's CPU
        seconds."""
        busy = busy_s()
        if busy is None or engine_cpu_s is None:
            return None
        total, count = busy
        now, client = time.monotonic(), session_s(os.getsid(0))
        last = self._last
        if last is not None and now - last[0] < LEAST_S:
            return None
        self._last = now, total, engine_cpu_s, client
        if last is None:
            return None
        others = total - last[1] - max(engine_cpu_s - last[2], 0.0) - max(client - last[3], 0.0)
        return round(min(max(others / (now - last[0]) / max(count, 1), 0.0), 1.0), 4)
