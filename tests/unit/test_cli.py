"""cli.writing: whole files or none, and nothing but files is ever replaced."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from llmpar import cli, exit_codes, failure


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), cli.writing(str(target)) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [name for name in os.listdir(tmp_path) if name.endswith(".part")] == []
    with cli.writing(str(target)) as stream:
        stream.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with cli.writing(str(tmp_path / "link")) as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with cli.writing(str(pipe)) as stream:
        stream.write(b"through")
    reader.join(10)
    assert read == [b"through"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_never_replaced() -> None:
    # A device of its own would need rights that a test has not; /dev/full refuses what is written, and would be
    # replaced by root.
    before = os.stat("/dev/full")
    with pytest.raises(OSError, match="No space left"), cli.writing("/dev/full") as stream:
        stream.write(b"x")
    after = os.stat("/dev/full")
    assert stat.S_ISCHR(after.st_mode) and (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)


def test_a_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(failure.Failure) as caught, cli.writing(str(tmp_path)):
        pass
    assert caught.value.code == exit_codes.USAGE and "cannot write" in caught.value.message


def test_old_spellings_count_only_before_the_command_and_with_a_value(capsys):
    renamed = {"--version": ("--engine-version", None), "--hz": ("--interval", lambda hz: str(1 / float(hz)))}

    def spelled(line):
        return " ".join(cli.current_spelling(line.split(), renamed, "x"))

    assert spelled("--version") == "--version"
    assert spelled("--version --dry-run") == "--version --dry-run"
    assert spelled("--version 1.4 --dry-run") == "--engine-version 1.4 --dry-run"
    assert spelled("--version=1.4") == "--engine-version 1.4"
    assert spelled("--hz 10 -- tool --hz 10 --version 3") == "--interval 0.1 -- tool --hz 10 --version 3"
    assert spelled("--hz 0") == "--interval 0" and spelled("--hz quick") == "--interval quick"
    assert capsys.readouterr().err.count("the old spelling will go") == 5
