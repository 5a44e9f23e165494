"""How wrong predictions are: measurements of others against what llmpar-simulate says of the same card and load.

`make hold-out` prints the rows of study/held-out.tsv with predictions beside them, and which share of them the printed
intervals hold; it exits 5 where that is under 90% for one kind of figure and basis. `--given` takes one row of each
series as measured on the reader's own host and predicts the others. `--markdown` writes the tables of docs/simulate.md,
`--chart` its picture.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmpar.simulate import cards, models
from llmpar.simulate.intervals import INTERVALS, interval, kind_of
from llmpar.simulate.models import Refused
from llmpar.simulate.predict import Scenario, lengths, predict, scale_of
from llmpar.simulate.scheduler import ClosedLoop, OpenLoop

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "study" / "held-out.tsv"
WANTED = 0.9
NAMES = {"rate": "tokens/s", "time": "TPOT", "ttft": "TTFT"}


@dataclass
class Row:
    """One measured figure and what is predicted for it."""

    line: dict[str, str]
    id: str
    card: str
    engine: str
    model: str
    load: str
    figure: str
    measured: float
    predicted: float
    basis: str
    low: float
    high: float
    source: str

    @property
    def held(self) -> bool:
        return self.low <= self.measured <= self.high

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1


def _optional(text: str, kind: type) -> Any:
    return None if text == "-" else kind(text)


def lines(path: Path = TABLE) -> list[dict[str, str]]:
    text = [line.split("\t") for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [dict(zip(text[0], values, strict=True)) for values in text[1:]]


def scenario_of(line: dict[str, str], seed: int = 1) -> Scenario:
    """The row's load: closed loop of a Python client, or Poisson arrivals."""
    random = np.random.default_rng([seed, sum(map(ord, line["id"]))])
    count = int(line["requests"])
    most = _optional(line["output_most"], int)
    prompts = lengths(float(line["prompt_tokens"]), float(line["prompt_variation"]), count, random)
    outputs = lengths(float(line["output_tokens"]), float(line["output_variation"]), count, random, most)
    rate = _optional(line["requests_per_s"], float)
    load: ClosedLoop | OpenLoop
    if rate:
        load = OpenLoop(np.cumsum(random.exponential(1 / rate, count)))
    else:
        load = ClosedLoop(int(line["clients"]))
    return Scenario(
        cards.card(line["card"]),
        models.load(line["model"]),
        prompts,
        outputs,
        load,
        kv_tokens=_optional(line["kv_tokens"], int),
        cached_tokens=int(line["cached_tokens"]),
    )


def predicted(line: dict[str, str], scale: float = 1.0, seeds: int = 5) -> dict[str, float]:
    """Figures of a row's load, their geometric means over `seeds` orders of arrivals and lengths."""
    made = [predict(scenario_of(line, seed), scale).figures for seed in range(1, seeds + 1)]
    return {name: float(np.exp(np.mean([np.log(each[name]) for each in made]))) for name in made[0]}


def rows(path: Path = TABLE) -> list[Row]:
    known: dict[str, dict[str, float]] = {}
    found = []
    for line in lines(path):
        if line["id"] not in known:
            known[line["id"]] = predicted(line)
        basis = cards.card(line["card"]).basis
        value = known[line["id"]][line["figure"]]
        load = f"{line['clients']} clients" if line["clients"] != "-" else f"{line['requests_per_s']}/s"
        low, high = interval(line["figure"], value, basis)
        found.append(
            Row(
                line,
                line["id"],
                line["card"],
                line["engine"],
                line["model"],
                f"{line['prompt_tokens']}/{line['output_tokens']}, {load}",
                line["figure"],
                float(line["measured"]),
                value,
                basis,
                low,
                high,
                line["source"],
            )
        )
    return found


def groups(found: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """By kind of figure and basis."""
    sorted_out: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        sorted_out[kind_of(row.figure), row.basis].append(row)
    return dict(sorted(sorted_out.items()))


def given(found: list[Row]) -> dict[str, list[tuple[str, float]]]:
    """Kind of figure to (series, measured over predicted) of rows predicted from another row of their series.

    A series is one source's rows of one card and model: one host.
    """
    series: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for row in found:
        if kind_of(row.figure) != "ttft":
            series[row.source, row.card, row.model, row.figure].append(row)
    ratios: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for (_, card, model, figure), members in series.items():
        for known in members:
            try:
                scale = scale_of(scenario_of(known.line), figure, known.measured)
            except Refused:
                continue  # arrivals decide this rate, whatever the card
            for other in members:
                if other is not known:
                    value = predicted(other.line, scale, seeds=1)[figure]
                    ratios[kind_of(figure)].append((f"{card} {model} {figure}", other.measured / value))
    return ratios


def share(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))


def row_table(found: list[Row], markdown: bool) -> str:
    """Every row: predicted, measured, error."""
    head = [
        "id",
        "card",
        "engine",
        "model",
        "in/out, load",
        "figure",
        "measured",
        "predicted",
        "error",
        "interval",
        "held",
    ]
    lines_ = []
    for row in found:
        factor, unit = (1, "tok/s") if kind_of(row.figure) == "rate" else (1e3, "ms")
        cells = [
            row.id,
            row.card,
            row.engine,
            row.model,
            row.load,
            f"{row.figure.removesuffix('_s').removesuffix('_per')} {unit}",
        ]
        cells += [f"{factor * value:.4g}" for value in (row.measured, row.predicted)]
        cells += [
            f"{100 * row.error:+.0f}%",
            f"{factor * row.low:.4g} to {factor * row.high:.4g}",
            "yes" if row.held else "NO",
        ]
        lines_.append(cells)
    return layout([head, *lines_], markdown)


