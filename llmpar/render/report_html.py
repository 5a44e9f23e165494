"""A report document as one HTML file: no scripts, no fonts, no requests; light, dark, print, and from 390 px up."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from llmpar.render import picks, plot
from llmpar.render.charts import Chart
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
LIGHT = (*plot.COLOURS[:6], "#111112", "#6b6b6c")
DARK = ("#58b0e8", "#f0834a", "#2fc497", "#dd9cc2", "#e9ad2a", "#8fd0f5", "#f0f0f1", "#a5a5a6")

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1a1a1c;--soft:#5a5a60;--line:#d9d9de;
--panel:#f6f6f8;--yes:#00664a;--no:#a33b00;--open:#5a4a00;--guess:#7a1f6b;LIGHT}
@media (prefers-color-scheme:dark){:root{--paper:#151518;--ink:#ececf0;--soft:#a9a9b2;--line:#3a3a42;
--panel:#1f1f24;--yes:#5fd3a8;--no:#ff9d6b;--open:#e8c84e;--guess:#f0a6e2;DARK}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:78rem;margin:0 auto;padding:1.25rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.25rem;margin:2.5rem 0 .5rem;border-top:1px solid var(--line);padding-top:1rem}
h3{font-size:1.05rem;margin:1.75rem 0 .25rem}
p,ul,ol,dl{margin:.4rem 0}
a{color:inherit}
.soft,figcaption{color:var(--soft);font-size:.875rem}
.facts{list-style:none;padding:0}
.answer{font-weight:600}.causes{padding-left:1.1rem}
.tally{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;list-style:none;padding:0}
.claims{list-style:none;padding:0}
.claims>li{display:grid;grid-template-columns:9.5rem 1fr;gap:0 1rem;padding:.6rem 0;border-bottom:1px solid var(--line)}
.verdict{font-weight:700;white-space:nowrap}
.yes{color:var(--yes)}.no{color:var(--no)}.open{color:var(--open)}.none{color:var(--soft)}
.claims p{margin:0;overflow-wrap:anywhere}
details{margin:.25rem 0}summary{cursor:pointer;color:var(--soft);font-size:.875rem}
.scroll{overflow-x:auto;margin:.5rem 0;border:1px solid var(--line);border-radius:4px}
.scroll:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .6rem;border-top:1px solid var(--line);vertical-align:top}
thead th{background:var(--panel);border-top:0;vertical-align:bottom}
.f{text-align:right}td.f{white-space:nowrap}th.f{min-width:4.5rem}
.f small{display:block;color:var(--soft);font-size:.75rem}
td.w{overflow-wrap:anywhere;min-width:9rem}
td code{font-size:.8rem}
tr.simulated{background:var(--panel);color:var(--guess);font-style:italic}
figure{margin:1.25rem 0}.title{font-weight:600;font-size:.9rem;margin:0 0 .25rem}
figure svg{display:block;width:100%;height:auto}
figure svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif!important}
.narrow{display:none}
@media (max-width:700px){
 body{font-size:15px}
 .wide{display:none}.narrow{display:block;max-width:28rem}
 .claims>li{grid-template-columns:1fr}
 h1{font-size:1.4rem}
}
@media print{
 :root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--panel:#f2f2f2;--yes:#00533c;--no:#8a3200;--open:#4a3d00;LIGHT}
 body{font-size:10pt}main{max-width:none;padding:0}
 .wide{display:block}.narrow{display:none}
 .scroll{overflow:visible;border:0}
 table{font-size:8pt}th,td{padding:.15rem .25rem}td.w{min-width:0}th.f{min-width:0}
.f,td.f{white-space:normal}.f small{font-size:5.8pt;white-space:nowrap}
 .soft,figcaption,summary{font-size:8.5pt}
 figure,tr,.claims>li{break-inside:avoid}h2,h3{break-after:avoid}
 .claims>li{grid-template-columns:7rem 1fr}
}
"""


