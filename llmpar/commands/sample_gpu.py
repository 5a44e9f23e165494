"""llmpar-sample-gpu: what the GPUs do while a command runs."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import click

from llmpar import cli, exit_codes, failure, foreground, records, visible_gpus
from llmpar.render import gpu_table
from llmpar.sampling import engine_pids, nvml
from llmpar.sampling.ticks import Ticks

NAME = "llmpar-sample-gpu"


def _interval(hz: str) -> str:
    return f"{1 / float(hz):g}"


@cli.command(
    NAME,
    common=("--interval", "--duration", "--gpu", "--table", "--prometheus", "--output"),
    renamed={"--hz": ("--interval", _interval), "--seconds": ("--duration", None)},
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@cli.sampling_output
@cli.sampling_interval(0.1)
@cli.sampling_duration
@click.option(
    "--gpu",
    "wanted",
    metavar="INDEX|UUID",
    multiple=True,
    help="Only this GPU or MIG instance; may be repeated.  [default: CUDA_VISIBLE_DEVICES, else all]",
)
@click.option(
    "--pid",
    "pids",
    metavar="PID",
    type=int,
    multiple=True,
    help="The engine's process; its descendants' memory counts too. Default: LLMPAR_SERVER_PIDS.",
)
@click.option("--table", "table", is_flag=True, help="Write columns for people instead of records.")
@click.option("--prometheus", is_flag=True, help="Print one reading in Prometheus's text format and exit.")
def main(
    command: tuple[str, ...],
    output: str | None,
    interval: float,
    duration: float | None,
    wanted: tuple[str, ...],
    pids: tuple[int, ...],
    table: bool,
    prometheus: bool,
) -> int:
    """Sample the GPUs through NVML while COMMAND runs or until stopped: load, memory (the engine's too), power,
    energy, clocks and what limits them, links, and on Hopper and later what tensor cores and memory do.

    \b
      llmpar-sample-gpu -o gpu.jsonl -- parallel -j128 llmpar-request ::: prompts/*.txt > requests.jsonl
      llmpar-summarise --gpu gpu.jsonl requests.jsonl | jq .joined.energy_per_output_token_j
      llmpar-sample-gpu --table --interval 1 --duration 60

    Writes one gpu record for each GPU and sample (docs/records.md); with COMMAND to gpu.jsonl. Without a GPU it
    says so and runs COMMAND all the same.

    Exit status: COMMAND's own; alone: 0 after --duration; 2 usage; 4 no GPU; 130 or 143 ended by INT or TERM.
    """
    if command and (prometheus or duration is not None):
        raise failure.Failure("--prometheus and --duration do not go with a COMMAND", exit_codes.USAGE)
    if output is None and command:
        output = "gpu.jsonl"
    family = engine_pids.Family(pids) if pids else engine_pids.from_environment(os.environ.get("LLMPAR_SERVER_PIDS"))
    reader = None
    try:
        reader = nvml.Reader(family.owns, wanted or _visible())
    except nvml.Unavailable as error:
        if not command:
            raise failure.Failure(
                f"no GPU to sample: {error}", exit_codes.UNAVAILABLE, "llmpar-doctor says what is missing"
            ) from None
        cli.say(NAME, f"no GPU to sample: {error}", "running the command without")
    if reader is None:
        return foreground.run_beside(command, lambda stop: None)
    with contextlib.closing(reader):
        if prometheus:
            from llmpar.render import gpu_prometheus

            sys.stdout.write(gpu_prometheus.snapshot(reader))
            return exit_codes.OK
        write = _writer(output, gpu_table.rows if table else _lines)

        def work(stop: threading.Event) -> None:
            for missed in Ticks(1 / interval).run(stop):
                write(reader.read(missed))
            if command and not table:
                write(reader.read(everything=True))  # counters at both ends

        return foreground.run_beside(command, guarded(work)) if command else _alone(work, duration)


def _visible() -> tuple[str, ...]:
    """The GPUs that a scheduler left this process, () for all of them. Raises nvml.Unavailable."""
    names = visible_gpus.told()
    if names is None:
        return ()
    if not names:
        raise nvml.Unavailable(f"CUDA_VISIBLE_DEVICES is '{os.environ['CUDA_VISIBLE_DEVICES']}', which leaves none")
    return tuple(names)


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


def guarded(work: Callable[[threading.Event], None]) -> Callable[[threading.Event], None]:
    """The work, whose failure is said and costs the command nothing."""

    def run(stop: threading.Event) -> None:
        try:
            work(stop)
        except Exception as error:
            cli.say(NAME, f"sampling ended early: {error}", "the command goes on")

    return run


def _alone(work: Callable[[threading.Event], None], duration: float | None) -> int:
    """The work in this thread, until its time is over or a signal ends it."""
    stop = threading.Event()
    timer = threading.Timer(duration, stop.set) if duration is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    work(stop)
    return exit_codes.OK


if __name__ == "__main__":
    main()
