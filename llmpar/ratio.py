"""The ratio of one figure between two cells, with an interval over server sessions, by the methods of llmpar.compare.

Sessions that both cells share (only the load differs, so they ran against the same server start) are compared within
the session, which takes what a session adds to both sides out of the noise. Fewer than two sessions a side give a ratio
without an interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmpar import compare


@dataclass(frozen=True)
class Ratio:
    """A over B; `low` and `high` None where there is no interval, `ratio` None where a side has no value above 0.

    `same`: the difference is certainly smaller than llmpar-compare's margin of practical meaning.
    """

    ratio: float | None
    low: float | None
    high: float | None
    sessions_a: int
    sessions_b: int
    method: str | None
    same: bool = False


def ratio(a: Mapping[str, float], b: Mapping[str, float], confidence: float = 0.95) -> Ratio:
    """The ratio of geometric means of `a` and `b`, values by session, with its interval at `confidence`."""
    if not a or not b or min(*a.values(), *b.values()) <= 0:
        return Ratio(None, None, None, len(a), len(b), None)
    both = sorted(set(a) & set(b))
    if len(both) >= 2:
        effect = compare.paired([a[name] for name in both], [b[name] for name in both], confidence)
        counts = (len(both), len(both))
    else:
        effect = compare.welch(list(a.values()), list(b.values()), confidence)
        counts = (len(a), len(b))
    method = effect.method if effect.low is not None else None
    return Ratio(effect.ratio, effect.low, effect.high, *counts, method, compare.equivalent(effect))
