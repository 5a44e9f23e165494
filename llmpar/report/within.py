"""What a cell's requests divide into: conversations and their turns, and models mixed over the prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmpar.report.table import Table
from llmpar.results import words

Summaries = Sequence[Mapping[str, Any]]
Named = Sequence[tuple[str, Summaries]]  # a cell's name and its summaries, one of each server session


def conversations(given: Named) -> Table | None:
    """A line for each cell of conversations; None without any."""
    lines = []
    for name, summaries in given:
        talks = [found for each in summaries if (found := each.get("conversations"))]
        if talks:
            lines.append(
                [
                    name,
                    f"{_sum(talks, 'complete')}/{_sum(talks, 'n')}",
                    words.number(_mean(talks, "turns_per_conversation", "mean")),
                    *(_duration(talks, "duration_s", part) for part in ("p50", "p95")),
                    _duration(talks, "think_s", "mean"),
                ]
            )
    header = ["cell", "complete", "turns", "duration p50", "p95", "of it thinking"]
    return _table("Conversations", header, lines, given)


def turns(given: Named) -> Table | None:
    """A line for each turn of each cell of conversations; None without any."""
    lines = []
    for name, place, found in _divided(given, lambda each: (each.get("conversations") or {}).get("turns"), "turn"):
        cached = _mean(found, "cached_ratio")
        lines.append(
            [
                name,
                place,
                f"{_sum(found, 'ok')}/{_sum(found, 'n')}",
                *(_duration(found, figure, part) for figure in ("ttft_s", "e2e_s") for part in ("p50", "p95")),
                words.number(_mean(found, "prompt_tokens_mean")),
                words.DASH if cached is None else f"{cached:.0%}",
            ]
        )
    header = ["cell", "turn", "ok", "TTFT p50", "p95", "E2E p50", "p95", "prompt tokens", "cached"]
    return _table("Conversations, turn by turn", header, lines, given)


def models(given: Named) -> Table | None:
    """A line for each model of each cell whose prompts name several; None without any."""
    lines = []
    for name, model, found in _divided(given, lambda each: each.get("models"), "model"):
        lines.append(
            [
                name,
                model,
                f"{_sum(found, 'ok')}/{_sum(found, 'n')}",
                words.number(_mean(found, "output_tokens_per_s")),
                *(_duration(found, figure, part) for figure in ("ttft_s", "tpot_s") for part in ("p50", "p95")),
                _duration(found, "e2e_s", "p95"),
            ]
        )
    header = ["cell", "model", "ok", "tokens/s", "TTFT p50", "p95", "TPOT p50", "p95", "E2E p95"]
    return _table("By model", header, lines, given)


def tables(given: Named) -> list[Table]:
    """All of these that the cells have."""
    return [one for one in (conversations(given), turns(given), models(given)) if one is not None]


def _divided(
    given: Named, parts_of: Callable[[Mapping[str, Any]], Any], key: str
) -> list[tuple[str, str, list[Mapping[str, Any]]]]:
    """Parts of each cell by their name, in the summaries' order: the cell, the part, and what each session says of
    it."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for name, summaries in given:
        for summary in summaries:
            for part in parts_of(summary) or ():
                found.setdefault((name, str(part.get(key))), []).append(part)
    return [(name, part, each) for (name, part), each in found.items()]


def _table(title: str, header: list[str], lines: list[list[str]], given: Named) -> Table | None:
    """A table of these lines; without the cells' names where there is one cell without a name."""
    if not lines:
        return None
    several = any(len(summaries) > 1 for _, summaries in given)
    note = "Means over server sessions; counts are of all." if several else ""
    if not any(line[0] for line in lines):
        header, lines = header[1:], [line[1:] for line in lines]
    text = {"cell", "turn", "model"}
    right = {place for place, head in enumerate(header) if head not in text}
    return Table(title, header, lines, right, note)


def _sum(found: Summaries, name: str) -> int:
    return sum(int(each.get(name) or 0) for each in found)


def _mean(found: Summaries, name: str, part: str | None = None) -> float | None:
    """The mean over sessions of a figure, or of a part of one; None where none has it."""
    figures = [each.get(name) for each in found]
    values = [(figure or {}).get(part) for figure in figures] if part else figures
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _duration(found: Summaries, name: str, part: str) -> str:
    value = _mean(found, name, part)
    return words.DASH if value is None else words.duration(value)
