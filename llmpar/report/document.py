"""What a report says, as tables of words, before any format: HTML, Markdown and CSV render the same document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpar.report import within
from llmpar.report.provenance import facts, runs
from llmpar.report.study import Walls
from llmpar.report.table import Table
from llmpar.results import rows, words
from llmpar.results.rows import UNSET, order, shown
from llmpar.results.words import shortened
from llmpar.summary import causes
from llmpar.verdicts import pick
from llmpar.verdicts.best import answer

LATENCIES = ("ttft", "tpot", "e2e")
# Columns of a sweep's table; of the latencies p95, see rows.shown.
COLUMNS = (
    ("wall_s", "wall"),
    ("output_tokens_per_s", "output tokens/s"),
    ("ttft", ""),
    ("tpot", ""),
    ("e2e", ""),
    ("joules_per_token", "J/token"),
    ("goodput_ratio", "goodput"),
)
# What `llmpar-report --format csv` gives of each cell, value, low and high.
CSV_METRICS = (
    "wall_s",
    *rows.RATES,
    "output_tokens_per_s_steady",
    *(
        f"{name}_{statistic}_s"
        for name in ("ttft", "itl", "tpot", "e2e", "effective_ttft", "effective_e2e")
        for statistic in rows.STATISTICS
    ),
    "memory_bytes",
    "joules_per_token",
    "concurrency",
)


@dataclass
class Sweep:
    """One sweep's rows, its table, what it answers, and what held engine or GPU back."""

    name: str
    rows: list[rows.Row]
    table: Table
    answer: str
    causes: list[str]
    within: list[Table] = field(default_factory=list)  # of conversations, and of models mixed over the prompts


@dataclass
class Document:
    """A whole report. `claims` and `verdicts` are records; `facts` one line each.

    `choices`: the measured cells judged by `objectives` (metric to the most it may be); empty without objectives.
    """

    title: str
    facts: list[str]
    claims: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]
    sweeps: list[Sweep]
    published: list[Table]
    warnings: list[Table]
    runs: list[Table]
    objectives: Mapping[str, float]
    choices: list[pick.Choice]


def build(
    title: str,
    rows: Sequence[rows.Row],
    claims: Sequence[dict[str, Any]],
    verdicts: Sequence[dict[str, Any]],
    commands: Mapping[str, str],
    walls: Walls | None = None,
    objectives: Mapping[str, float] | None = None,
    choices: Sequence[pick.Choice] = (),
) -> Document:
    """The document of these rows. `commands`: a cell's id to the load command that was run for it, where known.

    `walls`: published wall seconds to show next to those measured.
    """
    names = list(dict.fromkeys(row.sweep for row in rows))
    sweeps = [
        _sweep(name, sorted((row for row in rows if row.sweep == name), key=order), rows, walls) for name in names
    ]
    return Document(
        title,
        facts(rows),
        list(claims),
        list(verdicts),
        sweeps,
        [published(walls)] if walls else [],
        warnings(rows),
        runs(rows, commands),
        objectives or {},
        list(choices),
    )


