"""Picks as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from llmpar.render import markdown, plain
from llmpar.results import rows, words, workload
from llmpar.verdicts import pick


def render(choices: Sequence[pick.Choice], wanted: dict[str, float], top: int, marked: bool) -> str:
    """A table of the ranked cells, then why each of the others is not among them."""
    ranked = [choice for choice in choices if choice.ranked]
    asked = ", ".join(
        f"{metric} ≤ {words.size(most) if metric == 'memory_bytes' else f'{most:g}'}" for metric, most in wanted.items()
    )
    lines = []
    if not ranked:
        missing = all(choice.unknown for choice in choices)
        few = any(" needs " in reason for choice in choices for reason in choice.reasons)
        hint = "; give each cell more requests (the column count of its sweep)" if few else ""
        lines.append(
            f"too little data to say{hint}"
            if missing
            else f"no cell meets them: {asked}"
            if asked
            else "no cell can be ranked"
        )
    else:
        shown = ranked[:top]
        priced = any(choice.cost.value is not None for choice in shown)
        memory = any(choice.row.figure("memory_bytes").value is not None for choice in shown)
        header = [
            "",
            "cell",
            "output tokens/s",
            *(["cost per million"] if priced else []),
            "TTFT p95, s",
            "TPOT p95, s",
            *(["memory"] if memory else []),
            "front",
            "rate against the first",
        ]
        body = []
        for place, choice in enumerate(shown, 1):
            row, against = choice.row, choice.against_best
            seen = "" if against is None else words.ratio(against.ratio, against.low, against.high)
            body.append(
                [
                    str(place),
                    words.name(row, sweep=True),
                    words.figure(row.figure(pick.RATE)),
                    *([words.figure(choice.cost)] if priced else []),
                    words.figure(row.figure("ttft_p95_s")),
                    words.figure(row.figure("tpot_p95_s")),
                    *([words.size(row.figure("memory_bytes").value)] if memory else []),
                    "yes" if choice.front else "",
                    seen,
                ]
            )
        lines.append(markdown.table(header, body) if marked else plain.table(header, body))
        if asked:
            lines.append(f"{len(ranked)} of {len(choices)} cells meet {asked}")
        if len(workload.kinds(choice.row for choice in ranked)) > 1:
            lines.append(
                "mind: these cells were not given the same work (prompts or sampling differ), so their rates need not compare"
            )
        edge = [f"{words.name(choice.row, sweep=True)} ({', '.join(choice.edge)})" for choice in shown if choice.edge]
        if edge:
            lines.append("within an objective, but not by the whole interval: " + "; ".join(edge))
    barred: dict[str, list[str]] = {}
    for choice in sorted(choices, key=lambda choice: rows.order(choice.row)):
        if not choice.ranked:
            barred.setdefault("; ".join(choice.reasons), []).append(words.name(choice.row, sweep=True))
    lines += [
        f"{'- ' if marked else ''}not ranked ({reasons}): {words.shortened(names, between='; ')}"
        for reasons, names in barred.items()
    ]
    return (
        "\n".join(
            markdown.escape(line) if marked and not line.startswith(("|", "- ")) else line.rstrip("\n")
            for line in lines
        )
        + "\n"
    )
