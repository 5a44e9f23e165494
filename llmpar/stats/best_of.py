"""How far each of several cells is from the best of them, valid although the best was chosen by the same data.

An interval against the cell that came out best is not one against the best: of equal cells the first is first by luck,
and plain intervals put some equal cell below it in half of all sweeps. Edwards and Hsu (JASA 78, 1983) compare with an
unknown best: with simultaneous intervals of all others against whichever is the true best, that cell is among the
candidates, and each cell's distance lies within what the intervals against the candidates leave. Here by Bonferroni's
inequality.
"""

from __future__ import annotations

from collections.abc import Callable

from llmpar.stats.effects import CONFIDENCE, Effect

Compare = Callable[[int, int, float], Effect | None]


def of_best(count: int, compare: Compare, confidence: float = CONFIDENCE) -> list[tuple[float, float] | None]:
    """(low, high) of each cell's figure over the best one's, where more is better; 1 is the best itself.

    `compare(i, j, confidence)`: the effect of cell i over cell j. None for a cell that has no interval against another.
    """
    level = 1 - (1 - confidence) / max(1, count - 1)
    ends: dict[tuple[int, int], tuple[float, float]] = {}
    for i in range(count):
        for j in range(i):
            effect = compare(i, j, level)
            if effect is not None and effect.low is not None and effect.high is not None:
                ends[i, j], ends[j, i] = (effect.low, effect.high), (1 / effect.high, 1 / effect.low)
    compared = {i for i, _ in ends}
    candidates = {i for i in compared if all(ends[i, j][1] >= 1 for j in compared if (i, j) in ends)}
    result: list[tuple[float, float] | None] = []
    for i in range(count):
        others = [ends[i, j] for j in candidates if (i, j) in ends]
        if i not in compared or not (others or i in candidates):
            result.append(None)
            continue
        low = min([1.0, *(low for low, _ in others)])
        result.append((low, 1.0 if i in candidates else min(1.0, max(high for _, high in others))))
    return result
