"""llmpar-clock: how far other hosts' clocks are from this one's."""

from __future__ import annotations

import shlex

import click

from llmpar import cli, exit_codes, records
from llmpar.machine import clocks

NAME = "llmpar-clock"


@cli.command(NAME, common=("--questions", "--timeout", "--output"))
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option(
    "--questions",
    metavar="N",
    type=click.IntRange(1, 10_000),
    default=clocks.QUESTIONS,
    show_default=True,
    help="Questions to each clock; the tightest bounds count.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="S",
    type=click.FloatRange(0.1),
    default=15.0,
    show_default=True,
    help="Longest wait for an answer.",
)
@cli.output
def main(hosts: tuple[str, ...], questions: int, timeout_s: float, output: str | None) -> int:
    """Ask each HOST for its time, and write how far its clock is from this host's: offset_s, sure to within error_s.

    \b
      llmpar-clock load1 load2 >> clock.jsonl
      llmpar-clock 'srun -w node3' 'kubectl exec -i pod-1 --' | jq '{host, offset_s, error_s}'
      llmpar-summarise --clock clock.jsonl requests.jsonl

    HOST is a name for ssh, or in quotes any command that runs a command somewhere else; perl has to be there. Ask
    before and after a run: clocks move. Writes one clock record a host (docs/records.md).

    Exit status: 0 done; 2 usage; 4 a host did not answer (the others' records are written).
    """
    status = exit_codes.OK
    with cli.writing(output) as out:
        for host in hosts:
            command = shlex.split(host)
            if len(command) == 1:
                command = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", command[0]]
            try:
                reading = clocks.ask(command, questions, timeout_s)
            except (clocks.NoAnswer, OSError) as error:
                cli.say(NAME, f"the clock of '{host}' is not known: {error}")
                status = exit_codes.UNAVAILABLE
                continue
            out.write(records.encode(reading.record()))
    return status


if __name__ == "__main__":
    main()
