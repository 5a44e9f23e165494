"""The newest night against the nights that a series began with.

The first nights pin the level. Whether the newest says that it was lost is for a control chart (stats/control.py): one
night far outside, or a sum of smaller losses. A verdict's interval is a prediction interval of Student's t from the
pinned nights. Slow nights stay in the series; what a night changed in engine or host is named.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmpar.results import rows, words
from llmpar.stats import control, effects
from llmpar.stats.control import LEAST, predicted
from llmpar.verdicts import comparable, pairs, sentences, verdict


def verdicts(
    summaries: list[dict[str, Any]],
    figures: tuple[str, ...],
    nights: int,
    margin: float = effects.MARGIN,
    correction: str = "holm",
    allow: tuple[str, ...] = (),
    confidence: float = effects.CONFIDENCE,
) -> list[dict[str, Any]]:
    """For each cell and figure, the newest session against the first `nights` of the sessions before it.

    `slower` is a loss beyond `margin` for which a chart over all sessions speaks tonight, or spoke while other figures
    of the same change had just been told (control.mails). A loss that lasts is `slower` once; later nights say that it
    was told.
    """
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for summary in summaries:
        key = tuple(sorted((name, str(value)) for name, value in pairs.settings(summary).items()))
        cells.setdefault(key, []).append(summary)
    work = []
    for cell_summaries in cells.values():
        by_session: dict[str, list[dict[str, Any]]] = {}
        for summary in sorted(cell_summaries, key=lambda each: each.get("started_at") or 0.0):
            by_session.setdefault(str(summary.get("session") or summary.get("started_at")), []).append(summary)
        stretch = list(by_session.values())
        for figure in figures:
            work.append((figure, stretch))
    values = [
        [next(iter(pairs.Side("", group).values(figure).values()), None) for group in stretch]
        for figure, stretch in work
    ]
    rho = control.correlation([[value for value in each if value is not None] for each in values], nights)
    charts = [
        control.chart(
            [value for value in nightly if value is not None],
            rows.lower_is_better(figure),
            margin,
            len(work),
            rho,
            nights,
        )
        for (figure, _), nightly in zip(work, values, strict=True)
    ]
    told_alarms, tonights = _told(charts, values)
    prepared = []
    for (figure, stretch), nightly, charted in zip(work, values, charts, strict=True):
        usable = [(value, group) for value, group in zip(nightly, stretch, strict=True) if value is not None]
        # Where the newest night lacks the figure, the night before must not stand in for it.
        earlier, newest = (usable[:-1], usable[-1:]) if nightly[-1] is not None else (usable, [])
        before = earlier[:nights]
        standing = charted.standing if newest else None
        spoken, reported = (standing, None) if id(standing) in tonights else (None, standing)
        pinned = "pinned nights" if len(earlier) > nights else "nights before"
        pair = pairs.Pair(
            {name: value for name, value in pairs.settings(stretch[-1][0]).items() if value is not None},
            pairs.Side("the newest night", stretch[-1]),
            pairs.Side(
                f"the {len(before)} {pinned}" if len(before) > 1 else "the nights before",
                [summary for _, group in before for summary in group],
            ),
            (),
        )
        differ = comparable.differences(pair, figure) if before and newest else []
        effect = (
            predicted([value for value, _ in before], [value for value, _ in newest], confidence)
            if before and newest
            else None
        )
        history: dict[str, Any] = {
            "nights": [
                {"session": group[0].get("session"), "started_at": group[0].get("started_at"), "value": value}
                for value, group in usable
            ],
            "pinned": len(before),
            "change_points": [
                {
                    "index": each.since,
                    "label": usable[each.since][1][0].get("session"),
                    "ratio": 1 / each.ratio if not rows.lower_is_better(figure) else each.ratio,
                    "spoken_index": each.index,
                }
                for each in charted.alarms
            ],
        }
        changed = _changed(stretch[-2][-1], stretch[-1][-1]) if len(stretch) > 1 else ""
        prepared.append((pair, figure, effect, *verdict.parted(differ, allow), history, spoken, reported, changed))
    pairs.told_apart([pair for pair, *_ in prepared])
    effects.correct([None if differ else effect for _, _, effect, differ, *_ in prepared], correction, margin)
    records = []
    for pair, figure, effect, differ, allowed, history, spoken, reported, changed in prepared:
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
        elif not differ and effect is not None:
            if spoken is not None:
                record["verdict"] = "slower"
            elif record["verdict"] == "slower":
                record["verdict"] = "cannot tell"
                record["reasons"].insert(0, {"code": "one_night", "message": "one such night is not a change of level"})
            if reported is not None and record["verdict"] != "slower":
                label = history["nights"][reported.index]["session"]
                message = (
                    f"{words.percent(reported.ratio - 1)}% worse since {label}, which was reported; no worse since then"
                )
                if id(reported) not in told_alarms:
                    message = (
                        f"{words.percent(reported.ratio - 1)}% worse since {label}, reported then with other figures"
                    )
                record["reasons"] = [each for each in record["reasons"] if each["code"] != "one_night"]
                record["reasons"].insert(0, {"code": "told_before", "message": message})
            record["sentence"] = sentences.sentence(record)
        if spoken is not None:
            count = len(history["nights"])
            record["sentence"] += (
                f"; the level is {words.percent(spoken.ratio - 1)}% worse since night {spoken.since + 1} of {count}"
                if spoken.since < count - 1
                else f"; night {count} of {count} is the first"
            )
        if changed:
            record["reasons"].append({"code": "changed", "message": f"changed since the night before: {changed}"})
        records.append(record)
    return records


def _told(charts: list[control.Chart], values: list[list[float | None]]) -> tuple[set[int], set[int]]:
    """Which alarms (`id`) have been told by tonight, and which are told tonight.

    Nights are counted from the newest back, in which all cells were measured: a cell that failed one night is then off
    by one in older ones.
    """
    shifted, measured = [], []
    for chart, nightly in zip(charts, values, strict=True):
        places = [place - len(nightly) for place, value in enumerate(nightly) if value is not None]
        measured.append(places)
        shifted.append([replace(each, index=places[each.index], since=places[each.since]) for each in chart.alarms])
    reported: set[int] = set()
    tonights: set[int] = set()
    for night, alarms in control.mails(shifted, measured).items():
        which = {id(charts[number].alarms[shifted[number].index(alarm)]) for number, alarm in alarms}
        if night <= -1:
            reported |= which
        if night == -1:
            tonights |= which
    return reported, tonights


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What of engine, model file and host differs between two nights: `driver 550.54 to 560.28`."""

    def facts(summary: dict[str, Any]) -> dict[str, Any]:
        server, host = summary.get("server") or {}, summary.get("host") or {}
        software = host.get("software") or {}
        model = server.get("model_file") or {}
        return {
            str(server.get("engine") or "engine"): server.get("version"),
            "model file": model.get("modified_at"),
            "driver": host.get("driver"),
            "CUDA": host.get("cuda"),
            "kernel": host.get("kernel"),
            "boot": host.get("boot"),
            "checkout": software.get("commit"),
        }

    old, new = facts(before), facts(now)
    return ", ".join(
        name if name in ("boot", "model file") else f"{name} {old[name]} to {value}"
        for name, value in new.items()
        if value is not None and old.get(name) is not None and old[name] != value
    )
