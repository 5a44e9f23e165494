"""A report document as one HTML file: answers first, then charts and tables that a reader can sort, filter and judge by
objectives of their own. It asks the network for nothing and holds the same figures without its script.

Words from outside reach the page through Jinja2's escaping alone; only this package's own style sheet and scripts are
put in as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from llmpar.render import picks, report_cells
from llmpar.render.charts import Chart, Timeline
from llmpar.report import document
from llmpar.report.table import Table
from llmpar.results import words
from llmpar.verdicts import claims, sentences

# A claim's verdict as a word and a sign, so that colour is never the only difference.
SIGNS = {
    claims.SUPPORTED: "✓",
    claims.CONTRADICTED: "✗",
    claims.DEPENDS: "~",
    claims.CANNOT_TELL: "?",
    claims.NOT_RUN: "–",
}
CLASSES = {
    claims.SUPPORTED: "yes",
    claims.CONTRADICTED: "no",
    claims.DEPENDS: "open",
    claims.CANNOT_TELL: "open",
    claims.NOT_RUN: "none",
}
# Okabe and Ito's colours (2008), which people of all kinds of colour vision tell apart, darker or lighter so that a
# line has a contrast of 3 with its paper.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b3558a", "#b37700", "#3a8fc7", "#111112", "#6b6b6c")
DARK = ("#58b0e8", "#f0834a", "#2fc497", "#dd9cc2", "#e9ad2a", "#8fd0f5", "#f0f0f1", "#a5a5a6")
MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M-3.6 -3.6h7.2v7.2h-7.2z",
    "M0 -4.6L4.4 3.6H-4.4z",
    "M0 -5L5 0L0 5L-5 0z",
    "M0 4.6L4.4 -3.6H-4.4z",
    "M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "M-4.5 -2.5l2 -2l2.5 2.5l2.5 -2.5l2 2l-2.5 2.5l2.5 2.5l-2 2l-2.5 -2.5l-2.5 2.5l-2 -2l2.5 -2.5z",
    "M0 -5l1.5 3.3l3.5 .4l-2.6 2.4l.7 3.6l-3.1 -1.8l-3.1 1.8l.7 -3.6l-2.6 -2.4l3.5 -.4z",
)
MOST_PICKS = 5
UNITS = {"us": 1e-6, "ms": 1e-3, "MiB": 1.0, "GiB": 1024.0}


@cache
def environment() -> jinja2.Environment:
    """Where templates come from, with escaping on for all of them."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("llmpar.render"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_controls,
    )


def page(
    document: document.Document, charts: Mapping[str, list[Chart]], timelines: Sequence[Timeline], omitted: str = ""
) -> str:
    """The whole file. `charts` by sweep; `omitted` says which time lines were left out, if any."""
    given = [row for sweep in document.sweeps for row in sweep.rows]
    run = [record for record in document.claims if record["verdict"] != claims.NOT_RUN]
    named = [record["verdict"] for record in document.claims]
    order = list(SIGNS)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            document=document,
            title=document.title,
            style=Markup(style()),
            script=Markup(_own("report.js")),
            markers=MARKERS,
            slug=slug,
            halves=halves,
            sort_key=sort_key,
            compared=sentences.together(document.verdicts),
            goal=report_cells.goal(document.objectives),
            objectives=document.objectives,
            picks=_picks(document),
            slo=report_cells.slo(document.objectives),
            rows=given,
            cells=report_cells.table(given),
            states=report_cells.states(given, document),
            limits=report_cells.limits(given, document),
            traded=report_cells.traded(given, document.objectives),
            charts=charts,
            timelines=timelines,
            omitted=omitted,
            signs=SIGNS,
            classes=CLASSES,
            tally=[(name, count) for name in SIGNS if (count := named.count(name))],
            claims=[_claim(record) for record in sorted(run, key=lambda record: order.index(record["verdict"]))],
            not_run=[
                (record["sentence"], record["sweep"])
                for record in document.claims
                if record["verdict"] == claims.NOT_RUN
            ],
        )
    )


def style() -> str:
    """The style sheet with the palettes filled in; the series' colours are variables c0 … c7."""
    sheet = environment().get_template("report.css.j2").render(light=LIGHT, dark=DARK)
    return re.sub(r"\n\s*", "", sheet)


def _own(name: str) -> str:
    """A script of this package, less its own comments' end of a script, should it ever hold one."""
    loader = environment().loader
    assert loader is not None
    source, _, _ = loader.get_source(environment(), name)
    if "</script" in source:
        raise ValueError(f"'{name}' would end its element")
    return source


def _picks(document: document.Document) -> dict[str, Any]:
    ranked = [choice for choice in document.choices if choice.ranked]
    groups = [
        {"name": name, "count": sum(choice.state == state for choice in document.choices), "reasons": reasons}
        for state, name in picks.GROUPS
        if (reasons := picks.reasons(document.choices, state))
    ]
    header, body = picks.cells(ranked[:MOST_PICKS], document.objectives)
    table = Table("Picks", header, body, set(range(2, len(header))), " ".join(picks.notes(ranked)))
    return {"counted": picks.counted(document.choices), "table": table if ranked else None, "groups": groups}


def _claim(record: dict[str, Any]) -> dict[str, Any]:
    stated = record["stated_ratio"]
    return {
        "verdict": record["verdict"],
        "sentence": record["sentence"],
        "effect": sentences.claim(record),
        "stated": words.ratio(stated, None, None) if stated else "",
        "note": record["note"] or "",
        "metric": words.title(record["metric"]),
        "count": words.plural(len(record["comparisons"]), "comparison"),
        "table": _comparisons(record),
    }


def _comparisons(record: dict[str, Any]) -> Table:
    rows = [
        [
            words.settings(one["a"]["settings"]),
            words.settings(one["b"]["settings"]),
            ", ".join(
                str(value) if key in ("engine", "model") else f"{key.replace('_', ' ')} {value}"
                for key, value in one["at"].items()
            ),
            one["a"]["host"],
            one["outcome"],
            sentences.comparison(one, record["metric"]),
        ]
        for one in record["comparisons"]
    ]
    return Table("", ["A", "B", "at", "host", "outcome", "effect"], rows)


def halves(value: str) -> tuple[str, str]:
    """A figure and its interval, which stands under it: `17.8 s` and `(17.4 to 18.1)`."""
    main, bracket, rest = value.partition(" (")
    return main, f"({rest}" if bracket else ""


def sort_key(value: str) -> Markup:
    """The attribute by which a column of figures is sorted; what is not known sorts last."""
    found = re.match(r"([-−]?[\d.]+)(?: ([A-Za-z]+))?", value)
    if not found:
        return Markup(' data-sort=""')
    number = float(found[1].replace("−", "-")) * UNITS.get(found[2] or "", 1.0)
    return Markup(f' data-sort="{number:.9g}"')


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "cells"


def _without_controls(value: Any) -> Any:
    """Control characters from outside are shown as unknown ones."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\ufffd", value)
    return value
