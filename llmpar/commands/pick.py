"""llmpar-pick: the best cells under objectives, with cost and Pareto front."""

from __future__ import annotations

import click

from llmpar import cli, exit_codes, failure, records, sizes
from llmpar.render.picks import render
from llmpar.results.rows import group
from llmpar.verdicts import pick


@cli.command("llmpar-pick")
@cli.files
@cli.output
@click.option(
    "--ttft-p95",
    metavar="S",
    type=click.FloatRange(0, min_open=True),
    help="At most S seconds to the first token at p95.",
)
@click.option(
    "--tpot-p95",
    metavar="S",
    type=click.FloatRange(0, min_open=True),
    help="At most S seconds for each further token at p95.",
)
@click.option(
    "--e2e-p95",
    metavar="S",
    type=click.FloatRange(0, min_open=True),
    help="At most S seconds for a whole request at p95.",
)
@click.option("--memory", metavar="SIZE", help="At most SIZE of GPU memory at the peak, such as 20GiB.")
@click.option(
    "--price",
    "prices",
    metavar="NAME=AMOUNT",
    multiple=True,
    help="Per hour, of a host by its name or of a GPU by part of its; a bare AMOUNT is for any cell. May be repeated.",
)
@click.option("--sure", is_flag=True, help="The upper end of each interval must meet its objective too.")
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Show N ranked cells in text and Markdown.",
)
@click.option("--format", "form", type=click.Choice(("text", "json", "markdown")), default="text", show_default=True)
def main(
    files: tuple[str, ...],
    output: str | None,
    ttft_p95: float | None,
    tpot_p95: float | None,
    e2e_p95: float | None,
    memory: str | None,
    prices: tuple[str, ...],
    sure: bool,
    top: int,
    form: str,
) -> int:
    """Rank the cells that meet all objectives by cost per million output tokens, or by output tokens per second.

    \b
      llmpar-pick --ttft-p95 0.5 --tpot-p95 0.05 runs/*/*/summary.json
      llmpar-pick --price H100=2.5 --price A6000=0.8 --memory 40GiB runs/*/*/summary.json
      llmpar-pick --ttft-p95 1 --format json runs/clients/*/summary.json | jq -r 'select(.pareto).cell'

    Cells that the client limited, or of which over 1 % of the requests failed, are never ranked. Reads `summary` records
    (buffers all); writes text, Markdown, or a `pick` record a cell. Exit status: 0; 2 usage; 3 not records; 5 no cell
    meets the objectives; 6 too little data to say of any cell.
    """
    objectives = {"ttft_p95_s": ttft_p95, "tpot_p95_s": tpot_p95, "e2e_p95_s": e2e_p95}
    wanted = {metric: most for metric, most in objectives.items() if most is not None}
    if memory is not None:
        try:
            wanted["memory_bytes"] = float(sizes.parse(memory))
        except ValueError as error:
            raise failure.Failure(str(error), exit_codes.USAGE) from None
    rows = group(cli.read_records(files))
    cli.refuse_simulated([summary for row in rows for summary in row.summaries], alone=True)
    if not rows:
        raise failure.Failure(
            "no summary among the records", exit_codes.TOO_LITTLE, "llmpar-summarise makes one from requests"
        )
    choices = pick.judge(rows, wanted, cli.prices_of(prices), sure)
    ranked = [choice for choice in choices if choice.ranked]
    with cli.writing(output) as stream:
        if form == "json":
            for place, choice in enumerate(choices, 1):
                stream.write(records.encode(pick.record(choice, place if choice.ranked else None)))
        else:
            stream.write(render(choices, wanted, top, form == "markdown").encode())
    if ranked:
        return exit_codes.OK
    return exit_codes.TOO_LITTLE if all(choice.unknown for choice in choices) else exit_codes.CHECK_FAILED


if __name__ == "__main__":
    main()
