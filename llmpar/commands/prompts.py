"""llmpar-prompts: make or convert a prompt set, or check one."""

from __future__ import annotations

import codecs
import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from llmpar import apikey, cli, exit_codes, failure, records
from llmpar.client import prompt_file
from llmpar.client.target import Target
from llmpar.files import DOCUMENT_LIMIT
from llmpar.prompts import files, formats, prompt, synthetic, tokens, traces
from llmpar.prompts.prompt import BadPrompts, Prompt, names, record
from llmpar.prompts.tokens import Unavailable, estimate

NAME = "llmpar-prompts"
FORMATS = ("sharegpt", "jsonl", "text", "trace")


@cli.command(
    NAME,
    common=("--count", "--tokens", "--deviation", "--shared", "--seed", "--from", "--format", "--index", "--check"),
)
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.option(
    "-n",
    "--count",
    "--num-prompts",
    metavar="N",
    type=click.IntRange(min=1),
    help="Number of prompts  [128 synthetic; all of FILE].",
)
@click.option(
    "--tokens",
    metavar="N",
    type=click.FloatRange(min=1),
    default=200,
    show_default=True,
    help="Mean tokens of synthetic prompts.",
)
@click.option(
    "--deviation",
    metavar="N",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="Standard deviation of that; 0: all alike.",
)
@click.option(
    "--shared",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Tokens of a prefix that all share. For prefix caches.",
)
@click.option(
    "--seed", metavar="N", type=int, help="Random seed; of synthetic text [0], or of a sample from FILE [the first N]."
)
@click.option("--from", "source", metavar="FILE", help="Convert FILE instead of making prompts.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="Format of FILE  [by its name: .json, .jsonl, other]."
)
@click.option(
    "--output-tokens",
    metavar="N",
    type=click.FloatRange(min=1),
    help="Have each prompt ask for so many tokens of answer, on average.",
)
@click.option(
    "--output-deviation",
    metavar="N",
    type=click.FloatRange(min=0),
    help="Standard deviation of that; 0: all alike.  [a quarter of --output-tokens]",
)
@click.option(
    "--own-lengths", is_flag=True, help="Have each prompt of FILE ask for an answer as long as its own there."
)
@click.option(
    "--lora", "models", metavar="NAME", multiple=True, help="Have prompts ask for these models, at random; repeat it."
)
@click.option("--field", metavar="NAME", help="The field of JSONL objects that holds the prompt.")
@click.option(
    "--least",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Leave out prompts of FILE with fewer tokens.",
)
@click.option("--most", metavar="N", type=click.IntRange(min=1), help="Leave out prompts of FILE with more tokens.")
@click.option("--tokenizer", metavar="FILE", type=click.Path(dir_okay=False), help="Count with this tokenizer.json.")
@click.option("--base-url", metavar="URL", help="Count with this server's /tokenize (begin-of-text token included).")
@click.option("--replace", is_flag=True, help="Replace a set in DIR that differs.")
@click.option("--index", is_flag=True, help="Only write the manifest of the files in DIR.")
@click.option("--check", is_flag=True, help="Only compare DIR with its manifest.")
@cli.certificates
@cli.insecure
def main(
    directory: str,
    count: int | None,
    tokens: float,
    deviation: float,
    shared: int,
    seed: int | None,
    source: str | None,
    form: str | None,
    output_tokens: float | None,
    output_deviation: float | None,
    own_lengths: bool,
    models: tuple[str, ...],
    field: str | None,
    least: int,
    most: int | None,
    tokenizer: str | None,
    base_url: str | None,
    ca: str | None,
    insecure: bool,
    replace: bool,
    index: bool,
    check: bool,
) -> int:
    """Make a set of prompts, one file each: synthetic with given token lengths, or converted from FILE.

    \b
      llmpar-prompts -n 512 --tokens 350 --deviation 80 --seed 1 synthetic/
      llmpar-prompts --from ShareGPT_V3.json -n 512 --seed 1 --most 3600 sharegpt/
      llmpar-prompts --from azure.csv -n 9 azure/   # a trace: its lengths, its answers' lengths, its times
      llmpar-prompts --index prompts/          # files of your own
      llmpar-prompts --check prompts/ && parallel -j128 llmpar-request ::: prompts/*

    Reads FILE (`-`: standard input): ShareGPT JSON, JSONL, paragraphs of text, or a trace (Azure, BurstGPT, Mooncake;
    docs/request.md). Writes DIR, one file a prompt, with the manifest in DIR/.manifest.jsonl, and a prompt_set record
    with count, tokens and hash to standard output. Without --tokenizer or --base-url, tokens are counted by rule: one
    for every seven letters of a word or fewer, one for each digit and mark. Synthetic text uses words for which that
    is exact in common vocabularies.

    Exit status: 0 done; 2 usage; 3 input not readable as prompts; 4 no tokenizer; 5 --check found differences; 6
    fewer prompts than asked for.
    """
    where = Path(directory)
    left_out: list[str] = []
    if check:
        return _check(where)
    try:
        counter, how = _counter(tokenizer, base_url, ca, insecure)
        if index:
            return _index(where, counter or estimate, how)
        if source is None:
            wanted = synthetic.lengths(count or 128, tokens, deviation, seed or 0)
            made = [
                synthetic.synthetic(number, length, seed or 0, shared, counter) for number, length in enumerate(wanted)
            ]
        else:
            choose = partial(formats.choose, number=count, seed=seed, least=least, most=most)
            made, left_out = _convert(source, form, field, lambda found: _traced(choose(found), seed or 0, counter))
        if counter:
            made = [_counted(prompt, counter(prompt.text) if source else prompt.tokens, how) for prompt in made]
        if source is not None:
            made = choose(made)
            if own_lengths:
                made = [dataclasses.replace(each, max_tokens=each.output_tokens) for each in made]
            if left_out:
                cli.say(NAME, f"{len(left_out)} entries of '{source}' were left out: {'; '.join(left_out[:3])}")
            if count and len(made) < count or not made:
                raise failure.Failure(
                    f"'{source}' has {len(made)} prompts that fit, {count or 1} were asked for",
                    exit_codes.TOO_LITTLE,
                    "widen --least and --most or ask for fewer",
                )
        made = synthetic.own(made, output_tokens, output_deviation, models, seed or 0)
        entries = [record(name, prompt) for name, prompt in zip(names(_stem(source), made), made, strict=True)]
        changed = files.write(where, entries, made, replace)
    except BadPrompts as error:
        raise failure.Failure(str(error), exit_codes.BAD_INPUT) from None
    except Unavailable as error:
        raise failure.Failure(str(error), exit_codes.UNAVAILABLE, error.hint) from None
    except files.Occupied as error:
        raise failure.Failure(str(error), exit_codes.USAGE, error.hint) from None
    _report(where, entries, "written" if changed else "already there, unchanged")
    return exit_codes.OK


