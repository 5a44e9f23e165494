"""The newest night against the nights before it, and where the level of a series of nights changed.

Change points: the split of a stretch with the largest CUSUM statistic, kept when fewer than 5 % of 1999 seeded
shuffles of the stretch reach it, then the same on both sides (binary segmentation, Vostrikova 1981; the permutation
test as in E-divisive, Matteson and James, JASA 109, 2014, which tools such as Apache Otava use on nightly benchmarks).
The newest night is tested against a prediction interval of Student's t from the nights since the last change.
"""

from __future__ import annotations

from typing import Any

from llmpar.results import rows, words
from llmpar.stats import effects
from llmpar.stats.change_points import LEAST, changes, predicted
from llmpar.verdicts import pairs, sentences, verdict


def verdicts(
    summaries: list[dict[str, Any]],
    figures: tuple[str, ...],
    nights: int,
    margin: float = effects.MARGIN,
    correction: str = "holm",
    allow: tuple[str, ...] = (),
    confidence: float = effects.CONFIDENCE,
) -> list[dict[str, Any]]:
    """For each cell and figure, the newest session against up to `nights` before it, since the last change point."""
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for summary in summaries:
        key = tuple(sorted((name, str(value)) for name, value in pairs.settings(summary).items()))
        cells.setdefault(key, []).append(summary)
    work = []
    for found in cells.values():
        by_session: dict[str, list[dict[str, Any]]] = {}
        for summary in sorted(found, key=lambda each: each["started_at"] or 0.0):
            by_session.setdefault(str(summary.get("session") or summary["started_at"]), []).append(summary)
        stretch = list(by_session.values())[-(nights + 1) :]
        for figure in figures:
            work.append((figure, stretch))
    prepared = []
    for figure, stretch in work:
        nightly = [(pairs.Side("", group).values(figure), group) for group in stretch]
        usable = [(next(iter(values.values())), group) for values, group in nightly if values]
        # Where the newest night lacks the figure, the night before must not stand in for it.
        earlier, newest = (usable[:-1], usable[-1:]) if nightly[-1][0] else (usable, [])
        moved = changes([value for value, _ in earlier])
        before = earlier[moved[-1].index if moved else 0 :]
        pair = pairs.Pair(
            {name: value for name, value in pairs.settings(stretch[-1][0]).items() if value is not None},
            pairs.Side("the newest night", stretch[-1]),
            pairs.Side(
                f"the {len(before)} nights before" if len(before) > 1 else "the nights before",
                [summary for _, group in before for summary in group],
            ),
            (),
        )
        differ = verdict.differences(pair, figure) if before and newest else []
        effect = (
            predicted([value for value, _ in before], [value for value, _ in newest], confidence)
            if before and newest
            else None
        )
        history = {
            "nights": [
                {"session": group[0].get("session"), "started_at": group[0]["started_at"], "value": value}
                for value, group in usable
            ],
            "change_points": [
                {
                    "index": each.index,
                    "label": usable[each.index][1][0].get("session"),
                    "ratio": each.ratio,
                    "p_value": each.p_value,
                }
                for each in moved
            ],
        }
        prepared.append((pair, figure, effect, *verdict.parted(differ, allow), history))
    pairs.told_apart([pair for pair, *_ in prepared])
    effects.correct([None if differ else effect for _, _, effect, differ, _, _ in prepared], correction, margin)
    records = []
    for pair, figure, effect, differ, allowed, history in prepared:
        record = verdict.verdict_record(
            pair, figure, effect, differ, allowed, margin, correction, confidence, len(prepared)
        )
        record["history"] = history
        if pair.a.values(figure) and len(pair.b.values(figure)) < LEAST and not differ:
            many = LEAST + 1
            record["reasons"] = [
                {"code": "few_nights", "message": f"fewer than {LEAST} nights before it at this level"},
                *allowed,
            ]
            record["needed"] = {"sessions": many}
            record["sentence"] = sentences.sentence(record)
        for each in history["change_points"]:
            turned = each["ratio"] if not rows.lower_is_better(figure) else 1 / each["ratio"]
            record["sentence"] += (
                f"; the level {'rose' if turned > 1 else 'fell'} by {words.percent(abs(turned - 1))}% "
                f"at night {each['index'] + 1} of {len(history['nights'])}"
            )
        records.append(record)
    return records
