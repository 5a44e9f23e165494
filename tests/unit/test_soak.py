"""A short seeded part of `make soak`."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.soak import answers, files, readers
from tests.soak.all_readers import everything

READERS = {reader.name: reader for reader in everything()}


def test_answers_of_any_kind_make_one_valid_record_each():
    found = answers.fuzz(150, seed=1)
    assert found["ok"] and found["error"], "both kinds came"


def test_files_of_any_kind_are_read_or_refused():
    found = readers.fuzz(300, seed=1)
    assert found["read"] and found["refused"], "both kinds came"


@pytest.mark.parametrize("name", READERS)
def test_every_reader_takes_or_refuses_changed_files(name):
    with contextlib.redirect_stderr(io.StringIO()):
        found = files.fuzz(READERS[name], 1 if READERS[name].slow else 8, seed=1)
    assert found


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if not reader.slow])
def test_every_reader_takes_its_good_files(name, tmp_path):
    files.write(READERS[name], tmp_path, {})
    with contextlib.redirect_stderr(io.StringIO()):
        assert files.run(READERS[name], tmp_path) in GOOD.get(name, (0,))


# The files name cells, engines and hashes that are not there.
GOOD = {"prompts --check": (5,), "verify": (5,)}
