"""The study's own measurements: wall seconds for its whole prompt set, Vicuna 7B class models, spring 2024.

They stand beside what is measured here, always labelled as the study's: other prompts, other hosts, other versions, one
run each and no interval. They are never mixed into a measured figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LABEL = "the study, 2024"
NOTE = (
    "The study's numbers are one run each, on its own prompts, hosts and versions; compare their order, not their size. "
    "Its four client rows do not say whether speculation was on."
)


@dataclass(frozen=True)
class Row:
    """One line of the study's table. `wall_s` in seconds; `memory_gib` used of `card_gib`; None where it does not say."""

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


ROWS: tuple[Row, ...] = (
    Row("RTX A6000", 48, 48, 24, None, 1, 664.0),
    Row("RTX A6000", 48, 48, 64, None, 1, 561.0),
    Row("RTX A6000", 48, 48, 128, None, 1, 554.0),
    Row("RTX A6000", 48, 48, 256, None, 1, 568.0),
    Row("RTX A6000", 48, 48, 128, 2, 1, 596.0),
    Row("RTX A6000", 48, 48, 128, 8, 1, 945.0),
    Row("RTX 3090", None, None, None, 2, 1, 741.0),
    Row("RTX 4090", None, None, None, 2, 1, 481.0),
    Row("RTX A6000", 24, 48, None, 2, 1, 707.0),
    Row("RTX A6000", 24, 48, None, None, 2, 1205.0),
)


def beside(settings: dict[str, Any]) -> Row | None:
    """The study's row for the same client count and speculation on its whole A6000, if it has one.

    `settings` are one cell's server and load settings together. A cell with anything else of the study's that the row
    lacks (several replicas, shards, capped memory, a quantised model, another launcher than GNU parallel) has none.
    """
    if settings.get("launcher") not in (None, "parallel"):
        return None
    if any(settings.get(key) not in (None, 1) for key in ("replicas", "shards")):
        return None
    if any(settings.get(key) not in (None, "", "none") for key in ("kv_bytes", "quantize")):
        return None
    speculate = settings.get("speculate") or None
    for row in ROWS:
        whole = row.gpu == "RTX A6000" and row.memory_gib == 48 and row.servers == 1
        if whole and row.clients == settings.get("clients") and row.speculate == speculate:
            return row
    return None
