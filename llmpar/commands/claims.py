"""llmpar-claims: what summaries say of the study's findings."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import click

from llmpar import claims, cli, records, series, status, words
from llmpar.render import markdown


@cli.command("llmpar-claims")
@cli.files
@cli.output
@click.option("--claims", "table", metavar="TSV", type=click.Path(), help="Table of claims. [default: study/claims.tsv]")
@click.option("--only", metavar="ID", multiple=True, help="Only these claims; may be repeated.")
@click.option("--format", "form", type=click.Choice(("text", "json", "markdown")), default="text", show_default=True)
@click.option("--details", is_flag=True, help="Each comparison on its own line, in text and Markdown.")
@click.option("--fail-on", type=click.Choice(("contradicted", "unsupported")),
              help="Exit 5 if a claim that was run is contradicted, or is not supported.")
def main(files: tuple[str, ...], output: str | None, table: str | None, only: tuple[str, ...], form: str, details: bool,
         fail_on: str | None) -> int:  # fmt: skip
    """Say for each finding of the study whether summaries support it, contradict it, cannot tell, or were not run.

    \b
      llmpar-claims runs/*/*/summary.json
      llmpar-claims --only speculate-2-helps --details runs/speculate/*/summary.json
      cat runs/*/*/summary.json | llmpar-claims --format json | jq -r 'select(.verdict=="contradicted").sentence'

    A claim compares cells that differ only in the settings it names. One server session each cannot tell: measure with
    REPEATS=3. Reads `summary` records (buffers all) and a table of claims (docs/study.md); writes text, Markdown, or
    `claim` records. Exit status: 0; 2 usage; 3 not records; 5 --fail-on met; 6 no summary among the records.
    """
    place = Path(table) if table else claims.default_table()
    if place is None:
        raise cli.Failure("no study/claims.tsv beside this installation", status.USAGE, "name a table with --claims")
    with cli.opened(str(place)) as stream:
        text = stream.read().decode("utf-8", "replace")
    try:
        stated = claims.parse(text, str(place) if table else place.name)
    except claims.BadClaims as error:
        raise cli.Failure(str(error), status.USAGE) from None
    unknown = set(only) - {claim.id for claim in stated}
    if unknown:
        raise cli.Failure(f"no claim '{sorted(unknown)[0]}'", status.USAGE, "there are: " + ", ".join(claim.id for claim in stated))
    rows = series.rows(cli.read_records(files))
    if not rows:
        raise cli.Failure("no summary among the records", status.TOO_LITTLE, "`make study` measures; `llmpar-summarise` makes summaries")
    made = [claims.evaluate(claim, rows) for claim in stated if not only or claim.id in only]
    with cli.writing(output) as stream:
        if form == "json":
            for record in made:
                stream.write(records.encode(record))
        else:
            stream.write((as_text if form == "text" else as_markdown)(made, details).encode())
    bad = {"contradicted": (claims.CONTRADICTED,), "unsupported": (claims.CONTRADICTED, claims.CANNOT_TELL), None: ()}[fail_on]
    return status.CHECK_FAILED if any(record["verdict"] in bad for record in made) else status.OK


def as_text(made: list[dict[str, Any]], details: bool) -> str:
    """One paragraph a claim: the verdict first, the sentence, then the effect under it."""
    lines = []
    for record in made:
        stated = f"; the study: {words.ratio(record['stated_ratio'], None, None)}" if record["stated_ratio"] else ""
        lines.append(f"{record['verdict']:<13} {record['sentence']}")
        indent = " " * 14
        lines += textwrap.wrap(words.claim(record) + stated, 108, initial_indent=indent, subsequent_indent=indent)
        if details:
            for one in record["comparisons"]:
                text = f"{one['outcome']}: {sides(one)}: {words.comparison(one, record['metric'])}"
                lines += textwrap.wrap(text, 106, initial_indent=indent + "- ", subsequent_indent=indent + "  ")
    lines.append("")
    lines.append(", ".join(f"{sum(record['verdict'] == name for record in made)} {name}" for name in
                           (claims.SUPPORTED, claims.CONTRADICTED, claims.CANNOT_TELL, claims.NOT_RUN)))  # fmt: skip
    return "\n".join(lines) + "\n"


def as_markdown(made: list[dict[str, Any]], details: bool) -> str:
    """A table of claims, and one of comparisons with --details."""
    text = markdown.table(
        ("Finding of the study", "Here", "Effect", "The study"),
        [(record["sentence"], record["verdict"], words.claim(record), words.ratio(record["stated_ratio"], None, None))
         for record in made])  # fmt: skip
    if details:
        text += "\n" + markdown.table(
            ("Claim", "Cells", "Outcome", "Effect"),
            [(record["id"], sides(one), one["outcome"], words.comparison(one, record["metric"])) for record in made for one in record["comparisons"]])
    return text


def sides(one: dict[str, Any]) -> str:
    """What a comparison compares: A's settings against B's, and where."""
    at = ", ".join(f"{value}" if key in ("engine", "model") else f"{key.replace('_', ' ')} {value}" for key, value in one["at"].items())
    return f"{words.settings(one['a']['settings'])} against {words.settings(one['b']['settings'])} ({at})"


if __name__ == "__main__":
    main()
