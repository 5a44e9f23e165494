"""llmpar-pick: the best cells under objectives, with cost and Pareto front."""

from __future__ import annotations

from collections.abc import Callable

import click

from llmpar import cli, exit_codes, failure, records, sizes
from llmpar.render.picks import render
from llmpar.results.rows import group
from llmpar.verdicts import pick

LATENCIES = ("ttft", "tpot", "e2e")
METRICS = {
    f"{stem}_{statistic}": f"{stem}_{statistic}_s"
    for stem in (*LATENCIES, "itl")
    for statistic in ("mean", "p50", "p90", "p95", "p99")
}


def latencies(command: Callable[..., int]) -> Callable[..., int]:
    """An option for every statistic of every latency; help shows the usual ones."""
    for name in reversed(METRICS):
        stem, _, statistic = name.rpartition("_")
        command = click.option(
            f"--{name.replace('_', '-')}",
            metavar="TIME",
            type=cli.Seconds(),
            hidden=statistic != "p95" or stem == "itl",
            help=f"{statistic} of {stem.upper()}: at most TIME, 500ms or 0.5.",
        )(command)
    return command


@cli.command(
    "llmpar-pick",
    common=("--ttft-p95", "--tpot-p95", "--e2e-p95", "--slo", "--memory", "--price", "--top", "--format", "--output"),
)
@cli.files
@cli.output
@latencies
@click.option("--slo", metavar="TEXT", type=cli.Objectives(), help="Objectives: 'ttft-p95<500ms tpot-p95<50ms'.")
@click.option("--memory", metavar="SIZE", help="Peak GPU memory: at most SIZE, such as 20GiB.")
@click.option(
    "--price",
    "prices",
    metavar="NAME=AMOUNT",
    multiple=True,
    help="Price per hour of a host or GPU. NAME is a host's, or part of a GPU's; a bare AMOUNT is for any cell. May be "
    "repeated.",
)
@click.option("--sure", is_flag=True, hidden=True)
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Show N ranked cells in text and Markdown.",
)
@cli.document_format
def main(
    files: tuple[str, ...],
    output: str | None,
    slo: dict[str, float] | None,
    memory: str | None,
    prices: tuple[str, ...],
    sure: bool,
    top: int,
    form: str,
    **given: float | None,
) -> int:
    """Rank the cells that surely meet all objectives by cost per million output tokens, or by output tokens per
    second.

    \b
      llmpar-pick --ttft-p95 500ms --tpot-p95 50ms runs/*/*/summary.json
      llmpar-pick --price H100=2.5 --price A6000=0.8 --memory 40GiB runs/*/*/summary.json
      llmpar-pick --ttft-p95 1 --format json runs/clients/*/summary.json | jq -r 'select(.pareto).cell'

    Every latency (ttft, tpot, itl, e2e) has mean, p50, p90, p95 and p99. An objective is met where 95% confidence
    says so (59 requests suffice for p95), missed where that says the opposite. Cells that the client limited are
    never ranked; those of which over 1% of the requests failed miss. Reads `summary` records (buffers all); writes
    text, Markdown, or a `pick` record a cell.

    Exit status: 0 done; 2 usage; 3 not records; 5 every cell misses; 6 no cell is known to meet the objectives, and
    for some there is too little data.
    """
    wanted = slo or {}
    wanted |= {METRICS[name]: most for name, most in given.items() if most is not None}
    if memory is not None:
        try:
            wanted["memory_bytes"] = float(sizes.parse(memory))
        except ValueError as error:
            raise failure.Failure(str(error), exit_codes.USAGE) from None
    if sure:
        cli.say("llmpar-pick", "--sure is what llmpar-pick always does now; the option will go in a later release")
    summaries = cli.read_summaries(files)
    cli.refuse_simulated(summaries, alone=True)
    choices = pick.judge(group(summaries), wanted, cli.prices_of(prices))
    with cli.writing(output) as stream:
        if form == "json":
            for place, choice in enumerate(choices, 1):
                stream.write(records.encode(pick.record(choice, place if choice.ranked else None)))
        else:
            stream.write(render(choices, wanted, top, form == "markdown").encode())
    states = {choice.state for choice in choices}
    if pick.MEETS in states:
        return exit_codes.OK
    return exit_codes.CHECK_FAILED if states == {pick.MISSES} else exit_codes.TOO_LITTLE


if __name__ == "__main__":
    main()
