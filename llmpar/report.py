"""What a report says, as tables of words, before any format: HTML, Markdown and CSV render the same document."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpar import join, series, study, words, workload
from llmpar.claims import MOST_FAILURES
from llmpar.compare import MARGIN
from llmpar.ratio import ratio

WALL_COLUMNS = (("wall_s", "wall, s"), ("output_tokens_per_s", "output tokens/s"), ("ttft_p50_s", "TTFT p50, s"),
                ("ttft_p95_s", "TTFT p95, s"), ("tpot_p50_s", "TPOT p50, s"), ("e2e_p95_s", "E2E p95, s"),
                ("joules_per_token", "J/token"))  # fmt: skip
# What `llmpar-report --format csv` gives of each cell, value, low and high.
CSV_METRICS = ("wall_s", *series.RATES, "output_tokens_per_s_steady",
               *(f"{name}_{statistic}_s" for name in ("ttft", "itl", "tpot", "e2e", "effective_ttft", "effective_e2e")
                 for statistic in series.STATISTICS), "memory_bytes", "joules_per_token", "concurrency")  # fmt: skip


@dataclass
class Table:
    """Words in rows. Columns numbered in `right` hold figures; `note` stands under the table."""

    title: str
    header: list[str]
    rows: list[list[str]]
    right: set[int] = field(default_factory=set)
    note: str = ""
    caption: str = ""


@dataclass
class Sweep:
    """One sweep's rows, its table, what it answers, and what held engine or GPU back."""

    name: str
    rows: list[series.Row]
    table: Table
    answer: str
    causes: list[str]


@dataclass
class Document:
    """A whole report. `claims` and `verdicts` are records; `facts` one line each."""

    title: str
    facts: list[str]
    claims: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]
    sweeps: list[Sweep]
    study: Table
    warnings: list[Table]
    runs: list[Table]

    @property
    def tables(self) -> list[Table]:
        return [*(sweep.table for sweep in self.sweeps), self.study, *self.warnings, *self.runs]


def build(title: str, rows: Sequence[series.Row], claims: Sequence[dict[str, Any]], verdicts: Sequence[dict[str, Any]],
          commands: Mapping[str, str]) -> Document:  # fmt: skip
    """The document of these rows. `commands`: a cell's id to the load command that was run for it, where known."""
    names = list(dict.fromkeys(row.sweep for row in rows))
    sweeps = [_sweep(name, sorted((row for row in rows if row.sweep == name), key=order), rows) for name in names]
    return Document(title, facts(rows), list(claims), list(verdicts), sweeps, study_table(), warnings(rows), runs(rows, commands))


def facts(rows: Sequence[series.Row]) -> list[str]:
    """What was measured, where and when, a line each."""
    summaries = [summary for row in rows for summary in row.summaries]
    requests = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in summaries)
    # One start may have served several sweeps, each of which has a name of its own for it.
    sessions = {str((summary.get("server") or {}).get("started_at") or summary.get("session")) for summary in summaries}
    engines = sorted({engine(summary) for summary in summaries} - {""})
    hosts = sorted({f"{row.host}, {machine(summary)}" for row in rows if row.host for summary in row.summaries})
    starts = [summary["started_at"] for summary in summaries if summary.get("started_at")]
    ends = [summary["ended_at"] for summary in summaries if summary.get("ended_at")]
    lines = [f"{plural(len(rows), 'cell')}, {plural(len(sessions), 'server session')}, {plural(requests, 'request')}"]
    if engines:
        lines.append("Engines: " + "; ".join(engines))
    if hosts:
        lines.append("Hosts: " + "; ".join(hosts))
    if starts and ends:
        lines.append(f"Measured {utc(min(starts))} to {utc(max(ends))} UTC")
    return lines


def machine(summary: Mapping[str, Any]) -> str:
    """A host's GPUs, else that it has none and which processor it has."""
    host = summary.get("host") or {}
    gpus = ", ".join(dict.fromkeys(series.gpus_of(dict(summary))))
    cpu = f"{host['cpu']}, {plural(int(host['cpus']), 'core')}" if host.get("cpu") and host.get("cpus") else ""
    return gpus or "no GPU" + (f" ({cpu})" if cpu else "")


def order(row: series.Row) -> list[tuple[int, float, str]]:
    """A key to sort rows of a sweep with, by their settings."""
    return [series.by_size(row.settings.get(key)) for key in row.varies]


