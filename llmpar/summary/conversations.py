"""Conversations among the requests: each as a whole, and turn by turn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from llmpar.stats.order_statistics import rank

TURNS = 64  # turns that a summary tells of, one by one


class Turn(NamedTuple):
    """What is kept of one turn's record."""

    conversation: str
    turn: int
    turns: int
    think_s: float
    ok: bool
    sent_at: float | None
    e2e_s: float | None
    ttft_s: float | None
    prompt_tokens: int | None
    cached_tokens: int | None


def of_record(record: dict[str, Any]) -> Turn | None:
    """A turn, or None for a request that is none, or whose place in a conversation is not of its type."""
    name, turn, turns, think = (record.get(field) for field in ("conversation", "turn", "turns", "think_s"))
    if not isinstance(name, str) or type(turn) is not int or type(turns) is not int or not 1 <= turn <= turns:
        return None
    think = float(think) if isinstance(think, int | float) and math.isfinite(think) else 0.0
    fields = (record[field] for field in ("sent_at", "e2e_s", "ttft_s", "prompt_tokens", "cached_tokens"))
    return Turn(name, turn, turns, think, record["status"] == "ok", *fields)


def describe(turns: Iterable[Turn]) -> dict[str, Any] | None:
    """The field `conversations` of a summary; None without any."""
    whole: dict[str, list[Turn]] = {}
    for each in sorted(turns, key=lambda turn: (turn.conversation, turn.turn, turn.sent_at or 0.0)):
        whole.setdefault(each.conversation, []).append(each)
    if not whole:
        return None
    complete = [each for each in whole.values() if len(each) == each[0].turns and all(turn.ok for turn in each)]
    places: dict[int, list[Turn]] = {}
    for talk in whole.values():
        for turn in talk:
            places.setdefault(turn.turn, []).append(turn)
    return {
        "n": len(whole),
        "complete": len(complete),
        "later_turns": sum(1 for talk in whole.values() for turn in talk if turn.turn > 1),
        "turns_per_conversation": spread([len(talk) for talk in whole.values()]),
        "duration_s": spread([lasted for talk in complete if (lasted := _lasted(talk)) is not None]),
        "think_s": spread([math.fsum(turn.think_s for turn in talk) for talk in complete]),
        "turns": [_turn(place, found) for place, found in sorted(places.items())[:TURNS]],
    }


def _lasted(talk: Sequence[Turn]) -> float | None:
    """From the first question to the end of the last answer, with what was thought between."""
    first, last = talk[0], talk[-1]
    if first.sent_at is None or last.sent_at is None or last.e2e_s is None:
        return None
    return round(last.sent_at + last.e2e_s - first.sent_at, 6)


def _turn(place: int, found: Sequence[Turn]) -> dict[str, Any]:
    ok = [turn for turn in found if turn.ok]
    counted = [turn for turn in ok if turn.prompt_tokens is not None]
    known = [turn for turn in counted if turn.cached_tokens is not None]
    prompt = sum(turn.prompt_tokens or 0 for turn in known)
    return {
        "turn": place,
        "n": len(found),
        "ok": len(ok),
        "ttft_s": spread([turn.ttft_s for turn in ok if turn.ttft_s is not None]),
        "e2e_s": spread([turn.e2e_s for turn in ok if turn.e2e_s is not None]),
        "prompt_tokens_mean": sum(turn.prompt_tokens or 0 for turn in counted) / len(counted) if counted else None,
        "cached_ratio": sum(turn.cached_tokens or 0 for turn in known) / prompt if prompt else None,
    }


def spread(values: Sequence[float]) -> dict[str, Any] | None:
    """Plain numbers of a sample, by nearest rank; None of no values."""
    if not values:
        return None
    ordered = sorted(values)

    return {
        "n": len(ordered),
        "min": ordered[0],
        "mean": math.fsum(ordered) / len(ordered),
        "p50": ordered[rank(len(ordered), 50) - 1],
        "p95": ordered[rank(len(ordered), 95) - 1],
        "max": ordered[-1],
    }


def prefix(result: dict[str, Any]) -> dict[str, Any] | None:
    """The field `prefix` of a summary: the share of prompt tokens that was to come from the prefix cache, and did.

    By the answers' usage, else by the engine's own counters; None where no share was asked for.
    """
    asked = ((result["cell"] or {}).get("load") or {}).get("prefix_ratio")
    if asked is None:
        return None
    tokens = result["tokens"]
    usage = tokens["cached"] / tokens["prompt"] if tokens["cached"] is not None and tokens["prompt"] else None
    engine = (result["engine"] or {}).get("prefix_hit_ratio")
    achieved = usage if usage is not None else engine
    source = "usage" if usage is not None else "engine" if engine is not None else None
    return {"asked_ratio": asked, "achieved_ratio": achieved, "source": source, "engine_ratio": engine}
