"""A short seeded part of `make soak`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.soak import answers, readers


def test_answers_of_any_kind_make_one_valid_record_each():
    found = answers.fuzz(150, seed=1)
    assert found["ok"] and found["error"], "both kinds came"


def test_files_of_any_kind_are_read_or_refused():
    found = readers.fuzz(300, seed=1)
    assert found["read"] and found["refused"], "both kinds came"
