"""llmpar-report: all results in one HTML file, or as Markdown, CSV or a terminal table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from llmpar import cli, exit_codes, failure, records
from llmpar.render import report_csv
from llmpar.render.report_text import as_markdown, as_text
from llmpar.report import document, study, tracks
from llmpar.report.document import build
from llmpar.results import rows
from llmpar.results.rows import group, objectives
from llmpar.verdicts import claim_table, claims, pairs, pick, verdict

# What engines are compared by where no verdicts were given.
COMPARED = ("output_tokens_per_s", "ttft_p95_s")


@cli.command(
    "llmpar-report", common=("--format", "--title", "--claims", "--no-claims", "--walls", "--timelines", "--output")
)
@cli.files
@cli.output
@click.option(
    "--format",
    "form",
    type=click.Choice(("html", "markdown", "csv", "text")),
    default="html",
    show_default=True,
    help="Form of the report.",
)
@click.option("--title", metavar="TEXT", default="Which engine, how configured", show_default=True)
@click.option(
    "--claims", "table", metavar="TSV", type=click.Path(), help="Table of claims. [default: study/claims.tsv]"
)
@click.option("--no-claims", is_flag=True, help="Leave the study's findings out.")
@click.option(
    "--slo",
    metavar="TEXT",
    type=cli.Objectives(),
    help="Objectives of the picks, 'ttft-p95<500ms tpot-p95<50ms'. Default: those of goodput.",
)
@click.option(
    "--study",
    "with_study",
    is_flag=True,
    help="Show all of the study's findings and its wall seconds, also where its sweeps did not run.",
)
@click.option(
    "--walls",
    metavar="TSV",
    type=click.Path(),
    help="Published wall seconds to show next to those measured, such as study/walls.tsv.",
)
@click.option(
    "--timelines",
    metavar="N",
    type=click.IntRange(0),
    default=6,
    show_default=True,
    help="Draw N time lines in HTML: each sweep's quickest cell first.",
)
def main(
    files: tuple[str, ...],
    output: str | None,
    form: str,
    title: str,
    table: str | None,
    no_claims: bool,
    slo: dict[str, float] | None,
    with_study: bool,
    walls: str | None,
    timelines: int,
) -> int:
    """Put summaries into one report: answers, picks, wall seconds, charts, time lines, how it was run.

    \b
      llmpar-report runs/*/*/summary.json -o report.html
      llmpar-report --slo 'ttft-p95<500ms' --format text runs/quick
      llmpar-report --format csv runs/clients/*/summary.json > clients.csv
      llmpar-compare a.json --baseline b.json --format json | llmpar-report --format markdown - a.json b.json

    The HTML is one file that asks the network for nothing, and can be read without its script. Buffers all. Reads
    `summary` records and the `verdict` records of a comparison; beside each summary.json also gpu.jsonl, engine.jsonl
    and command.txt where they are.

    Exit status: 0 done; 2 usage; 3 not records; 6 no summary.
    """
    if form == "html":
        cli.refuse_terminal(output, "an HTML report", "report.html")
    given = [(name, record) for name in cli.summaries_in(files) or ("-",) for record in cli.read_records((name,))]
    summaries = [record for _, record in given if record["kind"] == "summary"]
    rows = group(summaries)
    if not rows:
        raise failure.Failure(
            "no summary among the records",
            exit_codes.TOO_LITTLE,
            "`make sweep` measures; `llmpar-summarise` makes summaries",
        )
    beside = {id(record): Path(name).parent for name, record in given if name != "-"}
    # Predictions support and contradict nothing.
    measured = [row for row in rows if not row.simulated]
    stated = [] if no_claims else judged(table, measured, with_study)
    verdicts = [record for _, record in given if record["kind"] == "verdict"] or compared(summaries)
    wanted = slo or objectives(measured)
    choices = pick.judge(measured, wanted, {}) if wanted else []
    others = published(walls or (beside_claims("walls.tsv") if with_study else None))
    document = build(title, rows, stated, verdicts, commands(rows, beside), others, wanted, choices)
    if form == "html":
        made = as_html(document, rows, beside, timelines)
    else:
        made = {"markdown": as_markdown, "text": as_text}[form](document) if form != "csv" else report_csv.rows(rows)
    with cli.writing(output) as stream:
        stream.write(made.encode("utf-8", "replace"))
    return exit_codes.OK


def judged(table: str | None, rows: Sequence[rows.Row], whole: bool) -> list[dict[str, Any]]:
    """Claim records of the table, or of the study's where none is named: then those whose sweeps ran, or all of them
    where `whole`."""
    place = Path(table) if table else claim_table.default_table()
    if place is None:
        return []
    text = cli.read_text(str(place))
    try:
        stated = [claims.evaluate(claim, rows) for claim in claim_table.parse(text, str(place))]
    except claim_table.BadClaims as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None
    return [record for record in stated if table or whole or record["verdict"] != claims.NOT_RUN]


def beside_claims(name: str) -> str | None:
    """A file of the study, or None where the installation has none."""
    place = claim_table.default_table()
    return str(place.with_name(name)) if place else None


def compared(summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts over engines at equal settings, as `llmpar-compare --by engine` gives them; none of one engine alone."""
    measured = [summary for summary in summaries if not (summary.get("cell") or {}).get("simulated")]
    if len({pairs.settings(summary).get("engine") for summary in measured}) < 2:
        return []
    return verdict.verdict_records(pairs.by(measured, ("engine",), None), COMPARED, cells=group(measured))


def published(table: str | None) -> study.Walls | None:
    """The published wall seconds, where a table of them is named."""
    if table is None:
        return None
    text = cli.read_text(table)
    try:
        return study.parse(text, table)
    except study.BadWalls as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None


def commands(rows: Sequence[rows.Row], beside: dict[int, Path]) -> dict[str, str]:
    """What scripts/run-cell ran for each cell, from command.txt beside its summary."""
    commands_of = {}
    for row in rows:
        for summary in row.summaries:
            try:
                line = (beside[id(summary)] / "command.txt").read_text("utf-8", "replace").strip()
            except (OSError, KeyError):
                continue
            commands_of[f"{row.sweep}/{(summary.get('cell') or {}).get('id') or row.cell}"] = abridged(line)
    return commands_of


def abridged(line: str) -> str:
    """A command line with all but the first and last of a list of prompt files left out."""
    return re.sub(
        r"(\S+\.txt)(?: \S+\.txt)+( \S+\.txt)",
        lambda match: f"{match[1]} …{match[2]} ({len(match[0].split())} files)",
        line,
    )


def samples(folder: Path | None) -> Iterator[dict[str, Any]]:
    """gpu and engine records beside a summary; nothing where there are none or a file cannot be understood."""
    for name in ("gpu.jsonl", "engine.jsonl"):
        if folder is not None and os.path.exists(folder / name):
            try:
                yield from cli.read_records((str(folder / name),))
            except records.BadRecord as error:
                cli.say("llmpar-report", f"{error}; the time line goes without")


def as_html(document: document.Document, rows: Sequence[rows.Row], beside: dict[int, Path], most: int) -> str:
    from llmpar.render import charts, report_html  # Jinja2: not for the other forms

    drawn = {sweep.name: charts.of_sweep(sweep.name or "cells", sweep.rows, rows) for sweep in document.sweeps}
    lines, shown = [], tracks.chosen(rows, most)
    for row in shown:
        summary = row.summaries[0]
        timeline = tracks.of(row, summary, samples(beside.get(id(summary))))
        if timeline is not None:
            lines.append(charts.of_timeline(timeline))
    left = len(rows) - len(shown)
    return report_html.page(
        document, drawn, lines, f"{len(shown)} of {len(rows)} cells: each sweep's quickest first." if left else ""
    )


if __name__ == "__main__":
    main()
