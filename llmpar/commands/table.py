"""llmpar-table: summaries to one table of wall seconds."""

from __future__ import annotations

from llmpar import cli, exit_codes


@cli.command("llmpar-table", common=("--output",), short_help="summaries to one table")
@cli.files
@cli.output
def main(files: tuple[str, ...], output: str | None) -> int:
    """Show summaries as a table of wall seconds, rates and latencies, one line a cell.

    \b
      llmpar-table runs/quick/*/summary.json
      jq -c 'select(.cell.load.clients > 8)' runs/*/*/summary.json | llmpar-table

    Reads summary records, writes text for people; buffers, since column widths depend on every row. For data,
    select fields with jq, or take `llmpar-report --format csv`.

    Exit status: 0 done; 2 usage; 3 not records of a known version; 6 no summary record.
    """
    from llmpar.render import summaries

    rows = cli.read_summaries(files)
    with cli.writing(output) as out:
        out.write(summaries.table(rows).encode())
    return exit_codes.OK


if __name__ == "__main__":
    main()