def group_table(found: list[Row], markdown: bool) -> str:
    """Error by card and figure, then by basis with the share that the interval holds."""
    table = [["", "figure", "rows", "median error", "mean |error|", "worst", "interval on the prediction", "held"]]

    def line(name: str, kind: str, members: list[Row], printed: str) -> list[str]:
        errors = np.array([row.error for row in members])
        worst = errors[np.abs(np.log1p(errors)).argmax()]
        return [
            name,
            NAMES[kind],
            str(len(members)),
            f"{100 * np.median(errors):+.0f}%",
            f"{100 * np.mean(np.abs(errors)):.0f}%",
            f"{100 * worst:+.0f}%",
            printed,
            f"{100 * share(row.held for row in members):.0f}%",
        ]

    for card in dict.fromkeys(row.card for row in found):
        of_card = [row for row in found if row.card == card]
        for kind in dict.fromkeys(kind_of(row.figure) for row in of_card):
            table.append(line(card, kind, [row for row in of_card if kind_of(row.figure) == kind], ""))
    for (kind, basis), members in groups(found).items():
        low, high = INTERVALS[kind, basis]
        table.append(line(f"all, {basis}", kind, members, f"{100 * low - 100:+.0f} to {100 * high - 100:+.0f}%"))
    return layout(table, markdown)


def layout(table: list[list[str]], markdown: bool) -> str:
    if markdown:
        rule = ["---"] * len(table[0])
        return "".join("| " + " | ".join(cells) + " |\n" for cells in (table[0], rule, *table[1:]))
    widths = [max(len(cells[column]) for cells in table) for column in range(len(table[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() + "\n"
        for cells in table
    )


def chart(found: list[Row], path: Path) -> None:
    """Predicted against measured, rates and times apart, with the intervals as bands."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), dpi=90, layout="constrained")
    order = list(dict.fromkeys(row.card for row in found))
    colours = dict(zip(order, plt.get_cmap("tab10").colors, strict=False))
    for axis, kind, unit, factor in zip(
        axes, ("rate", "time", "ttft"), ("tokens/s", "TPOT, ms", "TTFT, ms"), (1, 1e3, 1e3), strict=True
    ):
        members = [row for row in found if kind_of(row.figure) == kind]
        values = [factor * value for row in members for value in (row.predicted, row.measured)]
        ends = np.array([min(values) / 1.3, max(values) * 1.3])
        for basis, shade in (("datasheet", 0.10), ("kernel table", 0.16)):
            low, high = INTERVALS[kind, basis]
            axis.fill_between(
                ends, ends * low, ends * high, color="grey", alpha=shade, linewidth=0, label=f"interval, {basis}"
            )
        axis.plot(ends, ends, color="black", linewidth=0.8)
        for card in order:
            of_card = [row for row in members if row.card == card]
            if of_card:
                marker = "o" if of_card[0].basis == "kernel table" else "^"
                axis.plot(
                    [factor * row.predicted for row in of_card],
                    [factor * row.measured for row in of_card],
                    marker,
                    color=colours[card],
                    markersize=5,
                    alpha=0.8,
                    label=card,
                )
        axis.set(
            xscale="log", yscale="log", xlabel=f"predicted {unit}", ylabel=f"measured {unit}", xlim=ends, ylim=ends
        )
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(LogLocator(subs=(1, 2, 5) if ends[1] < 100 * ends[0] else (1,)))
            side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            side.set_minor_formatter(NullFormatter())
        axis.set_title(
            f"{len(members)} rows, {100 * share(row.held for row in members):.0f}% within their interval", fontsize=10
        )
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--chart", metavar="FILE", type=Path)
    parser.add_argument("--given", action="store_true")
    arguments = parser.parse_args()
    began = time.monotonic()
    found = rows()
    took = time.monotonic() - began
    print(row_table(found, arguments.markdown))
    print(group_table(found, arguments.markdown))
    short = []
    for (kind, basis), members in groups(found).items():
        if share(row.held for row in members) < WANTED:
            short.append(f"{NAMES[kind]} from a {basis}")
    held = share(row.held for row in found)
    print(
        f"{len(found)} figures of {len({row.id for row in found})} measurements, none used to fit: {100 * held:.0f}% "
        f"within their interval; {took:.1f} s"
    )
    if arguments.given:
        for kind, ratios in given(found).items():
            low, high = INTERVALS[kind, "given"]
            values = np.array([ratio for _, ratio in ratios])
            inside = share((low <= values) & (values <= high))
            print(
                f"given one point of the host, {NAMES[kind]}: {len(values)} predictions, measured/predicted "
                f"{' '.join(f'{value:.2f}' for value in np.quantile(values, [0, 0.05, 0.5, 0.95, 1]))} (least, 5%, "
                "median, 95%, most), "
                f"{100 * inside:.0f}% within {100 * low - 100:+.0f} to {100 * high - 100:+.0f}%"
            )
            if inside < WANTED:
                short.append(f"{NAMES[kind]} with a given point")
    if arguments.chart:
        chart(found, arguments.chart)
    if short:
        print(
            f"hold-out: an interval holds less than {100 * WANTED:.0f}%: {', '.join(short)}; widen it in "
            "llmpar/simulate/intervals.py",
            file=sys.stderr,
        )
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main())
