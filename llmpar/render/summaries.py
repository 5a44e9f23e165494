"""Summaries and verdicts as text for a terminal."""

from __future__ import annotations

import textwrap
from typing import Any

from llmpar.render import plain
from llmpar.report import provenance, within
from llmpar.results import rows, words
from llmpar.results.rows import group, shown
from llmpar.results.words import DASH, number
from llmpar.summary import causes
from llmpar.verdicts.best import answer, proven


def milliseconds(value: float | None) -> str:
    """Seconds as milliseconds."""
    return DASH if value is None else number(value * 1000)


def estimate(item: dict[str, Any] | None, show: Any = number) -> str:
    """`value (low to high)`, or the value with the number of requests that an interval needs."""
    if item is None:
        return DASH
    if item.get("low") is None:
        return f"{show(item['value'])} (needs {item['needed']})" if item.get("needed") else str(show(item["value"]))
    return f"{show(item['value'])} ({show(item['low'])} to {show(item['high'])})"


def summary(record: dict[str, Any]) -> str:
    """One summary in a screen: what happened, the figures with their intervals, warnings."""
    n, window, tokens = record["n"], record["window"], record["tokens"]
    lines = []
    workload = record["workload"]
    head = [str(record["label"])] if record["label"] else []
    head += [words.shortened(named) for field in ("engine", "model") if (named := words.names(workload[field]))]
    if head:
        lines.append(" · ".join(head))
    states = [f"{n['ok']} ok"] + [f"{n[name]} {name}" for name in ("error", "timeout", "cancelled") if n[name]]
    lines.append(
        f"{words.plural(n['requests'], 'request')} ({', '.join(states)}), "
        f"{words.plural(workload['prompts']['distinct'], 'prompt')}, "
        f"{number(tokens['output'])} output tokens"
    )
    concurrency = record["concurrency"]
    asked = f" of {concurrency['asked']} asked" if concurrency["asked"] else ""
    lines.append(
        f"wall {number(record['wall_s']['value'], 4)} s; in flight {number(concurrency['achieved'])}{asked}, "
        f"peak {concurrency['peak']}"
    )
    if started := words.startup(record.get("server")):
        lines.append(f"server ready after {started}")
    if window["steady"]:
        lines.append(
            f"steady for {number(window['duration_s'])} s after {number(window['ramp_s'])} s of ramp, "
            f"before {number(window['drain_s'])} s of drain"
        )
    lines.append("")
    rows = []
    for name, title in (
        ("output_tokens_per_s", "output tokens/s"),
        ("total_tokens_per_s", "all tokens/s"),
        ("requests_per_s", "requests/s"),
        ("goodput_per_s", "goodput/s"),
    ):
        rate = record["throughput"][name]
        if rate is not None:
            rows.append([title, number(rate["wall"]["value"]), estimate(rate["steady"])])
    lines.append(plain.table(["throughput", "whole run", "steady (95% interval)"], rows))
    over = record.get("latency_over", "run")
    title = "latency in the steady window, ms" if over == "steady" else "latency, ms"
    lines += _latencies(record["latency"], title, lambda item: estimate(item, milliseconds))
    if over == "steady":
        title = "latency of the whole run, ms"
        lines += _latencies(record["latency_run"], title, lambda item: milliseconds(item["value"]))
    if record["goodput"] and n["requests"]:
        good = record["goodput"]
        share = f"{words.percent(good['ratio'])}% of requests ({good['met']} of {n['requests']})"
        lines.append(f"{share} met {words.slo(good['objectives'])}\n")
    lines += within_cells([("", [record])])
    if record.get("prefix"):
        prefix = record["prefix"]
        achieved = prefix["achieved_ratio"]
        told = DASH if achieved is None else f"{achieved:.0%}, as its {prefix['source']} tells"
        lines.append(f"prefix cache: {prefix['asked_ratio']:.0%} of the prompt tokens asked for, achieved {told}\n")
    beside = samples(record)
    if beside:
        lines.append("\n".join(beside) + "\n")
    lines += warnings([record])
    return "\n".join(lines).rstrip() + "\n"