def page(
    document: document.Document, charts: dict[str, list[Chart]], timelines: Sequence[Chart], omitted: str = ""
) -> str:
    """The whole file. `charts` by sweep; `omitted` says which time lines were left out, if any."""
    parts = [
        f"<h1>{text(document.title)}</h1>",
        '<ul class="facts soft">',
        *(f"<li>{text(fact)}</li>" for fact in document.facts),
        "</ul>",
    ]
    answered = [sweep for sweep in document.sweeps if sweep.answer]
    if answered:
        parts += ["<h2>Answers</h2>", "<ul>"]
        parts += [
            f'<li><a href="#sweep-{slug(sweep.name)}">{text(sweep.name or "cells")}</a>: {text(sweep.answer)}</li>'
            for sweep in answered
        ]
        parts.append("</ul>")
    if document.choices:
        said = picks.render(document.choices, document.objectives, 5, False)
        parts += ["<h2>Picks</h2>", f'<pre class="scroll">{text(said)}</pre>']
    if document.verdicts or document.claims:
        parts += ["<h2>Verdicts</h2>", *_verdicts(document)]
    parts.append("<h2>Wall seconds</h2>")
    for sweep in document.sweeps:
        parts.append(f'<h3 id="sweep-{slug(sweep.name)}">{text(sweep.name or "cells")}</h3>')
        if sweep.answer:
            parts.append(f'<p class="answer">{text(sweep.answer)}</p>')
        parts.append(table(sweep.table))
        if sweep.causes:
            parts.append('<ul class="causes">' + "".join(f"<li>{text(cause)}</li>" for cause in sweep.causes) + "</ul>")
        parts += [chart(one, f"{slug(sweep.name)}-{index}") for index, one in enumerate(charts.get(sweep.name, []))]
    for published in document.published:
        parts += [f"<h3>{text(published.title)}</h3>", table(published)]
    if timelines:
        parts += [
            "<h2>Time lines</h2>",
            f'<p class="soft">{text(omitted)}</p>' if omitted else "",
            *(chart(one, f"timeline-{index}") for index, one in enumerate(timelines)),
        ]
    parts.append("<h2>Warnings</h2>")
    parts += [table(one, words_wide=True) for one in document.warnings] or ["<p>None.</p>"]
    parts.append("<h2>How it was run</h2>")
    for one in document.runs:
        parts += [f"<h3>{text(one.title)}</h3>", table(one, words_wide=True)]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{text(document.title)}</title><link rel="icon" href="data:,"><style>{style()}</style></head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def style() -> str:
    """The style sheet with the palettes filled in; the series' colours are variables c0 … c7."""

    def palette(colours: Sequence[str], ink: str, grid: str) -> str:
        return "".join(f"--c{index}:{colour};" for index, colour in enumerate(colours)) + f"--t:{ink};--g:{grid}"

    sheet = STYLE.replace("LIGHT", palette(LIGHT, "#2a2a2e", "#dcdce0")).replace(
        "DARK", palette(DARK, "#d6d6dc", "#3a3a42")
    )
    return re.sub(r"\n\s*", "", sheet)


def _verdicts(document: document.Document) -> list[str]:
    parts = []
    if document.verdicts:
        parts += [
            "<h3>Compared</h3>",
            "<ul>",
            *(
                f"<li>{text(record.get('sentence') or record.get('verdict') or '')}</li>"
                for record in document.verdicts
            ),
            "</ul>",
        ]
    if not document.claims:
        return parts or ["<p>No claims were given.</p>"]
    counts = [(name, sum(record["verdict"] == name for record in document.claims)) for name in SIGNS]
    parts.append("<h3>The study's findings</h3>")
    parts.append(
        '<ul class="tally">'
        + "".join(
            f'<li><span class="{CLASSES[name]}">{SIGNS[name]}</span> {count} {name}</li>' for name, count in counts
        )
        + "</ul>"
    )
    run = [record for record in document.claims if record["verdict"] != claims.NOT_RUN]
    order = list(SIGNS)
    run.sort(key=lambda record: order.index(record["verdict"]))
    parts.append('<ol class="claims">')
    for record in run:
        name = record["verdict"]
        stated = (
            f" <span class=soft>The study: {words.ratio(record['stated_ratio'], None, None)}.</span>"
            if record["stated_ratio"]
            else ""
        )
        note = f"<p class=soft>{text(record['note'])}</p>" if record["note"] else ""
        parts.append(
            f'<li><span class="verdict {CLASSES[name]}">{SIGNS[name]} '
            f"{name}</span><div><p>{text(record['sentence'])}</p>"
            f"<p class=soft>{text(sentences.claim(record))}.{stated}</p>{note}{_comparisons(record)}</div></li>"
        )
    parts.append("</ol>")
    left = [record for record in document.claims if record["verdict"] == claims.NOT_RUN]
    if left:
        parts.append(
            f"<details><summary>Not run: {len(left)}</summary><ul>"
            + "".join(
                f"<li>{text(record['sentence'])} (<code>make study-{text(record['sweep'])}</code>)</li>"
                for record in left
            )
            + "</ul></details>"
        )
    return parts


