"""What a report says, as tables of words, before any format: HTML, Markdown and CSV render the same document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpar.report.provenance import facts, runs
from llmpar.report.study import Walls
from llmpar.report.table import Table
from llmpar.results import rows, words
from llmpar.results.rows import UNSET, order
from llmpar.results.words import shortened
from llmpar.summary import causes
from llmpar.verdicts import pick
from llmpar.verdicts.best import answer

WALL_COLUMNS = (
    ("wall_s", "wall, s"),
    ("output_tokens_per_s", "output tokens/s"),
    ("ttft_p50_s", "TTFT p50, s"),
    ("ttft_p95_s", "TTFT p95, s"),
    ("tpot_p50_s", "TPOT p50, s"),
    ("e2e_p95_s", "E2E p95, s"),
    ("joules_per_token", "J/token"),
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

    @property
    def tables(self) -> list[Table]:
        return [*(sweep.table for sweep in self.sweeps), *self.published, *self.warnings, *self.runs]


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
    columns = [
        (metric, label) for metric, label in WALL_COLUMNS if any(row.figure(metric).value is not None for row in rows)
    ]
    header = [key.replace("_", " ") for key in keys] or ["cell"]
    if len(hosts) > 1:
        header.append("host")
    predicted = {place for place, row in enumerate(rows) if row.simulated}
    if predicted:
        header.append("by")
    first = len(header)
    header += [label for _, label in columns]
    if walls and any(published):
        header.insert(first + 1, f"wall, s: {walls.source}")
    header += ["in flight", "failed", "sessions"]
    lines = []
    for row, other in zip(rows, published, strict=True):
        line = [words.setting(row.settings.get(key)) for key in keys] or [row.cell]
        if len(hosts) > 1:
            line.append(row.host)
        if predicted:
            line.append("simulated" if row.simulated else "measured")
        figures = [words.figure(row.figure(metric)) for metric, _ in columns]
        if any(published):
            figures.insert(1, f"{other.wall_s:g}" if other else "")
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
        "over server sessions where there are several, else within the one session."
        if several
        else "within the one server session; it says nothing of the next session."
    )
    if walls and any(published):
        cards = " and ".join(dict.fromkeys(other.gpu for other in published if other))
        note += f" The column of {walls.source} is from {cards} with other prompts: compare its order, not its size."
    few = [
        (label.removesuffix(", s"), max(row.figure(metric).needed or 0 for row in rows))
        for metric, label in WALL_COLUMNS
        if (metric, label) not in columns and any(row.figure(metric).needed for row in rows)
    ]
    if few:
        note += (
            " Not shown, for want of requests in a session: "
            + ", ".join(f"{label} (needs {count})" for label, count in few)
            + "."
        )
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
    )


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
    found: dict[tuple[str, str], list[str]] = {}
    firsts: dict[tuple[str, str], str] = {}
    for row in rows:
        for warning in row.warnings:
            key = (str(warning.get("code")), str(warning.get("try") or ""))
            found.setdefault(key, []).append(": ".join(part for part in (row.sweep, row.cell) if part))
            firsts.setdefault(key, str(warning.get("message") or ""))
    lines = [
        [code, firsts[code, attempt] + (" (and others)" if len(cells) > 1 else ""), attempt, shortened(cells)]
        for (code, attempt), cells in sorted(found.items(), key=lambda item: -len(item[1]))
    ]
    return [Table("Warnings", ["code", "the first of them", "what to try", "cells"], lines)] if lines else []
