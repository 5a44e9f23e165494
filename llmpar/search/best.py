"""The best of many candidates (engines and their settings) within objectives and a budget: successive halving.

Each round measures every candidate left in one fresh server session, on prompts that no earlier round used, busiest
level first; the best third goes on with three times the requests. The last three are compared in blocks of fresh server
sessions each, as `decide` does, so that the answer can name what is not surely worse than the leader. A server that
did not start is a result with its cause.

Sources: Jamieson and Talwalkar, AISTATS 2016 (successive halving); Karnin, Koren and Somekh, ICML 2013.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpar.results import rows
from llmpar.search import budget
from llmpar.search.find import verdict_of
from llmpar.search.levels import ladder, next_step
from llmpar.stats import sequential
from llmpar.stats.effects import MARGIN
from llmpar.verdicts.objectives import MEETS, MISSES, UNKNOWN, of_session

KEPT = budget.GROWTH  # one in so many goes on to the next round
FINALISTS = 3
MOST_CELLS = 4  # of one candidate in one round
RATE = "output_tokens_per_s"
ENDED = ("server_ended", "out_of_memory")  # warnings of a summary


@dataclass
class Candidate:
    """One row of the space. `levels` maps a round to what was measured in it: level to (rate, within the
    objectives)."""

    number: int
    settings: dict[str, Any]
    label: str
    failure: str | None = None  # why its server did not run
    refused: str | None = None  # why it was never started
    levels: dict[int, dict[float, tuple[float, str]]] = field(default_factory=dict)
    final: dict[int, float] = field(default_factory=dict)  # block to rate
    final_missed: int = 0  # blocks whose cell missed the objectives
    intervals: dict[float, tuple[float, float]] = field(default_factory=dict)  # of the rate in the last cell at a level
    joules: dict[float, float] = field(default_factory=dict)  # a token, by level, of the last cell there
    price_per_h: float | None = None

    def score(self, turn: int) -> tuple[float, float] | None:
        """The best rate within the objectives in a round, and its level."""
        good = [(rate, level) for level, (rate, verdict) in self.levels.get(turn, {}).items() if verdict == MEETS]
        return max(good, default=None)


@dataclass(frozen=True)
class Question:
    """What is asked: objectives, the levels to look at, the budget."""

    objectives: Mapping[str, float]  # a figure to the most it may be
    least: float = 1
    most: float = 256
    minutes: float | None = None
    margin: float = MARGIN
    seed: int = 0
    blocks: int = 6

    @property
    def levels(self) -> list[float]:
        return ladder(self.least, self.most)


def cell_id(turn: int, number: int, level: float) -> str:
    return f"r{turn}-k{number:03d}-c{int(level):04d}"


def final_id(block: int, number: int, level: float) -> str:
    return f"f{block:02d}-k{number:03d}-c{int(level):04d}"


def gather(
    candidates: Sequence[Candidate], summaries: Sequence[dict[str, Any]], objectives: Mapping[str, float]
) -> budget.Spent:
    """Enter what the summaries say into the candidates; what measuring took."""
    by_number = {candidate.number: candidate for candidate in candidates}
    cells: list[tuple[int, float, bool, Mapping[str, Any]]] = []
    for summary in summaries:
        cell = summary.get("cell") or {}
        parts = str(cell.get("id") or "").split("-")
        if len(parts) != 3 or parts[0][:1] not in ("r", "f") or not parts[1].startswith("k"):
            continue
        candidate = by_number.get(int(parts[1][1:]))
        if candidate is None:
            continue
        level = float(parts[2][1:])
        server = summary.get("server") or {}
        cells.append((candidate.number, level, parts[0][0] == "r", summary))
        rate = rows.reading(summary, RATE + "_steady").value or rows.reading(summary, RATE).value
        verdict = verdict_by_value(summary, objectives)
        if rate is None or rate <= 0:
            verdict, rate = MISSES, 0.0
            if _server_ended(summary):
                candidate.failure = str(server.get("message") or server.get("outcome"))
        elif _server_ended(summary):
            verdict, rate = MISSES, 0.0
        steady = rows.reading(summary, RATE + "_steady")
        if steady.low is not None and steady.high is not None:
            candidate.intervals[level] = (steady.low, steady.high)
        if (joules := rows.reading(summary, "joules_per_token").value) is not None:
            candidate.joules[level] = joules
        if parts[0][0] == "f":
            block = int(parts[0][1:])
            candidate.final_missed += verdict == MISSES
            if rate > 0:
                candidate.final[block] = rate
        else:
            candidate.levels.setdefault(int(parts[0][1:]), {})[level] = (rate, verdict)
    return budget.spent(cells)


def _server_ended(summary: Mapping[str, Any]) -> bool:
    """Whether the engine did not start, or ended under this load."""
    return any(warning.get("code") in ENDED for warning in summary.get("warnings") or ())


def verdict_by_value(summary: dict[str, Any], objectives: Mapping[str, float]) -> str:
    """Meets or misses, by the value seen where the bounds leave it open: a short cell must not stop the race."""
    verdict = verdict_of(summary, objectives)
    if verdict != UNKNOWN:
        return verdict
    within = all(
        of_session(summary, metric, most) == MEETS
        or (value := rows.reading(summary, metric).value) is not None
        and value <= most
        for metric, most in objectives.items()
    )
    return MEETS if within else MISSES


@dataclass(frozen=True)
class Next:
    """A cell to measure: which candidate, at which level, in which server session, on which prompts."""

    candidate: Candidate
    level: float
    name: str
    server_session: str
    count: int
    skip: int
    held_out: bool = False  # on prompts that no round used


@dataclass(frozen=True)
class State:
    """State of the search: the next cell, or None and the answer is due. `left`: candidates still in the race."""

    cell: Next | None
    turn: int
    left: list[Candidate]
    finalists: list[Candidate]
    looks: dict[int, sequential.Look]


def state(candidates: Sequence[Candidate], question: Question, spent: budget.Spent) -> State:
    """The next step of the race. A cell that would end after the time is not begun, and a round is left out where it
    would leave no time for the final."""
    whole = math.inf if question.minutes is None else question.minutes * 60
    left = [each for each in candidates if each.failure is None and each.refused is None]
    turn, skip = 1, 0
    hint = question.most
    over = False
    while len(left) > FINALISTS or turn == 1:
        for candidate in left:
            level = _level(candidate, turn, question, hint)
            if level is not None and not over:
                count = budget.requests_of(turn, level, spent, candidate.number)
                name, session = cell_id(turn, candidate.number, level), f"r{turn}-k{candidate.number:03d}"
                over = spent.seconds + spent.cost(candidate.number, level, count, session) > whole
                if not over:
                    return State(Next(candidate, level, name, session, count, skip), turn, left, [], {})
            best = candidate.score(turn)
            if best is not None:  # the next candidate starts where this one was best
                hint = best[1]
        if over and not all(candidate.levels.get(turn) for candidate in left):
            break
        ranked = sorted(
            (candidate for candidate in left if candidate.score(turn)),
            key=lambda candidate: -(candidate.score(turn) or (0.0, 0.0))[0],
        )
        skip += budget.requests_of(turn, question.most)
        left = ranked[: max(FINALISTS, math.ceil(len(ranked) / KEPT))]
        if len(left) <= FINALISTS or not _another_round(left, turn + 1, question, spent, whole):
            break
        turn += 1
    finalists = [candidate for candidate in left if last_score(candidate)]
    finalists.sort(key=lambda candidate: -(last_score(candidate) or (0.0, 0.0))[0])
    finalists = finalists[:FINALISTS]
    looks = compare(finalists, question)
    if over or len(finalists) < 2 or not _open(looks, question):
        return State(None, turn, left, finalists, looks)
    block = 1
    while True:
        order = list(finalists)
        random.Random(question.seed * 1000 + block).shuffle(order)
        for candidate in order:
            if block not in candidate.final:
                level, count = _final_load(candidate, question, spent)
                name, session = final_id(block, candidate.number, level), f"f{block:02d}-k{candidate.number:03d}"
                if spent.seconds + spent.cost(candidate.number, level, count, session) > whole:
                    return State(None, turn, left, finalists, looks)
                return State(
                    Next(candidate, level, name, session, count, skip, held_out=True), turn, left, finalists, looks
                )
        block += 1


def _final_load(candidate: Candidate, question: Question, spent: budget.Spent) -> tuple[float, int]:
    """The level and the requests of a candidate's cells in the final."""
    level = (last_score(candidate) or (0.0, question.least))[1]
    return level, budget.requests_of(3, level, spent, candidate.number)


