"""llmpar-until: a load that ends as soon as it has shown whether objectives hold."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import click

from llmpar import cli, exit_codes, failure, foreground, procfs, records

if TYPE_CHECKING:
    from llmpar.search.ending import Ending

NAME = "llmpar-until"
POLL_S = 0.2
TIME_OVER = "time over"


@cli.command(
    NAME,
    common=("--slo", "--duration", "--clients", "--records", "--queue"),
    short_help="a load that ends as soon as objectives are surely met or missed",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--slo", metavar="TEXT", default="", help="Objectives on shares of requests: ttft-p95<500ms tpot-p95<50ms."
)
@click.option("--missed", is_flag=True, help="End only where the objectives are missed; measure what meets them whole.")
@click.option(
    "--duration",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    help="End after so many seconds, whatever the records show.",
)
@click.option(
    "--clients",
    "--max-concurrency",
    metavar="N",
    type=click.IntRange(1),
    required=True,
    help="Clients of the load, a closed loop.",
)
@click.option(
    "--records",
    "path",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    required=True,
    help="Where standard output goes: the records are read there.",
)
@click.option(
    "--queue",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="The list that COMMAND's clients share. At the end the rest of it is taken; without it COMMAND gets HUP.",
)
def main(
    command: tuple[str, ...], slo: str, missed: bool, duration: float | None, clients: int, path: str, queue: str | None
) -> int:
    """Run a load until its records show that objectives are met or missed, or its time is over.

    \b
      llmpar-until --slo 'ttft-p95<1s' --clients 8 --records out -- parallel -j8 llmpar-request ::: prompts/* > out

    COMMAND is GNU parallel: at the end it starts no more requests and waits for those in flight. The share of
    requests over each limit is tested after every request by a bound that allows for that (docs/search.md), so
    records made until then are a measurement as good as a longer one for this question. A closing record of kind
    `ended` says that it ended early, and why. `make find` does this by itself.

    Exit status: COMMAND's own; 0 where it ended early; 2 usage.
    """
    from llmpar.search import ending
    from llmpar.verdicts import objectives

    if not command:
        raise failure.Failure("no command to run", exit_codes.USAGE, f"{NAME} … -- COMMAND")
    if not slo and duration is None:
        raise failure.Failure("neither --slo nor --duration is given", exit_codes.USAGE)
    try:
        wanted = objectives.parse(slo) if slo else {}
    except ValueError as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None
    ends = (objectives.MISSES,) if missed else (objectives.MEETS, objectives.MISSES)
    judge = ending.Ending(wanted, clients, ends) if wanted else None
    child = foreground.start(command)
    stop = threading.Event()
    told: list[str] = []
    over = None if duration is None else time.monotonic() + duration

    def work() -> None:
        try:
            if (verdict := watch(judge, path, stop, over)) is not None:
                told.append(verdict)
                end(child.pid, queue)
        except OSError as error:
            cli.say(NAME, f"the load is measured whole: {error}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    code = child.wait()
    stop.set()
    thread.join(10)
    if not told or code > 128:
        return code
    if judge is None or told[0] == TIME_OVER:
        return exit_codes.OK
    closing = {"kind": "ended", "v": 1, "verdict": told[0], "objectives": wanted, "requests": len(judge.sent)}
    sys.stdout.buffer.write(records.encode(closing))
    sys.stdout.buffer.flush()
    return exit_codes.OK


def watch(judge: Ending | None, path: str, stop: threading.Event, over: float | None = None) -> str | None:
    """Read records as they come until they settle it or the time is `over`; None where the load ends first. Raises
    OSError."""
    from llmpar.summary.chunks import EMPTY, check, mend
    from llmpar.verdicts.objectives import UNKNOWN

    rest = b""
    with open(path, "rb") as stream:
        while not stop.wait(POLL_S if over is None else max(0.0, min(POLL_S, over - time.monotonic()))):
            if over is not None and time.monotonic() >= over:
                return TIME_OVER
            if judge is None:
                continue
            *lines, rest = (rest + stream.read()).split(b"\n")
            for line in lines:
                try:
                    record = records.decode(line)
                except records.BadRecord:
                    continue  # a summary counts and reports it
                if record["kind"] != "request":
                    continue
                record = EMPTY | record
                try:
                    check(record)
                except records.BadRecord:
                    continue
                mend(record)
                judge.add(record)
            if lines and (verdict := judge.verdict()) != UNKNOWN:
                return verdict
    return None


def end(pid: int, queue: str | None) -> None:
    """Have the load start no more requests. Raises OSError."""
    if queue is None:
        os.kill(pid, signal.SIGHUP)
        return
    from llmpar.client import prompt_queue

    for _ in prompt_queue.Queue(queue, owner=procfs.process_key(pid)).take(os.getpid()):
        pass


if __name__ == "__main__":
    main()
