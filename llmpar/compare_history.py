"""The newest night against the nights before it, and where the level of a series of nights changed.

Change points: the split of a stretch with the largest CUSUM statistic, kept when fewer than 5 % of 1999 seeded
shuffles of the stretch reach it, then the same on both sides (binary segmentation, Vostrikova 1981; the permutation
test as in E-divisive, Matteson and James, JASA 109, 2014, which tools such as Apache Otava use on nightly benchmarks).
The newest night is tested against a prediction interval of Student's t from the nights since the last change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from llmpar import compare, compare_cells, compare_words, series

SHUFFLES = 1999
LEAST = 3  # nights on either side of a change, and before the newest


@dataclass
class Change:
    """The level changes at `index`, the first night of the new level, by `ratio`."""

    index: int
    ratio: float
    p_value: float


def changes(values: list[float], level: float = 0.05, seed: int = 0) -> list[Change]:
    """Change points of a series of positive values in the order of time. Under 2 * LEAST values there are none."""
    logs = np.log(np.asarray(values, dtype=float))
    random = np.random.default_rng(seed)
    found: list[tuple[int, float]] = []

    def split(first: int, last: int) -> None:
        part = logs[first:last]
        if len(part) < 2 * LEAST:
            return
        best, place = _cusum(part[None, :])
        shuffled, _ = _cusum(random.permuted(np.tile(part, (SHUFFLES, 1)), axis=1))
        p_value = (1 + int(np.count_nonzero(shuffled >= best[0] * (1 - 1e-12)))) / (SHUFFLES + 1)
        if p_value > level or best[0] <= 1e-9:
            return
        middle = first + int(place[0])
        split(first, middle)
        found.append((middle, p_value))
        split(middle, last)

    split(0, len(logs))
    edges = [0, *(place for place, _ in found), len(logs)]
    return [Change(place, math.exp(float(logs[place:edges[number + 2]].mean() - logs[edges[number]:place].mean())), p_value)
            for number, (place, p_value) in enumerate(found)]


def _cusum(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the largest standardised difference of means over splits, and where: at least LEAST on each side."""
    many = rows.shape[1]
    sizes = np.arange(LEAST, many - LEAST + 1)
    sums = np.cumsum(rows, axis=1)
    total = sums[:, -1:]
    left = sums[:, sizes - 1]
    apart = np.abs(left / sizes - (total - left) / (many - sizes)) * np.sqrt(sizes * (many - sizes) / many)
    place = np.argmax(apart, axis=1)
    return apart[np.arange(len(rows)), place], sizes[place]


def predicted(before: list[float], newest: list[float], confidence: float = compare.CONFIDENCE) -> compare.Effect:
    """The ratio of the newest night (one or more sessions) to those before, with a prediction interval.

    Student's t: the newest varies as each night does, and the mean of the others is not known exactly.
    """
    x, y = np.log(np.asarray(newest, dtype=float)), np.log(np.asarray(before, dtype=float))
    difference = float(x.mean() - y.mean())
    if len(y) < LEAST:
        return compare.Effect(math.exp(difference), None, None, None, "too-few-nights")
    error = float(y.std(ddof=1)) * math.sqrt(1 / len(x) + 1 / len(y))
    freedom = len(y) - 1
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(difference) / error)) if error > 0 else float(difference == 0)
    return compare.Effect(math.exp(difference), math.exp(difference - half), math.exp(difference + half), p_value, "prediction-t",
                          freedom, error)


def verdicts(summaries: list[dict[str, Any]], figures: tuple[str, ...], nights: int, margin: float = compare.MARGIN,
             correction: str = "holm", allow: tuple[str, ...] = (), confidence: float = compare.CONFIDENCE) -> list[dict[str, Any]]:
    """For each cell and figure, the newest session against up to `nights` before it, since the last change point."""
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for summary in summaries:
        key = tuple(sorted((name, str(value)) for name, value in compare_cells.settings(summary).items()))
        cells.setdefault(key, []).append(summary)
    work = []
    for found in cells.values():
        by_session: dict[str, list[dict[str, Any]]] = {}
        for summary in sorted(found, key=lambda each: each["started_at"] or 0.0):
            by_session.setdefault(str(summary.get("session") or summary["started_at"]), []).append(summary)
        stretch = list(by_session.values())[-(nights + 1):]
        for figure in figures:
            work.append((figure, stretch))
    prepared = []
    for figure, stretch in work:
        nightly = [(compare_cells.Side("", group).values(figure), group) for group in stretch]
        usable = [(next(iter(values.values())), group) for values, group in nightly if values]
        # Where the newest night lacks the figure, the night before must not stand in for it.
        earlier, newest = (usable[:-1], usable[-1:]) if nightly[-1][0] else (usable, [])
        moved = changes([value for value, _ in earlier])
        before = earlier[moved[-1].index if moved else 0:]
        pair = compare_cells.Pair(
            {name: value for name, value in compare_cells.settings(stretch[-1][0]).items() if value is not None},
            compare_cells.Side("the newest night", stretch[-1]),
            compare_cells.Side(f"the {len(before)} nights before" if len(before) > 1 else "the nights before", [summary for _, group in before for summary in group]), ())
        differ = compare_cells.differences(pair, figure) if before and newest else []
        effect = predicted([value for value, _ in before], [value for value, _ in newest], confidence) if before and newest else None
        history = {"nights": [{"session": group[0].get("session"), "started_at": group[0]["started_at"], "value": value}
                              for value, group in usable],
                   "change_points": [{"index": each.index, "label": usable[each.index][1][0].get("session"), "ratio": each.ratio,
                                      "p_value": each.p_value} for each in moved]}
        prepared.append((pair, figure, effect, *compare_cells.parted(differ, allow), history))
    compare_cells.told_apart([pair for pair, *_ in prepared])
    adjusted = compare.adjust([None if effect is None or differ else effect.p_value for _, _, effect, differ, _, _ in prepared], correction)
    records = []
    for (pair, figure, effect, differ, allowed, history), p_adjusted in zip(prepared, adjusted, strict=True):
        if effect is not None:
            effect.p_adjusted = p_adjusted
        record = compare_cells.verdict_record(pair, figure, effect, differ, allowed, margin, correction, confidence, len(prepared))
        record["history"] = history
        if pair.a.values(figure) and len(pair.b.values(figure)) < LEAST and not differ:
            many = LEAST + 1
            record["reasons"] = [{"code": "few_nights", "message": f"fewer than {LEAST} nights before it at this level"}, *allowed]
            record["needed"] = {"sessions": many}
            record["sentence"] = compare_words.sentence(record)
        for each in history["change_points"]:
            turned = each["ratio"] if not series.lower_is_better(figure) else 1 / each["ratio"]
            record["sentence"] += (f"; the level {'rose' if turned > 1 else 'fell'} by {compare_words.percent(abs(turned - 1))} % "
                                   f"at night {each['index'] + 1} of {len(history['nights'])}")
        records.append(record)
    return records