def within_cells(given: within.Named) -> list[str]:
    """Conversations, their turns, and the models of a load, each as a table under its title."""
    return [
        f"{one.title}\n\n{plain.table(one.header, one.rows)}" + (f"\n{one.note}\n" if one.note else "")
        for one in within.tables(given)
    ]


LATENCIES = {
    "ttft_s": "TTFT",
    "itl_s": "ITL",
    "event_latency_s": "inter-chunk latency",
    "tpot_s": "TPOT",
    "e2e_s": "E2E",
    "effective_ttft_s": "effective TTFT",
    "effective_e2e_s": "effective E2E",
}


ROW = ("wall", "tokens/s", "TTFT p50", "p95", "TPOT p50", "p95", "ok")
WIDTHS = tuple(max(len(title), 7) for title in ROW)


def row_head() -> str:
    """What stands over the lines of `row`."""
    return "  ".join(title.rjust(width) for title, width in zip(ROW, WIDTHS, strict=True))


def row(record: dict[str, Any]) -> str:
    """A cell's figures on one line, as it ends: rates over the whole run, latencies over the steady window where there
    is one, as in the table of all cells."""

    def latency(name: str, percentile: str) -> str:
        figure = (record["latency"][f"{name}_s"] or {}).get(percentile)
        return words.quantity(f"{name}_{percentile}_s", figure["value"] if figure else None)

    cells = [
        words.quantity("wall_s", record["wall_s"]["value"]),
        number(record["throughput"]["output_tokens_per_s"]["wall"]["value"]),
        *(latency(name, percentile) for name in ("ttft", "tpot") for percentile in ("p50", "p95")),
        f"{record['n']['ok']}/{record['n']['requests']}",
    ]
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))


def _latencies(latency: dict[str, Any], title: str, show: Any) -> list[str]:
    """A table of all latencies that were measured, as `show` writes an estimate; none where none were."""
    rows = [
        [LATENCIES[name], str(figure["n"]), *(show(figure[key]) for key in ("mean", "p50", "p90", "p95", "p99"))]
        for name in LATENCIES
        if (figure := latency[name]) is not None
    ]
    return [plain.table([title, "n", "mean", "p50", "p90", "p95", "p99"], rows)] if rows else []


def warnings(summaries: list[dict[str, Any]]) -> list[str]:
    """Warnings by code, each with the cells it concerns, and what to try."""
    where: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for place, summary in enumerate(summaries, 1):
        for warning in summary.get("warnings") or []:
            where.setdefault(warning["code"], []).append((str(summary.get("label") or place), warning))
    lines = []
    for code, cells in where.items():
        _, first = cells[0]
        if len(summaries) == 1:
            lines.append(f"warning ({code}): {first['message']}")
        else:
            names = words.shortened([name for name, _ in cells], 4)
            lines.append(f"warning ({code}) in {names}: {first['message']}")
        if first.get("try"):
            lines.append(f"  try: {first['try']}")
    return lines


