"""llmpar-plan: how many server sessions and prompts a comparison needs."""

from __future__ import annotations

import click

from llmpar import cli, exit_codes, failure, records
from llmpar.render.plans import as_text


@cli.command(
    "llmpar-plan",
    common=("--difference", "--margin", "--power", "--figure", "--format", "--output"),
    short_help="server sessions and prompts that a comparison needs",
)
@cli.files
@cli.output
@click.option(
    "--difference",
    metavar="RATIO",
    type=click.FloatRange(0.001, 10),
    default=0.05,
    show_default=True,
    help="The relative difference to see.",
)
@cli.margin
@click.option(
    "--power",
    metavar="RATIO",
    type=click.FloatRange(0.5, 0.999),
    default=0.9,
    show_default=True,
    help="Chance of seeing the difference if it exists.",
)
@click.option(
    "--figure",
    metavar="NAME",
    multiple=True,
    default=("output_tokens_per_s",),
    show_default=True,
    help="Figure to compare; may be repeated.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Text or records."
)
def main(
    files: tuple[str, ...],
    output: str | None,
    difference: float,
    margin: float,
    power: float,
    figure: tuple[str, ...],
    form: str,
) -> int:
    """Say how many server sessions and prompts are needed to see a difference, from a pilot run's noise.

    \b
      make sweep REPEATS=3
      llmpar-plan --difference 0.05 runs/quick/*/summary.json
      llmpar-plan --figure ttft_p95_s --format json runs/quick/*/summary.json | jq .sessions

    The pilot needs at least one cell that was measured in two server sessions or more: what varies from start to
    start cannot be learned from one. Reads summary records, writes text or plan records (docs/records.md).

    Exit status: 0 done; 2 usage; 3 not records of a known version; 6 no cell has two server sessions.
    """
    from llmpar.results import rows
    from llmpar.verdicts import sample_size

    if difference <= margin:
        raise click.UsageError(
            f"a difference of {difference:g} is within the margin of {margin:g} and would be called the same; give a "
            "smaller --margin"
        )
    cli.known_figures(figure)
    summaries = cli.read_summaries(files)
    cli.refuse_simulated(summaries)
    plans = []
    for name in figure:
        noise = sample_size.noise(summaries, name)
        if noise is None:
            sessions = max((len(row.by_session(name)) for row in rows.group(summaries)), default=0)
            raise failure.Failure(
                f"no cell has {name} in two named server sessions (the most is {sessions})",
                exit_codes.TOO_LITTLE,
                "measure a pilot of at least three: make sweep REPEATS=3",
            )
        plans.append(
            sample_size.record(noise, sample_size.options(noise, difference, power, margin), difference, power, margin)
        )
    with cli.writing(output) as out:
        out.write(b"".join(map(records.encode, plans)) if form == "json" else "\n".join(map(as_text, plans)).encode())
    return exit_codes.OK


if __name__ == "__main__":
    main()