def _sweep(name: str, rows: list[series.Row], everything: Sequence[series.Row]) -> Sweep:
    hosts = {row.host for row in everything}
    keys = list(dict.fromkeys(key for row in rows for key in row.varies))
    beside = [study.beside(row.settings) for row in rows]
    columns = [(metric, label) for metric, label in WALL_COLUMNS if any(row.figure(metric).value is not None for row in rows)]
    header = [key.replace("_", " ") for key in keys] or ["cell"]
    if len(hosts) > 1:
        header.append("host")
    first = len(header)
    header += [label for _, label in columns]
    if any(beside):
        header.insert(first + 1, f"wall, s: {study.LABEL}")
    header += ["in flight", "failed", "sessions"]
    lines = []
    for row, its in zip(rows, beside, strict=True):
        line = [words.setting(row.settings.get(key)) for key in keys] or [row.cell]
        if len(hosts) > 1:
            line.append(row.host)
        figures = [words.figure(row.figure(metric)) for metric, _ in columns]
        if any(beside):
            figures.insert(1, f"{its.wall_s:g}" if its else "")
        requests = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries)
        line += [*figures, in_flight(row), f"{row.failures} of {requests}" if row.failures else "0", str(len(row.summaries))]
        lines.append(line)
    fixed = {key: value for key, value in rows[0].settings.items()
             if key not in keys and value not in (None, "") and all(row.settings.get(key) == value for row in rows)
             and series.UNSET.get(key) != value}  # fmt: skip
    several = any(len(row.summaries) > 1 for row in rows)
    note = "In brackets: 95 % interval " + ("over server sessions where there are several, else within the one session." if several
                                            else "within the one server session; it says nothing of the next session.")  # fmt: skip
    if any(beside):
        note += f" The column of {study.LABEL} is from one RTX A6000 with other prompts: compare its order, not its size."
    few = [(label.removesuffix(", s"), max(row.figure(metric).needed or 0 for row in rows)) for metric, label in WALL_COLUMNS
           if (metric, label) not in columns and any(row.figure(metric).needed for row in rows)]  # fmt: skip
    if few:
        note += " Not shown, for want of requests in a session: " + ", ".join(f"{label} (needs {count})" for label, count in few) + "."
    same = "The same for all: " + words.settings(fixed) if fixed else ""
    return Sweep(name, rows, Table(name or "cells", header, lines, set(range(first, len(header))), note, same), answer(rows), join.held(series.by_label(rows)))


def answer(rows: Sequence[series.Row]) -> str:
    """The cell with the least wall seconds against the next best, in a sentence that claims no more than the interval."""
    if len(rows) < 2:
        return ""
    if len(workload.kinds(rows)) > 1:
        return "The cells were given different work (prompts or sampling), so none of them is the best."
    models: dict[str, set[str]] = {}
    for row in rows:
        models.setdefault(str(row.settings.get("engine")), set()).add(str(row.settings.get("model")))
    own_models = len(models) > 1 and len(set.union(*models.values())) > 1
    if own_models and any(len(each) > 1 for each in models.values()):
        return "The cells ran different models, so their figures do not say which engine is best."
    fair = [row for row in rows if row.figure("wall_s").value is not None and "wall_s" not in row.limited and not failing(row)]
    if len(fair) < 2:
        return "Fewer than two cells can be ranked: see the warnings."
    fair.sort(key=lambda row: row.figure("wall_s").value or 0.0)
    best, rest = fair[0], fair[1:]
    lead = f"Least wall seconds: {series.name(best)}, {words.number(best.figure('wall_s').value)} s"
    if own_models:
        own = ", ".join(f"{engine}: {min(each)}" for engine, each in models.items())
        lead = f"Each engine ran a model of its own ({own}); only if their weights are the same does this say which engine is best. {lead}"
    compared = [(row, ratio(row.by_session("wall_s"), best.by_session("wall_s"), 1 - 0.05 / len(rest))) for row in rest]
    single = [series.name(row) for row, one in compared if one.low is None]
    if len(single) == len(rest):
        return f"{lead}. One server session each cannot tell whether the next session would say the same: REPEATS=3 can."
    undecided = [(row, one) for row, one in compared if one.low is not None and one.low <= 1]
    if undecided:
        names = shortened([series.name(row) + (f" ({one.ratio:.2f} times as long)" if (one.ratio or 1) > 1 + MARGIN else "")
                           for row, one in undecided], 3, "; ")  # fmt: skip
        sessions = min(min(one.sessions_a, one.sessions_b) for _, one in undecided)
        found = f"{lead}; {sessions} sessions each cannot tell it for certain from {names}."
    else:
        row, one = next(each for each in compared if each[1].low is not None)
        found = f"{lead}; the next, {series.name(row)}, takes {words.ratio(one.ratio, one.low, one.high)} times as long."
    if single:
        found += f" Measured in one server session only, so not ranked: {shortened(single, 3, '; ')}."
    return found


def failing(row: series.Row) -> bool:
    requests = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries)
    return row.failures > MOST_FAILURES * requests


def in_flight(row: series.Row) -> str:
    """Requests in flight on average, of those asked for, the least of the sessions."""
    pairs = [((summary.get("concurrency") or {}).get("achieved"), (summary.get("concurrency") or {}).get("asked"))
             for summary in row.summaries]  # fmt: skip
    known = [(achieved, asked) for achieved, asked in pairs if achieved is not None]
    if not known:
        return words.DASH
    achieved, asked = min(known, key=lambda pair: pair[0])
    return words.number(achieved) + (f" of {asked}" if asked else "")


