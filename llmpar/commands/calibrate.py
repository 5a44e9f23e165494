"""llmpar-calibrate: the kernel times of the GPU at hand, for llmpar-simulate."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import click

from llmpar import cli, exit_codes, failure, records
from llmpar.simulate import calibration
from llmpar.simulate.models import Refused


@cli.command("llmpar-calibrate", common=("--python", "--seconds", "--gpu", "--name", "--output"))
@cli.output
@click.option(
    "--python",
    metavar="FILE",
    type=click.Path(),
    default=sys.executable,
    help="A Python with torch: that of any engine's environment. Default: the one that runs llmpar.",
)
@click.option(
    "--seconds", metavar="S", type=click.FloatRange(1, 600), default=20.0, show_default=True, help="Time to measure."
)
@click.option("--gpu", metavar="INDEX", type=click.IntRange(0), default=0, show_default=True, help="Which GPU.")
@click.option("--name", metavar="NAME", help="A short name for the card. Default: made from its title.")
def main(output: str | None, python: str, seconds: float, gpu: int, name: str | None) -> int:
    """Time the matrices of a 7B model's step on the GPU at hand, by tokens in the step.

    \b
      llmpar-calibrate --python ~/vllm/bin/python -o card.json
      llmpar-simulate sweeps/clients.tsv --card card.json

    The GPU must be idle and have 3 GiB free. Writes one `card` record; give its file to llmpar-simulate as --card.

    Exit status: 0 done; 2 usage; 4 no such Python, no torch in it, or no GPU.
    """
    try:
        done = subprocess.run(
            [python, "-c", calibration.source(), str(seconds)],
            capture_output=True,
            text=True,
            timeout=10 * seconds + 300,
            env=calibration.environment(gpu),
        )
    except OSError as error:
        raise failure.Failure(
            f"cannot run '{python}': {error.strerror}",
            exit_codes.UNAVAILABLE,
            "name a Python with torch: --python FILE",
        ) from None
    except subprocess.TimeoutExpired:
        raise failure.Failure("the measurement did not end: is the GPU busy?", exit_codes.UNAVAILABLE) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        hint = "name the Python of an engine's environment: --python FILE" if "torch" in last else None
        raise failure.Failure(f"'{python}' could not measure: {last}", exit_codes.UNAVAILABLE, hint)
    try:
        measured: dict[str, Any] = json.loads(done.stdout)
        card = calibration.record(measured, name)
    except (ValueError, KeyError, Refused) as error:
        raise failure.Failure(f"'{python}' gave no kernel times: {error}", exit_codes.UNEXPECTED) from None
    with cli.writing(output) as stream:
        stream.write(records.encode(card))
    return exit_codes.OK


if __name__ == "__main__":
    main()
