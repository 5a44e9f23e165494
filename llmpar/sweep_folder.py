"""The folder of a sweep's results: a cell.json in each cell's folder, cells.mk for make, what was measured there
before.

With the standard library alone: `python3 -m llmpar.sweep_folder` writes the included Makefile fragment before anything
is installed, so that `make -n` tells the truth on a fresh clone.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from llmpar import hostname, parts, sweeps
from llmpar.wording import shortened

# Cells that are not in the table any more. `runs/*/*/summary.json` does not reach into it, so no report reads them.
REMOVED = "removed"


def fragment(planned: list[dict[str, Any]]) -> str:
    """The Makefile fragment: CELLS and SESSIONS in running order, and the cells of each session."""
    sessions: dict[str, list[str]] = {}
    for cell in planned:
        sessions.setdefault(cell["session"], []).append(cell["id"])
    lines = [
        "# Made from the sweep's table by llmpar-cells; edit that instead.",
        "CELLS := " + " ".join(cell["id"] for cell in planned),
        "SESSIONS := " + " ".join(sessions),
    ]
    lines += [f"cells-of-{session} := {' '.join(ids)}" for session, ids in sessions.items()]
    return "\n".join(lines) + "\n"


def write(planned: list[dict[str, Any]], folder: str) -> None:
    """Write FOLDER/<cell>/cell.json and FOLDER/cells.mk.

    A cell.json whose settings did not change keeps its modification time, so that one edited row reruns one cell. A
    cell that left the table or whose settings changed moves to FOLDER/removed with all that was measured, and moves
    back when the table has it again. Raises BadSweep where that would disturb a session that is being measured.
    """
    _move(planned, folder)
    for cell in planned:
        path = os.path.join(folder, cell["id"], "cell.json")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        text = json.dumps(cell, separators=(",", ":")) + "\n"
        old = _read(path)
        if old == cell:
            continue
        same = old is not None and old.get("settings_sha256") == cell["settings_sha256"]
        kept = os.stat(path) if same else None
        _replace(path, text)
        if kept is not None:
            os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    _replace(os.path.join(folder, "cells.mk"), fragment(planned))


def _move(planned: list[dict[str, Any]], folder: str) -> None:
    """Put away the cells that the plan does not have, bring back those that it has again."""
    digests = {cell["settings_sha256"] for cell in planned}
    wanted = {cell["id"]: cell["settings_sha256"] for cell in planned}
    moves: list[tuple[str, str]] = []
    free = set(wanted)
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        place = os.path.join(folder, name)
        cell = _read(os.path.join(place, "cell.json"))
        if cell is None:
            continue
        digest = str(cell.get("settings_sha256"))
        # Further repeats stay: REPEATS says how many to measure, not how many to keep.
        if digest == wanted.get(name) or (name not in wanted and cell.get("repeat") != 1 and digest in digests):
            free.discard(name)
        elif os.listdir(place) == ["cell.json"]:  # nothing was measured
            os.remove(os.path.join(place, "cell.json"))
            os.rmdir(place)
        else:
            moves.append((name, os.path.join(REMOVED, _put_away(name, digest))))
    for name in sorted(free):
        away = os.path.join(REMOVED, _put_away(name, wanted[name]))
        if os.path.isdir(os.path.join(folder, away)):
            moves.append((away, name))
    if not moves:
        return
    with _no_session(folder):
        os.makedirs(os.path.join(folder, REMOVED), exist_ok=True)
        for source, target in moves:
            target = _unused(os.path.join(folder, target))
            os.rename(os.path.join(folder, source), target)


def _put_away(name: str, digest: str) -> str:
    return f"{name}-{digest[:12]}"


def _unused(path: str) -> str:
    """The path, with a number where it exists: nothing that was measured is overwritten."""
    number, unused = 1, path
    while os.path.exists(unused):
        number += 1
        unused = f"{path}.{number}"
    return unused


@contextlib.contextmanager
def _no_session(folder: str) -> Iterator[None]:
    """Holds the lock of scripts/run-session. Raises BadSweep while a session holds it."""
    with open(os.path.join(os.path.dirname(os.path.abspath(folder)), ".session.lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise sweeps.BadSweep(
                f"the table of '{folder}' changed while a session is being measured there; try again when it has ended"
            ) from None
        yield


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as stream:
            cell = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return None
    return cell if isinstance(cell, dict) else None


def _replace(path: str, text: str) -> None:
    parts.clear(path)
    part = parts.name(path)  # hosts may share the folder
    with open(part, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(part, path)


def measured(folder: str) -> str:
    """What is there already: `5 of 5 cells measured 14:24 on llamacpp gemma3-270m`; '' where nothing is.

    Raises BadSweep where a cell's requests name another engine, model or URL than the cell does.
    """
    with open(os.path.join(folder, "cells.mk"), encoding="utf-8", errors="replace") as stream:
        names = next((line for line in stream if line.startswith("CELLS := ")), "").split()[2:]
    times: list[float] = []
    servers: dict[str, None] = {}
    hosts: dict[str, None] = {}
    for name in names:
        path = os.path.join(folder, name, "requests.jsonl")
        cell = _read(os.path.join(folder, name, "cell.json"))
        try:
            made = os.stat(path).st_mtime
            with open(path, encoding="utf-8", errors="replace") as stream:
                first = json.loads(stream.readline() or "{}")
        except (OSError, ValueError, RecursionError):
            continue
        # A cell.json that is none of ours: make measures the cell anew, as it does where it is younger.
        if (
            cell is None
            or sweeps.cell_fault(cell)
            or not isinstance(first, dict)
            or made < os.stat(os.path.join(folder, name, "cell.json")).st_mtime
        ):
            continue
        server, running = cell["server"], "base_url" in cell["server"]
        for key in ("engine", "model", "base_url") if running else ("engine",):
            wanted, was = server.get(key), first.get(key)
            if was is not None and wanted is not None and str(was).rstrip("/") != wanted:
                raise sweeps.BadSweep(
                    f"cell '{name}' in '{folder}' was measured with {key} {was}, not {wanted}, so it is not reused; "
                    "move that folder away, or let `make clean-run` delete the results of this sweep"
                )
        times.append(made)
        model = str(server.get("model") or first.get("model") or "").rsplit("/", 1)[-1]
        where = f" at {server['base_url']}" if running else ""
        servers[f"{server.get('engine')} {model}".strip() + where] = None
        host = _host(folder, name)
        if host:
            hosts[host] = None
    if not times:
        return ""
    when = _when(min(times))
    if _when(max(times)) != when:
        when += f" to {_when(max(times))}"
    # Another host's results are not this one's.
    there = f" (host {', '.join(hosts)})" if hosts and set(hosts) != {hostname.name()} else ""
    return f"{len(times)} of {len(names)} cells measured {when} on {shortened(list(servers), 3)}{there}"


def _host(folder: str, cell: str) -> str:
    """The host on which a cell's server ran, by the record of that start; '' where there is none."""
    try:
        with open(os.path.join(folder, cell, "started"), encoding="utf-8") as stream:
            started = stream.read().strip()
    except (OSError, ValueError):
        return ""
    return str((_read(os.path.join(folder, started, "host.json")) or {}).get("host") or "")


