"""The table of claims: its columns, and one row parsed to a Claim."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpar import sizes
from llmpar.outside import printable
from llmpar.results import hosts, rows

COLUMNS = ("id", "sweep", "sentence", "metric", "a", "b", "expect", "stated", "note")


class BadClaims(ValueError):
    """A claims table that cannot be understood; the text names file, line and column."""


def default_table() -> Path | None:
    """study/claims.tsv of the checkout, or the copy in an installed package; None where there is neither."""
    package = Path(__file__).resolve().parents[1]
    places = (folder / "study" / "claims.tsv" for folder in (package.parent, package / "share"))
    return next((place for place in places if place.exists()), None)


@dataclass(frozen=True)
class Term:
    """One condition of a selector: `key=1,2`, `key!=x`, `key~part`, `key=*`, `key=-`, `key=0.5x`."""

    key: str
    operator: str
    values: tuple[str, ...]

    def picks(self, row: rows.Row, other: rows.Row | None = None) -> bool:
        """Whether the row meets the term; `other` is the A row that a term like `0.5x` refers to."""
        values = [_text(value) for value in values_of(row, self.key)]
        if self.operator == "~":
            return any(value.lower() in one.lower() for one in values for value in self.values)
        if self.operator == "!=":
            return not any(one in self.values for one in values)
        for value in self.values:
            if value == "*" and any(values) or value == "-" and not any(values) or value in values:
                return True
            factor = re.fullmatch(r"([0-9.]+)x", value)
            if factor and other is not None:
                mine, theirs = (sizes.quantity(values_of(one, self.key)[0]) for one in (row, other))
                if mine and theirs and math.isclose(mine, float(factor[1]) * theirs, rel_tol=0.02):
                    return True
        return False


@dataclass(frozen=True)
class Claim:
    """One line of the table. `low`, `high`: the ratio A over B that is claimed lies between them."""

    id: str
    sweep: str
    sentence: str
    metric: str
    a: tuple[Term, ...]
    b: tuple[Term, ...]
    expect: str
    low: float
    high: float
    stated: float | None
    note: str

    @property
    def direction(self) -> bool:
        """Whether it only says which is less; such a claim wants a difference of practical meaning."""
        return 1.0 in (self.low, self.high) and (self.low == 0 or math.isinf(self.high))

    @property
    def device(self) -> str | None:
        """`gpu` or `cpu` where only results from there count."""
        named = {value for term in (*self.a, *self.b) if term.key == "device" for value in term.values}
        return (
            "gpu" if any(term.key == "gpu" for term in (*self.a, *self.b)) else named.pop() if len(named) == 1 else None
        )

    @property
    def keys(self) -> set[str]:
        return {term.key for term in (*self.a, *self.b)}


def parse(text: str, name: str) -> list[Claim]:
    """Claims of a TSV with the header COLUMNS; `#` begins a comment line. Raises BadClaims."""
    header: list[str] | None = None
    claims: list[Claim] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [printable(cell.strip()) for cell in line.split("\t")]
        if header is None:
            header = cells
            missing = [column for column in COLUMNS if column not in header]
            if missing:
                raise BadClaims(f"'{name}' line {number}: no column {missing[0]}; columns are separated by tabs")
            continue
        if len(cells) != len(header):
            raise BadClaims(f"'{name}' line {number}: {len(cells)} values under {len(header)} columns")
        values = dict(zip(header, cells, strict=True))
        try:
            claims.append(_claim(values))
        except (ValueError, KeyError) as error:
            raise BadClaims(f"'{name}' line {number}: {error.args[0]}") from None
        if [claim.id for claim in claims].count(values["id"]) > 1:
            raise BadClaims(f"'{name}' line {number}: the claim '{values['id']}' appears twice")
    if not claims:
        raise BadClaims(f"'{name}' holds no claims")
    return claims


def _claim(values: dict[str, str]) -> Claim:
    try:
        rows.path(values["metric"])
    except KeyError:
        raise ValueError(f"unknown metric '{values['metric']}'") from None
    low, high = expected(values["expect"])
    try:
        stated = None if values["stated"] in ("", "-") else float(values["stated"])
    except ValueError:
        raise ValueError(f"stated is '{values['stated']}', not a ratio") from None
    return Claim(
        values["id"],
        values["sweep"],
        values["sentence"],
        values["metric"],
        selector(values["a"]),
        selector(values["b"]),
        values["expect"],
        low,
        high,
        stated,
        values["note"],
    )


def selector(text: str) -> tuple[Term, ...]:
    """Terms separated by spaces. Raises ValueError."""
    terms = []
    for word in text.split():
        match = re.fullmatch(r"([a-z_]+)(!=|=|~)(.+)", word)
        if match is None:
            raise ValueError(f"'{word}' is not KEY=VALUE, KEY!=VALUE or KEY~PART")
        terms.append(Term(match[1], match[2], tuple(match[3].split(","))))
    if not terms:
        raise ValueError("a selector is empty")
    return tuple(terms)


def expected(text: str) -> tuple[float, float]:
    """The claimed range of the ratio A over B: `A<B`, `A>B`, `A/B in 0.5..1`, `A/B >= 0.9`, `A/B <= 1.1`. Raises
    ValueError."""
    if text == "A<B":
        return 0.0, 1.0
    if text == "A>B":
        return 1.0, math.inf
    match = re.fullmatch(r"A/B in ([0-9.]+)\.\.([0-9.]+)", text)
    if match and float(match[1]) < float(match[2]):
        return float(match[1]), float(match[2])
    match = re.fullmatch(r"A/B (>=|<=) ([0-9.]+)", text)
    if match:
        return (float(match[2]), math.inf) if match[1] == ">=" else (0.0, float(match[2]))
    raise ValueError(f"expect is '{text}', not A<B, A>B, A/B in LOW..HIGH, A/B >= X or A/B <= X")


def values_of(row: rows.Row, key: str) -> list[Any]:
    if key == "sweep":
        return [row.sweep]
    if key == "host":
        return [row.host]
    if key == "gpu":
        return hosts.gpus_of(row.summaries[0]) or [None]
    if key == "device":
        return [hosts.device(row.summaries[0])]
    return [row.settings.get(key)]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
