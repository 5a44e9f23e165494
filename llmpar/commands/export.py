"""llmpar-export: results in the forms that other tools read."""

from __future__ import annotations

from typing import Any

import click

from llmpar import cli, exit_codes, failure


@cli.command("llmpar-export", common=("--format", "--output"), short_help="results for other tools")
@cli.files
@cli.output
@click.option(
    "--format",
    "form",
    type=click.Choice(["llm-d", "openmetrics", "prometheus", "parquet"]),
    required=True,
    help="What to write.",
)
def main(files: tuple[str, ...], output: str | None, form: str) -> int:
    """Write results in the forms that other tools read.

    \b
      llmpar-export --format llm-d runs/quick -o reports.jsonl
      llmpar-export --format openmetrics runs -o results.om
      llmpar-export --format parquet requests.jsonl -o requests.parquet

    llm-d is llm-d-benchmark's report v0.2.1, one a line. openmetrics has each run's instant, for promtool to backfill;
    prometheus has none, for node_exporter's text files. Both read summaries; docs/export.md says how Grafana shows
    them. parquet takes records of any kind and needs pyarrow. Buffers all. Predictions of llmpar-simulate are left
    out, but for parquet.

    Exit status: 0 done; 2 usage; 3 not records of a known version; 4 pyarrow is missing; 6 nothing to export.
    """
    if form == "parquet":
        return _parquet(files, output)
    from llmpar.results import simulated

    given = cli.read_summaries(files)
    measured = [summary for summary in given if not simulated.is_simulated(summary)]
    if len(measured) < len(given):
        cli.say("llmpar-export", f"{len(given) - len(measured)} predictions were left out: they measured nothing")
    if not measured:
        raise failure.Failure("no measured summary among the records", exit_codes.TOO_LITTLE)
    with cli.writing(output) as out:
        out.write(_llm_d(measured) if form == "llm-d" else _metrics(measured, form == "openmetrics"))
    return exit_codes.OK


def _llm_d(summaries: list[dict[str, Any]]) -> bytes:
    from llmpar.render import export_llm_d

    return b"".join(map(export_llm_d.line, summaries))


def _metrics(summaries: list[dict[str, Any]], openmetrics: bool) -> bytes:
    from llmpar.render import export_metrics

    return export_metrics.text(summaries, openmetrics)


def _parquet(files: tuple[str, ...], output: str | None) -> int:
    from llmpar.render import export_parquet

    cli.refuse_terminal(output, "a Parquet file", "records.parquet")
    given = list(cli.read_records(files))
    if not given:
        raise failure.Failure("there are no records", exit_codes.TOO_LITTLE)
    with cli.writing(output) as out:
        try:
            export_parquet.write(given, out)
        except export_parquet.Missing:
            raise failure.Failure(
                "Parquet needs pyarrow", exit_codes.UNAVAILABLE, "pip install pyarrow, in the environment of llmpar"
            ) from None
    return exit_codes.OK


if __name__ == "__main__":
    main()
