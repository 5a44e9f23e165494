"""llmpar-manifest: what results are made of, hashed and signed, so that others can verify them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import click

from llmpar import cli, exit_codes, manifest, records
from llmpar.clock import now
from llmpar.failure import Failure


@cli.command(
    "llmpar-manifest", common=("--derive", "--sign"), short_help="hashes of results, and how to recompute them"
)
@click.argument("folder", default="runs", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--derive",
    metavar="FILE=COMMAND",
    multiple=True,
    help="Also make FILE in FOLDER by an llmpar command, run there, and list it; repeatable.",
)
@click.option("--sign", metavar="KEY", type=click.Path(), help="Sign with this SSH key, into manifest.jsonl.sig.")
def main(folder: str, derive: tuple[str, ...], sign: str | None) -> int:
    """List the hashes of all files of results, and the command that makes each derived one again.

    \b
      llmpar-manifest runs
      llmpar-manifest --sign ~/.ssh/id_ed25519 runs/quick
      llmpar-manifest --derive 'verdicts.jsonl=llmpar-compare --by engine --format json engines' runs

    Writes FOLDER/manifest.jsonl: records, prompts, commands, engine logs and host facts by their SHA-256; for each
    summary, table of a sweep, claim and verdict the llmpar command that computes it from those. claims.jsonl is
    made on the way, where the results concern a claim. Whoever has the folder checks it with llmpar-verify, on any
    machine with this version of llmpar. Reads a folder of results (default: runs).

    Exit status: 0 done; 2 usage; 4 ssh-keygen cannot sign; 6 no results.
    """
    root = Path(folder)
    given = dict(_derived(each) for each in derive)
    if not any(name.endswith("summary.json") for name in manifest.files(root)):
        raise Failure(f"there is no summary.json in '{folder}'", exit_codes.TOO_LITTLE, "`llmpar sweep` makes them")
    given.setdefault("claims.jsonl", ["llmpar-claims", "--format", "json", "."])
    for name, command in given.items():
        _make(root, name, command, asked=any(each.startswith(f"{name}=") for each in derive))
    names = manifest.files(root)
    commands = manifest.derivations(root, names) | {name: given[name] for name in given if name in names}
    head: dict[str, Any] = {"kind": "manifest", "v": 1, "at": now(), "llmpar": cli.version(), "files": len(names)}
    head |= {"host": _host(root, names), "prompts": _prompts(root, names)}
    with cli.writing(str(root / manifest.NAME)) as stream:
        stream.write(records.encode(head))
        for name in names:
            record = {"kind": "file", "v": 1, **manifest.described(root, name), "command": commands.get(name)}
            stream.write(records.encode(record))
    if sign:
        _sign(root / manifest.NAME, sign)
    made = sum(name in commands for name in names)
    cli.say("llmpar-manifest", f"'{root / manifest.NAME}' lists {len(names)} files, {made} of which can be recomputed")
    return exit_codes.OK


def _derived(text: str) -> tuple[str, list[str]]:
    import shlex

    name, _, command = text.partition("=")
    if not command or "/" in name or name.startswith("."):
        raise Failure(f"--derive '{text}' is not FILE=COMMAND", exit_codes.USAGE, "FILE is a plain name in FOLDER")
    return name, shlex.split(command)


def _make(root: Path, name: str, command: list[str], asked: bool) -> None:
    try:
        data, said = manifest.made(root, name, command)
    except manifest.BadManifest as error:
        raise Failure(str(error), exit_codes.USAGE) from None
    if said:
        raise Failure(f"cannot make '{name}': {said}", exit_codes.USAGE)
    # Claims are kept where the results say something of one.
    if asked or b'"verdict":"supported"' in data or b'"verdict":"contradicted"' in data or b'"cannot tell"' in data:
        (root / name).write_bytes(data)


def _host(root: Path, names: list[str]) -> list[str]:
    """The machines that measured, as their own records name them."""
    hosts = (manifest.read_json(root / name) for name in names if name.endswith("host.json"))
    return sorted({str(host.get("host")) for host in hosts if host})


def _prompts(root: Path, names: list[str]) -> dict[str, str]:
    """Hash by prompt name, from the request records."""
    hashes: dict[str, str] = {}
    for name in names:
        if name.endswith("requests.jsonl"):
            for record in cli.read_records((str(root / name),), records.Read()):
                if record["kind"] == "request" and record.get("prompt_sha256"):
                    hashes[str(record.get("prompt"))] = record["prompt_sha256"]
    return dict(sorted(hashes.items()))


def _sign(path: Path, key: str) -> None:
    Path(f"{path}.sig").unlink(missing_ok=True)
    command = ["ssh-keygen", "-Y", "sign", "-f", key, "-n", manifest.NAMESPACE, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise Failure(
            "ssh-keygen is not installed", exit_codes.UNAVAILABLE, "type: apt-get install openssh-client"
        ) from None
    if done.returncode:
        raise Failure(f"ssh-keygen cannot sign with '{key}': {done.stderr.strip()}", exit_codes.UNAVAILABLE)


if __name__ == "__main__":
    main()
