"""llmpar-import: other tools' result files to request records."""

from __future__ import annotations

from typing import Any

import click

from llmpar import cli, exit_codes, failure, records
from llmpar.files import DOCUMENT_LIMIT


@cli.command(
    "llmpar-import",
    common=("--from", "--run", "--clients", "--engine", "--output"),
    short_help="other tools' results to records",
)
@cli.files
@cli.output
@click.option(
    "--from",
    "form",
    type=click.Choice(["vllm", "guidellm", "aiperf", "inference-perf", "evalscope"]),
    help="The tool that wrote the file. Default: what it looks like.",
)
@click.option(
    "--run", metavar="N", type=click.IntRange(1), help="Which run of a file that holds several, counted from 1."
)
@click.option(
    "--clients",
    "--max-concurrency",
    metavar="N",
    type=click.IntRange(1),
    help="Clients asked for, where the file does not say.",
)
@click.option("--engine", metavar="NAME", help="The engine that was measured.")
def main(
    files: tuple[str, ...],
    output: str | None,
    form: str | None,
    run: int | None,
    clients: int | None,
    engine: str | None,
) -> int:
    """Turn result files of other load generators into request records.

    \b
      llmpar-import result.json | llmpar-summarise --text
      llmpar-import --run 2 --clients 128 --engine vllm guidellm.json > requests.jsonl
      llmpar-import artifacts/*/profile_export.jsonl | llmpar-summarise --text

    Then one definition of each figure holds for all (docs/metrics.md lists how the tools' own differ). Needs
    per-request data: vllm bench serve --save-result --save-detailed, SGLang's bench_serving --output-details,
    GuideLLM's JSON report, AIPerf's profile_export.jsonl, inference-perf's per_request_lifecycle_metrics.json,
    evalscope's benchmark_data.db. Writes request records (docs/records.md) with null for what the file does not
    hold; reads a file whole.

    Exit status: 0 done; 2 usage; 3 not a result file of these tools.
    """
    from llmpar import other_tools

    with cli.writing(output) as out:
        for name in files or ("-",):
            try:
                left_out: list[str] = []
                for record in other_tools.requests(*_chosen(name, form, run), engine, clients, left_out):
                    out.write(records.encode(record))
            except other_tools.BadImport as error:
                raise failure.Failure(f"cannot import '{name}': {error}", exit_codes.BAD_INPUT) from None
            if left_out:
                said = "; ".join(left_out[:3])
                cli.say("llmpar-import", f"{len(left_out)} requests of '{name}' were left out: {said}")
    return exit_codes.OK


def _chosen(name: str, form: str | None, run: int | None) -> tuple[dict[str, Any], str]:
    """The one run of a file to import; a file may hold one JSON document, one on each line, or a database."""
    from pathlib import Path

    from llmpar import other_tools

    def beside(other: str) -> bytes | None:
        try:
            return None if name == "-" else (Path(name).parent / other).read_bytes()
        except OSError:
            return None

    files = other_tools.found_in(cli.read_whole(name, DOCUMENT_LIMIT), form, beside)
    if not files:
        raise other_tools.BadImport("it holds no runs")
    if run is None and len(files) > 1:
        listed = "; ".join(f"{number}: {other_tools.describe(*each)}" for number, each in enumerate(files, 1))
        raise failure.Failure(
            f"'{name}' holds {len(files)} runs", exit_codes.USAGE, f"choose one with --run N ({listed})"
        )
    if run is not None and run > len(files):
        raise failure.Failure(f"'{name}' holds only {len(files)} runs", exit_codes.USAGE)
    return files[(run or 1) - 1]


if __name__ == "__main__":
    main()