def study_table() -> Table:
    """The study's own wall seconds, labelled as such."""
    rows = [[row.settings, f"{row.wall_s:g}"] for row in study.ROWS]
    return Table(f"Not measured here: {study.LABEL}", ["the study's setting", "wall, s"], rows, {1}, study.NOTE)


def warnings(rows: Sequence[series.Row]) -> list[Table]:
    """Every warning with the cells that have it, most cells first; empty without warnings."""
    found: dict[tuple[str, str], list[str]] = {}
    firsts: dict[tuple[str, str], str] = {}
    for row in rows:
        for warning in row.warnings:
            key = (str(warning.get("code")), str(warning.get("try") or ""))
            found.setdefault(key, []).append(": ".join(part for part in (row.sweep, row.cell) if part))
            firsts.setdefault(key, str(warning.get("message") or ""))
    lines = [[code, firsts[code, attempt] + (" (and others)" if len(cells) > 1 else ""), attempt, shortened(cells)]
             for (code, attempt), cells in sorted(found.items(), key=lambda item: -len(item[1]))]  # fmt: skip
    return [Table("Warnings", ["code", "the first of them", "what to try", "cells"], lines)] if lines else []


def runs(rows: Sequence[series.Row], commands: Mapping[str, str]) -> list[Table]:
    """How it was run: hosts, servers with their command lines, loads with theirs, hashes."""
    hosts: dict[str, dict[str, str]] = {}
    servers: dict[str, list[str]] = {}
    loads: dict[str, list[str]] = {}
    for row in rows:
        for summary in row.summaries:
            host = summary.get("host")
            if isinstance(host, dict):
                hosts.setdefault(series.host_of(summary), flat(host))
            session = str(summary.get("session") or "")
            server = summary.get("server")
            if isinstance(server, dict) and session not in servers:
                servers[session] = [session, engine(summary), command_of(server)]
            work, made = summary.get("workload") or {}, summary.get("provenance") or {}
            cell = str((summary.get("cell") or {}).get("id") or row.cell)
            digest = str((work.get("prompts") or {}).get("sha256") or words.DASH) if isinstance(work.get("prompts"), dict) else words.DASH
            sampling = words.settings(flat(work["sampling"])) if isinstance(work.get("sampling"), dict) else "mixed"
            records = str(made.get("records_sha256") or words.DASH)[:12]
            if row.key in loads:  # another session of the same load
                loads[row.key][4] += f", {records}"
                continue
            loads[row.key] = [": ".join(part for part in (row.sweep, row.cell) if part), commands.get(f"{row.sweep}/{cell}", words.DASH),
                              sampling, digest[:12], records, str(made.get("llmpar") or words.DASH)]
    tables = []
    for name, its in hosts.items():
        tables.append(Table(f"Host {name}", ["what", "value"], [[key, value] for key, value in its.items()]))
    if servers:
        tables.append(Table("Servers", ["session", "engine", "command"], list(servers.values())))
    tables.append(Table("Loads", ["cell", "command", "sampling", "prompts", "records", "llmpar"], list(loads.values()), set(),
                        "Prompts and records by the first 12 digits of their SHA-256, records of each session; the command is the first session's."))  # fmt: skip
    return tables


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A record's leaves by dotted name, in words; empty ones left out."""
    lines: dict[str, str] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            lines |= flat(value, name + ".")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for index, item in enumerate(value):
                lines |= flat(item, f"{name}.{index}.")
        elif value not in (None, "", [], {}):
            shown = words.size(value) if name.endswith("_bytes") and isinstance(value, int) else value
            shown = utc(value) + " UTC" if name.rpartition(".")[2] == "at" and isinstance(value, float) else shown
            lines[name] = ", ".join(map(str, shown)) if isinstance(shown, list) else words.setting(shown)
    return lines


def engine(summary: Mapping[str, Any]) -> str:
    """The engine and its version, from the server record, the cell or the requests."""
    server = summary.get("server") or {}
    cell = (summary.get("cell") or {}).get("server") or {}
    name = server.get("engine") or cell.get("engine") or (summary.get("workload") or {}).get("engine") or ""
    version = server.get("version") or server.get("engine_version") or ""
    return f"{name} {version}".strip()


def command_of(server: Mapping[str, Any]) -> str:
    """A server's command line as one would type it."""
    import shlex

    found = server.get("command") or server.get("argv") or server.get("commands") or ""
    if isinstance(found, list):
        if found and isinstance(found[0], list):
            return " ; ".join(shlex.join(map(str, one)) for one in found)
        # llmpar-serve's record has a whole shell line for each server.
        return " ; ".join(map(str, found)) if "commands" in server and found is server["commands"] else shlex.join(map(str, found))
    return str(found)


def shortened(names: Sequence[str], most: int = 6, between: str = ", ") -> str:
    return between.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", "\u202f")


def utc(instant: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(instant))