def _comparisons(record: dict[str, Any]) -> str:
    compared = record["comparisons"]
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
        for one in compared
    ]
    inner = table(Table("", ["A", "B", "at", "host", "outcome", "effect"], rows), words_wide=True)
    return (
        f"<details><summary>{words.plural(len(compared), 'comparison')}: A over B of "
        f"{text(record['metric'])}</summary>{inner}</details>"
    )


def table(one: Table, words_wide: bool = False) -> str:
    """A table in a container of its own that scrolls sideways where the page is narrow."""
    head = "".join(
        f'<th scope="col"{" class=f" if index in one.right else ""}>{text(name)}</th>'
        for index, name in enumerate(one.header)
    )
    lines = []
    for place, row in enumerate(one.rows):
        cells = []
        for index, value in enumerate(row):
            if index in one.right:
                main, _, rest = value.partition(" (")
                small = f"<small>({text(rest)}</small>" if rest else ""
                cells.append(f"<td class=f>{text(main)}{small}</td>")
            else:
                cells.append(f"<td{' class=w' if words_wide else ''}>{text(value)}</td>")
        lines.append(f"<tr{' class=simulated' if place in one.simulated else ''}>{''.join(cells)}</tr>")
    caption = f'<p class="soft">{text(one.caption)}</p>' if one.caption else ""
    note = f'<p class="soft">{text(one.note)}</p>' if one.note else ""
    label = text(one.title or "comparisons")
    return (
        f'{caption}<div class="scroll" tabindex="0" role="region" aria-label="Table: '
        f'{label}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>{note}"
    )


def chart(one: Chart, prefix: str) -> str:
    """A chart in both its looks; the style sheet shows the one that fits."""
    shown = []
    for name, look in (("wide", plot.WIDE), ("narrow", plot.NARROW)):
        drawing = themed(plot.svg(one.draw(look), f"{prefix}-{name}"))
        opening = drawing[: drawing.index(">") + 1]
        box = re.search(r'viewBox="[^"]*"', opening)
        assert box is not None, "matplotlib writes a viewBox"
        start = f'<svg class="{name}" role="img" aria-label="{text(one.title)}. {text(one.alt)}" {box[0]}>'
        shown.append(start + drawing[len(opening) :])
    caption = f"<figcaption>{text(one.note)}</figcaption>" if one.note else ""
    return f"<figure><p class=title>{text(one.title)}</p>{''.join(shown)}{caption}</figure>"


def themed(drawing: str) -> str:
    """The drawing with its fixed colours turned into the style sheet's variables, so that dark pages and paper fit."""
    colours = {colour: f"var(--c{index})" for index, colour in enumerate(plot.COLOURS)} | {
        plot.TEXT: "var(--t)",
        plot.GRID: "var(--g)",
        plot.SIMULATED: "var(--guess)",
    }
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: colours.get(match[0], match[0]), drawing)


def text(value: object) -> str:
    """Text that stays text in HTML, within elements and quoted attributes; no control characters."""
    return html.escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\ufffd", str(value)), quote=True)


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "cells"
