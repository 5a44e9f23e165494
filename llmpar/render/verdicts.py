"""Verdicts for people: sentences for a terminal, a table for a pull request."""

from __future__ import annotations

from typing import Any

from llmpar.render import markdown as tables
from llmpar.results import words
from llmpar.verdicts import sentences

MARKS = {
    "faster": "▲ faster",
    "slower": "▼ slower",
    "same": "= same",
    "cannot tell": "? cannot tell",
    "not comparable": "× not comparable",
}

# Reasons that are said beside a verdict that was reached.
WEAKENING = ("own_settings", "failures", "outlier", "times", "left_out")


def text(verdicts: list[dict[str, Any]]) -> str:
    """One sentence a verdict, and under it what weakens it."""
    lines = []
    for record in verdicts:
        lines.append(record["sentence"])
        said = record["sentence"]
        lines += [f"  note: {reason['message']}" for reason in record["reasons"] if reason["message"] not in said]
    return "\n".join(lines) + "\n"


def markdown(verdicts: list[dict[str, Any]]) -> str:
    """A summary line, a table with one row a verdict, and the reasons of those that say nothing."""
    counts = {name: sum(record["verdict"] == name for record in verdicts) for name in MARKS}
    head = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    rows = []
    for record in verdicts:
        seen = size = interval = ""
        if record["effect"]:
            seen = sentences.values(record["figure"], record["a"]["value"], record["b"]["value"])
            size, interval = sentences.change({**record, "verdict": "cannot tell"})
        at = ", ".join(words.setting_phrase(name, value) for name, value in record["at"].items())
        rows.append(
            [
                MARKS[record["verdict"]],
                record["a"]["label"],
                record["b"]["label"],
                at,
                words.title(record["figure"]),
                seen,
                size,
                interval,
                f"{record['a']['sessions']} / {record['b']['sessions']}",
            ]
        )
    table = tables.table(
        ["verdict", "candidate", "baseline", "at", "figure", "values", "difference", "95% interval", "sessions"],
        rows,
        (5, 6, 7, 8),
    )
    notes = [
        f"- {tables.escape(record['sentence'])}\n"
        for record in verdicts
        if record["verdict"] in ("cannot tell", "not comparable")
    ]
    said = "".join(notes)
    weakened = dict.fromkeys(
        reason["message"] for record in verdicts for reason in record["reasons"] if reason["code"] in WEAKENING
    )
    notes += [f"- {escaped}\n" for message in weakened if (escaped := tables.escape(message)) not in said]
    return f"**{head}**\n\n{table}" + ("\n" + "".join(notes) if notes else "")
