"""One step of each question: the summaries so far to the next cell's record and a line of progress, or to the
answer's record. Each raises ValueError for what cannot be asked."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from llmpar import sweeps
from llmpar.search import best, best_answer, budget, decide, ending, find, spaces
from llmpar.verdicts import objectives


def pairs(text: str) -> dict[str, Any]:
    """Settings of `engine=vllm engine_args="-t 2"`, as a sweep table's columns read them. Raises ValueError."""
    words = shlex.split(text)
    if bad := [word for word in words if "=" not in word]:
        raise ValueError(f"'{bad[0]}' is not a setting: give NAME=VALUE, as engine=vllm")
    if not words:
        return {}
    names, values = zip(*(word.split("=", 1) for word in words), strict=True)
    header, row = "\t".join(names), "\t".join(f'"{value}"' for value in values)
    return sweeps.parse(f"{header}\n{row}\n", text)[0]


def cell(row: dict[str, Any], name: str, sweep: str, server_session: str) -> dict[str, Any]:
    """The cell record of one row of settings under a name of its own."""
    environment = {name: os.environ.get(f"LLMPAR_{name}", "") for name in ("RUNNING", "ENGINE", "MODEL", "API")}
    running = sweeps.Running.named(*environment.values()) if environment["RUNNING"] else None
    return sweeps.cells([row], sweep, running=running)[0] | {"id": name, "session": server_session}


def ask_find(
    summaries: list[dict[str, Any]],
    base: dict[str, Any],
    slo: str,
    axis: str,
    least: float,
    most: float,
    start: float | None,
) -> tuple[dict[str, Any], str]:
    """The next level to measure between `least` and `most` clients, or requests a second where `axis` is "rate"."""
    wanted = objectives.parse(slo)
    levels = find.measured(summaries, axis, wanted)
    launcher = base.get("launcher", "queue")
    ends = axis == "clients" and ending.possible(wanted, launcher)
    step = find.step(levels, axis, least, most, start or min(most, 8 * least), most_tries=1 if ends else 2)
    if step.level is None:
        return find.answer(levels, step, axis, wanted), ""
    seen = levels.get(step.level)
    count = find.requests_for(axis, step.level, 1 if ends else seen.tries if seen else 0)
    if axis == "clients":
        load: dict[str, Any] = {"clients": int(step.level), "launcher": launcher}
        if ends:
            load["until"] = " ".join(slo.split())
        name = f"c{int(step.level):04d}"
    else:
        load = {"rate": step.level, "launcher": "open", "clients": base.get("clients", 1024)}
        name = f"rate-{sweeps.slug(f'{step.level:g}')}"
    name += f"-{seen.cells + 1}" if seen else ""
    return cell(base | load | {"count": count}, name, "find", "find"), find.progress(levels, axis, step.level)


def ask_decide(
    summaries: list[dict[str, Any]],
    base: dict[str, Any],
    sides: tuple[str, str],
    by: str,
    margin: float,
    minutes: float | None,
    seed: int,
) -> tuple[dict[str, Any], str]:
    """The next side to start, or the answer once it is sure, hopeless or out of `minutes`. `by`: a figure of
    summaries."""
    own = [pairs(text) for text in sides]
    if own[0] == own[1]:
        raise ValueError("A and B are the same settings; give what differs, as --a speculate=0 --b speculate=2")
    labels = dict(zip(decide.SIDES, sides, strict=True))
    blocks = decide.gather(summaries, by)
    if blocks.missing:
        raise ValueError(f"cell '{blocks.missing[0]}' has no {by}: its requests failed or were too few")
    look = decide.latest_look(blocks, margin)
    if look is not None and look.decision != "more":
        return decide.answer(blocks, look, by, labels, margin, minutes), ""
    per_session = sum(blocks.seconds) / len(blocks.seconds) if blocks.seconds else 0.0
    if look is not None and minutes is not None and sum(blocks.seconds) + 2 * per_session > minutes * 60:
        return decide.answer(blocks, look, by, labels, margin, minutes), ""
    block, side = decide.next_cell(blocks, seed)
    name = decide.cell_id(block, side)
    progress = decide.progress(blocks, look, (block, side))
    return cell(base | own[decide.SIDES.index(side)], name, "decide", name), progress


def ask_best(
    summaries: list[dict[str, Any]],
    candidates: Sequence[best.Candidate],
    load: Mapping[str, Any],
    question: best.Question,
    prompts: int,
    slo: str = "",
) -> tuple[dict[str, Any], str]:
    """The next candidate and level to measure, or the answer. `load`: the load settings that all candidates get;
    `prompts`: how many prompts there are to divide among the rounds and the final. `slo`: the question's objectives as
    they were written."""
    spent = best.gather(candidates, summaries, question.objectives)
    spent.cell_s = budget.cell_seconds(question.minutes, len(candidates))
    now = best.state(candidates, question, spent)
    if now.cell is None:
        return best_answer.answer(candidates, now, question, spent), ""
    row = {**load, **now.cell.candidate.settings, "clients": int(now.cell.level), "count": now.cell.count}
    row |= spaces.prompts_of(now.cell, prompts)
    launcher = load.get("launcher", sweeps.DEFAULTS["launcher"])
    if slo and not now.cell.held_out and ending.possible(question.objectives, launcher):
        row["until_missed"] = " ".join(slo.split())
    record = cell(row, now.cell.name, "best", now.cell.server_session)
    return record, best_answer.progress(candidates, now, question, spent)


def sentence(answer: Mapping[str, Any]) -> str:
    """An answer record for people: a line or more."""
    return {"find": find, "decide": decide, "best": best_answer}[answer["question"]].sentence(answer)
