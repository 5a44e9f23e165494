"""Unfinished files: of a killed writer they go, of a living one or of another host they stay."""

from __future__ import annotations

import subprocess

from llmpar import cli, parts


def test_only_what_a_killed_writer_left_goes(tmp_path):
    tmp_path = tmp_path / "results"
    tmp_path.mkdir()
    path = str(tmp_path / "s.json")
    own = parts.name(path)
    child = subprocess.Popen(["sleep", "0"])
    child.wait()
    stem = own.rsplit("-", 2)[0]
    dead, living, elsewhere = f"{stem}-{child.pid}-1.part", own, f"{path}.0123abcd-1-1.part"
    for name in (dead, living, elsewhere, f"{path}.part", f"{path}.txt"):
        open(name, "w").close()
    (tmp_path / f"s.json.{stem.rpartition('.')[2]}-{child.pid}-2.part").mkdir()
    parts.clear(path)
    left = {each.name for each in tmp_path.iterdir()}
    assert left == {name.rpartition("/")[2] for name in (living, elsewhere, f"{path}.part", f"{path}.txt")}


def test_a_file_is_written_with_the_usual_rights_and_names(tmp_path):
    tmp_path = tmp_path / "results"
    tmp_path.mkdir()
    path = tmp_path / "with [brackets].json"
    with cli.writing(str(path)) as stream:
        stream.write(b"x")
        (part,) = tmp_path.iterdir()
        assert part.name.startswith("with [brackets].json.") and part.name.endswith(".part")
    assert path.read_bytes() == b"x" and list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644 or path.stat().st_mode & 0o600 == 0o600
