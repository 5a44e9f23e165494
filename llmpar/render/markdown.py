"""Tables and texts in Markdown as GitHub and pandoc read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SPECIAL = str.maketrans({character: "\\" + character for character in "\\`*_[]<>|#"})


def escape(text: str) -> str:
    """Text that stays text: no markup, no HTML, no end of a table cell."""
    return " ".join(str(text).split()).translate(SPECIAL)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A pipe table; columns numbered in `right` are right-aligned."""
    align = set(right)
    lines = [
        "| " + " | ".join(escape(name) for name in header) + " |",
        "|" + "|".join(" ---: " if index in align else " --- " for index in range(len(header))) + "|",
    ]
    lines += ["| " + " | ".join(escape(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
