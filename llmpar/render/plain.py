"""Tables in plain text: columns two spaces apart, words to the left, figures to the right."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines with a header; a column whose cells all begin with a digit, a dash or nothing is right-aligned."""
    right = [all(not row[index] or row[index][0] in "0123456789–-" for row in rows) for index in range(len(header))]
    widths = [max(len(line[index]) for line in (header, *rows)) for index in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), *[line(row) for row in rows]]) + "\n"
