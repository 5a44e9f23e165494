"""How much load a server takes before more of it only waits: the knee of a sweep over clients, or over arrival
rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmpar.results import rows, words
from llmpar.stats import effects

# A load is worth its waiting as long as it brings more than this share of the best rate beyond the load before the
# knee.
ENOUGH = 0.95
RATE = "output_tokens_per_s"


def sentence(given: Sequence[rows.Row]) -> str:
    """The knee in one sentence for rows that differ in clients, or in the rate of an open load, alone; else ''."""
    key, ordered = _ordered(given)
    return "" if not ordered else _open(ordered) if key == "rate" else _closed(ordered)


def clients(given: Sequence[rows.Row]) -> float | None:
    """The number of clients at the knee; None where the rows show none, or the best rate is that of the most clients
    tried, so that it may lie beyond."""
    key, ordered = _ordered(given)
    rates = [row.figure(RATE).value for row in ordered]
    known = [rate for rate in rates if rate is not None]
    if key != "clients" or not known or len(known) < len(rates):
        return None
    place = _place(known)
    return float(ordered[place].settings["clients"]) if place < len(ordered) - 1 else None


def _place(rates: Sequence[float]) -> int:
    """The first load that brings ENOUGH of the best rate."""
    return next(index for index, rate in enumerate(rates) if rate >= ENOUGH * max(rates))


def _ordered(given: Sequence[rows.Row]) -> tuple[str, list[rows.Row]]:
    """The load in which the rows differ, and the rows in its order; none where they differ in anything else."""
    loads = {row.settings.get("launcher") for row in given}
    key = "rate" if loads == {"open"} else "clients" if "open" not in loads else ""
    ordered = [row for row in given if isinstance(row.settings.get(key), int | float)]
    if len(ordered) != len(given) or len({row.settings[key] for row in ordered}) < max(2, len(given)):
        return key, []
    if len({words.label(row, (key,)) for row in ordered}) > 1:
        return key, []
    ordered.sort(key=lambda row: row.settings[key])
    return key, ordered


def _closed(ordered: list[rows.Row]) -> str:
    rates = [row.figure(RATE).value for row in ordered]
    if any(rate is None for rate in rates):
        return ""
    known = [rate for rate in rates if rate is not None]
    best = known.index(max(known))
    place = _place(known)
    knee, most = ordered[place], ordered[best if best > place else -1]
    name = words.setting_phrase("clients", knee.settings["clients"])
    rate = words.quantity(RATE, known[place])
    if place == len(ordered) - 1:
        return f"{name}: the best rate, {rate}, and it may grow with more clients than were tried."
    figure = rows.shown(ordered, "ttft")
    share = f"{words.percent(known[place] / known[best])}% of the best rate" if place != best else "the best rate"
    if knee.figure(figure).value is None or most.figure(figure).value is None:
        return f"{name}: {share}, {rate}."
    low, high = knee.figure(figure).value or 0.0, most.figure(figure).value or 0.0
    there = words.setting_phrase("clients", most.settings["clients"])
    waiting = f"{words.title(figure)} {words.quantity(figure, low)} against {words.quantity(figure, high)} at {there}"
    queues = "; more clients only wait longer" if high > 1.25 * low else ""
    return f"{name}: {share}, {rate}, with {waiting}{queues}.{_unsure(ordered, place, best)}"


def _unsure(ordered: list[rows.Row], place: int, best: int) -> str:
    """The loads among which the knee may lie, in words, where server sessions leave that open."""
    values = [row.by_session(RATE) for row in ordered]
    loads = span(values, best)
    if loads is None or loads == (place, place):
        return ""
    low, high = (f"{ordered[at].settings['clients']:g}" for at in loads)
    if low == high:
        return f" Over the server sessions that they share, the knee is at {low} clients."
    sessions = min(len(each) for each in values)
    return f" The knee is between {low} and {high} clients: {sessions} server sessions each do not narrow it further."


def span(rates: Sequence[Mapping[str, float]], best: int) -> tuple[int, int] | None:
    """First and last load that may be the knee; None: one session each says nothing of it. `rates`: by session.

    From the first load whose rate may be ENOUGH of the best one's to the first one whose rate surely is, by intervals
    at 95% over all loads (Bonferroni).
    """
    level = 1 - (1 - effects.CONFIDENCE) / max(1, len(rates) - 1)
    against_best = [effects.effect(rates[at], rates[best], confidence=level) for at in range(best)]
    ends = [
        (one.low, one.high) for one in against_best if one is not None and one.low is not None and one.high is not None
    ]
    if len(ends) < len(against_best):
        return None
    first = next((at for at, (_, high) in enumerate(ends) if high >= ENOUGH), best)
    last = next((at for at, (low, _) in enumerate(ends) if low >= ENOUGH), best)
    return first, last


def _open(ordered: list[rows.Row]) -> str:
    kept = [row for row in ordered if keeps_up(row)]
    if not kept:
        return (
            f"No rate was kept up with: requests queue at {words.number(ordered[0].settings['rate'])} requests/s "
            "already."
        )
    best = kept[-1]
    figure = rows.shown(ordered, "ttft")
    latency = best.figure(figure).value
    seen = f", {words.title(figure)} {words.quantity(figure, latency)}" if latency is not None else ""
    text = f"{words.number(best.settings['rate'])} requests/s: the highest rate that the server keeps up with{seen}"
    beyond = [row for row in ordered if row.settings["rate"] > best.settings["rate"]]
    if not beyond:
        return f"{text}; no higher one was tried."
    return f"{text}; at {words.number(beyond[0].settings['rate'])} requests queue."


def keeps_up(row: rows.Row) -> bool:
    """Whether an open load's requests left as fast as they came: 95% of the rate, the last request's own time aside."""
    rate = float(row.settings["rate"])
    steady = row.figure("requests_per_s_steady").value
    if steady is not None:
        return steady >= ENOUGH * rate
    wall, last = row.figure("wall_s").value, row.figure("e2e_p50_s").value or 0.0
    count = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries) / len(row.summaries)
    return wall is not None and count / max(wall - last, 1e-9) >= ENOUGH * rate
