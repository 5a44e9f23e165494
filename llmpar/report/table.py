"""One table of a report: a title, column heads and rows of words."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Table:
    """Words in rows. Columns numbered in `right` hold figures; `note` stands under the table."""

    title: str
    header: list[str]
    rows: list[list[str]]
    right: set[int] = field(default_factory=set)
    note: str = ""
    caption: str = ""
    simulated: set[int] = field(default_factory=set)  # numbers of rows that are predictions
