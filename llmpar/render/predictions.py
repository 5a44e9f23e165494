"""Predictions as a table, the order of the cards below it, and what was not predicted and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmpar.outside import printable
from llmpar.render import markdown, plain
from llmpar.simulate.order import Order

HEADER = ("simulated", "clients", "fit", "tokens/s", "interval", "TPOT, ms", "interval", "TTFT", "wall, s", "by")
# Settings that have columns of their own, or that say nothing of what is predicted.
HIDDEN = (
    "card",
    "clients",
    "engine",
    "prompts",
    "temperature",
    "top_k",
    "top_p",
    "warmup",
    "timeout_s",
    "stream",
    "launcher",
    "ignore_eos",
    "dtype",
)


def render(predictions: Sequence[dict[str, Any]], orders: Sequence[Order], notes: Sequence[str], marked: bool) -> str:
    """All of it, as plain text or Markdown."""
    priced = any(made["price_per_h"] for made in predictions)
    done = [made for made in predictions if made["figures"]]
    shared = {
        key
        for key in (done[0]["settings"] if done else {})
        if len({str(made["settings"].get(key)) for made in predictions}) == 1
    }
    header = [*HEADER[:-1], *(["tokens per unit of price"] if priced else []), HEADER[-1]]
    body = [_cells(made, shared, priced) for made in done]
    parts = []
    if body:
        parts.append(markdown.table(header, body) if marked else plain.table(header, body))
    refused = [made for made in predictions if not made["figures"]]
    if refused:
        parts.append(
            "not predicted:\n"
            + "".join(
                f"{'* ' if marked else '  '}{printable(name(made, shared))}: {printable(made['reason'])}\n"
                for made in refused
            )
        )
    if orders:
        parts.append(
            "order by output tokens/s:\n" + "".join(f"{'* ' if marked else '  '}{order.sentence}\n" for order in orders)
        )
    parts += [note + "\n" for note in notes]
    return "\n".join(parts)


def name(made: dict[str, Any], shared: set[str]) -> str:
    """Card and the settings in which rows differ."""
    settings = made["settings"]
    words = [
        f"{key} {settings[key]}"
        for key in settings
        if key not in shared and key not in HIDDEN and settings[key] not in (None, "")
    ]
    return " ".join([str(made["card"]), *words])


def _cells(made: dict[str, Any], shared: set[str], priced: bool) -> list[str]:
    figures = made["figures"]
    rate, tpot, ttft, wall = (
        figures.get(key) for key in ("output_tokens_per_s", "tpot_mean_s", "ttft_mean_s", "wall_s")
    )
    per_price = made["output_tokens_per_price"]
    load = made["settings"].get("clients") if not made["settings"].get("rate") else f"{made['settings']['rate']:g}/s"
    return [
        name(made, shared),
        str(load),
        str(made["fits"]),
        f"{rate['value']:.0f}",
        f"{rate['low']:.0f} to {rate['high']:.0f}",
        *(
            ("–", "–")
            if tpot is None
            else (f"{1e3 * tpot['value']:.1f}", f"{1e3 * tpot['low']:.0f} to {1e3 * tpot['high']:.0f}")
        ),
        _rough(ttft["value"]),
        f"{wall['value']:.0f}",
        *(
            []
            if not priced
            else [
                "–"
                if per_price is None
                else f"{per_price['value'] / 1e6:.2f}M ({per_price['low'] / 1e6:.2f} to {per_price['high'] / 1e6:.2f})"
            ]
        ),
        str(made["basis"]),
    ]


def _rough(seconds: float) -> str:
    """One significant digit: no more is known."""
    return f"~{float(f'{seconds:.0e}'):g} s"
