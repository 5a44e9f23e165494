"""How far a sweep is, from the files that it writes: cells.mk, each cell's records as they are appended, the log of an
engine that loads. One line of text; nothing is asked of the load itself.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import orjson


@dataclass
class Tally:
    """What the records of one cell say so far. `feed` reads on where it stopped; a last line without its end waits."""

    path: Path
    position: int = 0
    requests: int = 0
    failed: int = 0
    tokens: int = 0
    first: float | None = None
    ttft_s: list[float] = field(default_factory=list)

    def feed(self) -> None:
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.position)
                text = stream.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self.position += len(whole)
        for line in whole.splitlines():
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if not isinstance(record, dict) or record.get("kind") != "request":
                continue
            self.requests += 1
            self.failed += record.get("status") != "ok"
            tokens = record.get("output_tokens")
            self.tokens += tokens if isinstance(tokens, int) else 0
            sent, ttft = record.get("sent_at"), record.get("ttft_s")
            if isinstance(sent, int | float):
                self.first = min(sent, self.first or sent)
            if isinstance(ttft, int | float):
                self.ttft_s.append(ttft)


class Sweep:
    """A folder of results that is being filled. `session` is the server session that runs now."""

    def __init__(self, folder: str, session: str) -> None:
        self.folder, self.session, self.began = Path(folder), session, time.time()
        self.lists: dict[str, list[str]] = {}
        self.tally: Tally | None = None

    def plan(self) -> None:
        """Reads cells.mk: a search adds to it as it goes on."""
        text = (self.folder / "cells.mk").read_text("utf-8", "replace")
        pairs = (line.split(" := ", 1) for line in text.splitlines() if " := " in line)
        self.lists = {name: cells.split() for name, cells in pairs}

    def measured(self, cell: str) -> bool:
        return self._changed_at(cell, "requests.jsonl") is not None

    def duration_s(self, cell: str) -> float | None:
        """How long a measured cell's load took, from the times of its files."""
        ended, began = self._changed_at(cell, "requests.jsonl"), self._changed_at(cell, "command.txt")
        return None if ended is None or began is None else ended - began

    def under_load(self, cells: list[str]) -> str | None:
        """The cell whose records are being written."""
        parts = [(self._written(cell), cell) for cell in cells if not self.measured(cell)]
        started = [(at, cell) for at, cell in parts if at is not None and at >= self.began - 1]
        return max(started)[1] if started else None

    def _written(self, cell: str) -> float | None:
        files = ("requests.jsonl.part", "warmup.jsonl.part", "warmup.jsonl")
        return max((at for name in files if (at := self._changed_at(cell, name)) is not None), default=None)

    def _changed_at(self, cell: str, name: str) -> float | None:
        """Epoch seconds of a cell's file; None for one that is not there, or whose name no file can have."""
        try:
            return (self.folder / cell / name).stat().st_mtime
        except (OSError, ValueError):
            return None

    def line(self, now: float | None = None) -> str:
        """`server session 3 of 12, cell 2 of 5, 64%, 41 tok/s, TTFT p50 0.30 s, 0 failed, 6 min left`."""
        now = time.time() if now is None else now
        try:
            self.plan()
        except OSError:
            return "planning"
        cells = self.lists.get(f"cells-of-{self.session}", [])
        sessions = self.lists.get("SESSIONS", [])
        place = sessions.index(self.session) + 1 if self.session in sessions else 1
        parts = [f"server session {place} of {len(sessions)}"] if len(sessions) > 1 else []
        cell = self.under_load(cells)
        if cell is None:
            done = sum(map(self.measured, cells))
            state = f"cell {done} of {len(cells)} done" if done else f"the engine starts, {now - self.began:.0f} s"
            return ", ".join([*parts, state])
        parts.append(f"cell {cells.index(cell) + 1} of {len(cells)}")
        asked = 0
        with contextlib.suppress(OSError):
            asked = (self.folder / cell / "queue").read_bytes().count(b"\0")
        path = self.folder / cell / "requests.jsonl.part"
        if self.tally is None or self.tally.path != path:
            self.tally = Tally(path)
        tally = self.tally
        tally.feed()
        if not tally.requests:
            return ", ".join([*parts, "first requests"])
        share = tally.requests / asked if asked else 0
        elapsed = max(now - (tally.first or now), 1e-3)
        parts += [f"{share:.0%}", f"{tally.tokens / elapsed:.{0 if tally.tokens > 10 * elapsed else 1}f} tok/s"]
        if tally.ttft_s:
            ttft = statistics.median(tally.ttft_s)
            parts.append(f"TTFT p50 {ttft * 1000:.0f} ms" if ttft < 0.1 else f"TTFT p50 {ttft:.2f} s")
        parts.append(f"{tally.failed} failed")
        left = self.left_s(cell, share, elapsed)
        return ", ".join([*parts, f"{words(left)} left"]) if left is not None else ", ".join(parts)

    def left_s(self, cell: str, share: float, elapsed: float) -> float | None:
        """Seconds to the end of all cells, if the rest of this one goes on like its beginning, and each of the others
        takes as long as the mean of those measured and this one."""
        if not share:
            return None
        whole = elapsed / share
        everything = self.lists.get("CELLS", [])
        took = [seconds for each in everything if (seconds := self.duration_s(each)) is not None]
        to_come = sum(1 for each in everything if each != cell and not self.measured(each))
        return whole - elapsed + to_come * statistics.mean([*took, whole])


def words(seconds: float) -> str:
    """`40 s`, `6 min`, `2 h 10 min`: no finer than an estimate deserves."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def show(folder: str, session: str, parent: int) -> None:
    """Draw the line on standard error once a second until the parent process ends."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    sweep = Sweep(folder, session)

    def text() -> Text:
        return Text(sweep.line(), no_wrap=True, overflow="ellipsis", style="dim")

    with Live(text(), console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        while os.getppid() == parent:
            live.update(text(), refresh=True)
            time.sleep(1)