def _another_round(left: Sequence[Candidate], turn: int, question: Question, spent: budget.Spent, whole: float) -> bool:
    """Whether a round of these candidates leaves time for the shortest final: two blocks of two. One that has begun
    goes on."""
    if any(candidate.levels.get(turn) for candidate in left):
        return True
    seconds = spent.seconds
    for candidate in left:
        level = (last_score(candidate) or (0.0, question.least))[1]
        seconds += spent.start_s + budget.requests_of(turn, level, spent, candidate.number) * spent.seconds_a_request(
            candidate.number, level
        )
    for candidate in left[:2]:
        level, count = _final_load(candidate, question, spent)
        seconds += sequential.FIRST_LOOK * (spent.start_s + count * spent.seconds_a_request(candidate.number, level))
    return seconds <= whole


def _level(candidate: Candidate, turn: int, question: Question, hint: float) -> float | None:
    """The next level of a candidate in a round; None where the round has enough of it."""
    seen = candidate.levels.get(turn, {})
    earlier = candidate.score(turn - 1)
    if turn > 1 and earlier:
        return None if seen else earlier[1]
    if len(seen) >= MOST_CELLS:
        return None
    verdicts = {level: verdict for level, (_, verdict) in seen.items()}
    return next_step(question.levels, verdicts, start=hint).level


def last_score(candidate: Candidate) -> tuple[float, float] | None:
    return next((score for turn in sorted(candidate.levels, reverse=True) if (score := candidate.score(turn))), None)


def leader_of(finalists: Sequence[Candidate]) -> Candidate | None:
    """The finalist with the best rate: over the blocks of the final where there are any, else in its last round."""

    def rate(candidate: Candidate) -> tuple[bool, float]:
        missed = candidate.final_missed * 2 > len(candidate.final)
        if candidate.final:
            return not missed, math.exp(sum(map(math.log, candidate.final.values())) / len(candidate.final))
        return not missed, (last_score(candidate) or (0.0, 0.0))[0]

    return max(finalists, key=rate, default=None)


def compare(finalists: Sequence[Candidate], question: Question) -> dict[int, sequential.Look]:
    """The leader against each other finalist, over the blocks that both have; the bounds share 5% among them."""
    leader = leader_of(finalists)
    looks = {}
    for other in finalists:
        if leader is None or other is leader:
            continue
        blocks = sorted(set(leader.final) & set(other.final))
        if blocks:
            looks[other.number] = sequential.look(
                [leader.final[block] for block in blocks],
                [other.final[block] for block in blocks],
                question.margin,
                question.blocks,
                family=len(finalists) - 1,
            )
    return looks


def _open(looks: Mapping[int, sequential.Look], question: Question) -> bool:
    return not looks or any(look.decision == "more" for look in looks.values())
