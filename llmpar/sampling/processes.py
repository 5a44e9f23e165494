"""CPU, memory and threads of a server's processes: given roots and all their descendants."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import psutil

PSS_SHARE = 0.01  # proportional memory is read while that costs less than this share of the interval


class Processes:
    """Follows processes from their roots. A descendant stays known after its parent has gone."""

    def __init__(self, roots: Iterable[int], interval_s: float):
        self._known: dict[tuple[int, float], psutil.Process] = {}
        self._cpu: dict[tuple[int, float], float] = {}  # last seen CPU seconds, of ended ones too
        self._budget_s = PSS_SHARE * interval_s
        self._pss = True
        for root in roots:
            try:
                self._add(psutil.Process(root))
            except psutil.Error:
                continue

    def _add(self, process: psutil.Process) -> None:
        self._known.setdefault((process.pid, process.create_time()), process)

    def sample(self) -> dict[str, Any]:
        """`processes`, `cpu_s` (of all since the first sample, ended ones up to their last sample), `rss_bytes`,
        `pss_bytes` (None where it is dear or refused), `threads`; all None once no process is left.
        """
        for process in list(self._known.values()):
            try:
                for child in process.children():
                    self._add(child)
                    for grandchild in child.children(recursive=True):
                        self._add(grandchild)
            except psutil.Error:
                continue
        rss = threads = 0
        for key, process in list(self._known.items()):
            try:
                with process.oneshot():
                    if process.status() == psutil.STATUS_ZOMBIE:
                        raise psutil.NoSuchProcess(process.pid)
                    times = process.cpu_times()
                    memory = process.memory_info().rss
                    threads += process.num_threads()
            except psutil.Error:
                del self._known[key]
                continue
            rss += memory
            self._cpu[key] = times.user + times.system
        if not self._known:
            return {"processes": None, "cpu_s": None, "rss_bytes": None, "pss_bytes": None, "threads": None}
        return {
            "processes": len(self._known),
            "cpu_s": round(sum(self._cpu.values()), 3),
            "rss_bytes": rss,
            "pss_bytes": self._proportional(),
            "threads": threads,
        }

    def _proportional(self) -> int | None:
        """Memory with shared pages divided among their users; the kernel walks all pages for it."""
        if not self._pss:
            return None
        began = time.perf_counter()
        total = 0
        try:
            for process in self._known.values():
                total += process.memory_full_info().pss
        except (psutil.Error, AttributeError):
            return None
        self._pss = time.perf_counter() - began < self._budget_s
        return total
