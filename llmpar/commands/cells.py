"""llmpar-cells: a sweep table to cells."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from llmpar import cli, exit_codes, failure, records, sweep_folder, sweeps


@cli.command("llmpar-cells", common=("--repeats", "--seed", "--sweep", "--write", "--shell"))
@click.argument("table", type=click.Path())
@click.option(
    "--repeats",
    metavar="N",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Repeat whole server sessions N times, in shuffled order.",
)
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Seed of the shuffle.")
@click.option("--sweep", metavar="NAME", help="The sweep's name; default: the table's file name without its ending.")
@click.option(
    "--write",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Write DIR/<cell>/cell.json and DIR/cells.mk instead of records.",
)
@click.option("--shell", is_flag=True, help="TABLE is a cell.json or server.json: print shell assignments.")
def main(table: str, repeats: int, seed: int, sweep: str | None, folder: str | None, shell: bool) -> int:
    """Expand a sweep table (TSV with a header; a value may list alternatives) into cell records, in running order.

    \b
      llmpar-cells sweeps/quick.tsv | jq -r .id
      llmpar-cells sweeps/clients.tsv --repeats 3 --seed 1 --write runs/clients
      eval "$(llmpar-cells --shell runs/quick/c008/cell.json)"; echo "$load_clients"

    Reads TABLE (`-` for standard input). Writes one `cell` record a line. With --shell: settings of a cell as
    `server_*` and `load_*`, fields of a server record as `ran_*`.

    Exit status: 0 done; 2 a table that cannot be understood; 3 neither a cell nor a server record (with --shell).
    """
    text = cli.read_text(table)
    if shell:
        try:
            record = records.decode(text.encode())
        except records.BadRecord as error:
            raise records.BadRecord(f"cannot read '{table}': {error}") from None
        if record["kind"] not in ("cell", "server"):
            raise records.BadRecord(f"cannot read '{table}': a {record['kind']} record, not a cell or a server")
        wrong = sweeps.cell_fault(record) if record["kind"] == "cell" else None
        if wrong:
            raise records.BadRecord(f"cannot read '{table}': {wrong}")
        sys.stdout.write(cli.assignments(of_cell(record) if record["kind"] == "cell" else of_server(record)))
        return exit_codes.OK
    try:
        planned = sweeps.cells(sweeps.parse(text, table), sweep or sweeps.slug(Path(table).stem), repeats, seed)
    except sweeps.BadSweep as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None
    if folder:
        sweep_folder.write(planned, folder)
    else:
        for cell in planned:
            sys.stdout.buffer.write(records.encode(cell))
    return exit_codes.OK


def of_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Shell variables of a cell: `id`, `session`, `sweep`, `repeat`, `settings_sha256`, `server_*`, `load_*`."""
    names = ("id", "session", "sweep", "repeat", "settings_sha256")
    variables: dict[str, Any] = {name: cell.get(name) for name in names}
    variables |= {f"server_{key}": cell["server"].get(key) for key in sweeps.SERVER}
    return variables | {f"load_{key}": cell["load"].get(key) for key in sweeps.LOAD}


def of_server(server: dict[str, Any]) -> dict[str, Any]:
    """Shell variables of a server record: each field that holds one value as `ran_*`."""
    return {f"ran_{key}": value for key, value in server.items() if not isinstance(value, dict | list)}


if __name__ == "__main__":
    main()
