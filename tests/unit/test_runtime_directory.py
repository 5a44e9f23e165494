"""The runtime directory: used where it and its parent are this user's alone, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmpar import runtime_directory


@pytest.fixture
def base(tmp_path: Path) -> Path:
    made = tmp_path / "base"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made instead of /tmp/llmpar-UID."""
    asked: list[str] = []
    make, look = os.mkdir, os.lstat

    def moved(path: str) -> str:
        return str(tmp_path / "own") if str(path).startswith("/tmp/llmpar-") else path

    def mkdir(path: str, mode: int = 0o777) -> None:
        asked.append(str(path))
        make(moved(path), mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "lstat", lambda path: look(moved(path)))
    return asked


def test_a_parent_of_ours_is_used(base: Path) -> None:
    found = runtime_directory.directory({"XDG_RUNTIME_DIR": str(base)})
    assert found == f"{base}/llmpar" and os.stat(found).st_mode & 0o777 == 0o700
    assert runtime_directory.directory({"XDG_RUNTIME_DIR": str(base)}) == found


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o720, 0o702])
def test_a_parent_in_which_others_may_rename_is_not_used(mode: int, base: Path, elsewhere: list[str]) -> None:
    base.chmod(mode)
    assert runtime_directory.directory({"XDG_RUNTIME_DIR": str(base)}) == f"/tmp/llmpar-{os.getuid()}"
    assert elsewhere == [f"/tmp/llmpar-{os.getuid()}"] and not list(base.iterdir())


def test_a_parent_of_another_user_is_not_used(base, elsewhere, monkeypatch) -> None:
    # As if we were somebody else: all that is there is another user's.
    uid = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: uid)
    with pytest.raises(runtime_directory.Unsafe, match=f"/tmp/llmpar-{uid}"):
        runtime_directory.directory({"XDG_RUNTIME_DIR": str(base)})
    assert elsewhere == [f"/tmp/llmpar-{uid}"] and not list(base.iterdir())


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_a_directory_that_others_may_enter_is_refused(mode: int, base: Path) -> None:
    (base / "llmpar").mkdir()
    (base / "llmpar").chmod(mode)
    with pytest.raises(runtime_directory.Unsafe, match="of this user alone"):
        runtime_directory.directory({"XDG_RUNTIME_DIR": str(base)})


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_directory_is_refused(kind: str, base: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(mode=0o700)
    if kind == "link":
        (base / "llmpar").symlink_to(tmp_path / "target")
    else:
        (base / "llmpar").write_text("")
    with pytest.raises(runtime_directory.Unsafe):
        runtime_directory.directory({"XDG_RUNTIME_DIR": str(base)})


def test_a_parent_that_is_not_there_is_not_used(tmp_path: Path, elsewhere: list[str]) -> None:
    runtime_directory.directory({"XDG_RUNTIME_DIR": str(tmp_path / "none")})
    assert elsewhere == [f"/tmp/llmpar-{os.getuid()}"]
