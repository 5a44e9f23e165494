"""llmpar-doctor: what is missing on this machine, and the command that installs or fixes it."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
import orjson

from llmpar import cli, exit_codes, failure, records
from llmpar.dialects import DIALECTS
from llmpar.machine import checkup, host


@cli.command("llmpar-doctor", common=("--json", "--host", "--server", "--quiet", "--output"))
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON object a check: check, state (ok, note, missing), found, needed_for, fix.",
)
@click.option(
    "--host", "as_host", is_flag=True, help="Write this machine's `host` record instead: hardware, limits, versions."
)
@click.option(
    "--server",
    "as_server",
    is_flag=True,
    help="Write the `server` record of what answers at LLMPAR_BASE_URL instead, after asking it for one token.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show only what is missing or noted.")
@cli.certificates
@cli.insecure
@cli.output
def main(
    as_json: bool, as_host: bool, as_server: bool, quiet: bool, ca: str | None, insecure: bool, output: str | None
) -> int:
    """Say what llmpar needs on this machine, what is missing, and the command that installs or fixes it.

    \b
      llmpar-doctor
      llmpar-doctor --json | jq -r 'select(.state != "ok") | .fix'
      llmpar-doctor --host -o host.json
      LLMPAR_BASE_URL=http://127.0.0.1:8000 LLMPAR_ENGINE=vllm LLMPAR_MODEL=my-7b llmpar-doctor --server

    A note is something that only one feature needs, or that makes figures less sure. Reads nothing; opens a
    loopback connection to itself; with --server, asks that server.

    Exit status: 0 all that the main job needs is there; 2 usage; 4 something needed is missing, or the server does
    not answer as it should.
    """
    if as_json + as_host + as_server > 1:
        raise failure.Failure("--json, --host and --server exclude one another", exit_codes.USAGE)
    if as_server:
        record = _server(cli.verify(ca, insecure))
        with cli.writing(output) as stream:
            stream.write(records.encode(record))
        return exit_codes.OK
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
            stream.write(orjson.dumps(finding.record()) + b"\n" if as_json else checkup.text(finding).encode())
    if missing:
        cli.say(
            "llmpar-doctor",
            f"{missing} thing{'s' if missing > 1 else ''} that the main job needs {'are' if missing > 1 else 'is'} "
            "missing",
        )
        return exit_codes.UNAVAILABLE
    if not (as_json or quiet) and sys.stderr.isatty():
        cli.say("llmpar-doctor", "all that the main job needs is there")
    return exit_codes.OK


def _server(verify: bool | str) -> dict[str, Any]:
    """The record of the server that the environment names, as for llmpar-request."""
    from llmpar.serving import running_server

    names = {key: os.environ.get(f"LLMPAR_{key}", "") for key in ("BASE_URL", "ENGINE", "MODEL")}
    missing = [f"LLMPAR_{key}" for key, value in names.items() if not value]
    if missing:
        raise failure.Failure(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set", exit_codes.USAGE)
    api = os.environ.get("LLMPAR_API") or "openai-completions"
    if api not in DIALECTS:
        raise failure.Failure(f"unknown API '{api}'", exit_codes.USAGE, f"there are {', '.join(sorted(DIALECTS))}")
    record = running_server.record(names["BASE_URL"], names["ENGINE"], names["MODEL"], api, verify=verify)
    if record["message"]:
        cli.say("llmpar-doctor", f"the server at {names['BASE_URL']} answers, but {record['message']}")
    return record


if __name__ == "__main__":
    main()
