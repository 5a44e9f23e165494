"""llmpar-doctor: what this machine lacks, and the command that mends it."""

from __future__ import annotations

import sys

import click
import orjson

from llmpar import cli, exit_codes, failure, records
from llmpar.machine import checkup, host

SIGNS = {checkup.OK: "ok", checkup.NOTE: "note", checkup.MISSING: "MISSING"}


@cli.command("llmpar-doctor")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON object a check: check, state (ok, note, missing), found, needed_for, mend.",
)
@click.option(
    "--host", "as_host", is_flag=True, help="Write this machine's `host` record instead: hardware, limits, versions."
)
@click.option("-q", "--quiet", is_flag=True, help="Only what is not well.")
@cli.output
def main(as_json: bool, as_host: bool, quiet: bool, output: str | None) -> int:
    """Tell what this machine has and lacks for llmpar, and the command that mends each lack.

    \b
      llmpar-doctor
      llmpar-doctor --json | jq -r 'select(.state != "ok") | .mend'
      llmpar-doctor --host -o host.json

    A note is something that only one feature needs, or that makes figures less sure. Reads nothing; opens a loopback
    connection to itself. Exit status: 0 all that the main job needs is there; 2 usage; 4 something needed is missing.
    """
    if as_json and as_host:
        raise failure.Failure("--json and --host exclude each other", exit_codes.USAGE)
    facts = host.record()
    with cli.writing(output) as stream:
        if as_host:
            stream.write(records.encode(facts))
            return exit_codes.OK
        missing = 0
        for finding in checkup.findings(facts):
            missing += finding.state == checkup.MISSING
            if quiet and finding.state == checkup.OK:
                continue
            stream.write(orjson.dumps(finding.record()) + b"\n" if as_json else _line(finding))
    if missing:
        cli.say(
            "llmpar-doctor",
            f"{missing} thing{'s' if missing > 1 else ''} that the main job needs {'are' if missing > 1 else 'is'} missing",
        )
        return exit_codes.UNAVAILABLE
    if not (as_json or quiet) and sys.stderr.isatty():
        cli.say("llmpar-doctor", "all that the main job needs is there")
    return exit_codes.OK


def _line(finding: checkup.Finding) -> bytes:
    text = f"{SIGNS[finding.state]:<8}{finding.check:<20} {finding.found}\n"
    if finding.state != checkup.OK:
        text += f"{'':<8}for {finding.needed_for}\n"
        if finding.mend:
            text += f"{'':<8}  {finding.mend}\n"
    return text.encode()


if __name__ == "__main__":
    main()
