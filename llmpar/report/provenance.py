"""Where results come from: machine, engine, command lines and settings, as tables of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmpar.report.table import Table
from llmpar.results import hosts, rows, words
from llmpar.results.hosts import host_of
from llmpar.results.words import plural, utc


def facts(rows: Sequence[rows.Row]) -> list[str]:
    """What was measured, where and when, a line each."""
    predicted = sum(row.simulated for row in rows)
    everything, rows = rows, [row for row in rows if not row.simulated]
    summaries = [summary for row in rows for summary in row.summaries]
    requests = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in summaries)
    # One start may have served several sweeps, each of which has a name of its own for it.
    sessions = {str((summary.get("server") or {}).get("started_at") or summary.get("session")) for summary in summaries}
    engines = sorted({engine(summary) for summary in summaries} - {""})
    hosts = sorted({f"{row.host}, {machine(summary)}" for row in rows if row.host for summary in row.summaries})
    starts = [summary["started_at"] for summary in summaries if summary.get("started_at")]
    ends = [summary["ended_at"] for summary in summaries if summary.get("ended_at")]
    lines = [f"{plural(len(rows), 'cell')}, {plural(len(sessions), 'server session')}, {plural(requests, 'request')}"]
    if predicted:
        cards = sorted({row.host for row in everything if row.simulated})
        lines.append(f"{plural(predicted, 'cell')} simulated, not measured: {', '.join(cards)}")
    if engines:
        lines.append("Engines: " + "; ".join(engines))
    if hosts:
        lines.append("Hosts: " + "; ".join(hosts))
    if starts and ends:
        lines.append(f"Measured {utc(min(starts))} to {utc(max(ends))} UTC")
    return lines


def caption(given: Sequence[rows.Row]) -> str:
    """Engine, model, host and date in one line, for a table or picture that travels alone:
    `vllm 0.23.0 · vicuna-7b-v1.5 · gpu-host, NVIDIA H100 · 2026-11-24`."""
    summaries = [summary for row in given for summary in row.summaries]
    engines = sorted({engine(summary) for summary in summaries} - {""})
    models = sorted({name for summary in summaries for name in models_of(summary)} - {""})
    hosts = sorted({f"{row.host}, {machine(summary)}" for row in given if row.host for summary in row.summaries})
    dates = sorted({utc(summary["started_at"])[:10] for summary in summaries if summary.get("started_at")})
    if any(row.simulated for row in given):
        whole = all(row.simulated for row in given)
        hosts, dates = [*hosts, "simulated" if whole else "some cells simulated"], [] if whole else dates
    parts = [words.shortened(each, 2) for each in (engines, models, hosts)]
    parts.append(" to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "")
    return " · ".join(part for part in parts if part)


def models_of(summary: Mapping[str, Any]) -> list[str]:
    """Names of its models without the folders they lie in; several where prompts name them."""
    name = (summary.get("workload") or {}).get("model") or ((summary.get("cell") or {}).get("server") or {}).get(
        "model"
    )
    return [each.rstrip("/").rsplit("/", 1)[-1] for each in words.names(name)]


def machine(summary: Mapping[str, Any]) -> str:
    """A host's GPUs, else that it has none and which processor it has."""
    host = summary.get("host") or {}
    gpus = ", ".join(dict.fromkeys(hosts.gpus_of(dict(summary))))
    cpu = f"{host['cpu']}, {plural(int(host['cpus']), 'core')}" if host.get("cpu") and host.get("cpus") else ""
    return gpus or "no GPU" + (f" ({cpu})" if cpu else "")


def runs(rows: Sequence[rows.Row], commands: Mapping[str, str]) -> list[Table]:
    """How it was run: hosts, servers with their command lines, loads with theirs, hashes."""
    hosts: dict[str, dict[str, str]] = {}
    servers: dict[str, list[str]] = {}
    loads: dict[str, list[str]] = {}
    for row in rows:
        for summary in row.summaries:
            host = summary.get("host")
            if isinstance(host, dict):
                hosts.setdefault(host_of(summary), flat(host))
            session = str(summary.get("session") or "")
            server = summary.get("server")
            if isinstance(server, dict) and session not in servers:
                servers[session] = [session, engine(summary), words.startup(server) or words.DASH, command_of(server)]
            work, made = summary.get("workload") or {}, summary.get("provenance") or {}
            cell = str((summary.get("cell") or {}).get("id") or row.cell)
            digest = (
                str((work.get("prompts") or {}).get("sha256") or words.DASH)
                if isinstance(work.get("prompts"), dict)
                else words.DASH
            )
            sampling = words.settings(flat(work["sampling"])) if isinstance(work.get("sampling"), dict) else "mixed"
            records = str(made.get("records_sha256") or words.DASH)[:12]
            if row.key in loads:  # another session of the same load
                loads[row.key][4] += f", {records}"
                continue
            loads[row.key] = [
                ": ".join(part for part in (row.sweep, row.cell) if part),
                commands.get(f"{row.sweep}/{cell}", words.DASH),
                sampling,
                digest[:12],
                records,
                str(made.get("llmpar") or words.DASH),
            ]
    tables = []
    for name, its in hosts.items():
        tables.append(Table(f"Host {name}", ["what", "value"], [[key, value] for key, value in its.items()]))
    if servers:
        tables.append(Table("Servers", ["session", "engine", "ready after", "command"], list(servers.values())))
    tables.append(
        Table(
            "Loads",
            ["cell", "command", "sampling", "prompts", "records", "llmpar"],
            list(loads.values()),
            set(),
            "Prompts and records by the first 12 digits of their SHA-256, records for each server session; the command "
            "is that of the first.",
        )
    )
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
    name = (
        server.get("engine")
        or cell.get("engine")
        or ", ".join(words.names((summary.get("workload") or {}).get("engine")))
    )
    version = server.get("version") or server.get("engine_version") or ""
    return f"{name} {version}".strip()


def command_of(server: Mapping[str, Any]) -> str:
    """A server's command line as one would type it."""
    import shlex

    command = server.get("command") or server.get("argv") or server.get("commands") or ""
    if isinstance(command, list):
        if command and isinstance(command[0], list):
            return " ; ".join(shlex.join(map(str, one)) for one in command)
        # llmpar-serve's record has a whole shell line for each server.
        return (
            " ; ".join(map(str, command))
            if "commands" in server and command is server["commands"]
            else shlex.join(map(str, command))
        )
    return str(command)
