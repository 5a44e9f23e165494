"""Whether two sides were measured side by side: machines and networks have good and bad evenings.

With evenings that differ by a standard deviation of 2%, sides measured on different ones are called different in 17 to
30 of 100 comparisons of equal servers, and more server sessions on the same two evenings make it worse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmpar.results import words

# One plan of sessions leaves no longer pause than this between its sides.
PAUSE_S = 3 * 3600.0


def apart(a: Iterable[dict[str, Any]], b: Iterable[dict[str, Any]]) -> str | None:
    """When each side was measured, where over PAUSE_S lie between them; None side by side, or where a time is
    unknown."""
    spans = [_span(side) for side in (a, b)]
    if spans[0] is None or spans[1] is None:
        return None
    (first_a, last_a), (first_b, last_b) = spans[0], spans[1]
    if max(first_b - last_a, first_a - last_b) <= PAUSE_S:
        return None
    return f"{_words(first_a, last_a)} against {_words(first_b, last_b)} (UTC)"


def _span(summaries: Iterable[dict[str, Any]]) -> tuple[float, float] | None:
    times = [(each.get("started_at"), each.get("ended_at") or each.get("started_at")) for each in summaries]
    if not times or any(start is None for start, _ in times):
        return None
    return min(start for start, _ in times if start is not None), max(end for _, end in times if end is not None)


def _words(first: float, last: float) -> str:
    start, end = words.utc(first), words.utc(last)
    if start[:10] == end[:10]:
        return f"{start} to {end[11:]}" if start != end else start
    return f"{start} to {end}"