def samples(record: dict[str, Any]) -> list[str]:
    """What GPU and engine did meanwhile, as far as it was sampled, and what held them back."""
    joined, gpu, engine = record.get("joined"), record.get("gpu") or {}, record.get("engine") or {}
    if not joined:
        return []
    lines = []
    if joined["energy_per_output_token_j"] is not None:
        source = {"counter": "the energy counter", "power": "integrated power"}.get(
            gpu["energy_source"], "counters and integrated power"
        )
        lines.append(
            f"{number(joined['energy_per_output_token_j'])} J per output token (from {source}, "
            f"to {number(joined['energy_per_output_token_resolution_j'])} J)"
        )
    facts = [
        f"{title} {value}"
        for title, value in (
            ("busy", share(gpu.get("gpu_util_ratio"), "mean")),
            ("tensor cores", share(gpu.get("tensor_ratio"), "mean")),
            ("memory traffic", share(gpu.get("dram_ratio"), "mean")),
            ("peak memory", words.size(gpu["memory_used_bytes"]["max"]) if gpu.get("memory_used_bytes") else None),
        )
        if value
    ]
    if facts:
        lines.append("GPU: " + ", ".join(facts))
    facts = [
        f"{title} {value}"
        for title, value in (
            ("KV cache at most", share(engine.get("kv_usage_ratio"), "max")),
            ("waiting on average", number(engine["waiting"]["mean"]) if engine.get("waiting") else None),
        )
        if value
    ]
    facts += [
        f"{title} {milliseconds(joined[name])} ms"
        for title, name in (("queue", "queue_s_mean"), ("prefill", "prefill_s_mean"), ("decode", "decode_s_mean"))
        if joined[name] is not None
    ]
    if facts:
        lines.append("engine: " + ", ".join(facts))
    return lines + [cause["message"] for cause in joined["causes"]]


def share(figure: dict[str, Any] | None, statistic: str) -> str | None:
    """A sampled ratio in per cent; None where it was not measured."""
    return None if figure is None else f"{figure[statistic]:.0%}"


WIDTH = 80


def table(summaries: list[dict[str, Any]]) -> str:
    """Many summaries in the study's form: what was measured, wall seconds by client count, one line a cell, the answer.

    Repeats of a cell are one line: means over sessions. A star marks the shortest wall time of those without failures:
    a server that refuses work is quick.
    """
    rows = group(summaries)
    if not rows:
        return "no summaries\n"
    parts = [f"{wrapped(provenance.caption(rows))}\n"] if provenance.caption(rows) else []
    names = {row.key: words.label(row) for row in rows}
    if len({row.host for row in rows}) > 1:
        names = {row.key: ", ".join(filter(None, (names[row.key], row.host))) for row in rows}
    clients = {row.key: row.settings.get("clients") or _asked(row) for row in rows}
    walls = {row.key: row.figure("wall_s").value for row in rows}
    columns = sorted({count for count in clients.values() if count})
    groups = list(dict.fromkeys(names.values()))
    if len(columns) > 1 and len(groups) > 1 and len({(names[row.key], clients[row.key]) for row in rows}) == len(rows):
        grid = [
            [name or "all", *(_wall(rows, names, clients, walls, name, count) for count in columns)] for name in groups
        ]
        parts.append("Wall seconds by client count\n\n" + plain.table(["", *map(str, columns)], grid))
    rows = sorted(rows, key=lambda row: (groups.index(names[row.key]), clients[row.key] or 0))
    whole = [row for row in rows if all(found["n"]["ok"] == found["n"]["requests"] for found in row.summaries)]
    best = proven(whole)
    columns_of = _columns(rows, names, clients, best)
    lines = [list(line) for line in zip(*(cells for _, cells in columns_of), strict=True)]
    parts.append(plain.table([title for title, _ in columns_of], lines))
    parts += within_cells([(words.name(row), row.summaries) for row in rows])
    said = answer(rows)
    if said:
        parts.append(wrapped(said) + "\n")
    notes = ["tokens/s: output tokens over the whole wall time."]
    if best:
        notes.append("*: surely the least wall time.")
    needed = _needed(rows)
    if needed:
        each = ", ".join(f"{words.title(name)} {count}" for name, count in needed.items())
        windowed = any(found.get("latency_over") == "steady" for found in summaries)
        where = " in the steady window" if windowed else ""
        notes.append(f"~: too few requests for an interval, which needs at least{where}: {each}.")
    asked = [(found.get("goodput") or {}).get("objectives") for found in summaries]
    goals = {words.slo(objectives) for objectives in asked if objectives}
    if goals:
        notes.append(f"goodput: the share of requests with {' or with '.join(sorted(goals))}.")
    parts.append(wrapped(" ".join(notes)) + "\n")
    held = causes.held(words.by_label(rows))
    if held:
        parts.append("\n".join(map(wrapped, held)) + "\n")
    warned = warnings(summaries)
    if warned:
        parts.append("\n".join(map(wrapped, warned)) + "\n")
    return "\n".join(parts)


