"""llmpar-claims: what summaries say of the study's findings."""

from __future__ import annotations

from pathlib import Path

import click

from llmpar import cli, exit_codes, failure, records
from llmpar.render.claims import as_markdown, as_text
from llmpar.results.rows import group
from llmpar.verdicts import claim_table, claims


@cli.command("llmpar-claims", common=("--claims", "--only", "--details", "--fail-on", "--format", "--output"))
@cli.files
@cli.output
@click.option(
    "--claims", "table", metavar="TSV", type=click.Path(), help="Table of claims. [default: study/claims.tsv]"
)
@click.option("--only", metavar="ID", multiple=True, help="Only these claims; may be repeated.")
@cli.document_format
@click.option("--details", is_flag=True, help="Each comparison on its own line, in text and Markdown.")
@click.option(
    "--fail-on",
    type=click.Choice(("contradicted", "unsupported")),
    help="Exit 5 if a claim that was run is contradicted, or is not supported.",
)
def main(
    files: tuple[str, ...],
    output: str | None,
    table: str | None,
    only: tuple[str, ...],
    form: str,
    details: bool,
    fail_on: str | None,
) -> int:
    """Say for each finding of the study whether summaries support it, contradict it, cannot tell, or were not run.

    \b
      llmpar-claims runs/*/*/summary.json
      llmpar-claims --only speculate-2-helps --details runs/speculate/*/summary.json
      cat runs/*/*/summary.json | llmpar-claims --format json | jq -r 'select(.verdict=="contradicted").sentence'

    A claim compares cells that differ only in the settings it names. One server session per side is not enough to
    decide: measure with REPEATS=3. Reads `summary` records (buffers all) and a table of claims (docs/study.md);
    writes text, Markdown, or `claim` records.

    Exit status: 0 done; 2 usage; 3 not records; 5 --fail-on met; 6 no summary among the records.
    """
    place = Path(table) if table else claim_table.default_table()
    if place is None:
        raise failure.Failure(
            "this installation has no study/claims.tsv", exit_codes.USAGE, "name a table with --claims"
        )
    text = cli.read_text(str(place))
    try:
        stated = claim_table.parse(text, str(place) if table else place.name)
    except claim_table.BadClaims as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None
    unknown = set(only) - {claim.id for claim in stated}
    if unknown:
        raise failure.Failure(
            f"no claim '{sorted(unknown)[0]}'",
            exit_codes.USAGE,
            "there are: " + ", ".join(claim.id for claim in stated),
        )
    summaries = cli.read_summaries(files)
    cli.refuse_simulated(summaries)
    rows = group(summaries)
    made = [claims.evaluate(claim, rows) for claim in stated if not only or claim.id in only]
    with cli.writing(output) as stream:
        if form == "json":
            for record in made:
                stream.write(records.encode(record))
        else:
            stream.write((as_text if form == "text" else as_markdown)(made, details).encode())
    bad = {"contradicted": (claims.CONTRADICTED,), "unsupported": (claims.CONTRADICTED, claims.CANNOT_TELL), None: ()}[
        fail_on
    ]
    return exit_codes.CHECK_FAILED if any(record["verdict"] in bad for record in made) else exit_codes.OK


if __name__ == "__main__":
    main()
