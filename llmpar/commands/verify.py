"""llmpar-verify: whether results are what their manifest says, and follow from their records."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from llmpar import cli, exit_codes, manifest
from llmpar.failure import Failure


@cli.command("llmpar-verify", common=("--signers", "--no-recompute"), short_help="check results against their manifest")
@click.argument("folder", default="runs", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--signers", metavar="FILE", type=click.Path(exists=True), help="Who may sign: ssh's ALLOWED SIGNERS file."
)
@click.option("--no-recompute", is_flag=True, help="Check hashes and signature only.")
def main(folder: str, signers: str | None, no_recompute: bool) -> int:
    """Check results against their manifest: every hash, and every derived file recomputed from the records.

    \b
      llmpar-verify runs
      llmpar-verify --signers allowed_signers runs

    Names each file that was changed, dropped or added, and each summary, table, verdict or claim that does not
    follow from the records, with the first figure that differs. The recomputation asks nothing of the hashes: an
    edited verdict is found although its manifest was made anew. A signature (manifest.jsonl.sig) is checked by
    ssh-keygen -Y; --signers is its file of allowed signers, and without it any key may have signed. Bytes are those
    of the llmpar version that the manifest names.

    Exit status: 0 all is as it should be; 2 usage; 3 no manifest of a known version; 5 something differs.
    """
    root = Path(folder)
    head, listed = _read(root)
    faults = [*_signature(root / manifest.NAME, signers), *_hashes(root, listed)]
    commands = {name: record["command"] for name, record in listed.items() if record.get("command")}
    if not no_recompute:
        if head.get("llmpar") != cli.version():
            cli.say(
                "llmpar-verify",
                f"made with llmpar {head.get('llmpar')}, recomputed with {cli.version()}: bytes may differ",
            )
        faults += _recomputed(root, commands)
    for fault in faults:
        click.echo(fault)
    if faults:
        cli.say(
            "llmpar-verify",
            f"'{folder}' differs from its manifest or records in {len(faults)} place{'s' if len(faults) > 1 else ''}",
        )
        return exit_codes.CHECK_FAILED
    done = "" if no_recompute else f", {len(commands)} of them recomputed to the same bytes"
    click.echo(f"verified: {len(listed)} files{done}")
    return exit_codes.OK


def _read(root: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    path = root / manifest.NAME
    if not path.exists():
        raise Failure(f"there is no '{path}'", exit_codes.BAD_INPUT, "llmpar-manifest makes one")
    lines = list(cli.read_records((str(path),)))
    if not lines or lines[0]["kind"] != "manifest":
        raise Failure(f"'{path}' does not begin with a manifest record", exit_codes.BAD_INPUT)
    listed = {str(record["path"]): record for record in lines[1:] if record["kind"] == "file"}
    if len(listed) != lines[0].get("files"):
        raise Failure(f"'{path}' lists {len(listed)} files, and says {lines[0].get('files')}", exit_codes.CHECK_FAILED)
    return lines[0], listed


def _hashes(root: Path, listed: dict[str, dict[str, Any]]) -> Iterator[str]:
    present = set(manifest.files(root))
    for name, record in listed.items():
        if name not in present:
            yield f"missing: {name}"
            continue
        now = manifest.described(root, name)
        if now["sha256"] != record["sha256"]:
            count, was = now.get("records"), record.get("records")
            how = f"{count} records, {was} in the manifest" if count != was else "its bytes differ"
            yield f"changed: {name}: {how}"
    yield from (f"not in the manifest: {name}" for name in sorted(present - set(listed)))


def _recomputed(root: Path, commands: dict[str, list[str]]) -> Iterator[str]:
    for name, command in commands.items():
        try:
            have = (root / name).read_bytes()
        except OSError:
            continue  # missing, and said so
        try:
            want, said = manifest.made(root, name, command)
        except manifest.BadManifest as error:
            yield f"not recomputed: {error}"
            continue
        if said:
            yield f"not recomputed: {name}: {said.splitlines()[0]}"
        elif have != want:
            yield f"does not follow: {name}: {manifest.difference(have, want)}"


def _signature(path: Path, signers: str | None) -> list[str]:
    signature = Path(f"{path}.sig")
    if not signature.exists():
        return [f"not signed: there is no {signature.name}"] if signers else []
    ask = ["ssh-keygen", "-Y"]
    given = ["-n", manifest.NAMESPACE, "-s", str(signature)]
    try:
        if signers is None:
            done = _run([*ask, "check-novalidate", *given], path)
        else:
            who = _run([*ask, "find-principals", "-s", str(signature), "-f", signers], path)
            name = who.stdout.split("\n")[0].strip()
            if who.returncode or not name:
                return [f"signature: the key of {signature.name} is none of '{signers}'"]
            done = _run([*ask, "verify", "-f", signers, "-I", name, *given], path)
    except FileNotFoundError:
        return ["signature: not checked, ssh-keygen is not installed"]
    if done.returncode:
        return [f"signature: {signature.name} is not one of {path.name} as it is now"]
    cli.say("llmpar-verify", done.stdout.strip().split("\n")[0])
    return []


def _run(command: list[str], path: Path) -> subprocess.CompletedProcess[str]:
    with open(path, "rb") as stream:
        return subprocess.run(command, stdin=stream, capture_output=True, text=True)


if __name__ == "__main__":
    main()