def _counter(
    tokenizer: str | None, base_url: str | None, ca: str | None, insecure: bool
) -> tuple[Callable[[str], int] | None, str]:
    if tokenizer:
        try:
            return tokens.from_file(tokenizer), "tokenizer"
        except ValueError as error:
            raise prompt.BadPrompts(str(error)) from None
    if not base_url:
        return None, "rule"
    key = os.environ.get("LLMPAR_API_KEY_FILE")
    try:
        url = Target.of(base_url).url("/tokenize")
        return tokens.from_server(url, apikey.read(key) if key else None, cli.verify(ca, insecure)), "server"
    except ValueError as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None


def _counted(prompt: Prompt, tokens: int, how: str) -> Prompt:
    return dataclasses.replace(prompt, tokens=tokens, token_source=how)


def _stem(source: str | None) -> str:
    if source is None:
        return "synthetic"
    return re.sub(r"[^a-z0-9]+", "-", Path(source).stem.lower()).strip("-") or "prompt"


def _convert(
    source: str, form: str | None, field: str | None, traced: Callable[[list[traces.Arrival]], Iterable[Prompt]]
) -> tuple[list[Prompt], list[str]]:
    """The prompts of a file, and what was left out of it and why. `traced` makes those of a trace."""
    name = os.path.basename(source)
    data = cli.read_whole(source, DOCUMENT_LIMIT).removeprefix(codecs.BOM_UTF8)
    if form is None and traces.is_trace(data.split(b"\n", 1)[0].decode("utf-8", "replace")):
        form = "trace"
    form = form or {".json": "sharegpt", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(Path(source).suffix, "text")
    if form == "jsonl" and field is None and formats.is_conversation(data.lstrip().split(b"\n", 1)[0]):
        form = "sharegpt"
    left_out: list[str] = []
    if form == "jsonl":
        return list(formats.jsonl(data.splitlines(), name, field, left_out)), left_out
    if form == "sharegpt":
        return list(formats.sharegpt(data, name, left_out)), left_out
    if form == "trace":
        found = traced(traces.arrivals(data.decode("utf-8", "replace"), name, left_out))
        return [dataclasses.replace(each, source=name) for each in found], left_out
    try:
        return list(formats.plain(data.decode(), name)), left_out
    except UnicodeDecodeError as error:
        raise prompt.BadPrompts(f"cannot read '{name}': not UTF-8 at byte {error.start}") from None


def _traced(arrivals: list[traces.Arrival], seed: int, counter: Callable[[str], int] | None) -> Iterator[Prompt]:
    """Synthetic prompts of a trace's lengths, each with its answer's length and its time."""
    for number, each in enumerate(arrivals):
        made = synthetic.synthetic(number, each.tokens, seed, 0, counter, each.blocks, traces.BLOCK)
        output = each.output_tokens
        yield dataclasses.replace(
            made, source_id=str(number + 1), output_tokens=output, at_s=each.at_s, max_tokens=output
        )


def _index(where: Path, count: Callable[[str], int], how: str) -> int:
    if not where.is_dir():
        raise failure.Failure(f"cannot read '{where}': not a directory", exit_codes.USAGE)
    # One newline at its end belongs to the file, not to the prompt, as llmpar-request has it.
    entries = [
        prompt.record(name, Prompt(text, count(_question(name, text)), how, "files"))
        for name, text in files.texts(where).items()
    ]
    if not entries:
        raise failure.Failure(f"'{where}' holds no files", exit_codes.TOO_LITTLE)
    with cli.writing(str(where / files.MANIFEST)) as stream:
        stream.writelines([records.encode(entry) for entry in entries])
    _report(where, entries, "indexed")
    return exit_codes.OK


def _question(name: str, text: str) -> str:
    """What a prompt file asks, all turns of a conversation together. Raises BadPrompts."""
    if not name.endswith(prompt_file.ENDING):
        return text.removeprefix("\ufeff").removesuffix("\n")
    try:
        first, own = prompt_file.parsed(text.encode())
    except ValueError as error:
        raise prompt.BadPrompts(f"cannot read '{name}': {error}") from None
    return " ".join(turn.content for turn in own.turns) or first


def _check(where: Path) -> int:
    try:
        entries = files.manifest(where)
    except (FileNotFoundError, NotADirectoryError):
        raise failure.Failure(f"'{where}' has no {files.MANIFEST}", exit_codes.USAGE, "--index writes one") from None
    wrong = files.differences(entries, files.digests(where))
    for line in wrong:
        cli.say(NAME, line)
    if wrong:
        return exit_codes.CHECK_FAILED
    _report(where, entries, "agrees with its manifest")
    return exit_codes.OK


def _report(where: Path, entries: list[dict[str, Any]], word: str) -> None:
    total = sum(entry["tokens"] for entry in entries)
    with cli.writing(None) as stream:
        stream.write(
            records.encode(
                {
                    "kind": "prompt_set",
                    "v": 1,
                    "name": where.name or str(where),
                    "count": len(entries),
                    "tokens": total,
                    "token_source": entries[0]["token_source"] if entries else None,
                    "sha256": files.set_hash((entry["name"], entry["sha256"]) for entry in entries),
                }
            )
        )
    cli.say(NAME, f"'{where}' {word}: {len(entries)} prompts, {total} tokens")


if __name__ == "__main__":
    main()
