"""llmpar-sample-gpu: what the GPUs do while a command runs."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import click

from llmpar import cli, exit_codes, failure, foreground, records
from llmpar.render import gpu_table
from llmpar.sampling import engine_pids, nvml
from llmpar.sampling.ticks import Ticks

NAME = "llmpar-sample-gpu"


@cli.command(NAME)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG]...]")
@click.option(
    "--hz",
    type=click.FloatRange(0.1, 100),
    default=10.0,
    show_default=True,
    metavar="N",
    help="Samples a second, on absolute deadlines.",
)
@click.option(
    "--gpu", "wanted", metavar="INDEX|UUID", multiple=True, help="Only this GPU or MIG instance; may be repeated."
)
@click.option(
    "--pid",
    "pids",
    metavar="PID",
    type=int,
    multiple=True,
    help="The engine's process, whose descendants' memory is counted; default: $LLMPAR_SERVER_PIDS.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Without COMMAND: stop after N seconds."
)
@click.option(
    "--output", metavar="FILE", type=click.Path(), help="Append the samples to FILE instead of standard output."
)
@click.option("--table", "table", is_flag=True, help="Columns for people instead of records.")
@click.option("--prometheus", is_flag=True, help="Print one reading in Prometheus's text format and exit.")
def main(
    command: tuple[str, ...],
    hz: float,
    wanted: tuple[str, ...],
    pids: tuple[int, ...],
    seconds: float | None,
    output: str | None,
    table: bool,
    prometheus: bool,
) -> int:
    """Sample the GPUs through NVML: load, memory (of the engine too), power, energy, clocks and what limits them, links,
    and on Hopper and later what tensor cores and memory do.

    \b
      llmpar-sample-gpu --output gpu.jsonl -- parallel -j128 llmpar-request ::: prompts/*.txt > requests.jsonl
      llmpar-summarise --gpu gpu.jsonl requests.jsonl | jq .joined.energy_per_output_token_j
      llmpar-sample-gpu --table --hz 1 --seconds 60

    Writes one `gpu` record for each GPU and tick. With COMMAND: runs it, passes signals on, exits with its status; where
    no GPU can be watched it says so and runs COMMAND all the same. Exit status without COMMAND: 0; 2 usage; 4 no GPU.
    """
    if command and (prometheus or seconds is not None):
        raise failure.Failure("--prometheus and --seconds do not go with a COMMAND", exit_codes.USAGE)
    if command and output is None:
        raise failure.Failure("standard output belongs to COMMAND: say --output FILE", exit_codes.USAGE)
    family = engine_pids.Family(pids) if pids else engine_pids.from_environment(os.environ.get("LLMPAR_SERVER_PIDS"))
    reader = None
    try:
        reader = nvml.Reader(family.owns, wanted)
    except nvml.Unavailable as error:
        if not command:
            raise failure.Failure(
                f"no GPU to sample: {error}", exit_codes.UNAVAILABLE, "llmpar-doctor says what is missing"
            ) from None
        cli.say(NAME, f"no GPU to sample: {error}", "running the command without")
    if reader is None:
        return _run(command, lambda stop: None)
    with contextlib.closing(reader):
        if prometheus:
            from llmpar.render import gpu_prometheus

            sys.stdout.write(gpu_prometheus.snapshot(reader))
            return exit_codes.OK
        write = _writer(output, gpu_table.rows if table else _lines)

        def work(stop: threading.Event) -> None:
            for missed in Ticks(hz).run(stop):
                write(reader.read(missed))
            if command and not table:
                write(reader.read(everything=True))  # counters at both ends

        return _run(command, work) if command else _alone(work, seconds)


def _lines(samples: list[dict[str, Any]]) -> bytes:
    return b"".join(map(records.encode, samples))


def _writer(
    output: str | None, render: Callable[[list[dict[str, Any]]], bytes]
) -> Callable[[list[dict[str, Any]]], None]:
    def write(samples: list[dict[str, Any]]) -> None:
        data = render(samples)
        if output is None or output == "-":
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            records.append(output, data)

    return write


def _run(command: tuple[str, ...], work: Callable[[threading.Event], None]) -> int:
    """COMMAND in the foreground, the work in a thread: a driver that hangs cannot hold COMMAND's end back."""
    try:
        child = foreground.Command(command)
    except OSError as error:
        raise failure.Failure(
            f"cannot run '{command[0]}': {error.strerror}", 126 if isinstance(error, PermissionError) else 127
        ) from None
    stop = threading.Event()

    def guarded() -> None:
        try:
            work(stop)
        except Exception as error:
            cli.say(NAME, f"sampling ended early: {error}", "the command goes on")

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    code = child.wait()
    stop.set()
    thread.join(5)
    if thread.is_alive():
        cli.say(NAME, "the driver does not answer; the last sample is missing")
        sys.stderr.flush()
        os._exit(code)
    return code


def _alone(work: Callable[[threading.Event], None], seconds: float | None) -> int:
    """The work in this thread, until its time is over or a signal ends it."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set) if seconds is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    work(stop)
    return exit_codes.OK


if __name__ == "__main__":
    main()
