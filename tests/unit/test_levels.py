"""Doubling and bisection over load levels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpar.search.levels import Step, ladder, next_step
from llmpar.verdicts.objectives import MEETS, MISSES, UNKNOWN


def search(levels: list[float], edge: float, start: float | None = None) -> tuple[Step, list[float]]:
    """Ask until there is an answer, of a server that meets the objective up to `edge`."""
    measured: dict[float, str] = {}
    asked: list[float] = []
    while True:
        step = next_step(levels, measured, start=start)
        if step.level is None:
            return step, asked
        assert step.level in levels and step.level not in measured
        asked.append(step.level)
        measured[step.level] = MEETS if step.level <= edge else MISSES
        assert len(asked) <= len(levels)


def test_the_ladder_has_a_half_step_between_doublings() -> None:
    assert ladder(1, 20) == [1, 2, 3, 4, 6, 8, 12, 16, 20]
    assert ladder(0.5, 3, whole=False) == [0.5, 0.75, 1, 1.5, 2, 3]
    with pytest.raises(ValueError, match="above 0"):
        ladder(0, 8)


@given(st.floats(0.5, 2000), st.sampled_from([None, 1, 8, 64, 1024]))
def test_it_finds_the_edge_exactly(edge: float, start: float | None) -> None:
    levels = ladder(1, 1024)
    step, asked = search(levels, edge, start)
    below = [level for level in levels if level <= edge]
    above = [level for level in levels if level > edge]
    assert step.best == max(below, default=None) and step.above == min(above, default=None)
    assert len(asked) <= 12 and step.contradictions == ()


def test_from_sixteen_clients_an_edge_takes_four_to_eight_cells() -> None:
    levels = ladder(1, 512)
    counts = [len(search(levels, edge, start=16)[1]) for edge in levels]
    assert max(counts) <= 8 and sum(counts) / len(counts) <= 6


def test_an_open_level_is_measured_again_then_named() -> None:
    levels = ladder(8, 64)
    measured = {8: MEETS, 16: UNKNOWN}
    assert next_step(levels, measured) == Step(16, again=True)
    step = next_step(levels, measured, tries={16: 2})
    assert step.level == 12
    step = next_step(levels, measured | {12: MEETS}, tries={16: 2})
    assert step == Step(None, best=12, above=16, unsure=(16,))


def test_a_miss_below_a_level_that_meets_is_named() -> None:
    levels = ladder(8, 32)
    step = next_step(levels, {8: MEETS, 12: MISSES, 16: MEETS, 24: MISSES})
    assert step == Step(None, best=16, above=24, contradictions=(12,))
