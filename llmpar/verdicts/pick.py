"""Which cells meet objectives, what a million output tokens costs there, and which are on the Pareto front.

A cell is *ranked* when every objective's figure is known and met, the client did not limit its figures and at most 1 %
of its requests failed. The order is by cost where every ranked cell has a price, else by output tokens per second. A
cell is on the front when no other ranked cell is at least as good in everything that all of them have measured and
better in something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpar.results import rows
from llmpar.stats import effects
from llmpar.verdicts.claims import MOST_FAILURES
from llmpar.verdicts.noise import Noise

RATE = "output_tokens_per_s"
# What the front is drawn over, besides cost or rate, where every ranked cell has it.
TRADED = ("ttft_p95_s", "tpot_p95_s", "memory_bytes")


@dataclass
class Choice:
    """One cell judged. `reasons` is empty for a ranked one; `unknown` when what is missing, not what was measured, bars it."""

    row: rows.Row
    reasons: list[str] = field(default_factory=list)
    unknown: bool = False
    edge: list[str] = field(default_factory=list)
    price_per_h: float | None = None
    cost: rows.Figure = rows.Figure(None)
    front: bool = False
    against_best: effects.Effect | None = None

    @property
    def ranked(self) -> bool:
        return not self.reasons


def judge(
    rows: Sequence[rows.Row], objectives: Mapping[str, float], prices: Mapping[str, float], sure: bool = False
) -> list[Choice]:
    """Ranked cells first, best first, then the others in the order given.

    `objectives`: metric to the most it may be. `prices`: name to a price per hour, see `price`. With `sure` the upper
    end of each figure's interval must meet the objective too.
    """
    choices = [_judge(row, objectives, prices, sure) for row in rows]
    ranked = [choice for choice in choices if choice.ranked]
    priced = bool(ranked) and all(choice.cost.value is not None for choice in ranked)
    ranked.sort(key=lambda choice: _of(choice.cost) if priced else -_of(choice.row.figure(RATE)))
    _front(ranked, priced)
    noise = Noise(rows)
    for choice in ranked[1:]:
        choice.against_best = noise.effect(choice.row, ranked[0].row, RATE)
    return ranked + [choice for choice in choices if not choice.ranked]


def _judge(row: rows.Row, objectives: Mapping[str, float], prices: Mapping[str, float], sure: bool) -> Choice:
    choice = Choice(row)
    if row.figure(RATE).value is None:
        choice.unknown = True
        choice.reasons.append("no output tokens per second")
    if row.limited:
        choice.reasons.append(f"limited by the client: {', '.join(row.limited)}")
    requests = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries)
    if requests and row.failures / requests > MOST_FAILURES:
        choice.reasons.append(f"{row.failures} of {requests} requests failed")
    missed = False
    for metric, most in objectives.items():
        one = row.figure(metric)
        if one.value is None:
            choice.unknown = True
            choice.reasons.append(f"{metric} {f'needs {one.needed} values' if one.needed else 'was not measured'}")
        elif one.value > most or sure and (one.high is None or one.high > most):
            over = one.value if one.value > most else one.high
            choice.reasons.append(f"{metric} is {over:.4g}, above {most:.4g}" if over else f"{metric} has no interval")
            missed = missed or one.value > most
        elif one.high is None or one.high > most:
            choice.edge.append(metric)
    # One objective missed settles it, whatever is not known of the others.
    choice.unknown = choice.unknown and not missed
    choice.price_per_h = price(row, prices)
    if choice.price_per_h is not None:
        rate = row.figure(RATE)
        choice.cost = rows.Figure(
            _cost(choice.price_per_h, rate.value),
            _cost(choice.price_per_h, rate.high),
            _cost(choice.price_per_h, rate.low),
            rate.sessions,
        )
    return choice


def price(row: rows.Row, prices: Mapping[str, float]) -> float | None:
    """The price of an hour of what a cell ran on.

    A name that is the host's is the price of the whole host; a name contained in a GPU's is the price of one such GPU,
    times those the cell used (its `gpus`, else shards times replicas); the empty name is the price of any cell.
    """
    for name, amount in prices.items():
        if name and name == row.host:
            return amount
    for name, amount in prices.items():
        if name and any(name.lower() in gpu.lower() for gpu in rows.gpus_of(row.summaries[0])):
            given = str(row.settings.get("gpus") or "")
            count = (
                len(given.split(","))
                if given and given != "all"
                else int(row.settings["shards"]) * int(row.settings["replicas"])
            )
            return amount * count
    return prices.get("")


def _cost(price_per_h: float, rate: float | None) -> float | None:
    """Price of a million output tokens: price an hour / 3600 / (tokens a second) * 1e6."""
    return price_per_h / 3600 / rate * 1e6 if rate else None


def _front(ranked: Sequence[Choice], priced: bool) -> None:
    traded = [metric for metric in TRADED if all(choice.row.figure(metric).value is not None for choice in ranked)]

    def costs(choice: Choice) -> tuple[float, ...]:
        first = _of(choice.cost) if priced else -_of(choice.row.figure(RATE))
        return (first, *(_of(choice.row.figure(metric)) for metric in traded))

    points = [costs(choice) for choice in ranked]
    for choice, point in zip(ranked, points, strict=True):
        choice.front = not any(
            other != point and all(left <= right for left, right in zip(other, point, strict=True)) for other in points
        )


def record(choice: Choice, place: int | None) -> dict[str, Any]:
    """The pick record of docs/records.md."""
    figures = {metric: _plain(choice.row.figure(metric)) for metric in (RATE, "wall_s", *TRADED)}
    against = choice.against_best
    return {
        "kind": "pick",
        "v": 1,
        "place": place,
        "sweep": choice.row.sweep,
        "cell": choice.row.cell,
        "host": choice.row.host,
        "settings": choice.row.settings,
        "figures": figures,
        "price_per_h": choice.price_per_h,
        "cost_per_million_output_tokens": _plain(choice.cost),
        "pareto": choice.front,
        "edge": choice.edge,
        "reasons": choice.reasons,
        "against_best": None if against is None else effects.described(against),
    }


def _plain(one: rows.Figure) -> dict[str, Any]:
    return {"value": one.value, "low": one.low, "high": one.high, "sessions": one.sessions}


def _of(one: rows.Figure) -> float:
    assert one.value is not None
    return one.value