def wrapped(text: str) -> str:
    """Lines of a terminal's usual width; those after the first are indented like the first, and two further."""
    indent = " " * (len(text) - len(text.lstrip()) + 2 if text.startswith(("warning", "  ")) else 0)
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _columns(
    rows: list[rows.Row], names: dict[str, str], clients: dict[str, Any], best: rows.Row | None
) -> list[tuple[str, list[str]]]:
    """Titles and cells. A column that would say nothing is left out, so that the usual table fits a terminal."""
    columns: list[tuple[str, list[str]]] = []
    if len(set(names.values())) > 1 or not all(clients.values()):
        columns.append(("cell", [names[row.key] or row.cell for row in rows]))
    opened = all(row.settings.get("launcher") == "open" for row in rows)
    if not opened:  # an open load's clients are but a bound
        columns.append(("clients", [str(clients[row.key] or DASH) for row in rows]))
    if any(len(row.summaries) > 1 for row in rows):
        columns.append(("sessions", [str(len(row.summaries)) for row in rows]))
    if opened:  # how long such a load takes says nothing of the server
        columns.append(("requests/s", [number(row.figure("requests_per_s").value) for row in rows]))
    else:
        walls = [(row, row.figure("wall_s").value) for row in rows]
        columns.append(
            (
                "wall",
                [DASH if wall is None else words.duration(wall) + ("*" if row is best else "") for row, wall in walls],
            )
        )
    columns.append(("tokens/s", [number(row.figure("output_tokens_per_s").value) for row in rows]))
    for stem in ("ttft", "tpot"):
        name = shown(rows, stem)
        if any(row.figure(name).value is not None for row in rows):
            columns.append((words.title(name), [_latency(name, row.figure(name)) for row in rows]))
    if any(row.figure("goodput_ratio").value is not None for row in rows):
        shares = [row.figure("goodput_ratio").value for row in rows]
        columns.append(("goodput", [words.quantity("goodput_ratio", share) for share in shares]))
    flight = [row.figure("concurrency").value for row in rows]
    if any(
        count is not None and count < 0.95 * (clients[row.key] or 0) for row, count in zip(rows, flight, strict=True)
    ):
        columns.append(("in flight", list(map(number, flight))))
    counts = [
        (
            sum(summary["n"]["ok"] for summary in row.summaries),
            sum(summary["n"]["requests"] for summary in row.summaries),
        )
        for row in rows
    ]
    columns.append(("ok", [f"{ok}/{requests}" for ok, requests in counts]))
    return columns


def _latency(name: str, figure: rows.Figure) -> str:
    """A latency with its unit, and a mark where the requests were too few to say how well it is known."""
    return words.quantity(name, figure.value) + ("~" if _uncertain(figure) else "")


def _uncertain(figure: rows.Figure) -> bool:
    return figure.value is not None and figure.low is None and bool(figure.needed)


def _needed(rows: list[rows.Row]) -> dict[str, int]:
    """How many requests the intervals of the uncertain latencies need: of each, in the cell that needs most."""
    counts: dict[str, int] = {}
    for name in (shown(rows, stem) for stem in ("ttft", "tpot")):
        needed = [figure.needed or 0 for row in rows if _uncertain(figure := row.figure(name))]
        if needed:
            counts[name] = max(needed)
    return counts


def _asked(row: rows.Row) -> int | None:
    asked = {found["concurrency"]["asked"] for found in row.summaries}
    return asked.pop() if len(asked) == 1 else None


def _wall(
    rows: list[rows.Row],
    names: dict[str, str],
    clients: dict[str, Any],
    walls: dict[str, float | None],
    name: str,
    count: int,
) -> str:
    of_count = [walls[row.key] for row in rows if names[row.key] == name and clients[row.key] == count]
    return number(of_count[0]) if of_count else ""
