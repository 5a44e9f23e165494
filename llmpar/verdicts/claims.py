"""Claims: findings as cell selectors and an expected ratio, and what measured rows say of them.

A claim pairs every row that its selector `a` picks with every row that `b` picks and that agrees in all other settings,
the sweep and the host. Each pair's ratio of the metric, A over B, has an interval over server sessions. A claim over
several pairs is *supported* when every pair supports it (an intersection-union test, Berger 1982, which needs no
correction) and *contradicted* when some pair contradicts it with an interval widened for the number of pairs
(Bonferroni). Otherwise it *cannot tell*, or is *not run* where no pair exists.

A claim on speculation says nothing until one says how much is accepted. Where acceptance was forced, it *depends*: the
record holds the break-even acceptance length for each k and all that varies beside it, and what was measured at real
acceptance decides as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpar.results import hosts, rows, workload
from llmpar.results.rows import Row
from llmpar.stats import effects
from llmpar.stats.effects import MARGIN, Effect
from llmpar.verdicts import break_even, times
from llmpar.verdicts.claim_table import Claim, values_of
from llmpar.verdicts.noise import Noise

SUPPORTED, CONTRADICTED, CANNOT_TELL, NOT_RUN = "supported", "contradicted", "cannot tell", "not run"
DEPENDS = "depends"  # on the acceptance length
VERDICTS = (SUPPORTED, CONTRADICTED, DEPENDS, CANNOT_TELL, NOT_RUN)

# A run with more failed requests than this did other work than one without.


@dataclass
class Comparison:
    """One pair of rows under a claim."""

    a: rows.Row
    b: rows.Row
    effect: Effect | None
    outcome: str = CANNOT_TELL
    reasons: list[str] = field(default_factory=list)


def pairs(claim: Claim, rows: Sequence[rows.Row]) -> list[tuple[rows.Row, rows.Row]]:
    """All (a, b) that the claim compares."""
    anywhere = bool(claim.keys & {"gpu", "host"})
    # Only rows that share all other settings can stand against one another: thousands of cells have few such.
    alike: dict[Any, list[Row]] = {}
    place: dict[int, Any] = {}
    for row in rows:
        place[id(row)] = (_rest(row, claim.keys), () if anywhere else (row.sweep, row.host))
        alike.setdefault(place[id(row)], []).append(row)
    matched = []
    for a in rows:
        if not all(term.picks(a) for term in claim.a):
            continue
        for b in alike[place[id(a)]]:
            if b is a or not all(term.picks(b, a) for term in claim.b):
                continue
            # At a forced acceptance one pair says only what that length does: `curves` has them all.
            if "speculate" in claim.keys and (break_even.forced(a), break_even.forced(b)) != (None, None):
                continue
            matched.append((a, b))
    return matched


def evaluate(claim: Claim, rows: Sequence[rows.Row], noise: Noise | None = None) -> dict[str, Any]:
    """The claim record of docs/records.md for what the rows say. `noise`: of these rows, where it is there already."""
    matched = pairs(claim, rows)
    noise = noise or Noise(rows)
    made = [_compare(claim, a, b, len(matched), noise) for a, b in matched]
    outcomes = [one.outcome for one in made]
    curves = break_even.records(_curves(claim, rows))
    if curves and not {SUPPORTED, CONTRADICTED} & set(outcomes):
        verdict = DEPENDS
    elif not made:
        verdict = NOT_RUN
    elif CONTRADICTED in outcomes:
        verdict = CONTRADICTED
    elif all(outcome == SUPPORTED for outcome in outcomes):
        verdict = SUPPORTED
    else:
        verdict = CANNOT_TELL
    return {
        "kind": "claim",
        "v": 1,
        "id": claim.id,
        "sweep": claim.sweep,
        "sentence": claim.sentence,
        "verdict": verdict,
        "metric": claim.metric,
        "expect": claim.expect,
        "device": claim.device,
        "stated_ratio": claim.stated,
        "note": claim.note,
        "break_even": curves,
        "counts": {name: outcomes.count(name) for name in (SUPPORTED, CONTRADICTED, CANNOT_TELL)},
        "comparisons": [_record(claim, one) for one in made],
    }


def _curves(claim: Claim, rows: Sequence[rows.Row]) -> list[break_even.Curve]:
    """Curves of forced acceptance that bear on the claim: those of the k that side A names."""
    if "speculate" not in claim.keys:
        return []
    others = [term for term in claim.a if term.key != "speculate"]
    named = [term for term in claim.a if term.key == "speculate"]
    return [
        curve
        for curve in break_even.curves(rows)
        if named and all(term.picks(curve.rows[0]) for term in named) and all(term.picks(curve.base) for term in others)
    ]


def _compare(claim: Claim, a: rows.Row, b: rows.Row, count: int, noise: Noise) -> Comparison:
    comparison = Comparison(a, b, noise.effect(a, b, claim.metric))
    for row, side in ((a, "A"), (b, "B")):
        limited = [name for name in row.limited if claim.metric.startswith(name.removesuffix("_s"))]
        if limited:
            comparison.reasons.append(f"{side} is limited by the client: {', '.join(limited)}")
        share = row.failures / max(
            1, sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries)
        )
        if share > rows.MOST_FAILED:
            comparison.reasons.append(f"{share:.0%} of {side}'s requests failed")
    for words, given in (("prompt sets", workload.prompts), ("sampling", workload.asked)):
        if given is not workload.asked or "max_tokens" not in claim.keys:
            sides = [{given(summary) for summary in row.summaries} for row in (a, b)]
            if sides[0] != sides[1]:
                comparison.reasons.append(f"the {words} differ")
    if "speculate" in claim.keys and any(
        "load-format dummy" in str(row.settings.get("engine_args")).replace("=", " ") for row in (a, b)
    ):
        comparison.reasons.append(
            "random weights write what n-gram speculation guesses: its gain is not that of real text"
        )
    if comparison.effect is None:
        comparison.reasons.append(f"no {claim.metric} on one side or both")
    elif comparison.effect.low is None:
        counts = " and ".join(str(len(row.by_session(claim.metric))) for row in (a, b))
        comparison.reasons.append(f"{counts} server sessions: an interval needs 2 of each")
    elif not comparison.effect.method.endswith("paired-log") and (when := times.apart(a.summaries, b.summaries)):
        comparison.reasons.append(f"not measured side by side: {when}")
    if comparison.reasons:
        return comparison
    wide = noise.effect(a, b, claim.metric, confidence=1 - 0.05 / max(1, count))
    effect = comparison.effect
    assert effect is not None and effect.low is not None and effect.high is not None
    assert wide is not None and wide.low is not None and wide.high is not None
    same = claim.direction and effects.equivalent(effect)
    if same or wide.high <= claim.low or wide.low >= claim.high:
        comparison.outcome = CONTRADICTED
        if same:
            comparison.reasons.append(f"no difference beyond {MARGIN:.0%}")
    elif effect.low > claim.low and effect.high < claim.high:
        comparison.outcome = SUPPORTED
    else:
        comparison.reasons.append("the interval holds ratios on both sides of what is claimed")
    return comparison


def _record(claim: Claim, comparison: Comparison) -> dict[str, Any]:
    at = {key: value for key, value in comparison.a.varies.items() if key not in claim.keys and value is not None}
    at = {"engine": comparison.a.settings.get("engine"), "model": comparison.a.settings.get("model")} | at

    def side(row: rows.Row) -> dict[str, Any]:
        values = row.by_session(claim.metric)
        return {
            "settings": {key: values_of(row, key)[0] for key in sorted(claim.keys - {"device"})},
            "sweep": row.sweep,
            "cell": row.cell,
            "host": row.host,
            "device": hosts.hardware(row.summaries[0]),
            "sessions": len(values),
            "values": list(values.values()),
        }

    return {
        "at": {key: value for key, value in at.items() if value is not None},
        "a": side(comparison.a),
        "b": side(comparison.b),
        **effects.described(comparison.effect),
        "outcome": comparison.outcome,
        "reasons": comparison.reasons,
    }


def _rest(row: rows.Row, keys: set[str]) -> tuple[Any, ...]:
    """All settings but `keys`, 1 and 1.0 alike."""
    return tuple(
        (key, value if isinstance(value, int | float) else repr(value))
        for key, value in sorted(row.settings.items())
        if key not in keys
    )
