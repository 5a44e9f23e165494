"""Ground files: instants and sizes as options give them, and what /proc says of a process."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from llmpar import clock, procfs, sizes


def test_an_instant_is_epoch_seconds_or_seconds_from_now() -> None:
    assert abs(clock.parse("1795535170.484902") - 1795535170484902000) < 1000  # a float64 holds no more
    before = time.time_ns()
    assert before + 2_500_000_000 <= clock.parse("+2.5") <= time.time_ns() + 2_500_000_000


@pytest.mark.parametrize("text", ["", "soon", "-1", "+-1", "nan", "inf", "1e12"])
def test_what_is_not_an_instant(text: str) -> None:
    with pytest.raises(ValueError, match="is not an instant"):
        clock.parse(text)


@pytest.mark.parametrize(
    ("text", "size"), [("8GiB", 8 << 30), ("24GB", 24 * 10**9), ("1.5k", 1500), ("512", 512), (4096, 4096)]
)
def test_a_size_is_a_number_of_bytes(text: str | int, size: int) -> None:
    assert sizes.parse(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "8XB"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="write 8GiB, 24GB or a number of bytes"):
        sizes.parse(text)


def test_a_process_with_brackets_and_blanks_in_its_name() -> None:
    program = "import ctypes; ctypes.CDLL(None).prctl(15, b') R 1 1'); print(flush=True); input()"
    child = subprocess.Popen(
        ["python3", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin and child.stdout
    try:
        child.stdout.readline()
        assert procfs.name(child.pid) == ") R 1 1"
        assert procfs.parent_of(child.pid) == os.getpid()
        assert procfs.members(child.pid) == [child.pid]
        key = procfs.process_key(child.pid)
        assert key and key.startswith(f"{child.pid}-") and procfs.fan_out_key(child.pid) == key
    finally:
        child.communicate(b"\n")
    assert procfs.process_key(child.pid) is None and procfs.parent_of(child.pid) is None
    assert procfs.fan_out_key(child.pid) == f"{child.pid}-0" and procfs.members(child.pid) == []


def test_when_this_process_started() -> None:
    assert 0 < time.time_ns() - procfs.process_start() < 3600 * 1_000_000_000
