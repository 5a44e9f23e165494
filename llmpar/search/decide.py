"""Is A really faster than B: blocks of one fresh server session of each side, until they decide it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpar.results import rows, words
from llmpar.stats import sequential
from llmpar.stats.effects import MARGIN

SIDES = ("a", "b")


@dataclass(frozen=True)
class Blocks:
    """What is measured: values of each side by block, and the seconds that each session took."""

    values: dict[str, dict[int, float]]
    missing: list[str]  # cells whose summary does not have the figure
    seconds: list[float]

    @property
    def complete(self) -> list[int]:
        return sorted(set(self.values["a"]) & set(self.values["b"]))


def cell_id(block: int, side: str) -> str:
    return f"b{block:02d}-{side}"


def order(block: int, seed: int) -> tuple[str, ...]:
    """The sides of a block in random order, the same for the same seed."""
    sides = list(SIDES)
    random.Random(seed * 1000 + block).shuffle(sides)
    return tuple(sides)


def gather(summaries: Sequence[Mapping[str, Any]], figure: str) -> Blocks:
    """Blocks of summaries whose cells are named by `cell_id`."""
    values: dict[str, dict[int, float]] = {side: {} for side in SIDES}
    missing, seconds = [], []
    for summary in summaries:
        name = str((summary.get("cell") or {}).get("id") or "")
        block, _, side = name.partition("-")
        if side not in SIDES or not block.removeprefix("b").isdigit():
            continue
        value = rows.reading(dict(summary), figure).value
        if value is None or value <= 0:
            missing.append(name)
        else:
            values[side][int(block.removeprefix("b"))] = value
        wall = rows.reading(dict(summary), "wall_s").value or 0.0
        seconds.append(wall + float((summary.get("server") or {}).get("ready_s") or 0.0))
    return Blocks(values, missing, seconds)


def next_cell(blocks: Blocks, seed: int) -> tuple[int, str]:
    """The first block and side that is not measured."""
    block = 1
    while True:
        for side in order(block, seed):
            if block not in blocks.values[side]:
                return block, side
        block += 1


def latest_look(blocks: Blocks, margin: float = MARGIN, most: int = sequential.MOST_BLOCKS) -> sequential.Look | None:
    """The look after the complete blocks; None before the first. Looks before the last one count as they came: a
    comparison that was decided at an earlier look stays decided."""
    done = blocks.complete
    for count in range(sequential.FIRST_LOOK, len(done) + 1):
        now = (
            [blocks.values["a"][block] for block in done[:count]],
            [blocks.values["b"][block] for block in done[:count]],
        )
        seen = sequential.look(*now, margin, most)
        if seen.decision in ("different", "same"):
            return seen
    if not done:
        return None
    return sequential.look(
        [blocks.values["a"][block] for block in done], [blocks.values["b"][block] for block in done], margin, most
    )


def progress(
    blocks: Blocks, look: sequential.Look | None, cell: tuple[int, str], most: int = sequential.MOST_BLOCKS
) -> str:
    """Progress of the comparison before `cell`, the block and side to measure next: the effect so far with its
    interval, the chance of a verdict."""
    block, side = cell
    text = f"block {block} of at most {most}, side {side.upper()}"
    if look is not None and look.low is not None and look.high is not None:
        text += f"; a/b {look.ratio:.3f} ({look.low:.3f} to {look.high:.3f})"
        if look.chance is not None:
            text += f", {look.chance * 100:.0f}% chance of a verdict"
    return text


def answer(
    blocks: Blocks, look: sequential.Look, figure: str, labels: Mapping[str, str], margin: float, minutes: float | None
) -> dict[str, Any]:
    """The answer record. `seconds_per_block` and `blocks_needed` say what a longer budget would buy."""
    done = blocks.complete[: look.blocks]
    per_block = 2 * sum(blocks.seconds) / len(blocks.seconds) if blocks.seconds else None
    decision = look.decision
    if decision == "more":
        decision = "out of time"
    needed = None
    if decision not in ("different", "same") and look.sigma:
        difference = abs(math.expm1(abs(math.log(look.ratio))))
        # More than a search ever measures would be advice that nobody can follow.
        needed = sequential.blocks_needed(look.sigma, difference, margin=margin, most=sequential.MOST_BLOCKS)
    return {
        "kind": "answer",
        "v": 1,
        "question": "decide",
        "figure": figure,
        "lower_is_better": rows.lower_is_better(figure),
        "decision": decision,
        "a": {"label": labels["a"], "values": [blocks.values["a"][block] for block in done]},
        "b": {"label": labels["b"], "values": [blocks.values["b"][block] for block in done]},
        "ratio": look.ratio,
        "low": look.low,
        "high": look.high,
        "margin": margin,
        "blocks": look.blocks,
        "sigma": look.sigma,
        "chance": look.chance,
        "seconds_per_block": per_block,
        "blocks_needed": needed,
        "minutes": minutes,
    }


def sentence(record: Mapping[str, Any]) -> str:
    """The answer in a line or two."""
    a, b = record["a"]["label"], record["b"]["label"]
    means = [_mean(record[side]["values"]) for side in SIDES]
    ratio, low, high = record["ratio"], record["low"], record["high"]
    figure = record["figure"]
    seen = f"{words.title(figure)} {words.quantity(figure, means[0])} against {words.quantity(figure, means[1])}"
    span = f"{ratio:.3f} times, {low:.3f} to {high:.3f}, {record['blocks']} server sessions each" if low else ""
    if record["decision"] == "different":
        better = (ratio < 1) == record["lower_is_better"]
        return f"{a} is {'better' if better else 'worse'} than {b}: {seen} ({span})\n"
    if record["decision"] == "same":
        return f"{a} and {b} are the same within {record['margin'] * 100:g}%: {seen} ({span})\n"
    why = {
        "hopeless": "more blocks up to the limit would hardly decide it",
        "undecided": "the last block is in",
        "out of time": "the time is over",
    }[record["decision"]]
    text = f"cannot tell {a} from {b}: {seen}{f' ({span})' if span else ', one server session each'}; {why}"
    if record["blocks_needed"] and record["seconds_per_block"]:
        more = record["blocks_needed"]
        text += (
            f"\n{more} blocks, {more * record['seconds_per_block'] / 60:.0f} minutes in all, would "
            "decide it in half of all cases"
        )
    elif record["sigma"]:
        text += (
            f"\nserver sessions differ by {record['sigma'] * 100:.1f}%: longer cells or a quieter machine would "
            "help more than blocks"
        )
    return text + "\n"


def _mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
