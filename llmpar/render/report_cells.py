"""Every cell of a report in one table, whether it is within the objectives, and what the page's script needs to judge
any others by the rule of llmpar-pick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpar.render import charts
from llmpar.report import document
from llmpar.report.table import Table
from llmpar.results import rows, words
from llmpar.verdicts import objectives

SIGNS = {objectives.MEETS: "✓", objectives.MISSES: "✗", objectives.UNKNOWN: "?"}
STEMS = ("ttft", "tpot", "itl", "e2e")


@dataclass(frozen=True)
class State:
    """Whether a cell is within the objectives: a class of the style sheet, and words."""

    kind: str = ""
    words: str = ""


def table(given: Sequence[rows.Row]) -> Table:
    """One line a cell with the figures that most choices are made by."""
    hosts = {row.host for row in given}
    columns = document.shown_columns(given, given)
    simulated = {place for place, row in enumerate(given) if row.simulated}
    header = ["cell", *(["host"] if len(hosts) > 1 else [])]
    header += ["by"] if simulated else []
    lines = []
    for row in given:
        line = [words.name(row), *([row.host] if len(hosts) > 1 else [])]
        if simulated:
            line.append("simulated" if row.simulated else "measured")
        figures = [document.in_column(metric, row.figure(metric)) for metric, _ in columns]
        lines.append([*line, *figures, str(len(row.summaries))])
    note = "Click a heading to sort by it. The tables of the sweeps below have the settings."
    if simulated:
        note += " Simulated rows are predictions of llmpar-simulate, not measurements."
    first = len(header)
    header += [*(label for _, label in columns), "sessions"]
    return Table("all cells", header, lines, set(range(first, len(header))), note, simulated=simulated)


def states(given: Sequence[rows.Row], document: document.Document) -> list[State]:
    """What each row is under the report's own objectives; empty ones without objectives."""
    if not document.objectives:
        return [State() for _ in given]
    judged = {choice.row.key: choice.state for choice in document.choices}
    by_row = []
    for row in given:
        state = judged.get(row.key) or _predicted(row, document.objectives)
        kind = "unknown" if state == objectives.UNKNOWN else state
        by_row.append(State(kind, f"{SIGNS[state]} {state}{' (predicted)' if row.simulated else ''}"))
    return by_row


def _predicted(row: rows.Row, wanted: Mapping[str, float]) -> str:
    """A simulated row by its figures alone: how wrong it may be is known of the card, not of the row."""
    values = [(row.figure(metric).value, most) for metric, most in wanted.items()]
    if any(value is not None and value > most for value, most in values):
        return objectives.MISSES
    return objectives.UNKNOWN if any(value is None for value, _ in values) else objectives.MEETS


def limits(given: Sequence[rows.Row], document: document.Document) -> dict[str, Any]:
    """What the script judges with: of each figure and row the limit below which it misses, and from which it meets.

    `states`: what a row is whatever the objectives, by its failures and its client; empty where they decide.
    """
    by_objective: dict[str, list[list[float | None]]] = {}
    for stem in STEMS:
        for statistic in rows.STATISTICS:
            metric = f"{stem}_{statistic}_s"
            if any(row.figure(metric).value is not None or row.figure(metric).needed for row in given):
                by_objective[charts.named(metric)] = [_ends(row, metric) for row in given]
    return {
        "rows": [row.key for row in given],
        "predicted": [place for place, row in enumerate(given) if row.simulated],
        "states": ["" if row.simulated else objectives.whatever(row) for row in given],
        "limits": by_objective,
    }


def _ends(row: rows.Row, metric: str) -> list[float | None]:
    if row.simulated:
        value = row.figure(metric).value
        return [0.0 if value is None else value, value]
    return [None if end is None else float(f"{end:.9g}") for end in objectives.limits(row, metric)]


def traded(given: Sequence[rows.Row], wanted: Mapping[str, float]) -> charts.Chart | None:
    """The trade-off chart; with one cell there is nothing to trade."""
    return charts.trade_off(given, wanted) if len(given) > 1 else None


def goal(wanted: Mapping[str, float]) -> str:
    """`TTFT p95 ≤ 500 ms, TPOT p95 ≤ 50 ms`."""
    return ", ".join(f"{words.title(metric)} ≤ {words.goal(metric, most)}" for metric, most in wanted.items())


def slo(wanted: Mapping[str, float]) -> str:
    """The same as the page's field takes it: `ttft-p95<500ms tpot-p95<50ms`."""
    return " ".join(
        f"{charts.named(metric)}<{words.goal(metric, most).replace(' ', '')}" for metric, most in wanted.items()
    )
