"""Which axis and series the charts of some rows have, whoever draws them."""

from __future__ import annotations

from collections.abc import Sequence

from llmpar.results import rows, words
from llmpar.results.rows import Row


def unit(metric: str, most: float = 1.0) -> tuple[str, float]:
    """The unit a metric is drawn in and what to multiply its values with: times below 1 s are in ms. `most`: the
    greatest value shown."""
    name = words.named(metric)
    if name.unit == "s" and metric != "wall_s":
        return ("ms", 1000.0) if most < 1 else ("s", 1.0)
    return {"bytes": ("GiB", 2.0**-30), "%": ("%", 100.0)}.get(name.unit, (name.unit, 1.0))


def axis_label(metric: str, most: float = 1.0) -> str:
    """A metric in words with its unit, for an axis. `most`: the greatest value shown; times below 1 s are in ms."""
    name = words.named(metric)
    if name.unit not in ("s", "bytes", "J") or metric == "wall_s":
        return name.axis
    return f"{name.axis}, {unit(metric, most)[0]}"


def numeric(rows: Sequence[rows.Row], key: str) -> bool:
    """Whether a setting takes two numeric values or more over the rows."""
    values = {row.settings.get(key) for row in rows}
    return len(values) > 1 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def grouped(rows: Sequence[rows.Row], key: str) -> dict[str, list[rows.Row]]:
    """Rows by their label without `key`, in order of first appearance, each sorted by `key`."""
    groups: dict[str, list[Row]] = {}
    hosts = {row.host for row in rows}
    sweeps = {row.sweep for row in rows}
    for row in rows:
        parts = [words.label(row, (key,))]
        if len(sweeps) > 1 and row.sweep:
            parts.insert(0, row.sweep)
        if len(hosts) > 1 and row.host:
            parts.append(row.host)
        groups.setdefault(", ".join(part for part in parts if part), []).append(row)
    for members in groups.values():
        members.sort(key=lambda row: row.settings[key])
    return groups


def opened(rows: Sequence[rows.Row]) -> bool:
    """Whether all loads were open: requests left at a rate that was given, whatever came back."""
    return bool(rows) and all(row.settings.get("launcher") == "open" for row in rows)


def axis_of(rows: Sequence[rows.Row]) -> str | None:
    """The numeric setting that curves are drawn against: the rate of open loads, else clients; None without one."""
    key = "rate" if opened(rows) else "clients"
    return key if numeric(rows, key) else None


def labels(rows: Sequence[rows.Row]) -> list[str]:
    """A short name for each row, unique among them: an engine's alone where no two rows have the same."""
    hosts = {row.host for row in rows}
    engines = [str(row.settings.get("engine")) for row in rows]
    alone = len(set(engines)) == len(rows) and all("engine" in row.varies for row in rows)
    made = []
    for row, engine in zip(rows, engines, strict=True):
        name = engine if alone else words.name(row)
        made.append(f"{name}, {row.host}" if len(hosts) > 1 and row.host else name)
    return [name if made.count(name) == 1 else f"{name} ({row.cell})" for name, row in zip(made, rows, strict=True)]
