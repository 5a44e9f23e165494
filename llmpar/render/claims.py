"""Claims as plain text and Markdown."""

from __future__ import annotations

import textwrap
from typing import Any

from llmpar.render import markdown
from llmpar.results import words
from llmpar.verdicts import claims, sentences


def as_text(made: list[dict[str, Any]], details: bool) -> str:
    """One paragraph a claim: the verdict first, the sentence, then the effect under it."""
    lines = []
    for record in made:
        stated = f"; the study: {words.ratio(record['stated_ratio'], None, None)}" if record["stated_ratio"] else ""
        lines.append(f"{record['verdict']:<13} {record['sentence']}")
        indent = " " * 14
        lines += textwrap.wrap(sentences.claim(record) + stated, 108, initial_indent=indent, subsequent_indent=indent)
        if details:
            for comparison in record["comparisons"]:
                seen = sentences.comparison(comparison, record["metric"])
                text = f"{comparison['outcome']}: {sides(comparison)}: {seen}"
                lines += textwrap.wrap(text, 106, initial_indent=indent + "- ", subsequent_indent=indent + "  ")
    lines.append("")
    lines.append(
        ", ".join(
            f"{sum(record['verdict'] == name for record in made)} {name}"
            for name in claims.VERDICTS
            if name != claims.DEPENDS or any(record["verdict"] == name for record in made)
        )
    )
    return "\n".join(lines) + "\n"


def as_markdown(made: list[dict[str, Any]], details: bool) -> str:
    """A table of claims, and one of comparisons with --details."""
    text = markdown.table(
        ("Finding of the study", "Here", "Effect", "The study"),
        [
            (
                record["sentence"],
                record["verdict"],
                sentences.claim(record),
                words.ratio(record["stated_ratio"], None, None),
            )
            for record in made
        ],
    )
    if details:
        text += "\n" + markdown.table(
            ("Claim", "Cells", "Outcome", "Effect"),
            [
                (record["id"], sides(one), one["outcome"], sentences.comparison(one, record["metric"]))
                for record in made
                for one in record["comparisons"]
            ],
        )
    return text


def sides(one: dict[str, Any]) -> str:
    """What a comparison compares: A's settings against B's, and where."""
    at = ", ".join(
        f"{value}" if key in ("engine", "model") else f"{key.replace('_', ' ')} {value}"
        for key, value in one["at"].items()
    )
    return f"{words.settings(one['a']['settings'])} against {words.settings(one['b']['settings'])} ({at})"
