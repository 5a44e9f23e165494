"""Options that several commands have, and the types of their values."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from llmpar import exit_codes
from llmpar.failure import Failure

INT64 = 2**63 - 1


files = click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path())


output = click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="Write to FILE; it appears when it is complete. Default: standard output.",
)


document_format = click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "markdown")),
    default="text",
    show_default=True,
    help="Text, Markdown or records.",
)


sampling_output = click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="Append samples to FILE as they are taken. Default: standard output; with COMMAND the file named above.",
)


def sampling_interval(default: float) -> Callable[[Any], Any]:
    """--interval of a sampler."""
    return click.option(
        "--interval",
        metavar="S",
        type=click.FloatRange(min=0.01),
        default=default,
        show_default=True,
        help="Seconds from sample to sample, on absolute deadlines.",
    )


sampling_duration = click.option(
    "--duration",
    metavar="S",
    type=click.FloatRange(min=0, min_open=True),
    help="Without COMMAND: stop after this many seconds.",
)


certificates = click.option(
    "--ca",
    metavar="FILE",
    envvar="LLMPAR_CA_FILE",
    type=click.Path(),
    help="Certificates to trust for https, PEM.  [LLMPAR_CA_FILE; SSL_CERT_FILE, the system's]",
)


insecure = click.option(
    "--insecure", is_flag=True, envvar="LLMPAR_INSECURE", help="Trust any https server.  [LLMPAR_INSECURE=1]"
)


def verify(ca: str | None, insecure: bool) -> bool | str:
    """The same as requests takes it: a file of certificates, True for the system's, False for any server. Raises
    Failure where the file holds none."""
    if ca and not insecure:
        import ssl

        try:
            ssl.create_default_context(cafile=ca)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise Failure(f"cannot read certificates from '{ca}': {reason}", exit_codes.USAGE) from None
    return not insecure and (ca or os.environ.get("SSL_CERT_FILE") or True)


margin = click.option(
    "--margin",
    metavar="RATIO",
    type=click.FloatRange(0.0001, 1),
    default=0.03,
    show_default=True,
    help="Least difference that matters. Sides within it are the same.",
)


def known_figures(names: Iterable[str]) -> None:
    """A usage error where a name is not a figure of a summary."""
    from llmpar.results import rows

    for name in names:
        try:
            rows.path(name)
        except KeyError:
            raise Failure(
                f"'{name}' is not a figure",
                exit_codes.USAGE,
                "for example wall_s, output_tokens_per_s, ttft_p95_s or joules_per_token; docs/metrics.md lists all",
            ) from None


def prices_of(given: Sequence[str]) -> dict[str, float]:
    """--price NAME=AMOUNT or AMOUNT to a mapping; the bare amount under the empty name."""
    prices = {}
    for price in given:
        name, _, amount = price.rpartition("=")
        try:
            value = float(amount)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise Failure(
                f"price '{price}' is not NAME=AMOUNT an hour", exit_codes.USAGE, "for example --price H100=2.5"
            )
        prices[name.strip()] = value
    return prices


class Seconds(click.ParamType):
    """A duration such as `500ms`, `0.5s` or a plain number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from llmpar import sizes

        try:
            return value if isinstance(value, float) else sizes.seconds_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Objectives(click.ParamType):
    """An SLO such as `ttft-p95<500ms tpot-p95<50ms`, as metric to the most it may be in seconds."""

    name = "slo"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        from llmpar.verdicts import objectives

        try:
            return value if isinstance(value, dict) else objectives.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