def _when(instant: float) -> str:
    """The time of day in this machine's zone; the date before it where it is another day."""
    at = datetime.datetime.fromtimestamp(instant)
    return at.strftime("%H:%M" if at.date() == datetime.date.today() else "%Y-%m-%d %H:%M")


def nearest(name: str, tables: list[str]) -> str:
    """What to say of a table that is not there, with the names that it may be a slip for."""
    close = difflib.get_close_matches(name, tables, 3, 0.6)
    there = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(tables)}"
    return f"no table '{name}'; {there} SWEEP may also be the path of a table"


def main(arguments: list[str]) -> int:
    """What the Makefile calls before anything is installed: plan a sweep, or say what of it is measured.

    TABLE SWEEP FOLDER REPEATS SEED, or --measured FOLDER, or --nearest NAME TABLE... LLMPAR_RUNNING, LLMPAR_ENGINE,
    LLMPAR_MODEL and LLMPAR_API name a server that already runs; in the server session of a launched one the last three
    are its own. LAUNCHER overrides the column of that name.
    """
    if arguments[0] == "--nearest":
        print(nearest(arguments[1], arguments[2:]))
        return 0
    if arguments[0] == "--measured":
        try:
            there = measured(arguments[1])
        except (OSError, ValueError) as error:
            sys.stderr.write(f"llmpar-cells: {error}\n")
            return 2
        if there:
            sys.stderr.write(f"{there}\n")
        return 0
    table, sweep, folder, repeats, seed = arguments
    base_url = os.environ.get("LLMPAR_RUNNING", "")
    launched = not base_url and "LLMPAR_IN_SESSION" in os.environ
    target = ["" if launched else os.environ.get(f"LLMPAR_{name}", "") for name in ("ENGINE", "MODEL", "API")]
    try:
        if not repeats.isdecimal() or int(repeats) < 1:
            raise sweeps.BadSweep(f"REPEATS is '{repeats}', not a whole number from 1 on")
        if not seed.removeprefix("-").isdecimal():
            raise sweeps.BadSweep(f"SEED is '{seed}', not a whole number")
        running = sweeps.Running.named(base_url, *target)
        with open(table, encoding="utf-8") as stream:
            rows = sweeps.parse(stream.read(), table)
        if launcher := os.environ.get("LAUNCHER"):
            rows = sweeps.with_launcher(rows, launcher)
        write(sweeps.cells(rows, sweep, int(repeats), int(seed), running), folder)
    except OSError as error:
        sys.stderr.write(
            f"llmpar-cells: cannot read '{table}': {error.strerror}\n  SWEEP names a file sweeps/NAME.tsv\n"
        )
        return 2
    except ValueError as error:
        sys.stderr.write(f"llmpar-cells: {error}\n")
        return 2
    dropped = sweeps.launch_settings(rows) if running else {}
    if running and dropped:
        sys.stderr.write(
            f"llmpar-cells: the server at {running.base_url} is used as it runs; of the table these settings do not "
            "count: "
            f"{', '.join(f'{key} {value}' for key, value in dropped.items())}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
