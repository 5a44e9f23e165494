"""llmpar-summarise: records to one summary."""

from __future__ import annotations

import re

import click

from llmpar import cli, exit_codes, failure, outside, records


@cli.command(
    "llmpar-summarise",
    common=("--cell", "--server", "--gpu", "--engine", "--slo", "--clients", "--text", "--output"),
    short_help="records to one summary",
)
@cli.files
@cli.output
@click.option(
    "--cell", metavar="FILE", type=click.Path(), help="The cell record: label, server session, clients asked for."
)
@click.option("--server", metavar="FILE", type=click.Path(), help="The server record.")
@click.option("--host", metavar="FILE", type=click.Path(), help="The host record.")
@click.option(
    "--gpu", metavar="FILE", type=click.Path(), multiple=True, help="GPU samples, joined over the steady window."
)
@click.option("--engine", metavar="FILE", type=click.Path(), multiple=True, help="Engine samples, likewise.")
@click.option(
    "--clock",
    metavar="FILE",
    type=click.Path(),
    multiple=True,
    help="Clock records of llmpar-clock: times of all hosts are converted to one clock.",
)
@click.option(
    "--slo",
    metavar="NAME=TIME",
    multiple=True,
    help="An objective for goodput: ttft=500ms, also tpot, e2e, effective_ttft, effective_e2e; or as in make find: "
    "'ttft-p95<500ms tpot-p95<50ms'.",
)
@click.option(
    "--clients",
    "--max-concurrency",
    metavar="N",
    type=click.IntRange(1),
    help="Clients asked for. Default: what cell or records say.",
)
@click.option("--label", metavar="TEXT", help="A name for the summary. Default: the cell's id.")
@click.option("--session", metavar="TEXT", help="The server session. Default: the cell's, with the server's start.")
@click.option("--text", is_flag=True, help="Write a screen for people instead of a record.")
@click.option("--shell", is_flag=True, help="Write how many requests there are and ok as shell assignments instead.")
@click.option("--table", is_flag=True, hidden=True)  # 0.1's llmpar-table
def main(
    files: tuple[str, ...],
    output: str | None,
    cell: str | None,
    server: str | None,
    host: str | None,
    gpu: tuple[str, ...],
    engine: tuple[str, ...],
    clock: tuple[str, ...],
    slo: tuple[str, ...],
    clients: int | None,
    label: str | None,
    session: str | None,
    text: bool,
    shell: bool,
    table: bool,
) -> int:
    """Make one summary of the request records of a cell: latencies, throughput, the steady window, warnings.

    \b
      llmpar-summarise requests.jsonl | jq .latency.ttft_s
      llmpar-summarise --slo ttft=0.5 --slo tpot=0.05 --text requests.jsonl
      llmpar-summarise --gpu gpu.jsonl -o summary.json requests.jsonl

    Reads request records, in any order and from any number of files, and with them cell, server, host, gpu and
    engine records, by option or mixed in. Writes one summary record (docs/records.md; each figure is defined in
    docs/metrics.md). The first record leaves when the last one was read; memory grows by some 32 bytes a request
    from 0.2 GB on, and a temporary file in TMPDIR by 0.4 kB.

    Exit status: 0 done; 2 usage; 3 not records of a known version; 6 no request record (and no record of a server
    that ended by itself).
    """
    if table:
        cli.say("llmpar-summarise", "--table is now llmpar-table; the old spelling will go in a later release")
        from llmpar.render import summaries

        rows = cli.read_summaries(files)
        with cli.writing(output) as out:
            out.write(summaries.table(rows).encode())
        return exit_codes.OK
    from llmpar.summary import read, warnings
    from llmpar.summary.summariser import Summariser

    objectives = _objectives(slo)
    summariser = Summariser([each for each in cli.read_records(clock) if each["kind"] == "clock"] if clock else ())
    for name in files or ("-",):
        with cli.opened(name) as stream:
            if name == "-":
                read.feed(summariser, stream, name)
            else:
                read.feed_file(summariser, name)
    for name in filter(None, (cell, server, host, *gpu, *engine)):
        with cli.opened(name) as stream:
            read.feed(summariser, stream, name)
    cli.say_left_out(records.Read(left_out=summariser.left_out))
    # An engine that could not be started is a result without requests.
    if not summariser.columns.counts and not warnings.ended_by_itself(summariser.only("server")):
        raise failure.Failure(
            "there is no request record to summarise", exit_codes.TOO_LITTLE, "llmpar-request writes some"
        )
    summary = summariser.summary(objectives, label, session, clients, cli.version())
    with cli.writing(output) as out:
        from llmpar.render import summaries as rendered

        if text:
            out.write(rendered.summary(outside.printable_words(summary)).encode())
        elif shell:
            types = ", ".join(f"{count} {name}" for name, count in summary["failures"].items())
            out.write(
                cli.assignments(
                    {
                        "requests": summary["n"]["requests"],
                        # Prompt files that were asked: the later turns of conversations are no new ones.
                        "asked": summary["n"]["requests"] - summary.get("conversations", {}).get("later_turns", 0),
                        "ok": summary["n"]["ok"],
                        "errors": types,
                        "row_head": rendered.row_head(),
                        "row": rendered.row(summary),
                    }
                ).encode()
            )
        else:
            out.write(records.encode(summary))
    return exit_codes.OK


def _objectives(given: tuple[str, ...]) -> dict[str, float]:
    """Seconds by name for goodput. An objective on a percentile is one on each request for goodput; none is given where
    an objective is not on single requests, since goodput without it would be too high."""
    from llmpar.summary.latencies import OBJECTIVES
    from llmpar.summary.summariser import parse_objective
    from llmpar.verdicts.objectives import parse

    objectives: dict[str, float] = {}
    try:
        for text in given:
            if not re.search("[<≤]", text):
                name, seconds = parse_objective(text)
                objectives[name] = seconds
                continue
            for metric, most in sorted(parse(text).items()):
                name, _, statistic = metric.removesuffix("_s").rpartition("_")
                if name not in OBJECTIVES or statistic == "mean":
                    cli.say(
                        "llmpar-summarise", f"no goodput: {name} {statistic} is not an objective on single requests"
                    )
                    return {}
                objectives[name] = most  # of several percentiles the highest, which most requests have to meet
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return objectives


if __name__ == "__main__":
    main()
