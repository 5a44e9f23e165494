"""Wall seconds that others have published for the same kind of load, such as study/walls.tsv.

They appear next to what is measured here only where a table of them is named, always under their source's name: other
prompts, other hosts, other versions, one run each and no interval. They are never mixed into a measured figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmpar.outside import printable

COLUMNS = ("source", "gpu", "memory_gib", "card_gib", "clients", "speculate", "servers", "wall_s")


class BadWalls(ValueError):
    """A table that cannot be understood; the text says where."""


@dataclass(frozen=True)
class Row:
    """One published wall time. `wall_s` in seconds; `memory_gib` used of `card_gib`; None where it does not say."""

    gpu: str
    memory_gib: int | None
    card_gib: int | None
    clients: int | None
    speculate: int | None
    servers: int
    wall_s: float

    @property
    def settings(self) -> str:
        """The row in words, without its seconds."""
        parts = [self.gpu]
        if self.memory_gib is not None:
            parts.append(f"{self.memory_gib} of {self.card_gib} GB")
        if self.clients is not None:
            parts.append(f"{self.clients} clients")
        if self.speculate is not None:
            parts.append(f"speculate {self.speculate}")
        if self.servers > 1:
            parts.append(f"{self.servers} servers on the one card")
        return ", ".join(parts)


@dataclass(frozen=True)
class Walls:
    """A whole table. `note`: what its comment lines say, for the reader of a report."""

    source: str
    note: str
    rows: tuple[Row, ...]

    def row(self, settings: dict[str, Any]) -> Row | None:
        """The row of the same client count and speculation on one whole card, if there is one.

        `settings` are one cell's server and load settings together. A cell with anything else that no row says (several
        replicas, shards, capped memory, a quantised model, another launcher than GNU parallel) has none.
        """
        if settings.get("launcher") not in (None, "parallel"):
            return None
        if any(settings.get(key) not in (None, 1) for key in ("replicas", "shards")):
            return None
        if any(settings.get(key) not in (None, "", "none") for key in ("kv_bytes", "quantize")):
            return None
        clients, speculate = settings.get("clients"), settings.get("speculate") or None
        return next(
            (
                row
                for row in self.rows
                if row.memory_gib == row.card_gib
                and row.servers == 1
                and row.clients is not None
                and (row.clients, row.speculate) == (clients, speculate)
            ),
            None,
        )


def parse(text: str, name: str) -> Walls:
    """A TSV with the header COLUMNS; `-` is unknown, `#` begins a line of the note. Raises BadWalls."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    note = printable(" ".join(line[1:].strip() for _, line in lines if line.startswith("#")))
    table = [(number, list(map(printable, line.split("\t")))) for number, line in lines if not line.startswith("#")]
    if not table or tuple(table[0][1]) != COLUMNS:
        raise BadWalls(f"'{name}': the header has to be {' '.join(COLUMNS)}, separated by tabs")
    rows = []
    for number, cells in table[1:]:
        try:
            _, gpu, memory, card, clients, speculate, servers, wall = cells
            numbers = (_whole(memory), _whole(card), _whole(clients), _whole(speculate))
            rows.append(Row(gpu, *numbers, int(servers), float(wall)))
        except ValueError as error:
            raise BadWalls(f"'{name}' line {number}: {error}") from None
    sources = {cells[0] for _, cells in table[1:]}
    if len(sources) != 1:
        raise BadWalls(f"'{name}': all rows of a table have one source, and here are {len(sources)}")
    return Walls(sources.pop(), note, tuple(rows))


def _whole(cell: str) -> int | None:
    return None if cell == "-" else int(cell)
