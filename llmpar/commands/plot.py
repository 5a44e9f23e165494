"""llmpar-plot: summaries to one picture."""

from __future__ import annotations

from pathlib import Path

import click

from llmpar import cli, exit_codes, failure
from llmpar.machine import installation
from llmpar.render import layout
from llmpar.report.provenance import caption
from llmpar.results.rows import group, objectives
from llmpar.verdicts import break_even

FORMATS = ("png", "svg")


@cli.command("llmpar-plot", common=("--x", "--y", "--dots", "--trade-off", "--slo", "--format", "--output"))
@cli.files
@cli.output
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: the ending of -o, else png.")
@click.option("--x", "x", metavar="SETTING", help="Numeric setting along the bottom; default clients where it varies.")
@click.option(
    "--y",
    "metrics",
    metavar="METRIC",
    multiple=True,
    help="wall_s, output_tokens_per_s, ttft_p95_s, tpot_p50_s, …; may be repeated.",
)
@click.option("--dots", is_flag=True, help="One line a cell with its interval, instead of curves.")
@click.option("--trade-off", is_flag=True, help="Output rate against TTFT, and against tokens/s per user.")
@click.option(
    "--slo",
    metavar="TEXT",
    type=cli.Objectives(),
    help="With --trade-off: objectives to draw in, 'ttft-p95<500ms tpot-p95<50ms'. Default: those of goodput.",
)
@click.option("--narrow", is_flag=True, help="Panels under one another, for a narrow column.")
def main(
    files: tuple[str, ...],
    output: str | None,
    form: str | None,
    x: str | None,
    metrics: tuple[str, ...],
    dots: bool,
    trade_off: bool,
    slo: dict[str, float] | None,
    narrow: bool,
) -> int:
    """Draw throughput and latency of summaries against clients, or cell by cell, with their intervals; latency of open
    loads against their rate.

    \b
      llmpar-plot runs/quick/*/summary.json -o quick.png
      llmpar-plot --trade-off --slo 'ttft-p95<500ms' runs/*/*/summary.json -o trade-off.svg
      llmpar-plot --x speculate --y wall_s runs/speculate/*/summary.json -o speculate.svg
      cat runs/engines/*/summary.json | llmpar-plot --dots > engines.png
      llmpar-plot --x acceptance_length runs/acceptance/*/summary.json -o break-even.png

    The line under a picture names engine, model, host and date. Repeats of a cell are one point: mean and 95% t
    interval over server sessions; with one session the bar is the interval within it. A ring around a point: the
    client's own delays could have moved it. Against acceptance_length each k of speculation is a line, and a cross
    shows from which length on it beats the dashed level without. Reads `summary` records (buffers all); writes PNG
    or SVG. Needs matplotlib.

    Exit status: 0 done; 2 usage; 3 not records; 4 no matplotlib; 6 nothing to draw.
    """
    if form is None:
        form = Path(output).suffix.removeprefix(".").lower() if output else "png"
        if form not in FORMATS:
            raise failure.Failure(
                f"cannot tell the format from '{output}'", exit_codes.USAGE, "end it in .png or .svg, or give --format"
            )
    cli.known_figures(metrics)
    cli.refuse_terminal(output, f"a picture ({form})", f"plot.{form}")
    rows = group(cli.read_summaries(files))
    wanted = slo or objectives(rows)
    try:
        from llmpar.render import plot
        from llmpar.render import trade_off as trade
    except ImportError:
        raise failure.Failure(
            "matplotlib is not installed", exit_codes.UNAVAILABLE, f"type: {installation.remedy('plot')}"
        ) from None
    look = plot.NARROW if narrow else plot.WIDE
    try:
        if trade_off:
            figure = trade.draw(rows, wanted, look)
        elif not dots and x == "acceptance_length" and not metrics:
            figure = plot.acceptance(break_even.curves(rows), look)
        elif not dots and (along := x or layout.axis_of(rows)):
            figure = plot.against(rows, along, metrics or None, look)
        else:
            figure = plot.dots(rows, metrics or None, look)
    except ValueError as error:
        raise failure.Failure(str(error), exit_codes.TOO_LITTLE) from None
    plot.captioned(figure, caption(rows), look)
    picture = plot.png(figure) if form == "png" else plot.svg(figure, "plot").encode()
    with cli.writing(output) as stream:
        stream.write(picture)
    return exit_codes.OK


if __name__ == "__main__":
    main()
