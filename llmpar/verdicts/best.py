"""The best cell of a sweep in one sentence that claims no more than the interval."""

from __future__ import annotations

from collections.abc import Sequence

from llmpar.results import rows, words, workload
from llmpar.results.words import shortened
from llmpar.stats.effects import MARGIN, Effect
from llmpar.verdicts import knee
from llmpar.verdicts.noise import Noise


def answer(rows: Sequence[rows.Row]) -> str:
    """The cell with the least wall seconds against the next best, in a sentence that claims no more than the interval;
    then how many cells other work on the host disturbed."""
    return " ".join(filter(None, [_ranking(rows), _disturbed(rows)]))


def _disturbed(rows: Sequence[rows.Row]) -> str:
    count = sum(any(warning.get("code") == "busy_host" for warning in row.warnings) for row in rows)
    if not count or len(rows) < 2:
        return ""
    return f"Other work used the host's processors in {count} of {len(rows)} cells (busy_host): measure those again."


def _ranking(rows: Sequence[rows.Row]) -> str:
    if any(row.simulated for row in rows):
        measured = [row for row in rows if not row.simulated]
        said = "Simulated cells are predictions; they are not ranked here (docs/simulate.md)."
        return " ".join(filter(None, [_ranking(measured), said]))
    if len(rows) < 2:
        return ""
    if len(workload.kinds(rows)) > 1:
        return "The cells were given different work (prompts or sampling), so none of them is the best."
    models: dict[str, set[str]] = {}
    for row in rows:
        models.setdefault(str(row.settings.get("engine")), set()).add(str(row.settings.get("model")))
    own_models = len(models) > 1 and len(set.union(*models.values())) > 1
    if own_models and any(len(each) > 1 for each in models.values()):
        return "The cells ran different models, so their figures do not say which engine is best."
    fair = [
        row
        for row in rows
        if row.figure("wall_s").value is not None and "wall_s" not in row.limited and not failing(row)
    ]
    if len(fair) < 2:
        return "Fewer than two cells can be ranked: see the warnings."
    pays = knee.sentence(fair)
    if all(row.settings.get("launcher") == "open" for row in fair):
        return pays or "The loads were open, so their wall seconds say nothing about the server: see the latencies."
    noise = Noise(rows)
    best, effects = _against_best(fair, noise)
    lead = f"Least wall seconds: {words.name(best)}, {words.number(best.figure('wall_s').value)} s"
    if own_models:
        own = ", ".join(f"{engine}: {min(each)}" for engine, each in models.items())
        lead = (
            f"Each engine ran a model of its own ({own}); only if their weights are the same does this say which "
            f"engine is best. {lead}"
        )
    if pays:
        lead = f"{pays} {lead}"
    compared = [(row, effect) for row, effect in effects if effect is not None]
    single = [words.name(row) for row, effect in compared if effect.low is None]
    if len(single) == len(effects):
        return f"{lead}. One server session each does not show whether the next would agree: measure with REPEATS=3."
    undecided = [(row, effect) for row, effect in compared if effect.low is not None and effect.low <= 1]
    if undecided:
        names = shortened(
            [
                words.name(row) + (f" ({effect.ratio:.2f} times as long)" if effect.ratio > 1 + MARGIN else "")
                for row, effect in undecided
            ],
            3,
            "; ",
        )
        sessions = min(min(effect.sessions_a, effect.sessions_b) for _, effect in undecided)
        sentence = f"{lead}; with {sessions} server sessions each it cannot be told apart from {names}."
    else:
        row, effect = next(each for each in compared if each[1].low is not None)
        ratio = words.ratio(effect.ratio, effect.low, effect.high)
        sentence = f"{lead}; the next, {words.name(row)}, takes {ratio} times as long."
    if single:
        sentence += f" Measured in one server session only, so not ranked: {shortened(single, 3, '; ')}."
    return sentence


def proven(given: Sequence[rows.Row]) -> rows.Row | None:
    """The row whose wall seconds are surely the least of all, or None: one session decides nothing."""
    have = [row for row in given if row.figure("wall_s").value is not None and not row.failures]
    if len(have) < 2 or any(row.settings.get("launcher") == "open" for row in have):
        return None
    best, effects = _against_best(have, Noise(have))
    surely = all(effect is not None and effect.low is not None and effect.low > 1 for _, effect in effects)
    return best if surely else None


def _against_best(given: Sequence[rows.Row], noise: Noise) -> tuple[rows.Row, list[tuple[rows.Row, Effect | None]]]:
    """The row of the least wall seconds, and how many times as long each of the others takes, the least first.

    Where another row surely takes less, in the server sessions that measured both, that one is taken in its place: a
    row's own value may be of more sessions than they share.
    """
    ordered = sorted(given, key=lambda row: row.figure("wall_s").value or 0.0)
    confidence = 1 - 0.05 / (len(ordered) - 1)
    best = ordered[0]
    for _ in ordered:
        effects = [
            (row, noise.effect(row, best, "wall_s", confidence=confidence)) for row in ordered if row is not best
        ]
        less = [
            (effect.ratio, row) for row, effect in effects if effect and effect.high is not None and effect.high < 1
        ]
        if not less:
            break
        best = min(less, key=lambda pair: pair[0])[1]
    return best, effects


def failing(row: rows.Row) -> bool:
    requests = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries)
    return row.failures > rows.MOST_FAILED * requests
