"""Verdicts for people: sentences for a terminal, a table for a pull request."""

from __future__ import annotations

from typing import Any

from llmpar.render import markdown as tables
from llmpar.results import words

MARKS = {
    "faster": "▲ faster",
    "slower": "▼ slower",
    "same": "= same",
    "cannot tell": "? cannot tell",
    "not comparable": "× not comparable",
}


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
        effect = each["effect"]
        change = interval = ""
        if effect:
            change = words.signed(effect["speedup"] - 1) + " %"
            if effect["speedup_low"] is not None:
                interval = f"{words.signed(effect['speedup_low'] - 1)} to {words.signed(effect['speedup_high'] - 1)} %"
        at = ", ".join(words.setting_phrase(name, value) for name, value in each["at"].items())
        rows.append(
            [
                MARKS[each["verdict"]],
                each["a"]["label"],
                each["b"]["label"],
                at,
                words.title(each["figure"]),
                change,
                interval,
                f"{each['a']['sessions']} / {each['b']['sessions']}",
            ]
        )
    table = tables.table(
        ["verdict", "candidate", "baseline", "at", "figure", "better by", "95 % interval", "sessions"], rows, (5, 6, 7)
    )
    notes = [
        f"- {tables.escape(each['sentence'])}\n"
        for each in verdicts
        if each["verdict"] in ("cannot tell", "not comparable")
    ]
    own = dict.fromkeys(
        reason["message"] for each in verdicts for reason in each["reasons"] if reason["code"] == "own_settings"
    )
    notes += [f"- {tables.escape(message)}\n" for message in own]
    return f"**{head}**\n\n{table}" + ("\n" + "".join(notes) if notes else "")
