"""llmpar-next: the cell to measure next, or the answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpar import cli, exit_codes, failure, records, sweep_folder, sweeps

if TYPE_CHECKING:
    from llmpar.search import best

NAME = "llmpar-next"


@cli.command(
    NAME,
    common=("--slo", "--axis", "--a", "--b", "--by", "--space", "--table", "--set", "--minutes", "--write"),
    short_help="the cell to measure next, or the answer",
)
@click.argument("question", type=click.Choice(["find", "decide", "best"]))
@cli.files
@click.option("--slo", metavar="TEXT", default="", help="Objectives of find: ttft-p95<500ms tpot-p95<50ms.")
@click.option(
    "--axis", type=click.Choice(["clients", "rate"]), default="clients", show_default=True, help="What find varies."
)
@click.option(
    "--least",
    metavar="N",
    type=click.FloatRange(0, min_open=True),
    default=1,
    show_default=True,
    help="Lowest level of find and best.",
)
@click.option(
    "--most",
    metavar="N",
    type=click.FloatRange(0, min_open=True),
    help="Highest level of find and best. Default: 1024, and 256 of best.",
)
@click.option(
    "--start",
    metavar="N",
    type=click.FloatRange(0, min_open=True),
    help="First level of find. Default: 8 times --least.",
)
@click.option(
    "--a",
    "side_a",
    metavar="SETTINGS",
    default="",
    help='Side A of decide: engine=vllm speculate=2; engine_args="-t 2" with quotes.',
)
@click.option("--b", "side_b", metavar="SETTINGS", default="", help="Side B of decide.")
@click.option(
    "--by", metavar="FIGURE", default="wall_s", show_default=True, help="What decide compares. For example ttft_p95_s."
)
@cli.margin
@click.option(
    "--minutes",
    metavar="N",
    type=click.FloatRange(0, min_open=True),
    help="Minutes to spend. No cell is started that would end later, by the time cells took so far.",
)
@click.option(
    "--seed", metavar="N", type=int, default=0, show_default=True, help="Random seed of the order within blocks."
)
@click.option(
    "--set",
    "settings",
    metavar="SETTINGS",
    multiple=True,
    help="Settings of every cell. For example engine=vllm model=my-7b max_tokens=200.",
)
@click.option("--table", metavar="FILE", type=click.Path(), help="Sweep table whose first row sets every cell.")
@click.option(
    "--space",
    metavar="FILE",
    type=click.Path(),
    help="Candidates of best: a sweep table. Each server setting is a candidate.",
)
@click.option(
    "--price",
    "prices",
    metavar="N|NAME=N",
    multiple=True,
    help="An hour of this machine, for the price of a million tokens in best's answer.",
)
@click.option(
    "--server-session", metavar="NAME", help="Print nothing unless the next cell belongs to this server session."
)
@click.option(
    "--write",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Write files under DIR instead of a record.",
)
def main(
    question: str,
    files: tuple[str, ...],
    slo: str,
    axis: str,
    least: float,
    most: float | None,
    start: float | None,
    side_a: str,
    side_b: str,
    by: str,
    margin: float,
    minutes: float | None,
    seed: int,
    settings: tuple[str, ...],
    table: str | None,
    space: str | None,
    prices: tuple[str, ...],
    server_session: str | None,
    folder: str | None,
) -> int:
    """Read a question and the summaries so far; write the cell to measure next, or the answer.

    \b
      llmpar-next find --slo 'ttft-p95<500ms' runs/find/*/summary.json
      llmpar-next decide --a 'engine=vllm' --b 'engine=aphrodite' --by wall_s runs/decide/*/summary.json
      llmpar-next best --space space.tsv --minutes 60 --write runs/best runs/best/*/summary.json

    `find`: the most clients (or requests a second, --axis rate) within the objectives, by doubling and bisection.
    `decide`: whether A and B differ, by blocks of one fresh server session of each, until the answer is sure.
    `best`: which row of a table is best within the objectives, by rounds that keep a third, and a final of fresh
    server sessions. `make find`, `make decide` and `make best` loop over it. Without --write it writes one record:
    a cell, or the answer. With --write DIR it writes DIR/<cell>/cell.json and DIR/cells.mk and prints the cell's
    name; or DIR/answer.json and DIR/answer.txt, and prints nothing. Reads summary records and buffers them.

    Exit status: 0 done; 2 usage; 3 not records of a known version.
    """
    summaries = cli.read_summaries(files) if files else []
    from llmpar.search import best, questions
    from llmpar.verdicts import objectives

    try:
        base = _base(table, settings)
        if question == "find":
            record, progress = questions.ask_find(summaries, base, slo, axis, least, most or 1024, start)
        elif question == "decide":
            cli.known_figures((by,))
            record, progress = questions.ask_decide(summaries, base, (side_a, side_b), by, margin, minutes, seed)
        else:
            wanted = objectives.parse(slo) if slo else {}
            asked = best.Question(wanted, least, most or 256, minutes, margin, seed)
            record, progress = _best(summaries, base, space, asked, slo, folder, prices)
    except ValueError as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None
    if server_session and record["kind"] == "cell" and record["session"] != server_session:
        return exit_codes.OK
    _write(record, folder, progress)
    return exit_codes.OK


def _base(table: str | None, settings: tuple[str, ...]) -> dict[str, Any]:
    from llmpar.search import questions

    base: dict[str, Any] = {}
    if table:
        base = sweeps.parse(cli.read_text(table), table)[0]
    for text in settings:
        base |= questions.pairs(text)
    return base


def _best(
    summaries: list[dict[str, Any]],
    base: dict[str, Any],
    space: str | None,
    question: best.Question,
    slo: str,
    folder: str | None,
    prices: tuple[str, ...],
) -> tuple[dict[str, Any], str]:
    from llmpar.search import questions, spaces

    if not space:
        raise ValueError("best needs --space: a table with a row for each candidate")
    parsed = sweeps.parse(cli.read_text(space), space)
    candidates, load = spaces.candidates([base | row for row in parsed], space, cli.prices_of(prices))
    refuse(candidates, folder)
    prompts = _prompts(load.get("prompts", sweeps.DEFAULTS["prompts"]))
    return questions.ask_best(summaries, candidates, load, question, prompts, slo)


def refuse(candidates: list[Any], folder: str | None) -> None:
    """Mark candidates whose settings an engine does not have, or that cannot fit this machine. What was found is kept
    in DIR/refused.json: looking at engines takes a second each, and a search asks again for every cell."""
    from llmpar.serving import planner

    kept = Path(folder) / "refused.json" if folder else None
    known = _kept(kept) if kept else {}
    new = False
    for candidate in candidates:
        key = json.dumps(candidate.settings, sort_keys=True)
        if key not in known:
            known[key], new = planner.refusal(candidate.settings), True
        candidate.refused = known[key]
    if kept and new:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with cli.writing(str(kept)) as stream:
            stream.write(json.dumps(known).encode())


def _kept(path: Path) -> dict[str, str | None]:
    """What an earlier call kept; nothing where the file is not there or none of ours: then it is looked at anew."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    good = isinstance(value, dict) and all(isinstance(reason, str | None) for reason in value.values())
    return value if good else {}


def _prompts(folder: str) -> int:
    """Prompt files in a folder, as scripts/run-cell takes them."""
    return sum(1 for path in Path(folder).glob("*") if path.name.endswith((".txt", ".prompt.json")))


def _write(record: dict[str, Any], folder: str | None, progress: str) -> None:
    if folder is None:
        click.echo(records.encode(record), nl=False)
        return
    where = Path(folder)
    if record["kind"] == "answer":
        from llmpar.search import questions

        where.mkdir(parents=True, exist_ok=True)
        text = questions.sentence(record).encode()
        for name, data in (("answer.json", records.encode(record)), ("answer.txt", text)):
            with cli.writing(str(where / name)) as stream:
                stream.write(data)
        return
    if not (where / record["id"] / "cell.json").exists():  # asked again within its server session: announced before
        cli.say(NAME, progress)
    cells: dict[str, dict[str, Any]] = {}
    for path in sorted(where.glob("*/cell.json"), key=os.path.getmtime):
        try:
            old = records.decode(path.read_bytes())
            wrong = None if "settings_sha256" in old else "it has no settings_sha256"
            wrong = wrong or sweeps.cell_fault(old)
        except records.BadRecord as error:
            wrong = str(error)
        if wrong:
            raise failure.Failure(f"cannot read '{path}': {wrong}", exit_codes.BAD_INPUT, "move its folder away")
        cells[path.parent.name] = old
    sweep_folder.write([*(old for name, old in cells.items() if name != record["id"]), record], folder)
    click.echo(record["id"])


if __name__ == "__main__":
    main()
