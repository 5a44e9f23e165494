"""llmpar-simulate: a sweep predicted for cards that are not at hand."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpar import cli, exit_codes, failure, outside, records, sweeps
from llmpar.prompts import files as prompt_files
from llmpar.render.predictions import render
from llmpar.simulate import cards, from_cells, given, models, order, predict, write
from llmpar.simulate.intervals import HELD_OUT
from llmpar.simulate.models import Refused
from llmpar.summary import read
from llmpar.summary.summariser import Summariser

if TYPE_CHECKING:
    import numpy as np

NOTE = (
    f"Predictions, not measurements. Of {HELD_OUT[0]} held-out figures of others {100 * HELD_OUT[1]:.0f}% lie within "
    "these intervals (docs/simulate.md); "
    "TTFT is an order of magnitude. Engines are predicted as vLLM: differences between engines under 15%, and power "
    "limits, are not."
)


@cli.command(
    "llmpar-simulate",
    common=("--card", "--model", "--prompt-tokens", "--given", "--price", "--list", "--format", "--output"),
)
@click.argument("table", type=click.Path(), default="-")
@cli.output
@click.option(
    "--card",
    "named",
    metavar="NAME",
    multiple=True,
    help="Predict every row on this card, or on a file of llmpar-calibrate; may be repeated. Default: the table's "
    "column card.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="Predict this model: a known name, or a directory with its config.json. Default: the table's.",
)
@click.option(
    "--prompts",
    metavar="DIR",
    type=click.Path(),
    help="The lengths of this prompt set, by its manifest. Default: the table's.",
)
@click.option(
    "--prompt-tokens",
    metavar="N",
    type=click.IntRange(1),
    help="All prompts have N tokens. Default: as the prompt set's manifest says.",
)
@click.option(
    "--given",
    "point",
    metavar="FILE",
    type=click.Path(),
    help="A measured summary of your own host. It narrows the predictions of its card and model.",
)
@click.option(
    "--price",
    "prices",
    metavar="NAME=AMOUNT",
    multiple=True,
    help="Price per hour of a card. A bare AMOUNT is for any card. May be repeated.",
)
@click.option(
    "--write",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Write each cell's records to DIR/<cell>/, marked as simulated.",
)
@click.option(
    "--seed", metavar="N", type=int, default=1, show_default=True, help="Seed of the order of prompts and of arrivals."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "markdown", "json")),
    default="text",
    show_default=True,
    help="Text, Markdown or records.",
)
@click.option("--list", "listing", is_flag=True, help="List the known cards and models, and exit.")
def main(
    table: str,
    output: str | None,
    named: tuple[str, ...],
    model: str | None,
    prompts: str | None,
    prompt_tokens: int | None,
    point: str | None,
    prices: tuple[str, ...],
    folder: str | None,
    seed: int,
    form: str,
    listing: bool,
) -> int:
    """Predict the cells of a sweep table on GPUs that are not at hand, with an interval from held-out measurements.

    \b
      llmpar-simulate sweeps/cards.tsv
      llmpar-simulate sweeps/clients.tsv --card 4090 --card a6000 --price 4090=0.35 --price a6000=0.5
      llmpar-simulate sweeps/clients.tsv --card 3090 --given runs/clients/c064/summary.json

    TABLE is a sweep table (`-` for standard input), or one with the columns card and memory besides. Writes a
    table, or a `prediction` record a cell. Not predicted, each with the reason: speculation without an acceptance
    length, quantised kernels, sharding, engines of another kind. docs/simulate.md has the errors.

    Exit status: 0 done; 2 usage; 3 not a summary (--given); 6 no cell can be predicted.
    """
    if listing:
        return listed(output)
    cells = planned(table, named, {"model": model, "prompts": prompts})
    price = cli.prices_of(prices)
    known = None if point is None else measured(point, model, calibrated(cells))
    made: list[tuple[dict[str, Any], predict.Prediction | None, dict[str, Any]]] = []
    engines: dict[str, str] = {}
    for cell in cells:
        prediction, basis, reason = None, None, None
        try:
            from_cells.refuse(cell["server"], cell["load"])
            as_engine = engines.setdefault(from_cells.without_engine(cell), str(cell["server"].get("engine")))
            if as_engine != cell["server"].get("engine"):
                raise Refused(f"predicted as {as_engine} is: differences between engines under 15% are not decided")
            card = cards.card(str(cell["server"]["card"]))
            scenario = from_cells.scenario(cell, card, *lengths(cell, prompt_tokens), seed)
            scale, basis = (1.0, card.basis) if known is None else known.scale_for(scenario)
            prediction = predict.predict(scenario, scale)
        except Refused as error:
            basis, reason = None, str(error)
        cost = price.get(str(cell["server"]["card"]), price.get(""))
        made.append((cell, prediction, write.prediction(cell, prediction, basis, reason, cost)))
    if folder:
        for cell, prediction, _ in made:
            if prediction is not None:
                written(Path(folder), cell, prediction)
    said = [record for _, _, record in made]
    with cli.writing(output) as stream:
        if form == "json":
            for record in said:
                stream.write(records.encode(record))
        else:
            notes = [NOTE, *([known.sentence] if known else [])]
            stream.write(render(said, orders(made), notes, form == "markdown").encode())
    return exit_codes.OK if any(record["figures"] for record in said) else exit_codes.TOO_LITTLE


def listed(output: str | None) -> int:
    """The cards and models that are known."""
    with cli.writing(output) as stream:
        for name in cards.names():
            card = cards.card(name)
            stream.write(f"{name:10}  {card.title:32} {predict.gib(card.memory_bytes):>10}  {card.basis}\n".encode())
        stream.write(("models: " + ", ".join(sorted(models.KNOWN)) + "\n").encode())
    return exit_codes.OK


def planned(table: str, named: Sequence[str], instead: dict[str, str | None]) -> list[dict[str, Any]]:
    """Cells of the table, on each of the cards named or on those of its column `card`; `instead` of its own
    settings."""
    text = cli.read_text(table)
    try:
        rows = sweeps.parse(text, table, sweeps.SIMULATED)
        if named:
            rows = [row | {"card": name} for name in named for row in rows]
        for row in rows:
            if not row.get("card"):
                raise failure.Failure(
                    f"'{table}' names no card", exit_codes.USAGE, f"add --card NAME: {', '.join(cards.names())}"
                )
            row |= {key: value for key, value in instead.items() if value is not None}
        return sweeps.cells(rows, sweeps.slug(Path(table).stem), more=sweeps.SIMULATED)
    except sweeps.BadSweep as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None


def lengths(cell: dict[str, Any], prompt_tokens: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Prompts' lengths, and their sources' answers where the set's manifest has all of them."""
    import numpy as np

    if prompt_tokens is not None:
        return np.array([prompt_tokens]), None
    where = Path(str(cell["load"]["prompts"]))
    try:
        entries = prompt_files.manifest(where)
    except (OSError, records.BadRecord):
        entries = []
    prompts = [outside.count(entry.get("tokens")) for entry in entries]
    if not prompts or None in prompts:
        raise failure.Failure(
            f"'{where}' has no manifest with token counts",
            exit_codes.USAGE,
            "llmpar-prompts writes one; or give --prompt-tokens N",
        )
    answers = [outside.count(entry.get("output_tokens")) for entry in entries]
    return np.array(prompts), np.array(answers) if all(answers) else None