def _sweep(name: str, rows: list[rows.Row], everything: Sequence[rows.Row], walls: Walls | None) -> Sweep:
    hosts = {row.host for row in everything}
    keys = list(dict.fromkeys(key for row in rows for key in row.varies))
    published = [walls.row(row.settings) if walls else None for row in rows]
    columns = shown_columns(rows, everything)
    header = [key.replace("_", " ") for key in keys] or ["cell"]
    if len(hosts) > 1:
        header.append("host")
    predicted = {place for place, row in enumerate(rows) if row.simulated}
    if predicted:
        header.append("by")
    first = len(header)
    header += [label for _, label in columns]
    if walls and any(published):
        header.insert(first + 1, f"wall: {walls.source}")
    header += ["in flight", "failed", "sessions"]
    lines = []
    for row, other in zip(rows, published, strict=True):
        line = [words.setting(row.settings.get(key)) for key in keys] or [row.cell]
        if len(hosts) > 1:
            line.append(row.host)
        if predicted:
            line.append("simulated" if row.simulated else "measured")
        figures = [in_column(metric, row.figure(metric)) for metric, _ in columns]
        if any(published):
            figures.insert(1, f"{other.wall_s:g} s" if other else "")
        requests = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries)
        line += [
            *figures,
            in_flight(row),
            f"{row.failures} of {requests}" if row.failures else "0",
            str(len(row.summaries)),
        ]
        lines.append(line)
    fixed = {
        key: value
        for key, value in rows[0].settings.items()
        if key not in keys
        and value not in (None, "")
        and all(row.settings.get(key) == value for row in rows)
        and UNSET.get(key) != value
    }
    several = any(len(row.summaries) > 1 for row in rows)
    note = "In brackets: 95% interval " + (
        "over server sessions where there are several, otherwise within the one server session."
        if several
        else "within the one server session; it does not say what the next one would give."
    )
    if walls and any(published):
        cards = " and ".join(dict.fromkeys(other.gpu for other in published if other))
        note += f" The column of {walls.source} is from {cards} with other prompts: compare its order, not its size."
    needed = [
        (words.title(f"{stem}_p95_s"), max(row.figure(f"{stem}_p95_s").needed or 0 for row in rows))
        for stem in LATENCIES
        if not any(metric == f"{stem}_p95_s" for metric, _ in columns)
    ]
    few = [f"{label} (needs {count})" for label, count in needed if count]
    if few:
        note += f" Not shown, because a server session has too few requests: {', '.join(few)}."
    if predicted:
        note += (
            " Rows marked simulated were predicted by llmpar-simulate, not measured: docs/simulate.md says how "
            "wrong it has been."
        )
    same = "The same for all: " + words.settings(fixed) if fixed else ""
    return Sweep(
        name,
        rows,
        Table(name or "cells", header, lines, set(range(first, len(header))), note, same, predicted),
        answer(rows),
        causes.held(words.by_label(rows)),
        within.tables([(words.name(row), row.summaries) for row in rows]),
    )


def shown_columns(rows: Sequence[rows.Row], everything: Sequence[rows.Row]) -> list[tuple[str, str]]:
    """The figures that some row has, with their heads: of each latency the statistic that no row of the report
    refuses."""
    columns = []
    for name, label in COLUMNS:
        metric = shown(everything, name) if name in LATENCIES else name
        if any(row.figure(metric).value is not None for row in rows):
            columns.append((metric, label or words.title(metric)))
    return columns


def in_column(metric: str, one: rows.Figure) -> str:
    """A figure under a head that names its unit, unless that is one of time: ms below 1 s."""
    return words.measured(metric, one) if words.named(metric).unit in ("s", "%") else words.figure(one)


def in_flight(row: rows.Row) -> str:
    """Requests in flight on average, of those asked for, the least of the sessions."""
    pairs = [
        ((summary.get("concurrency") or {}).get("achieved"), (summary.get("concurrency") or {}).get("asked"))
        for summary in row.summaries
    ]
    known = [(achieved, asked) for achieved, asked in pairs if achieved is not None]
    if not known:
        return words.DASH
    achieved, asked = min(known, key=lambda pair: pair[0])
    return words.number(achieved) + (f" of {asked}" if asked else "")


def published(walls: Walls) -> Table:
    """Others' wall seconds, under the name of their source."""
    lines = [[row.settings, f"{row.wall_s:g}"] for row in walls.rows]
    return Table(f"Not measured here: {walls.source}", ["its setting", "wall, s"], lines, {1}, walls.note)


def warnings(rows: Sequence[rows.Row]) -> list[Table]:
    """Every warning with the cells that have it, most cells first; empty without warnings."""
    cells_by_text: dict[tuple[str, str], list[str]] = {}
    firsts: dict[tuple[str, str], str] = {}
    for row in rows:
        for warning in row.warnings:
            key = (str(warning.get("code")), str(warning.get("try") or ""))
            cells_by_text.setdefault(key, []).append(": ".join(part for part in (row.sweep, row.cell) if part))
            firsts.setdefault(key, str(warning.get("message") or ""))
    lines = [
        [code, firsts[code, attempt] + (" (and others)" if len(cells) > 1 else ""), attempt, shortened(cells)]
        for (code, attempt), cells in sorted(cells_by_text.items(), key=lambda item: -len(item[1]))
    ]
    return [Table("Warnings", ["code", "the first of them", "what to try", "cells"], lines)] if lines else []
