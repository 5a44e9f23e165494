"""The line of progress, from the files of a sweep that is being measured."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from llmpar import progress

CELLS = """\
CELLS := c001 c002 c001-r2 c002-r2
SESSIONS := llamacpp llamacpp-r2
cells-of-llamacpp := c001 c002
cells-of-llamacpp-r2 := c001-r2 c002-r2
"""


def record(sent: float, ttft: float | None, tokens: int, status: str = "ok") -> bytes:
    return orjson.dumps(
        {"kind": "request", "v": 1, "status": status, "sent_at": sent, "ttft_s": ttft, "output_tokens": tokens}
    )


@pytest.fixture
def sweep(tmp_path: Path) -> progress.Sweep:
    (tmp_path / "cells.mk").write_text(CELLS)
    for cell in ("c001", "c002", "c001-r2", "c002-r2"):
        (tmp_path / cell).mkdir()
    made = progress.Sweep(str(tmp_path), "llamacpp-r2")
    made.began = 1000.0
    return made


def at(path: Path, text: bytes, instant: float) -> None:
    path.write_bytes(text)
    os.utime(path, (instant, instant))


def test_an_engine_that_loads(sweep: progress.Sweep) -> None:
    assert sweep.line(1034) == "server session 2 of 2, the engine starts, 34 s"


def test_a_cell_under_load(sweep: progress.Sweep) -> None:
    for cell, ended in (("c001", 920), ("c002", 940), ("c001-r2", 1030)):
        at(sweep.folder / cell / "command.txt", b"", ended - 20)
        at(sweep.folder / cell / "requests.jsonl", b"", ended)
    (sweep.folder / "c002-r2" / "queue").write_bytes(b"p\0" * 8)
    lines = [record(1040, 0.25, 16), record(1041, 0.35, 16), record(1042, None, 0, "error"), record(1043, 0.3, 16)]
    part = sweep.folder / "c002-r2" / "requests.jsonl.part"
    at(part, b"\n".join(lines[:3]) + b"\n" + lines[3][:20], 1045)
    assert sweep.line(1050).startswith(
        "server session 2 of 2, cell 2 of 2, 38%, 3.2 tok/s, TTFT p50 0.30 s, 1 failed, "
    )
    # The torn line's rest arrives; nothing is counted twice.
    at(part, b"\n".join(lines) + b"\n", 1046)
    assert sweep.line(1050) == (
        "server session 2 of 2, cell 2 of 2, 50%, 4.8 tok/s, TTFT p50 0.30 s, 1 failed, 10 s left"
    )


def test_time_left_counts_cells_of_other_server_sessions(sweep: progress.Sweep) -> None:
    sweep.session = "llamacpp"
    (sweep.folder / "c001" / "queue").write_bytes(b"p\0" * 2)
    at(sweep.folder / "c001" / "requests.jsonl.part", record(1040, 0.25, 16) + b"\n", 1045)
    # 60 s each, half of the first has gone; three more to come.
    assert sweep.line(1070).endswith("cell 1 of 2, 50%, 0.5 tok/s, TTFT p50 0.25 s, 0 failed, 4 min left")


def test_a_part_left_by_an_earlier_run_is_not_under_load(sweep: progress.Sweep) -> None:
    at(sweep.folder / "c001-r2" / "requests.jsonl.part", record(500, 0.25, 16) + b"\n", 510)
    assert "the engine starts" in sweep.line(1010)


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (-1, "0 s"), (360, "6 min"), (7800, "2 h 10 min")])
def test_words(seconds: float, text: str) -> None:
    assert progress.words(seconds) == text
