"""A report as Markdown and as plain text."""

from __future__ import annotations

from llmpar.render import markdown, picks, plain
from llmpar.report import document, table
from llmpar.verdicts import sentences

MOST_PICKS = 5  # ranked cells in the table of picks


def as_markdown(document: document.Document) -> str:
    parts = [
        f"# {markdown.escape(document.title)}\n",
        "".join(f"- {markdown.escape(fact)}\n" for fact in document.facts),
    ]
    parts += [
        f"- **{markdown.escape(sweep.name or 'cells')}**: {markdown.escape(sweep.answer)}\n"
        for sweep in document.sweeps
        if sweep.answer
    ]
    parts += [f"- {markdown.escape(sentence)}\n" for sentence in sentences.together(document.verdicts)]
    if document.choices:
        parts += ["## Picks\n", picks.render(document.choices, document.objectives, MOST_PICKS, True)]
    if document.claims:
        parts += [
            "## The study's findings\n",
            markdown.table(
                ("Finding", "Here", "Effect"),
                [(record["sentence"], record["verdict"], sentences.claim(record)) for record in document.claims],
            ),
        ]
    for sweep in document.sweeps:
        parts += [
            f"## {markdown.escape(sweep.name or 'cells')}\n",
            markdown.escape(sweep.answer) + "\n" if sweep.answer else "",
            _markdown(sweep.table),
            "".join(f"- {markdown.escape(cause)}\n" for cause in sweep.causes),
        ]
        for one in sweep.within:
            parts += [f"### {markdown.escape(one.title)}\n", _markdown(one)]
    for one in (*document.published, *document.warnings, *document.runs):
        parts += [f"## {markdown.escape(one.title)}\n", _markdown(one)]
    return "\n".join(part for part in parts if part)


def _markdown(one: table.Table) -> str:
    caption = markdown.escape(one.caption) + "\n\n" if one.caption else ""
    return (
        caption
        + markdown.table(one.header, one.rows, one.right)
        + (f"\n{markdown.escape(one.note)}\n" if one.note else "")
    )


def as_text(document: document.Document) -> str:
    parts = [document.title, *document.facts, ""]
    parts += [f"{sweep.name or 'cells'}: {sweep.answer}" for sweep in document.sweeps if sweep.answer]
    parts += sentences.together(document.verdicts)
    if document.choices:
        parts += ["", "Picks: " + picks.render(document.choices, document.objectives, MOST_PICKS, False)]
    parts += [f"{record['verdict']:<13} {record['sentence']}: {sentences.claim(record)}" for record in document.claims]
    for sweep in document.sweeps:
        parts += [*_text(sweep.table), *sweep.causes]
        for one in sweep.within:
            parts += _text(one)
    for one in (*document.published, *document.warnings):
        parts += _text(one)
    return "\n".join(parts) + "\n"


def _text(one: table.Table, answer: str = "") -> list[str]:
    """A table after an empty line, with what is said of it."""
    return ["", *filter(None, (one.title, answer, one.caption, plain.table(one.header, one.rows).rstrip(), one.note))]
