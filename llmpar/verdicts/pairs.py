"""Summaries to verdicts: which cells stand against which, whether they may be compared, and what to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from llmpar import sizes
from llmpar.results import hosts, rows, words

# Settings that follow from others or name things, not what the engine did.
IGNORED = ("timeout_s", "warmup", "host", "sampling_seed")


@dataclass
class Side:
    """One side of a pair: the summaries of its cell, by session."""

    label: str
    summaries: list[dict[str, Any]] = field(default_factory=list)

    def values(self, figure: str) -> dict[str, float]:
        """The figure in each server session that has it; see rows.by_session."""
        return rows.by_session(self.summaries, figure)

    def cells(self) -> list[str]:
        return sorted({str(summary["label"]) for summary in self.summaries if summary.get("label")})

    def needed(self, figure: str) -> int | None:
        """How many requests the figure would need, where it was refused."""
        counts = [rows.reading(summary, figure).needed for summary in self.summaries]
        return max((count for count in counts if count), default=None)


@dataclass
class Pair:
    """A contender, a baseline, and what they share that other pairs do not."""

    at: dict[str, Any]
    a: Side
    b: Side
    subject: tuple[str, ...]  # the settings that are compared
    follow: tuple[
        str, ...
    ] = ()  # settings that differ with them in all cells, and so leave the sides without a common one
    own: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # an engine's own settings, of A and of B


def settings(summary: dict[str, Any]) -> dict[str, Any]:
    """Settings that tell cells apart; without a cell, what the records say of themselves."""
    known = {key: value for key, value in rows.settings(summary).items() if key not in IGNORED}
    if not summary.get("cell"):
        known = {"engine": summary["workload"].get("engine"), "clients": summary["concurrency"].get("asked")}
    for key, value in known.items():
        if isinstance(value, list | dict):
            known[key] = str(value)
    return known


def against(contenders: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> list[Pair]:
    """Pairs of equal cells of two sets. Settings in which the sets as wholes differ are what is compared."""
    sides = [[settings(summary) for summary in summaries] for summaries in (contenders, baseline)]
    names = sorted({name for side in sides for cell_settings in side for name in cell_settings})
    subject = tuple(
        name for name in names if {own.get(name) for own in sides[0]} != {own.get(name) for own in sides[1]}
    )
    if (
        len({_key(cell_settings, ()) for cell_settings in sides[0]}) > 1
        or len({_key(cell_settings, ()) for cell_settings in sides[1]}) > 1
    ):
        # Sweeps of different extent are compared where they meet.
        subject = tuple(
            name for name in subject if not ({own.get(name) for own in sides[0]} & {own.get(name) for own in sides[1]})
        )
    cells: dict[tuple[Any, ...], Pair] = {}
    for place, (side, its_summaries) in enumerate(zip(sides, (contenders, baseline), strict=True)):
        for cell_settings, summary in zip(side, its_summaries, strict=True):
            key = _key(cell_settings, subject)
            if key not in cells:
                cells[key] = Pair(
                    {name: value for name, value in cell_settings.items() if name not in subject},
                    Side(""),
                    Side(""),
                    subject,
                )
            pair = cells[key]
            chosen = pair.b if place else pair.a
            chosen.label = chosen.label or _label(cell_settings, subject, "baseline" if place else "candidate")
            chosen.summaries.append(summary)
    return told_apart(list(cells.values()))


def by(summaries: list[dict[str, Any]], names: tuple[str, ...], base: str | None) -> list[Pair]:
    """Each value of one or more settings against the base value (the first seen unless told), cell by cell.

    An engine brings its own server settings (version, model, quantisation, flags): those of which each engine has one
    are compared with it, and are named. Raises ValueError for a setting that no cell has, and for a base value that is
    not there.
    """
    all_settings = [settings(summary) for summary in summaries]
    if "host" in names:  # what measured, as its record has it; the column of a table only says where a row belongs
        all_settings = [
            cell | {"host": hosts.where(summary)} for cell, summary in zip(all_settings, summaries, strict=True)
        ]
    _check(names, all_settings)
    values = [_label(cell, names, "unset") for cell in all_settings]
    follow = _following(all_settings, names, values)
    server = (
        {name for summary in summaries for name in (summary.get("cell") or {}).get("server") or {}}
        if "engine" in names
        else set()
    )
    brought = tuple(name for name in follow if name in server)
    subject, named = (*names, *brought), (*names, *(name for name in brought if name == "version"))
    groups: dict[tuple[Any, ...], dict[str, Side]] = {}
    shared: dict[tuple[Any, ...], dict[str, Any]] = {}
    first: dict[str, dict[str, Any]] = {}  # settings of each value's first cell
    for summary, cell, value in zip(summaries, all_settings, values, strict=True):
        first.setdefault(value, cell)
        key = _key(cell, subject)
        shared[key] = {name: setting for name, setting in cell.items() if name not in subject}
        groups.setdefault(key, {}).setdefault(value, Side(_label(cell, named, "unset"))).summaries.append(summary)
    if not first:
        return []
    chosen = base if base is not None else values[0]
    matching = next((value for value in first if value == chosen or chosen in value.replace(",", " ").split()), None)
    if matching is None:
        raise ValueError(f"no summary has the base value '{chosen}'; there are {', '.join(first)}")
    others = tuple(name for name in follow if name not in server)
    pairs = []
    for key, sides in groups.items():
        for value in first:
            if value != matching and value in sides:
                mine, its = first[value], first[matching]
                own = {
                    name: (mine.get(name), its.get(name))
                    for name in brought
                    if name not in named and mine.get(name) != its.get(name)
                }
                pairs.append(
                    Pair(
                        dict(shared[key]),
                        sides[value],
                        sides.get(matching, Side(_label(its, named, "unset"))),
                        subject,
                        others,
                        own,
                    )
                )
    return told_apart(pairs)


def _check(names: tuple[str, ...], all_settings: list[dict[str, Any]]) -> None:
    """Raises ValueError for a name that no cell has."""
    known = sorted({name for each in all_settings for name in each})
    for name in names:
        if all_settings and name not in known:
            vary = [key for key in known if len({str(each.get(key)) for each in all_settings}) > 1]
            close = get_close_matches(name.replace("-", "_"), known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            there = f"these differ: {', '.join(vary)}" if vary else f"there are: {', '.join(known)}, and none differs"
            raise ValueError(f"no cell has a setting '{name}'{hint} ({there})")


def _following(all_settings: list[dict[str, Any]], names: tuple[str, ...], values: list[str]) -> tuple[str, ...]:
    """Settings that follow from `names`, whose values in each cell are `values`: one for each of theirs, and not the
    same for all."""
    follow = []
    for name in sorted({name for own in all_settings for name in own} - set(names)):
        beside: dict[str, set[str]] = {}
        for value, own in zip(values, all_settings, strict=True):
            beside.setdefault(value, set()).add(str(own.get(name)))
        if all(len(own) == 1 for own in beside.values()) and len(set.union(*beside.values())) > 1:
            follow.append(name)
    return tuple(follow)


def _key(each: dict[str, Any], without: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(sorted(((name, str(value)) for name, value in each.items() if name not in without)))


def _label(each: dict[str, Any], subject: tuple[str, ...], otherwise: str) -> str:
    return ", ".join(words.setting_phrase(name, each.get(name)) for name in subject) if subject else otherwise


def told_apart(pairs: list[Pair]) -> list[Pair]:
    """Leave in `at` only what tells the pairs apart; `clients` always, since everybody asks for it; in that order."""
    names = {name for pair in pairs for name in pair.at}
    vary = {name for name in names if len({str(pair.at.get(name)) for pair in pairs}) > 1} | {"clients"}
    for pair in pairs:
        pair.at = {name: value for name, value in sorted(pair.at.items()) if name in vary and value is not None}
    return sorted(pairs, key=lambda pair: [(name, sizes.by_size(value)) for name, value in pair.at.items()])
