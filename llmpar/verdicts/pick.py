"""Which cells meet objectives, what a million output tokens costs there, and which are on the Pareto front.

A cell *meets* where every objective is shown to be met (verdicts.objectives), *misses* where one is shown to be missed
or over 1% of its requests failed, and else the data *cannot tell*; nor can they where the client limited its figures.
Cells that meet are ranked, by cost where each of them has a price, else by output tokens per second. A cell is on the
front when no other ranked cell is at least as good in everything that all of them have measured and better in
something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpar.results import hosts, rows
from llmpar.stats import best_of, effects
from llmpar.verdicts import objectives, times
from llmpar.verdicts.noise import Noise
from llmpar.verdicts.objectives import MEETS, MISSES, UNKNOWN

RATE = "output_tokens_per_s"
# What the front is drawn over, besides cost or rate, where every ranked cell has it.
TRADED = ("ttft_p95_s", "tpot_p95_s", "memory_bytes")


@dataclass
class Choice:
    """One cell judged: `state` is one of objectives' MEETS, MISSES, UNKNOWN, `reasons` says why it is not the first.

    `edge`: objectives that its figures are within, though that is not certain. `of_best`: the interval of its rate over
    the best one's among the ranked cells, whichever that is (stats.best_of); `against_best`: its rate over the first's.
    """

    row: rows.Row
    state: str = MEETS
    reasons: list[str] = field(default_factory=list)
    edge: list[str] = field(default_factory=list)
    price_per_h: float | None = None
    cost: rows.Figure = rows.Figure(None)
    front: bool = False
    against_best: effects.Effect | None = None
    of_best: tuple[float, float] | None = None

    @property
    def ranked(self) -> bool:
        return self.state == MEETS


def judge(given: Sequence[rows.Row], objectives: Mapping[str, float], prices: Mapping[str, float]) -> list[Choice]:
    """Ranked cells first, best first, then the others in the order given.

    `objectives`: metric to the most it may be. `prices`: name to a price per hour, see `price`.
    """
    choices = [_judge(row, objectives, prices) for row in given]
    ranked = [choice for choice in choices if choice.ranked]
    priced = bool(ranked) and all(choice.cost.value is not None for choice in ranked)
    ranked.sort(key=lambda choice: _of(choice.cost) if priced else -_of(choice.row.figure(RATE)))
    _front(ranked, priced)
    noise = Noise(given)
    for choice in ranked[1:]:
        choice.against_best = noise.effect(choice.row, ranked[0].row, RATE)
    # Only pairs of several sessions each have an interval; thousands of cells make millions of pairs.
    several = [len(rows.by_session(choice.row.summaries, RATE)) > 1 for choice in ranked]
    ends = best_of.of_best(
        len(ranked),
        lambda i, j, level: (
            noise.effect(ranked[i].row, ranked[j].row, RATE, confidence=level) if several[i] and several[j] else None
        ),
    )
    for choice, interval in zip(ranked, ends, strict=True):
        choice.of_best = interval
    return ranked + [choice for choice in choices if not choice.ranked]


def _judge(row: rows.Row, wanted: Mapping[str, float], prices: Mapping[str, float]) -> Choice:
    choice = Choice(row)
    if row.figure(RATE).value is None:
        choice.state = UNKNOWN
        choice.reasons.append("no output tokens per second")
    if row.limited:
        choice.state = UNKNOWN
        choice.reasons.append(f"limited by the client: {', '.join(row.limited)}")
    judged = {metric: objectives.judge(row, metric, most) for metric, most in wanted.items()}
    choice.reasons += [one.reason for one in judged.values() if one.reason]
    choice.edge = [metric for metric, one in judged.items() if one.state == UNKNOWN and one.within]
    states = {one.state for one in judged.values()}
    requests = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries)
    if requests and row.failures / requests > rows.MOST_FAILED:
        choice.reasons.append(f"{row.failures} of {requests} requests failed")
        states.add(MISSES)
    # One objective missed settles it, whatever is not known of the others.
    if MISSES in states:
        choice.state = MISSES
    elif UNKNOWN in states:
        choice.state = UNKNOWN
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
        if name and (name == row.host or row.host.startswith(f"{name} (")):
            return amount
    for name, amount in prices.items():
        if name and any(name.lower() in gpu.lower() for gpu in hosts.gpus_of(row.summaries[0])):
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


def measured_apart(ranked: Sequence[Choice]) -> str | None:
    """When the first and the cell furthest from it in time were measured, where that was not side by side."""
    found = (times.apart(choice.row.summaries, ranked[0].row.summaries) for choice in ranked[1:])
    return next((when for when in found if when), None)


def record(choice: Choice, place: int | None) -> dict[str, Any]:
    """The pick record of docs/records.md."""
    figures = {metric: _plain(choice.row.figure(metric)) for metric in (RATE, "wall_s", *TRADED)}
    against = choice.against_best
    return {
        "kind": "pick",
        "v": 1,
        "place": place,
        "state": choice.state,
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
        "of_best": None if choice.of_best is None else {"low": choice.of_best[0], "high": choice.of_best[1]},
        "against_best": None if against is None else effects.described(against),
    }


def _plain(one: rows.Figure) -> dict[str, Any]:
    return {"value": one.value, "low": one.low, "high": one.high, "sessions": one.sessions}


def _of(one: rows.Figure) -> float:
    assert one.value is not None
    return one.value