def calibrated(cells: Sequence[dict[str, Any]]) -> list[cards.Card]:
    """The cards of the cells that are files of llmpar-calibrate; a file that cannot be read is said of its row."""
    files = sorted({name for cell in cells if (name := str(cell["server"]["card"])).endswith(".json")})
    readable = []
    for name in files:
        with contextlib.suppress(Refused):
            readable.append(cards.card(name))
    return readable


def measured(path: str, model: str | None, own_cards: Sequence[cards.Card]) -> given.Given:
    """The point of --given."""
    for record in cli.read_records((path,)):
        if record["kind"] == "summary":
            try:
                return given.of_summary(record, model, own_cards)
            except Refused as error:
                hint = "--model says which model it is" if isinstance(error, models.UnknownModel) else None
                raise failure.Failure(f"cannot use '{path}': {error}", exit_codes.USAGE, hint) from None
    raise records.BadRecord(f"no summary in '{path}'")


def orders(made: Sequence[tuple[dict[str, Any], predict.Prediction | None, dict[str, Any]]]) -> list[order.Order]:
    """Each pair of cells that differ in card and memory only."""
    done = [(cell, prediction) for cell, prediction, _ in made if prediction is not None]
    pairs = [
        (first, second)
        for place, first in enumerate(done)
        for second in done[place + 1 :]
        if order.comparable(first[1].scenario, second[1].scenario)
    ]
    several = len({first[0]["load"]["clients"] for first, _ in pairs}) > 1
    return [
        replace(
            order.compare((card_of(one), first), (card_of(other), second)),
            at=f"{one['load']['clients']} clients" if several else "",
        )
        for (one, first), (other, second) in pairs
    ]


def card_of(cell: dict[str, Any]) -> str:
    """A cell's card, with the memory that it may use where that is less."""
    return " ".join(filter(None, (str(cell["server"]["card"]), cell["server"].get("memory"))))


def written(folder: Path, cell: dict[str, Any], prediction: predict.Prediction) -> None:
    """cell.json, requests.jsonl, host.json and summary.json of a predicted cell."""
    where = folder / cell["id"]
    where.mkdir(parents=True, exist_ok=True)
    summariser = Summariser()
    for name, made in (
        ("cell.json", [cell]),
        ("host.json", [write.host(prediction)]),
        ("requests.jsonl", list(write.requests(prediction, cell))),
    ):
        read.feed_records(summariser, made)
        with cli.writing(str(where / name)) as stream:
            stream.writelines(map(records.encode, made))
    with cli.writing(str(where / "summary.json")) as stream:
        stream.write(records.encode(summariser.summary(version=cli.version())))


if __name__ == "__main__":
    main()
