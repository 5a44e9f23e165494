"""Picks: how many cells meet the objectives, a table of those, and why each of the others is not among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmpar.render import markdown, plain
from llmpar.results import rows, words, workload
from llmpar.verdicts import pick

# Cells that are not ranked, as they are listed.
GROUPS = ((pick.UNKNOWN, "cannot tell"), (pick.MISSES, "miss"))
USUAL = ("ttft_p95_s", "tpot_p95_s")


def render(choices: Sequence[pick.Choice], wanted: Mapping[str, float], top: int, marked: bool) -> str:
    """Text for a terminal, or Markdown where `marked`. `wanted`: metric to the most it may be."""
    asked = ", ".join(f"{words.title(metric)} ≤ {words.goal(metric, most)}" for metric, most in wanted.items())
    ranked = [choice for choice in choices if choice.ranked]
    lines = [counted(choices) + (f": {asked}" if asked else "")]
    if ranked:
        header, body = cells(ranked[:top], wanted)
        table = markdown.table(header, body) if marked else plain.table(header, body)
        lines += ["", table.rstrip("\n"), *notes(ranked)]
    bullet = "- " if marked else ""
    for state, _ in GROUPS:
        lines += [f"{bullet}{state} ({reason}): {names}" for reason, names in reasons(choices, state)]
    if marked:
        lines = [markdown.escape(line) if not line.startswith(("|", "- ")) else line for line in lines]
    return "\n".join(lines) + "\n"


def reasons(choices: Sequence[pick.Choice], state: str) -> list[tuple[str, str]]:
    """Why the cells of one state are in it, and which those are, each reason once."""
    listed: dict[str, list[str]] = {}
    for choice in sorted(choices, key=lambda choice: rows.order(choice.row)):
        if choice.state == state:
            listed.setdefault("; ".join(choice.reasons), []).append(words.name(choice.row, sweep=True))
    return [(reason, words.shortened(names, between="; ")) for reason, names in listed.items()]


def counted(choices: Sequence[pick.Choice]) -> str:
    """`meet 1 · miss 3 · cannot tell 1`."""
    states = [choice.state for choice in choices]
    names = ((pick.MEETS, "meet"), (pick.MISSES, "miss"), (pick.UNKNOWN, "cannot tell"))
    return " · ".join(f"{name} {states.count(state)}" for state, name in names)


def cells(shown: Sequence[pick.Choice], wanted: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    """Header and body of the table of ranked cells."""
    metrics = [*dict.fromkeys([*(name for name in wanted if name != "memory_bytes"), *USUAL])]
    priced = any(choice.cost.value is not None for choice in shown)
    memory = any(choice.row.figure("memory_bytes").value is not None for choice in shown)
    header = [
        "",
        "cell",
        "output tokens/s",
        *(["cost per million"] if priced else []),
        *map(words.title, metrics),
        *(["memory"] if memory else []),
        "sessions",
        "front",
        "rate over the best",
    ]
    body = []
    for place, choice in enumerate(shown, 1):
        row = choice.row
        body.append(
            [
                str(place),
                words.name(row, sweep=True),
                words.figure(row.figure(pick.RATE)),
                *([words.figure(choice.cost)] if priced else []),
                *(words.measured(metric, row.figure(metric)) for metric in metrics),
                *([words.size(row.figure("memory_bytes").value)] if memory else []),
                str(len({rows.session_of(summary) for summary in row.summaries})),
                "yes" if choice.front else "",
                _of_best(choice),
            ]
        )
    return header, body


def _of_best(choice: pick.Choice) -> str:
    """The interval of the rate over the best one's; the best itself may be any cell whose interval reaches 1."""
    if choice.of_best is None:
        return ""
    low, high = choice.of_best
    seen = 1.0 if choice.against_best is None else choice.against_best.ratio
    return f"{seen:.2f} ({low:.2f} to {high:.2f})"


def notes(ranked: Sequence[pick.Choice]) -> list[str]:
    notes = []
    candidates = [words.name(choice.row, sweep=True) for choice in ranked if choice.of_best and choice.of_best[1] == 1]
    if len(candidates) > 1:
        notes.append(f"any of these may have the best rate: {words.shortened(candidates, between='; ')}")
    if len(workload.kinds(choice.row for choice in ranked)) > 1:
        notes.append(
            "note: these cells were not given the same work (prompts or sampling differ), so their rates are not "
            "comparable"
        )
    when = pick.measured_apart(ranked)
    if when:
        notes.append(f"note: not measured side by side: {when}; their rates are not comparable")
    few = [f"{words.name(choice.row, sweep=True)} ({choice.row.failures})" for choice in ranked if choice.row.failures]
    if few:
        notes.append(f"note: requests that failed: {words.shortened(few, between='; ')}")
    return notes
