"""Joules per output token, from a GPU's energy and the tokens received over the same time."""

from __future__ import annotations

from typing import Any


def per_output_token(gpu: dict[str, Any], tokens: int | None) -> dict[str, float]:
    """Joules per output token, and one step of that: differences below it mean nothing. `gpu`: samples reduced over
    the time in which the tokens came. Empty where the energy is unknown or no token came."""
    if gpu["energy_j"] is None or not tokens:
        return {}
    return {
        "energy_per_output_token_j": gpu["energy_j"] / tokens,
        "energy_per_output_token_resolution_j": gpu["energy_resolution_j"] / tokens,
    }
