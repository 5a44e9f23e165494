"""Predictions among measurements: told apart, and kept apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Mixed(ValueError):
    """Simulated summaries where only measured ones may be, or both sorts together; the text says which."""


def is_simulated(summary: dict[str, Any]) -> bool:
    """Whether llmpar-simulate made it: the field `simulated`, or any trace of a simulated request, should that be
    lost."""
    clocks = (summary.get("client") or {}).get("clock") or {}
    return bool(summary.get("simulated")) or "simulated" in clocks


def refuse(summaries: Iterable[dict[str, Any]], alone: bool = False) -> None:
    """Raises Mixed where a simulated summary is among them; with `alone`, only where measured ones are there too.

    A simulated session has none of the noise that sessions differ by, so no verdict may come of it.
    """
    given = list(summaries)
    made = [summary for summary in given if is_simulated(summary)]
    if not made or (alone and len(made) == len(given)):
        return
    name = made[0].get("label") or (made[0].get("cell") or {}).get("id") or "without a name"
    if alone:
        raise Mixed(
            f"{len(made)} of {len(given)} summaries are simulated, '{name}' for one: predictions are not ranked with "
            "measurements"
        )
    raise Mixed(f"summary '{name}' is simulated: a prediction is not compared as if it were measured")


HINT = "leave it out; llmpar-simulate says how predictions compare, with intervals from held-out measurements"
