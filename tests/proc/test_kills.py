"""A short seeded part of the kills of `make soak`."""

from __future__ import annotations

import sys
from pathlib import Path

import optional
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.soak import kills

pytestmark = optional.needs("parallel")
SHORT = [("launcher", "pool"), ("pool worker", "queue"), ("request", "threads"), ("prompts", "--replace")]


@pytest.mark.parametrize(("role", "form"), SHORT)
def test_a_kill_loses_and_doubles_nothing_and_leaves_nothing(role, form):
    tally = kills.run(1, 1, lambda *scene: scene == (role, form))[role, form]
    assert (tally.lost, tally.doubled, tally.left, tally.again) == (0, 0, 0, 0), tally.said
    assert tally.kills == 1
