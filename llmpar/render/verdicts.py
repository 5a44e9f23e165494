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
    for each in verdicts:
        lines.append(each["sentence"])
        said = each["sentence"]
        lines += [f"  note: {reason['message']}" for reason in each["reasons"] if reason["message"] not in said]
    return "\n".join(lines) + "\n"


def markdown(verdicts: list[dict[str, Any]]) -> str:
    """A summary line, a table with one row a verdict, and the reasons of those that say nothing."""
    counts = {name: sum(each["verdict"] == name for each in verdicts) for name in MARKS}
    head = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    rows = []
    for each in verdicts:
        seen = size = interval = ""
        if each["effect"]:
            seen = sentences.values(each["figure"], each["a"]["value"], each["b"]["value"])
            size, interval = sentences.change({**each, "verdict": "cannot tell"})
        at = ", ".join(words.setting_phrase(name, value) for name, value in each["at"].items())
        rows.append(
            [
                MARKS[each["verdict"]],
                each["a"]["label"],
                each["b"]["label"],
                at,
                words.title(each["figure"]),
                seen,
                size,
                interval,
                f"{each['a']['sessions']} / {each['b']['sessions']}",
            ]
        )
    table = tables.table(
        ["verdict", "candidate", "baseline", "at", "figure", "values", "difference", "95% interval", "sessions"],
        rows,
        (5, 6, 7, 8),
    )
    notes = [
        f"- {tables.escape(each['sentence'])}\n"
        for each in verdicts
        if each["verdict"] in ("cannot tell", "not comparable")
    ]
    said = "".join(notes)
    weakened = dict.fromkeys(
        reason["message"] for each in verdicts for reason in each["reasons"] if reason["code"] in WEAKENING
    )
    notes += [f"- {escaped}\n" for message in weakened if (escaped := tables.escape(message)) not in said]
    return f"**{head}**\n\n{table}" + ("\n" + "".join(notes) if notes else "")
