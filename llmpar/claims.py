"""Claims: findings as cell selectors and an expected ratio, and what measured rows say of them.

A claim pairs every row that its selector `a` picks with every row that `b` picks and that agrees in all other settings,
the sweep and the host. Each pair's ratio of the metric, A over B, has an interval over server sessions. A claim over
several pairs is *supported* when every pair supports it (an intersection-union test, Berger 1982, which needs no
correction) and *contradicted* when some pair contradicts it with an interval widened for the number of pairs
(Bonferroni). Otherwise it *cannot tell*, or is *not run* where no pair exists.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpar import series, workload
from llmpar.compare import MARGIN
from llmpar.ratio import Ratio, ratio

SUPPORTED, CONTRADICTED, CANNOT_TELL, NOT_RUN = "supported", "contradicted", "cannot tell", "not run"
COLUMNS = ("id", "sweep", "sentence", "metric", "a", "b", "expect", "stated", "note")
# A run with more failed requests than this did other work than one without.
MOST_FAILURES = 0.01


class BadClaims(ValueError):
    """A claims table that cannot be understood; the text names file, line and column."""


def default_table() -> Path | None:
    """study/claims.tsv of the checkout, or the copy in an installed package; None where there is neither."""
    package = Path(__file__).resolve().parent
    return next((path for path in (package.parent / "study" / "claims.tsv", package / "claims.tsv") if path.exists()), None)


@dataclass(frozen=True)
class Term:
    """One condition of a selector: `key=1,2`, `key!=x`, `key~part`, `key=*`, `key=-`, `key=0.5x`."""

    key: str
    operator: str
    values: tuple[str, ...]

    def picks(self, row: series.Row, other: series.Row | None = None) -> bool:
        """Whether the row meets the term; `other` is the A row that a term like `0.5x` refers to."""
        found = [_text(value) for value in _values(row, self.key)]
        if self.operator == "~":
            return any(value.lower() in one.lower() for one in found for value in self.values)
        if self.operator == "!=":
            return not any(one in self.values for one in found)
        for value in self.values:
            if value == "*" and any(found) or value == "-" and not any(found) or value in found:
                return True
            factor = re.fullmatch(r"([0-9.]+)x", value)
            if factor and other is not None:
                mine, theirs = (series.quantity(_values(one, self.key)[0]) for one in (row, other))
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
        return "gpu" if any(term.key == "gpu" for term in (*self.a, *self.b)) else named.pop() if len(named) == 1 else None

    @property
    def keys(self) -> set[str]:
        return {term.key for term in (*self.a, *self.b)}


@dataclass
class Comparison:
    """One pair of rows under a claim."""

    a: series.Row
    b: series.Row
    effect: Ratio
    outcome: str = CANNOT_TELL
    reasons: list[str] = field(default_factory=list)


def parse(text: str, name: str) -> list[Claim]:
    """Claims of a TSV with the header COLUMNS; `#` begins a comment line. Raises BadClaims."""
    header: list[str] | None = None
    claims: list[Claim] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
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
            raise BadClaims(f"'{name}' line {number}: the claim '{values['id']}' stands twice")
    if not claims:
        raise BadClaims(f"'{name}' holds no claims")
    return claims


def _claim(values: dict[str, str]) -> Claim:
    try:
        series.path(values["metric"])
    except KeyError:
        raise ValueError(f"unknown metric '{values['metric']}'") from None
    low, high = expected(values["expect"])
    try:
        stated = None if values["stated"] in ("", "-") else float(values["stated"])
    except ValueError:
        raise ValueError(f"stated is '{values['stated']}', not a ratio") from None
    return Claim(values["id"], values["sweep"], values["sentence"], values["metric"], selector(values["a"]), selector(values["b"]),
                 values["expect"], low, high, stated, values["note"])  # fmt: skip


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
    """The claimed range of the ratio A over B: `A<B`, `A>B`, `A/B in 0.5..1`, `A/B >= 0.9`, `A/B <= 1.1`. Raises ValueError."""
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


def pairs(claim: Claim, rows: Sequence[series.Row]) -> list[tuple[series.Row, series.Row]]:
    """All (a, b) that the claim compares."""
    anywhere = bool(claim.keys & {"gpu", "host"})
    found = []
    for a in rows:
        if not all(term.picks(a) for term in claim.a):
            continue
        for b in rows:
            if b is a or not all(term.picks(b, a) for term in claim.b):
                continue
            if not anywhere and (a.sweep != b.sweep or a.host != b.host):
                continue
            if _rest(a, claim.keys) == _rest(b, claim.keys):
                found.append((a, b))
    return found


def evaluate(claim: Claim, rows: Sequence[series.Row]) -> dict[str, Any]:
    """The claim record of docs/records.md for what the rows say."""
    matched = pairs(claim, rows)
    made = [_compare(claim, a, b, len(matched)) for a, b in matched]
    outcomes = [one.outcome for one in made]
    if not made:
        verdict = NOT_RUN
    elif CONTRADICTED in outcomes:
        verdict = CONTRADICTED
    elif all(outcome == SUPPORTED for outcome in outcomes):
        verdict = SUPPORTED
    else:
        verdict = CANNOT_TELL
    return {
        "kind": "claim", "v": 1, "id": claim.id, "sweep": claim.sweep, "sentence": claim.sentence, "verdict": verdict, "metric": claim.metric,
        "expect": claim.expect, "device": claim.device, "stated_ratio": claim.stated, "note": claim.note,
        "counts": {name: outcomes.count(name) for name in (SUPPORTED, CONTRADICTED, CANNOT_TELL)},
        "comparisons": [_record(claim, one) for one in made],
    }  # fmt: skip


def _compare(claim: Claim, a: series.Row, b: series.Row, count: int) -> Comparison:
    one = Comparison(a, b, ratio(a.by_session(claim.metric), b.by_session(claim.metric)))
    for row, side in ((a, "A"), (b, "B")):
        limited = [name for name in row.limited if claim.metric.startswith(name.removesuffix("_s"))]
        if limited:
            one.reasons.append(f"{side} is limited by the client: {', '.join(limited)}")
        share = row.failures / max(1, sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries))
        if share > MOST_FAILURES:
            one.reasons.append(f"{share:.0%} of {side}'s requests failed")
    for words, given in (("prompt sets", workload.prompts), ("sampling", workload.asked)):
        if given is not workload.asked or "max_tokens" not in claim.keys:
            sides = [{given(summary) for summary in row.summaries} for row in (a, b)]
            if sides[0] != sides[1]:
                one.reasons.append(f"the {words} differ")
    if "speculate" in claim.keys and any("load-format dummy" in str(row.settings.get("engine_args")).replace("=", " ") for row in (a, b)):
        one.reasons.append("random weights write what n-gram speculation guesses: its gain is not that of real text")
    if one.effect.ratio is None:
        one.reasons.append(f"no {claim.metric} on one side or both")
    elif one.effect.low is None:
        one.reasons.append(f"{one.effect.sessions_a} and {one.effect.sessions_b} server sessions: an interval needs 2 of each")
    if one.reasons:
        return one
    wide = ratio(a.by_session(claim.metric), b.by_session(claim.metric), 1 - 0.05 / max(1, count))
    effect = one.effect
    assert effect.low is not None and effect.high is not None and wide.low is not None and wide.high is not None
    same = claim.direction and effect.same
    if same or wide.high <= claim.low or wide.low >= claim.high:
        one.outcome = CONTRADICTED
        if same:
            one.reasons.append(f"no difference beyond {MARGIN:.0%}")
    elif effect.low > claim.low and effect.high < claim.high:
        one.outcome = SUPPORTED
    else:
        one.reasons.append("the interval holds ratios on both sides of what is claimed")
    return one


def _record(claim: Claim, one: Comparison) -> dict[str, Any]:
    at = {key: value for key, value in one.a.varies.items() if key not in claim.keys and value is not None}
    at = {"engine": one.a.settings.get("engine"), "model": one.a.settings.get("model")} | at

    def side(row: series.Row) -> dict[str, Any]:
        values = row.by_session(claim.metric)
        return {"settings": {key: _values(row, key)[0] for key in sorted(claim.keys - {"device"})}, "sweep": row.sweep, "cell": row.cell,
                "host": row.host, "device": series.hardware(row.summaries[0]), "sessions": len(values), "values": list(values.values())}  # fmt: skip

    return {"at": {key: value for key, value in at.items() if value is not None}, "a": side(one.a), "b": side(one.b),
            "ratio": one.effect.ratio, "low": one.effect.low, "high": one.effect.high, "method": one.effect.method,
            "outcome": one.outcome, "reasons": one.reasons}  # fmt: skip


def _values(row: series.Row, key: str) -> list[Any]:
    if key == "sweep":
        return [row.sweep]
    if key == "host":
        return [row.host]
    if key == "gpu":
        return series.gpus_of(row.summaries[0]) or [None]
    if key == "device":
        return [series.device(row.summaries[0])]
    return [row.settings.get(key)]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _rest(row: series.Row, keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in row.settings.items() if key not in keys}
