"""Print the coverage and false-alarm tables of docs/metrics.md. Usage: python bench/simulate.py [TRIALS]"""

from __future__ import annotations

import math
import sys
from concurrent.futures import ProcessPoolExecutor

import batch_server
import simulation


def batch_server_tables(trials: int) -> None:
    """What llmpar-summarise says of whole runs of a batch server; the truth is that server's long run."""
    print(f"\nRuns of a batch server, {trials} trials; value / truth (covered, given)\n")
    print(f"| load, requests, lengths | steady | {' | '.join(batch_server.FIGURES)} | TTFT mean, whole run |")
    print("|---|---:|" + "---:|" * (len(batch_server.FIGURES) + 1))
    with ProcessPoolExecutor() as pool:
        for scenario in (*batch_server.CLOSED, *batch_server.OPEN):
            found = batch_server.trials(scenario, trials, pool)
            steady = sum(each["steady"] for each in found) / trials
            cells, whole = ["–"] * len(batch_server.FIGURES), "–"
            if scenario.clients or scenario.rate < 1:  # an overloaded server has no long run
                rows = list(batch_server.rows(scenario, found, batch_server.truth(scenario)))
                cells = [_cell(row) for row in rows]
                whole = f"{rows[0].whole_ratio:.2f}"
            print(f"| {scenario} | {steady:.0%} | {' | '.join(cells)} | {whole} |", flush=True)
        print("\n| slow launches: load, requests, lengths | named as limited | steady |\n|---|---:|---:|")
        for scenario in batch_server.SLOW:
            found = batch_server.trials(scenario, max(trials // 3, 1), pool)
            limited = sum(each["limited"] for each in found) / len(found)
            steady = sum(each["steady"] for each in found) / len(found)
            print(f"| {scenario} | {limited:.0%} | {steady:.0%} |", flush=True)


def _cell(row: batch_server.Row) -> str:
    return "–" if math.isnan(row.ratio) else f"{row.ratio:.3f} ({_share(row.covered)}, {_share(row.given)})"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0%}"


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(
        f"Coverage of 95 % intervals, {trials} trials of {simulation.REQUESTS} requests (correlated 0.8: "
        f"{4 * simulation.REQUESTS})\n"
    )
    print("| data | figure | covered | given |\n|---|---|---:|---:|")
    for row in simulation.coverage(trials):
        print(f"| {row.what} | {row.figure} | {row.covered:.1%} | {row.given:.0%} |", flush=True)
    batch_server_tables(max(trials // 10, 1))
    print(f"\nVerdicts on pairs with a known difference, {trials} trials\n")
    print(
        "| noise between sessions | sessions | noise | true difference | called different | same | cannot tell "
        "|\n|---|---:|---:|---:|---:|---:|---:|"
    )
    for alarm in simulation.alarms(trials):
        print(
            f"| {alarm.what} | {alarm.sessions} | {alarm.noise:.0%} | {alarm.difference:.0%} | {alarm.different:.1%} | "
            f"{alarm.verdicts['same']:.1%} | {alarm.verdicts['cannot tell']:.1%} |",
            flush=True,
        )
    print(f"\nAny false alarm among 20 equal cells of 5 sessions with 5 % noise, {trials} sweeps\n")
    for name, share in simulation.many_cells(trials).items():
        print(f"- {name}: {share:.1%}")
    for sessions in (3, 5):
        print(
            f"\nEqual sides of {sessions} sessions with 5 % noise, whole runs, four figures corrected by Holm, "
            f"{trials} pairs: called different\n"
        )
        for name, share in simulation.same_runs(trials, sessions).items():
            print(f"- {name}: {share:.1%}")
    print(f"\nHistory of 15 nights with 5 % noise in which nothing changed, {trials} times\n")
    for name, share in simulation.nights(trials).items():
        print(f"- {name}: {share:.1%}")


if __name__ == "__main__":
    main()
