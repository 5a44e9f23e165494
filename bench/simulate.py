"""Print the simulated tables of docs/, or write them there. Called by bench/simulate; `--help` lists the tables.

A table of docs/ stands between `<!-- simulated: NAME -->` and `<!-- end -->`, after the command that makes it.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import batch_server
import break_evens
import nights
import picks
import simulation
import sweep_simulation

DOCS = Path(__file__).resolve().parent.parent / "docs"
Lines = Iterator[str]


@dataclass(frozen=True)
class Table:
    """A table of a page of docs/. `rounds`: how many trials a row the page shows."""

    page: str
    rounds: int
    lines: Callable[[int], Lines]
    about: str


def head(*names: str, left: int = 1) -> str:
    """The first two lines of a Markdown table; all columns but the first `left` to the right."""
    return f"| {' | '.join(names)} |\n|{'---|' * left}{'---:|' * (len(names) - left)}"


def share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0%}"


def pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(len(os.sched_getaffinity(0)))


def intervals(rounds: int) -> Lines:
    yield head("data", "figure", "covered", "given", left=2)
    for row in simulation.coverage(rounds):
        yield f"| {row.what} | {row.figure} | {row.covered:.1%} | {row.given:.0%} |"


def batch_rows(scenarios: list[batch_server.Scenario], rounds: int) -> Lines:
    """Runs of the batch server: value / truth (covered, given)."""
    yield head("load, requests, lengths", "steady", *batch_server.FIGURES, "TTFT mean, whole run")
    with pool() as workers:
        for scenario in scenarios:
            found = batch_server.trials(scenario, rounds, workers)
            steady = sum(each["steady"] for each in found) / rounds
            cells, whole = ["–"] * len(batch_server.FIGURES), "–"
            if scenario.clients or scenario.rate < 1:  # an overloaded server has no long run
                rows = list(batch_server.rows(scenario, found, batch_server.truth(scenario)))
                cells = [
                    "–" if math.isnan(row.ratio) else f"{row.ratio:.3f} ({share(row.covered)}, {share(row.given)})"
                    for row in rows
                ]
                whole = f"{rows[0].whole_ratio:.2f}"
            yield f"| {scenario} | {share(steady)} | {' | '.join(cells)} | {whole} |"


def launches(rounds: int) -> Lines:
    yield head("load, requests, lengths", "named as limited", "steady")
    with pool() as workers:
        for scenario in batch_server.SLOW:
            found = batch_server.trials(scenario, rounds, workers)
            limited, steady = (sum(each[key] for each in found) / rounds for key in ("limited", "steady"))
            yield f"| {scenario} | {share(limited)} | {share(steady)} |"


def picked(rounds: int) -> Lines:
    with pool() as workers:
        yield from picks.table(rounds, workers)


def pairs(rounds: int) -> Lines:
    yield head(
        "noise between sessions", "sessions", "noise", "true difference", "called different", "same", "cannot tell"
    )
    for alarm in simulation.alarms(rounds):
        yield (
            f"| {alarm.what} | {alarm.sessions} | {alarm.noise:.0%} | {alarm.difference:.0%} | {alarm.different:.1%} | "
            f"{alarm.verdicts['same']:.1%} | {alarm.verdicts['cannot tell']:.1%} |"
        )


def equal(rounds: int) -> Lines:
    yield head("equal sides", "any called different")
    names = {"holm": "Holm", "benjamini-hochberg": "Benjamini and Hochberg", "none": "no correction"}
    for name, wrong in simulation.many_cells(rounds).items():
        yield f"| sweeps of 20 cells, 5 sessions, 5% noise: {names.get(name, name)} | {wrong:.1%} |"
    for sessions in (3, 5):
        wrong = simulation.same_runs(rounds, sessions)["any"]
        yield f"| whole runs through `llmpar-summarise`, four figures, {sessions} sessions, 5% noise | {wrong:.1%} |"
    names = {"newest different": "the newest", "a change among the others": "a change point among the others"}
    for name, wrong in simulation.nights(rounds).items():
        yield f"| 15 nights, 5% noise: {names[name]} | {wrong:.1%} |"


TABLES = {
    "intervals": Table("metrics.md", 1000, intervals, "intervals of draws from known distributions"),
    "closed": Table(
        "metrics.md", 80, lambda rounds: batch_rows(batch_server.CLOSED, rounds), "closed loops on a batch server"
    ),
    "open": Table("metrics.md", 12, lambda rounds: batch_rows(batch_server.OPEN, rounds), "open loads on it"),
    "launches": Table("metrics.md", 10, launches, "clients that are slow to launch"),
    "picks": Table("metrics.md", 60, picked, "objectives near the truth"),
    "borrowed": Table("metrics.md", 500, sweep_simulation.false_alarms, "sweeps of equal cells, unevenly noisy"),
    "found": Table("metrics.md", 100, sweep_simulation.power, "sweeps of cells that differ"),
    "same": Table("metrics.md", 500, sweep_simulation.called_same, "sweeps of cells that differ by 4%"),
    "best": Table("metrics.md", 500, sweep_simulation.best, "equal cells against the best of them"),
    "knee": Table("metrics.md", 500, sweep_simulation.knee_table, "the knee of a curve"),
    "pairs": Table("metrics.md", 1000, pairs, "pairs of sides with a known difference"),
    "equal": Table("metrics.md", 1000, equal, "equal sides, many at once"),
    "break-evens": Table("metrics.md", 2000, break_evens.lines, "break-even acceptance lengths"),
    "nights-unchanged": Table("nightly.md", 30, nights.unchanged, "years of nights in which nothing changed"),
    "nights-step": Table("nightly.md", 60, nights.step, "nights before and after a step"),
    "nights-slow": Table("nightly.md", 40, nights.slow, "years of a slow loss"),
}


def write(name: str, text: str) -> None:
    """Put a table in its place in docs/."""
    path = DOCS / TABLES[name].page
    page = path.read_text()
    pattern = re.compile(rf"(<!-- simulated: {name} -->\n).*?(<!-- end -->)", re.S)
    if len(pattern.findall(page)) != 1:
        raise SystemExit(f"'{path}' has no place for '{name}'; give it: <!-- simulated: {name} --> and <!-- end -->")
    path.write_text(pattern.sub(lambda match: match[1] + text + match[2], page))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench/simulate",
        description="How often intervals, verdicts, picks and nights err, by seeded simulation with a known truth.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="tables:\n"
        + "".join(f"  {name:18}{table.about}; {table.rounds} rounds\n" for name, table in TABLES.items()),
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/")
    parser.add_argument("rounds", nargs="?", type=int, metavar="ROUNDS", help="trials a row (as in docs/)")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="which (all)")
    asked = parser.parse_args()
    unknown = set(asked.tables) - TABLES.keys()
    if unknown or (asked.rounds is not None and asked.rounds < 1):
        parser.error(f"no such table: {', '.join(sorted(unknown))}" if unknown else "ROUNDS must be 1 or more")
    for name in asked.tables or TABLES:
        rounds = asked.rounds or TABLES[name].rounds
        lines = [f"`bench/simulate {rounds} {name}`:\n"]
        print(lines[0], flush=True)
        for line in TABLES[name].lines(rounds):
            print(line, flush=True)
            lines.append(line)
        print(flush=True)
        if asked.write:
            write(name, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
