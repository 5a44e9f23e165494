"""llmpar-arrivals: send times for an open load."""

from __future__ import annotations

import io
import math
import os
import sys

import click

from llmpar import cli, clock, exit_codes, failure
from llmpar.client import arrivals, run

MOST = 10_000_000  # requests of one load


@cli.command(
    "llmpar-arrivals",
    common=("--rate", "--duration", "--process", "--shape", "--trace", "--count", "--seed", "--start"),
)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...", type=click.Path())
@click.option(
    "--rate",
    "--request-rate",
    metavar="R",
    type=click.FloatRange(0, min_open=True),
    help="Requests per second, on average; with --trace, stretch the trace to that.",
)
@click.option(
    "--process",
    type=click.Choice(arrivals.PROCESSES),
    default="poisson",
    show_default=True,
    help="Distribution of the gaps between requests.",
)
@click.option(
    "--shape",
    "--burstiness",
    metavar="K",
    type=click.FloatRange(0.001),
    default=0.5,
    show_default=True,
    help="Shape of gamma: 1 is Poisson, less is burstier, more is more even.",
)
@click.option(
    "--to", metavar="R", type=click.FloatRange(0, min_open=True), help="Rate at the end of a ramp.  [twice --rate]"
)
@click.option(
    "--trace",
    metavar="FILE",
    type=click.Path(),
    help="Times from the first column of FILE. Seconds or dates; `-` is standard input. Of a set that llmpar-prompts "
    "made of a trace, its manifest: DIR/.manifest.jsonl.",
)
@click.option("--stdin", "from_stdin", is_flag=True, help="Prompt file names on standard input, a line (or NUL) each.")
@click.option(
    "-n",
    "--count",
    "--num-prompts",
    metavar="N",
    type=click.IntRange(1),
    help="Number of requests; prompts are taken in turn.  [as many as PROMPTs; all of the trace]",
)
@click.option(
    "--duration",
    metavar="SECONDS",
    type=click.FloatRange(0, 1e6, min_open=True),
    help="Requests that are due within so many seconds; prompts are taken in turn.",
)
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Random seed of the gaps.")
@click.option(
    "--start",
    metavar="WHEN",
    default="+3",
    show_default=True,
    help="First instant: epoch seconds, or +SECONDS. Processes get ready until then. 0: write offsets.",
)
def main(
    prompts: tuple[str, ...],
    rate: float | None,
    process: str,
    shape: float,
    to: float | None,
    trace: str | None,
    from_stdin: bool,
    count: int | None,
    duration: float | None,
    seed: int,
    start: str,
) -> int:
    """Draw the times at which the requests of an open load are due, whether or not earlier ones are answered.

    \b
      llmpar-arrivals --rate 8 prompts/* | parallel -j512 --colsep '\\t' --trim n llmpar-request --at {1} {2} > r.jsonl
      llmpar-arrivals --rate 8 --process gamma --count 2000 prompts/* > plan.tsv
      llmpar-arrivals --trace azure.csv --rate 4 prompts/*
      llmpar-arrivals --rate 8 --duration 60 prompts/*
      jq -r .sent_at r.jsonl | llmpar-arrivals --trace - prompts/*

    Writes one line a request: its due time (epoch seconds), a tab and its prompt file; without PROMPT the time
    alone. Give parallel a -j above the number of requests out at once, or they start late (lateness_s shows it).

    Exit status: 0 done; 2 usage; 3 a trace that cannot be read; 6 an empty trace.
    """
    if from_stdin:
        if prompts or trace == "-":
            raise failure.Failure("--stdin excludes prompt files and --trace -", exit_codes.USAGE)
        prompts = tuple(run.names(open(0, "rb", buffering=0, closefd=False)))
    for prompt in prompts:
        if "\t" in prompt or "\n" in prompt:
            raise failure.Failure(
                f"cannot put {prompt!r} into a table: its name holds a tab or a line end",
                exit_codes.USAGE,
                "rename the file",
            )
    if not all(math.isfinite(number or 0) for number in (rate, shape, to)):
        raise failure.Failure("rates and shape must be finite", exit_codes.USAGE)
    try:
        begin = clock.parse(start) / 1e9
    except ValueError as error:
        raise failure.Failure(str(error), exit_codes.USAGE, "give epoch seconds, or +SECONDS from now") from None
    if trace is not None:
        times = _trace(trace)[:count]
        if not times:
            raise failure.Failure(f"'{trace}' holds no times", exit_codes.TOO_LITTLE)
        if rate is not None:
            times = arrivals.scaled(times, rate)
    elif rate is None:
        raise failure.Failure(
            "no rate is given", exit_codes.USAGE, "give --rate R in requests per second, or --trace FILE"
        )
    elif not prompts and count is None and duration is None:
        raise failure.Failure(
            "no prompt file is named", exit_codes.USAGE, "name files, or give --count N for times alone"
        )
    else:
        if duration is not None and count is None:
            # A ramp that lasts so long has just so many; of the others more than enough, to be cut off.
            mean = (rate + (2 * rate if to is None else to)) / 2 if process == "ramp" else rate
            enough = 1.0 if process in ("ramp", "constant") else 2.0 + 8 / math.sqrt(min(shape, 1.0) * rate * duration)
            count = max(1, math.ceil(mean * duration * enough))
            if count > MOST:
                raise failure.Failure(f"{count} requests are more than {MOST}", exit_codes.USAGE)
        times = arrivals.offsets(process, count or len(prompts), rate, seed, shape, 2 * rate if to is None else to)
    if duration is not None:
        times = [at for at in times if at < duration]
        if not times:
            raise failure.Failure("no request is due within that time", exit_codes.TOO_LITTLE)
    names = [b"\t" + os.fsencode(prompt) for prompt in prompts] or [b""]
    lines = [b"%.6f%b\n" % (begin + at, names[number % len(names)]) for number, at in enumerate(times)]
    sys.stdout.buffer.write(b"".join(lines))
    return exit_codes.OK


def _trace(name: str) -> list[float]:
    with cli.opened(name) as stream:
        try:
            return arrivals.trace(io.TextIOWrapper(stream, encoding="utf-8", errors="replace"), name)
        except arrivals.BadTrace as error:
            raise failure.Failure(str(error), exit_codes.BAD_INPUT) from None


if __name__ == "__main__":
    main()
