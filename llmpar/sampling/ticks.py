"""Absolute deadlines: tick k is due at start + k periods, however long the work of a tick takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator


class Ticks:
    """Ticks at a rate. A tick whose time has gone by entirely is not made up for: it is counted as missed."""

    def __init__(self, hz: float, clock: Callable[[], float] = time.monotonic):
        """`hz`: ticks a second, above 0."""
        self.period_s = 1.0 / hz
        self.missed = 0  # in all
        self._clock = clock

    def run(self, stop: threading.Event) -> Iterator[int]:
        """Yield at each deadline how many ticks were missed since the last one, the first at once, until `stop` is
        set."""
        start = self._clock()
        tick = 0
        lost = 0
        while not stop.is_set():
            yield lost
            now = self._clock()
            due = int((now - start) / self.period_s) + 1  # the first deadline still ahead
            lost = max(0, due - tick - 1)
            self.missed += lost
            tick = max(due, tick + 1)
            if stop.wait(max(0.0, start + tick * self.period_s - now)):
                return
