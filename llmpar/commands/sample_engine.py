"""llmpar-sample-engine: an engine's own metrics and its processes, at a steady rate."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import BinaryIO

import click

from llmpar import apikey, cli, exit_codes, failure, foreground, records
from llmpar.client import target
from llmpar.sampling.ticks import Ticks

NAME = "llmpar-sample-engine"
ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
POLL_S = 0.2


@cli.command(NAME, common=("--interval", "--duration", "--metrics-url", "--pid", "--output"))
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]", type=click.UNPROCESSED)
@cli.sampling_output
@cli.sampling_interval(1.0)
@cli.sampling_duration
@click.option(
    "--metrics-url",
    "urls",
    metavar="URL",
    multiple=True,
    help="One for each replica  [LLMPAR_METRICS_URLS, else LLMPAR_BASE_URL/metrics].",
)
@click.option(
    "--pid",
    "pids",
    metavar="PID",
    type=int,
    multiple=True,
    help="Root process of a server, with all its descendants  [LLMPAR_SERVER_PIDS].",
)
@click.option(
    "--api-key-file",
    metavar="FILE",
    envvar="LLMPAR_API_KEY_FILE",
    type=click.Path(dir_okay=False),
    help="Key for servers that guard their metrics  [LLMPAR_API_KEY_FILE].",
)
@cli.certificates
@cli.insecure
def main(
    command: tuple[str, ...],
    output: str | None,
    interval: float,
    duration: float | None,
    urls: tuple[str, ...],
    pids: tuple[int, ...],
    api_key_file: str | None,
    ca: str | None,
    insecure: bool,
) -> int:
    """Sample an engine's own metrics (running and waiting requests, KV cache, tokens, speculation, prefix cache) and
    the CPU and memory of its processes, while COMMAND runs or until stopped.

    \b
      llmpar-sample-engine -o engine.jsonl -- parallel -j128 llmpar-request ::: prompts/*
      llmpar-sample-engine --metrics-url http://127.0.0.1:8000/metrics --duration 10 | jq .running
      llmpar-serve --engine llamacpp -- llmpar-sample-engine -- llmpar-request --max-tokens 64 prompts/*

    Reads the metrics of vLLM, Aphrodite, TGI, llama.cpp, SGLang, LMDeploy or TensorRT-LLM, and /proc. Writes engine
    records (docs/records.md) as they are taken; with COMMAND to engine.jsonl. A server that does not answer gives
    nulls and `error`.

    Exit status: COMMAND's own; alone: 0 after --duration; 2 usage; 4 nothing to sample; 130 or 143 ended by INT or
    TERM.
    """
    urls = urls or _from_environment()
    pids = pids or _pids()
    if not urls and not pids:
        message = "nothing to sample: no metrics URL and no process is known"
        hint = "give --metrics-url or --pid, or run under llmpar-serve"
        if not command:
            raise failure.Failure(message, exit_codes.UNAVAILABLE, hint)
        cli.say(NAME, message + "; running the command without samples", hint)
    work: Callable[[threading.Event], None] = idle
    with ExitStack() as stack:
        if urls or pids:
            stream = _opened(output or ("engine.jsonl" if command else None), stack)
            verified = cli.verify(ca, insecure)
            work = _prepare(stream, list(urls), list(pids), interval, _key(api_key_file), bool(command), verified)
        return foreground.run_beside(command, work) if command else _alone(work, duration)


def idle(stop: threading.Event) -> None:
    """The work where nothing can be sampled."""


def _from_environment() -> tuple[str, ...]:
    urls = os.environ.get("LLMPAR_METRICS_URLS")
    if urls is not None:
        return tuple(urls.split())
    base = os.environ.get("LLMPAR_BASE_URL")
    if not base:
        return ()
    try:
        return (target.Target.of(base).url("/metrics"),)
    except ValueError as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None


def _pids() -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in os.environ.get("LLMPAR_SERVER_PIDS", "").split())
    except ValueError:
        raise failure.Failure(
            f"LLMPAR_SERVER_PIDS is '{os.environ['LLMPAR_SERVER_PIDS']}', not process ids", exit_codes.USAGE
        ) from None


def _key(path: str | None) -> str | None:
    if not path:
        return None
    try:
        return apikey.read(path)
    except ValueError as error:
        cli.say(NAME, f"{error}; going on without a key")
        return None


def _opened(output: str | None, stack: ExitStack) -> BinaryIO:
    if output is None or output == "-":
        return sys.stdout.buffer
    try:
        records.append(output, b"")  # ends a line that an earlier writer left torn
        return stack.enter_context(open(output, "ab", buffering=0))
    except OSError as error:
        raise failure.Failure(f"cannot write '{output}': {error.strerror}", exit_codes.USAGE) from None


def _prepare(
    stream: BinaryIO,
    urls: list[str],
    pids: list[int],
    interval: float,
    key: str | None,
    beside: bool,
    verify: bool | str,
) -> Callable[[threading.Event], None]:
    """What the thread does."""
    from llmpar.sampling import scrape  # loaded before the command starts, so as not to disturb it

    sampler = scrape.Sampler(urls, pids, interval, key, verify)
    if beside:
        sampler.before()

    def work(stop: threading.Event) -> None:
        try:
            scrape.run(sampler, Ticks(1 / interval), stop, stream, lambda text: cli.say(NAME, text))
        except OSError as error:  # disk full, reader gone: the command goes on
            if not isinstance(error, BrokenPipeError):
                cli.say(NAME, f"cannot write samples: {error.strerror}; no more are taken")
        finally:
            sampler.close()
            stop.set()

    return work


def _alone(work: Callable[[threading.Event], None], duration: float | None) -> int:
    """Work until the time is over, the reader has gone, or a signal comes; the exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # before the thread starts, which inherits that
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), daemon=True)
    thread.start()
    end = time.monotonic() + duration if duration is not None else None
    code = exit_codes.OK
    while not stop.is_set():
        left = POLL_S if end is None else min(POLL_S, end - time.monotonic())
        if left <= 0:
            break
        arrived = signal.sigtimedwait(ENDING, left)
        if arrived is not None:
            code = 128 + arrived.si_signo
            break
    stop.set()
    thread.join(10)
    return code


if __name__ == "__main__":
    main()
