"""llmpar-prompts: make or convert a prompt set, or check one."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from llmpar import cli, prompts, records, status
from llmpar.prompts import BadPrompts, Prompt

FORMATS = ("sharegpt", "jsonl", "text")


@cli.command("llmpar-prompts", epilog="""\b
Examples:
  llmpar-prompts -n 512 --tokens 350 --deviation 80 --seed 1 synthetic/
  llmpar-prompts --from ShareGPT_V3.json -n 512 --seed 1 --most 3600 sharegpt/
  llmpar-prompts --index prompts/          # files of your own
  llmpar-prompts --check prompts/ && parallel -j128 llmpar-request ::: prompts/*

\b
Reads   FILE, `-` for standard input: ShareGPT JSON, JSONL, or paragraphs of text.
Writes  DIR, one file a prompt, with its manifest in DIR/.manifest.jsonl (kind prompt), which the glob DIR/* leaves out;
        a prompt_set record with count, tokens and hash on standard output.
Exit    0 done; 2 usage; 3 input not readable as prompts; 4 no tokenizer; 5 --check found differences; 6 fewer prompts than asked.""")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.option("-n", "--count", metavar="N", type=click.IntRange(min=1), help="How many  [128 synthetic; all of FILE].")
@click.option("--tokens", metavar="N", type=click.FloatRange(min=1), default=200, show_default=True,
              help="Mean length of synthetic prompts, tokens.")
@click.option("--deviation", metavar="N", type=click.FloatRange(min=0), default=0, show_default=True,
              help="Standard deviation of that length, tokens; 0: all alike.")
@click.option("--shared", metavar="N", type=click.IntRange(min=0), default=0, show_default=True,
              help="Tokens at the start that all prompts have in common (for prefix caches).")
@click.option("--seed", metavar="N", type=int, help="Of synthetic text [0]; or of a random sample from FILE [the first N].")
@click.option("--from", "source", metavar="FILE", help="Convert this instead of making synthetic prompts.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Of FILE  [by its name: .json, .jsonl, other].")
@click.option("--field", metavar="NAME", help="The field of JSONL objects that holds the prompt.")
@click.option("--least", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
              help="Leave out prompts of FILE with fewer tokens.")
@click.option("--most", metavar="N", type=click.IntRange(min=1), help="Leave out prompts of FILE with more tokens.")
@click.option("--tokenizer", metavar="FILE", type=click.Path(dir_okay=False), help="Count with this tokenizer.json.")
@click.option("--base-url", metavar="URL", help="Count with this server's /tokenize (begin-of-text token included).")
@click.option("--replace", is_flag=True, help="Replace a set in DIR that differs.")
@click.option("--index", is_flag=True, help="Only write the manifest of the files that DIR holds already.")
@click.option("--check", is_flag=True, help="Only compare DIR with its manifest.")
def main(directory: str, count: int | None, tokens: float, deviation: float, shared: int, seed: int | None,
         source: str | None, form: str | None, field: str | None, least: int, most: int | None, tokenizer: str | None,
         base_url: str | None, replace: bool, index: bool, check: bool) -> int:
    """Make a set of prompts, one file each: synthetic with given token lengths, or converted from FILE.

    Without --tokenizer or --base-url tokens are counted by rule: one for each seven letters begun of a word, one for each
    digit and mark. Synthetic text is made of words for which that is exact in common vocabularies.
    """
    where = Path(directory)
    if check:
        return _check(where)
    counter, how = _counter(tokenizer, base_url)
    if index:
        return _index(where, counter, how)
    try:
        if source is None:
            wanted = prompts.lengths(count or 128, tokens, deviation, seed or 0)
            made = [prompts.synthetic(index, length, seed or 0, shared, counter) for index, length in enumerate(wanted)]
        else:
            made = _convert(source, form, field)
        if counter and source is not None:
            made = [Prompt(p.text, counter(p.text), how, p.source, p.source_id, p.output_tokens) for p in made]
        elif counter:
            made = [Prompt(p.text, p.tokens, how, p.source) for p in made]
    except BadPrompts as error:
        raise cli.Failure(str(error), status.BAD_INPUT) from None
    if source is not None:
        made = prompts.choose(made, count, seed, least, most)
        if count and len(made) < count or not made:
            raise cli.Failure(f"'{source}' has {len(made)} prompts that fit, {count or 1} were asked for", status.TOO_LITTLE,
                              "widen --least and --most or ask for fewer")
    stem = "synthetic" if source is None else re.sub(r"[^a-z0-9]+", "-", Path(source).stem.lower()).strip("-") or "prompt"
    entries = [prompts.record(name, prompt) for name, prompt in zip(prompts.names(stem, len(made)), made, strict=True)]
    changed = _write(where, entries, made, replace)
    _report(where, entries, "written" if changed else "already there, unchanged")
    return status.OK


def _counter(tokenizer: str | None, base_url: str | None) -> tuple[Callable[[str], int] | None, str]:
    if tokenizer:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise cli.Failure("--tokenizer needs the package 'tokenizers'", status.UNAVAILABLE,
                              "pip install tokenizers, or count with --base-url") from None
        try:
            loaded = Tokenizer.from_file(tokenizer)
        except Exception as error:
            raise cli.Failure(f"cannot read '{tokenizer}': {error}", status.BAD_INPUT) from None
        return (lambda text: len(loaded.encode(text).ids)), "tokenizer"
    if not base_url:
        return None, "rule"
    import requests

    session = requests.Session()

    def ask(text: str) -> int:
        # llama.cpp reads content, vLLM prompt, TGI inputs; each leaves the others' fields alone.
        body = {"content": text, "prompt": text, "inputs": text, "add_special": True}
        try:
            answer = session.post(base_url.rstrip("/") + "/tokenize", json=body, timeout=60)
            answer.raise_for_status()
            value: Any = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise cli.Failure(f"cannot count tokens at '{base_url}': {error}", status.UNAVAILABLE) from None
        number = value.get("count", value.get("tokens")) if isinstance(value, dict) else value
        if isinstance(number, list):
            number = len(number)
        if not isinstance(number, int):
            raise cli.Failure(f"cannot count tokens at '{base_url}': no count in the answer", status.UNAVAILABLE)
        return number

    return ask, "server"


def _convert(source: str, form: str | None, field: str | None) -> list[Prompt]:
    suffix = Path(source).suffix
    form = form or {".json": "sharegpt", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(suffix, "text")
    name = os.path.basename(source)
    with cli.opened(source) as stream:
        if form == "jsonl":
            return list(prompts.jsonl(stream, name, field))
        data = stream.read()
    if form == "sharegpt":
        return list(prompts.sharegpt(data, name))
    try:
        return list(prompts.plain(data.decode(), name))
    except UnicodeDecodeError as error:
        raise BadPrompts(f"cannot read '{name}': not UTF-8 at byte {error.start}") from None


def _write(where: Path, entries: list[dict[str, Any]], made: list[Prompt], replace: bool) -> bool:
    """Put the set in place whole; whether anything changed. A set that differs is replaced only when asked."""
    manifest = b"".join([records.encode(entry) for entry in entries])
    if where.is_dir() and any(where.iterdir()):
        kept = where / prompts.MANIFEST
        if kept.is_file() and kept.read_bytes() == manifest and not prompts.differences(entries, _files(where)):
            return False
        if not replace:
            raise cli.Failure(f"'{where}' is not empty and holds something else", status.USAGE,
                              "--replace puts the new set in its place" if kept.is_file() else "choose another directory")
        if not kept.is_file():
            raise cli.Failure(f"'{where}' is no prompt set: it has no {prompts.MANIFEST}", status.USAGE,
                              "choose another directory")
    where.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=where.parent, prefix=where.name + ".", suffix=".part"))
    try:
        for entry, prompt in zip(entries, made, strict=True):
            (part / entry["name"]).write_bytes(prompt.text.encode())
        (part / prompts.MANIFEST).write_bytes(manifest)
        part.chmod(0o755)
        if where.exists():
            shutil.rmtree(where)
        part.rename(where)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return True


def _files(where: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(where.iterdir()) if path.is_file() and not path.name.startswith(".")}


def _report(where: Path, entries: list[dict[str, Any]], word: str) -> None:
    digest = prompts.set_hash((entry["name"], entry["sha256"]) for entry in entries)
    total = sum(entry["tokens"] for entry in entries)
    with cli.writing(None) as stream:
        stream.write(records.encode({"kind": "prompt_set", "v": 1, "name": where.name or str(where), "count": len(entries),
                                     "tokens": total, "token_source": entries[0]["token_source"] if entries else None,
                                     "sha256": digest}))
    cli.say("llmpar-prompts", f"'{where}' {word}: {len(entries)} prompts, {total} tokens")


def _check(where: Path) -> int:
    manifest = where / prompts.MANIFEST
    if not manifest.is_file():
        raise cli.Failure(f"'{where}' has no {prompts.MANIFEST}", status.USAGE, "llmpar-prompts makes one with the set")
    with manifest.open("rb") as stream:
        entries = list(records.read(stream, str(manifest)))
    wrong = prompts.differences(entries, _files(where))
    for line in wrong:
        cli.say("llmpar-prompts", line)
    if wrong:
        return status.CHECK_FAILED
    _report(where, entries, "agrees with its manifest")
    return status.OK


def _index(where: Path, counter: Callable[[str], int] | None, how: str) -> int:
    if not where.is_dir():
        raise cli.Failure(f"cannot read '{where}': not a directory", status.USAGE)
    entries = []
    for name in _files(where):
        try:
            text = (where / name).read_bytes().decode()
        except UnicodeDecodeError as error:
            raise cli.Failure(f"cannot read '{where / name}': not UTF-8 at byte {error.start}", status.BAD_INPUT) from None
        # One newline at its end belongs to the file, not to the prompt, as llmpar-request has it.
        length = (counter or prompts.estimate)(text.removesuffix("\n"))
        entries.append(prompts.record(name, Prompt(text, length, how, "files")))
    if not entries:
        raise cli.Failure(f"'{where}' holds no files", status.TOO_LITTLE)
    with cli.writing(str(where / prompts.MANIFEST)) as stream:
        stream.writelines([records.encode(entry) for entry in entries])
    _report(where, entries, "indexed")
    return status.OK


if __name__ == "__main__":
    main()
