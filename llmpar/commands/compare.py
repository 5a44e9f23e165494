"""llmpar-compare: summaries to verdicts."""

from __future__ import annotations

from typing import Any

import click

from llmpar import cli, exit_codes, failure, records, sweeps

FORMATS = ("text", "json", "markdown")


@cli.command(
    "llmpar-compare",
    common=(
        "--baseline",
        "--by",
        "--base",
        "--history",
        "--figure",
        "--margin",
        "--allow",
        "--fail-on",
        "--format",
        "--output",
    ),
    short_help="summaries to verdicts",
)
@cli.files
@cli.output
@click.option("--baseline", metavar="GLOB", multiple=True, help="Summaries to compare with; a pattern in quotes.")
@click.option(
    "--by",
    metavar="SETTING",
    multiple=True,
    help="Compare the values of this setting. May be repeated: --by replicas --by shards.",
)
@click.option("--base", metavar="VALUE", help="With --by: the value to compare with. Default: the first.")
@click.option(
    "--history",
    metavar="N",
    type=click.IntRange(3),
    help="Newest server session against up to N before it; finds change points.",
)
@click.option(
    "--figure",
    metavar="NAME",
    multiple=True,
    default=("output_tokens_per_s",),
    show_default=True,
    help="What to compare; may be repeated.",
)
@cli.margin
@click.option(
    "--correction",
    type=click.Choice(["holm", "benjamini-hochberg", "none"]),
    default="holm",
    show_default=True,
    help="Control of false alarms over all comparisons of the run.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "welch", "paired", "permutation"]),
    default="auto",
    show_default=True,
    help="auto: paired where each server session measured both sides, else Welch's t.",
)
@click.option(
    "--allow",
    metavar="WHAT",
    multiple=True,
    type=click.Choice(
        [
            "prompts",
            "sampling",
            "model",
            "versions",
            "host",
            "failures",
            "outputs",
            "times",
            "latency_over",
            "client_limited",
        ]
    ),
    help="Compare even if WHAT differs. One of prompts, sampling, model, versions, host, failures, outputs, times, "
    "latency_over (steady window or whole run), client_limited.",
)
@click.option(
    "--fail-on",
    metavar="VERDICT",
    multiple=True,
    type=click.Choice(["slower", "faster", "same", "cannot-tell", "not-comparable"]),
    help="Exit 5 on this verdict. One of slower, faster, same, cannot-tell, not-comparable.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="Sentences, records or a table.",
)
def main(
    files: tuple[str, ...],
    output: str | None,
    baseline: tuple[str, ...],
    by: tuple[str, ...],
    base: str | None,
    history: int | None,
    figure: tuple[str, ...],
    margin: float,
    correction: str,
    method: str,
    allow: tuple[str, ...],
    fail_on: tuple[str, ...],
    form: str,
) -> int:
    """Compare sets of server sessions: faster, slower, the same, or not enough data to say.

    \b
      llmpar-compare runs/tonight/*/summary.json --baseline 'runs/last/*/summary.json'
      llmpar-compare --by engine --figure ttft_p95_s runs/engines/*/summary.json
      llmpar-compare --history 14 --fail-on slower runs/nightly-*/*/summary.json

    Repetitions are counted in server sessions: one per side is never enough for a verdict. Figures are named as in
    llmpar-plot: wall_s, output_tokens_per_s (also with _steady), ttft_p95_s, tpot_p50_s, e2e_mean_s,
    joules_per_token ... --by engine takes each engine with its own version, model and flags where it has one of
    each; other settings that differ together are named together: --by replicas --by shards. Reads summary records,
    writes one sentence a pair, or verdict records (docs/records.md). How it decides, and how often it errs, is in
    docs/metrics.md.

    Exit status: 0 done; 2 usage; 3 not records of a known version; 5 a verdict of --fail-on was reached; 6 there is
    nothing to compare.
    """
    if sum(map(bool, (baseline, by, history))) != 1:
        raise click.UsageError("give one of --baseline, --by and --history")
    from llmpar.results import rows
    from llmpar.verdicts import history as nights
    from llmpar.verdicts import verdict
    from llmpar.verdicts.pairs import against
    from llmpar.verdicts.pairs import by as pairs_by

    cli.known_figures(figure)
    by = tuple(sweeps.ALIASES.get(name, name) for name in by)
    summaries = _summaries(files)
    if history:
        verdicts = nights.verdicts(summaries, figure, history, margin, correction, allow)
    else:
        try:
            pairs = pairs_by(summaries, by, base) if by else against(summaries, _summaries(_expand(baseline)))
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        cells = rows.group(summaries) if by else None
        verdicts = verdict.verdict_records(pairs, figure, margin, correction, method, allow, cells=cells)
    if not verdicts:
        raise failure.Failure(
            "there is nothing to compare",
            exit_codes.TOO_LITTLE,
            "give summaries of at least two cells that differ in what is compared",
        )
    with cli.writing(output) as out:
        out.write(_render(verdicts, form))
    failing = {word.replace("-", " ") for word in fail_on}
    return exit_codes.CHECK_FAILED if any(record["verdict"] in failing for record in verdicts) else exit_codes.OK


def _expand(patterns: tuple[str, ...]) -> tuple[str, ...]:
    from glob import glob

    names = [name for pattern in patterns for name in (sorted(glob(pattern)) or [pattern])]
    return tuple(names)


def _summaries(names: tuple[str, ...]) -> list[dict[str, Any]]:
    summaries = cli.read_summaries(names)
    cli.refuse_simulated(summaries)
    return summaries


def _render(verdicts: list[dict[str, Any]], form: str) -> bytes:
    if form == "json":
        return b"".join(map(records.encode, verdicts))
    from llmpar.render import verdicts as rendered

    return (rendered.markdown(verdicts) if form == "markdown" else rendered.text(verdicts)).encode()


if __name__ == "__main__":
    main()
