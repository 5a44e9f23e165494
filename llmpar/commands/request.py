"""llmpar-request: one request, one record."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from llmpar import cli, exit_codes, failure
from llmpar.dialects import DIALECTS


@cli.command(
    "llmpar-request",
    common=(
        "--base-url",
        "--api",
        "--model",
        "--engine",
        "--max-tokens",
        "--temperature",
        "--ignore-eos",
        "--timeout",
        "--api-key-file",
        "--queue",
        "--threads",
        "--output",
    ),
)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...", type=click.Path())
@click.option("--base-url", metavar="URL", envvar="LLMPAR_BASE_URL", help="URL of the server. [LLMPAR_BASE_URL]")
@click.option(
    "--api",
    type=click.Choice(sorted(DIALECTS)),
    envvar="LLMPAR_API",
    default="openai-completions",
    help="API of the server. [LLMPAR_API; openai-completions]",
)
@click.option("--model", metavar="NAME", envvar="LLMPAR_MODEL", help="The model to ask for. [LLMPAR_MODEL]")
@click.option(
    "--engine",
    metavar="NAME",
    envvar="LLMPAR_ENGINE",
    help="The engine behind the URL; decides how settings are spelled. [LLMPAR_ENGINE]",
)
@click.option("--max-tokens", metavar="N", type=click.IntRange(1, cli.INT64), help="Most output tokens of a request.")
@click.option("--temperature", metavar="T", type=click.FloatRange(0), help="Sampling temperature; 0 is greedy.")
@click.option(
    "--top-k",
    metavar="K",
    type=click.IntRange(-1, cli.INT64),
    help="Sample from the K likeliest tokens; 0 or -1 is off.",
)
@click.option(
    "--top-p",
    metavar="P",
    type=click.FloatRange(0, 1),
    help="Sample from the likeliest tokens that sum to P; 1 is off.",
)
@click.option("--seed", metavar="N", type=click.IntRange(-cli.INT64, cli.INT64), help="Seed of the engine's sampling.")
@click.option("--ignore-eos", is_flag=True, help="Generate up to --max-tokens in any case.")
@click.option("--stop", metavar="TEXT", multiple=True, help="End before this text; may be repeated.")
@click.option("--cache-prompt", is_flag=True, help="Let llama.cpp reuse a cached prefix.")
@click.option("--stream/--no-stream", default=True, help="Ask for a stream of events.  [default: stream]")
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Limit for the whole request.",
)
@click.option(
    "--max-bytes",
    metavar="N",
    type=click.IntRange(1, 1 << 40),
    default=64 << 20,
    show_default=True,
    help="Give up on a response longer than this.",
)
@click.option(
    "--header",
    "headers",
    metavar="'NAME: VALUE'",
    multiple=True,
    help="A further header; may be repeated. Not for secrets.",
)
@click.option(
    "--body",
    metavar="JSON",
    help="Fields to merge into each request's body; null leaves one out. @FILE reads them from a file.",
)
@click.option(
    "--api-key-file",
    metavar="FILE",
    envvar="LLMPAR_API_KEY_FILE",
    type=click.Path(),
    help="A file that holds the API key. [LLMPAR_API_KEY_FILE]",
)
@cli.certificates
@cli.insecure
@click.option("--keep-alive", is_flag=True, help="Reuse the connection for the next request of this process.")
@click.option("--at", metavar="WHEN", help="Send at this instant: epoch seconds, or +SECONDS from now.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Prompt file names on standard input, a line (or NUL) each.")
@click.option(
    "--queue",
    metavar="FILE",
    type=click.Path(),
    help="Take prompts from FILE, shared by all clients. One file name a line.",
)
@click.option(
    "--duration",
    "duration_s",
    metavar="SECONDS",
    type=click.FloatRange(0, 1e6, min_open=True),
    help="Take no more prompts after so many seconds of this process.",
)
@click.option("--threads", metavar="N", type=click.IntRange(1, 65536), help="Run N clients as threads of this process.")
@click.option(
    "--asyncio", "coroutines", metavar="N", type=click.IntRange(1, 65536), help="Run N clients as coroutines (aiohttp)."
)
@click.option(
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, cli.INT64),
    envvar="LLMPAR_CLIENTS",
    help="Clients asked for on this host, for the record. [LLMPAR_CLIENTS; parallel's -j]",
)
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(),
    help="Append each record to FILE with one write.  [default: standard output]",
)
@click.option("--no-text", is_flag=True, help="Leave the generated text out of the record.")
@click.option("--user-stamps", is_flag=True, help="Stamp receipts in the process, not in the kernel.")
def main(prompts: tuple[str, ...], **options: object) -> int:
    """Send each PROMPT file to an engine and write one request record a prompt.

    \b
      parallel -j128 llmpar-request ::: prompts/* > requests.jsonl
      parallel -j128 -N0 llmpar-request --queue prompts.txt ::: {1..128} > requests.jsonl
      llmpar-request --threads 16 --max-tokens 64 prompts/* | jq .ttft_s

    Under GNU parallel the work is done by a pool of workers that the first job starts (LLMPAR_POOL=no: without).
    Writes `request` records.

    Exit status: 0 done; 2 usage; 4 --asyncio without aiohttp; 7 a request failed, its record is written.
    """
    from llmpar.client.plan import Missing, Wrong, from_options
    from llmpar.client.run import run

    try:
        plan = from_options(prompts, options, dict(os.environ))
    except Wrong as error:
        raise failure.Failure(str(error), exit_codes.USAGE, error.hint) from None
    try:
        return run(plan, open(0, "rb", buffering=0, closefd=False) if plan.from_stdin else None)
    except Missing as error:
        raise failure.Failure(str(error), exit_codes.UNAVAILABLE, error.hint) from None


def read(arguments: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Prompts and options of a command line, for a pool. Raises client.plan.Unread."""
    from llmpar.client.plan import Unread

    try:
        options = dict(main.command.make_context("llmpar-request", list(arguments)).params)  # type: ignore[attr-defined]
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        raise Unread(text.getvalue()) from None
    return options.pop("prompts"), options


def pool() -> None:
    """Where bin/llmpar-request starts a pool: PARALLEL_PID READY_FD ARGUMENT..."""
    from llmpar.pool.pool import serve

    serve(int(sys.argv[1]), int(sys.argv[2]), read, sys.argv[3:])


if __name__ == "__main__":
    main()
