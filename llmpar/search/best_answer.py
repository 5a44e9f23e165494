"""What `best` says: the leader, what is not surely worse, what is worse, what did not run and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmpar.results import words
from llmpar.search import budget
from llmpar.search.best import RATE, Candidate, Question, State, last_score, leader_of

# Where a candidate ends up, and the words for those that are there: one, or several.
GROUPS = {
    "tied": ("this one is not surely worse", "these {} are not surely worse"),
    "worse": ("this one is worse", "these {} are worse"),
    "missed": ("this one meets the objectives at no level tried", "these {} meet the objectives at no level tried"),
    "refused": ("this one was not started", "these {} were not started"),
    "failed": ("this one did not run", "these {} did not run"),
    "unmeasured": ("this one was not measured: the time was over", "these {} were not measured: the time was over"),
}


def answer(candidates: Sequence[Candidate], done: State, question: Question, spent: budget.Spent) -> dict[str, Any]:
    """The answer record."""
    leader = leader_of(done.finalists)
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS}
    for candidate in candidates:
        if candidate is leader:
            continue
        entry: dict[str, Any] = {"label": candidate.label, "settings": candidate.settings}
        best, look = last_score(candidate), done.looks.get(candidate.number)
        if best is not None:
            entry |= {"clients": best[1], RATE: best[0]}
        if candidate.refused is not None:
            groups["refused"].append(entry | {"why": candidate.refused})
        elif candidate.failure is not None:
            groups["failed"].append(entry | {"why": candidate.failure})
        elif look is not None and look.low is not None:
            entry |= {"leader_ratio": look.ratio, "low": look.low, "high": look.high, "blocks": look.blocks}
            groups["worse" if look.decision == "different" else "tied"].append(entry)
        elif best is not None:
            # Seen in one server session: those that left early had the lower value, finalists are not decided yet.
            groups["tied" if candidate in done.finalists else "worse"].append(entry)
        else:
            groups["missed" if candidate.levels else "unmeasured"].append(entry)
    for name in ("tied", "worse"):
        groups[name].sort(key=lambda entry: entry.get("leader_ratio") or 1e9 / entry[RATE])
    return {
        "kind": "answer",
        "v": 1,
        "question": "best",
        "objectives": dict(question.objectives),
        "best": None if leader is None else _leader(leader),
        **groups,
        "minutes_spent": spent.seconds / 60,
        "minutes": question.minutes,
        "minutes_a_block": _block_minutes(done, spent),
    }


def _leader(leader: Candidate) -> dict[str, Any]:
    rate, level = last_score(leader) or (0.0, 0.0)
    values = list(leader.final.values()) or [rate]
    mean = math.exp(sum(map(math.log, values)) / len(values))
    return {
        "label": leader.label,
        "settings": leader.settings,
        "clients": level,
        RATE: mean,
        "server_sessions": len(values),
        "joules_per_token": leader.joules.get(level),
        "price_per_million_tokens": None if leader.price_per_h is None else leader.price_per_h / 3600 / mean * 1e6,
    }


def _block_minutes(done: State, spent: budget.Spent) -> float | None:
    """What one more block of the final would take."""
    if len(done.finalists) < 2:
        return None
    seconds = 0.0
    for candidate in done.finalists:
        level = (last_score(candidate) or (0.0, 1.0))[1]
        count = budget.requests_of(3, level, spent, candidate.number)
        seconds += spent.start_s + count * spent.seconds_a_request(candidate.number, level)
    return seconds / 60


def sentence(record: Mapping[str, Any]) -> str:
    """The answer for people: the leader on the first line, then what became of the others."""
    best = record["best"]
    if best is None:
        text = "no candidate was measured within the objectives"
    else:
        within = " within the SLO" if record["objectives"] else ""
        text = f"{best['label']}, {best['clients']:g} clients: {words.quantity(RATE, best[RATE])}{within}"
        extra = []
        if best["price_per_million_tokens"] is not None:
            extra.append(f"{best['price_per_million_tokens']:.3g} a million tokens")
        if best["joules_per_token"] is not None:
            extra.append(f"{best['joules_per_token']:.3g} J a token")
        text += f" ({', '.join(extra)})" if extra else ""
        text += _over_the_next(record)
    text += "\n"
    for name, (one, several) in GROUPS.items():
        if record[name]:
            text += (one if len(record[name]) == 1 else several.format(len(record[name]))) + ": "
            text += "; ".join(_entries(record[name])) + "\n"
    if any("leader_ratio" not in entry for entry in record["worse"]):
        text += "those without an interval were dropped after one server session each, by the rate seen there\n"
    text += _time(record)
    return text


def _entries(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """One of each candidate; those with one cause are told together."""
    by_cause: dict[str, list[str]] = {}
    for entry in entries:
        if "why" in entry:
            by_cause.setdefault(entry["why"], []).append(str(entry["label"]))
    together = [f"{', '.join(labels)} [{why}]" for why, labels in by_cause.items()]
    return together + [_entry(entry) for entry in entries if "why" not in entry]


def _entry(entry: Mapping[str, Any]) -> str:
    text = str(entry["label"])
    if "leader_ratio" in entry:
        low, high = (1 / entry["high"] - 1) * 100, (1 / entry["low"] - 1) * 100
        return f"{text} ({low:+.1f} to {high:+.1f}%)"
    if RATE in entry:
        return f"{text} ({words.quantity(RATE, entry[RATE])})"
    return text


def _over_the_next(record: Mapping[str, Any]) -> str:
    """The lead over the best of those that the final showed to be worse."""
    compared = [entry for entry in record["worse"] if "leader_ratio" in entry]
    if not compared:
        return ""
    next_one = min(compared, key=lambda entry: entry["leader_ratio"])
    low, high = (next_one["low"] - 1) * 100, (next_one["high"] - 1) * 100
    return f"; {(next_one['leader_ratio'] - 1) * 100:+.0f}% ({low:.0f} to {high:.0f}) over {next_one['label']}"


def _time(record: Mapping[str, Any]) -> str:
    """The minutes, and what more of them would buy."""
    text = f"{record['minutes_spent']:.0f} minutes"
    if record["minutes"] is not None:
        text += f" of {record['minutes']:g}"
    if record["tied"] and record["minutes_a_block"]:
        text += f"; {record['minutes_a_block']:.0f} more allow another block of fresh server sessions"
    if record["unmeasured"]:
        text += "; run it again with a higher MINUTES for the others: existing measurements are kept"
    return text + "\n"


def progress(candidates: Sequence[Candidate], now: State, question: Question, spent: budget.Spent) -> str:
    """Progress of the race before a cell: candidates left, the one that is next, the leader with its interval, minutes
    left."""
    if now.finalists:
        text = f"final of {len(now.finalists)}"
        text += f", block {len(now.cell.candidate.final) + 1}" if now.cell else ""
        leader = leader_of(now.finalists)
    else:
        todo = sum(not each.levels.get(now.turn) for each in now.left)
        text = f"round {now.turn}: {todo} of {len(now.left)} candidates left to measure"
        leader = max(now.left, key=lambda each: (last_score(each) or (0.0, 0.0))[0], default=None)
    if now.cell is not None:
        text += f", next {now.cell.candidate.label} at {words.plural(int(now.cell.level), 'client')}"
    score = last_score(leader) if leader is not None else None
    if leader is not None and score is not None:
        rate, level = score
        text += f"; {leader.label}, {level:g} clients leads with {words.quantity(RATE, rate)}"
        near = min(now.looks.values(), key=lambda look: look.ratio, default=None)
        if near is not None and near.low is not None and near.high is not None:
            low, high = (near.low - 1) * 100, (near.high - 1) * 100
            text += f", {(near.ratio - 1) * 100:+.1f}% over the next ({low:.1f} to {high:.1f})"
        elif level in leader.intervals:
            low, high = leader.intervals[level]
            text += f" ({low:,.0f} to {high:,.0f} within its server session)"
    if question.minutes is not None:
        text += f"; {max(0.0, question.minutes - spent.seconds / 60):.0f} of {question.minutes:g} minutes left"
    return text
