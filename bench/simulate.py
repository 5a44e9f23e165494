"""Print the coverage and false-alarm tables of docs/metrics.md. Usage: python bench/simulate.py [TRIALS]"""

from __future__ import annotations

import sys

import simulation


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(
        f"Coverage of 95 % intervals, {trials} trials of {simulation.REQUESTS} requests (correlated 0.8: {4 * simulation.REQUESTS})\n"
    )
    print("| data | figure | covered | given |\n|---|---|---:|---:|")
    for row in simulation.coverage(trials):
        print(f"| {row.what} | {row.figure} | {row.covered:.1%} | {row.given:.0%} |", flush=True)
    for row in simulation.end_to_end(trials):
        print(f"| {row.what} | {row.figure} | {row.covered:.1%} | {row.given:.0%} |", flush=True)
    print(f"\nVerdicts on pairs with a known difference, {trials} trials\n")
    print(
        "| noise between sessions | sessions | noise | true difference | called different | same | cannot tell |\n|---|---:|---:|---:|---:|---:|---:|"
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
            f"\nEqual sides of {sessions} sessions with 5 % noise, whole runs, four figures corrected by Holm, {trials} pairs: called different\n"
        )
        for name, share in simulation.same_runs(trials, sessions).items():
            print(f"- {name}: {share:.1%}")
    print(f"\nHistory of 15 nights with 5 % noise in which nothing changed, {trials} times\n")
    for name, share in simulation.nights(trials).items():
        print(f"- {name}: {share:.1%}")


if __name__ == "__main__":
    main()
