"""A space of candidates: the rows of a sweep table that differ in a server's settings, and the load they all get."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import Any

from llmpar import sweeps
from llmpar.search.best import Candidate, Next

# Columns that the search sets by itself.
OWN = ("clients", "count", "skip", "take", "rate", "until", "until_missed")
# Settings whose value alone says what it is of.
TELLING = ("engine", "dtype", "quantize", "engine_args")


def candidates(
    rows: Sequence[Mapping[str, Any]], name: str, prices: Mapping[str, float]
) -> tuple[list[Candidate], dict[str, Any]]:
    """One candidate for each set of server settings in the rows of table `name`, and the load. `prices`: of an hour, by
    a word of the settings, or under the empty name. Raises ValueError for rows that differ in their load."""
    loads = [{column: row[column] for column in sweeps.LOAD if column in row and column not in OWN} for row in rows]
    if other := next((load for load in loads if load != loads[0]), None):
        column = next(column for column in sweeps.LOAD if other.get(column) != loads[0].get(column))
        raise ValueError(
            f"'{name}' varies {column}: candidates may differ only in the server's settings; use one table for each "
            "load"
        )
    distinct: dict[str, dict[str, Any]] = {}
    for row in rows:
        server = {column: row[column] for column in sweeps.SERVER if column in row}
        server.setdefault("engine", sweeps.DEFAULTS["engine"])
        distinct.setdefault(json.dumps(server, sort_keys=True), server)
    servers = list(distinct.values())
    varying = [column for column in sweeps.SERVER if len({json.dumps(each.get(column)) for each in servers}) > 1]
    shared = _shared([str(server.get("engine_args") or "").split() for server in servers])
    found = []
    for number, server in enumerate(servers, 1):
        price = price_of(server, prices)
        found.append(Candidate(number, server, label_of(server, varying, shared), price_per_h=price))
    return found, loads[0]


def _shared(arguments: Sequence[list[str]]) -> int:
    """How many words, of whole options, all begin with."""
    count = len(commonprefix(arguments))
    while any(not word.startswith("-") for words in arguments for word in words[count : count + 1]):
        count -= 1
    return count


def label_of(server: Mapping[str, Any], varying: Sequence[str], shared: int = 0) -> str:
    """`vllm fp8 speculate=2`: the settings in which candidates differ. The first `shared` words of all their engine
    arguments are the same."""
    said = {column: server[column] for column in varying if server.get(column) is not None}
    if "engine_args" in said:
        said["engine_args"] = " ".join(str(said["engine_args"]).split()[shared:])
    words = [str(value) if column in TELLING else f"{column}={value}" for column, value in said.items() if value != ""]
    return " ".join(words) or str(server["engine"])


def price_of(server: Mapping[str, Any], prices: Mapping[str, float]) -> float | None:
    """What an hour of a candidate costs: the price whose name is in its settings, else the one without a name."""
    words = " ".join(str(value) for value in server.values())
    return next((amount for name, amount in prices.items() if name and name in words), prices.get(""))


def prompts_of(wanted: Next, count: int) -> dict[str, int]:
    """Which of `count` prompts a cell takes: rounds the first two thirds, in turn, and the final the rest, on which no
    choice was made."""
    held_out = count // 3
    if held_out < 2:
        return {}
    if wanted.held_out:
        return {"skip": count - held_out, "take": held_out}
    begin = wanted.skip % (count - held_out)
    if begin + wanted.count > count - held_out:
        begin = 0  # so many that are fresh there are not
    return {"skip": begin, "take": min(wanted.count, count - held_out - begin)}
