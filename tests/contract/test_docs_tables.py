"""Tables in docs/ that come from tables in the code. `make golden` rewrites them; read the diff."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llmpar.results import rows, words
from llmpar.summary import warnings


def figures() -> list[list[str]]:
    """How `--figure` and `--metric` spell figures, and what the commands call them."""
    table = [["figure", "called", "unit"], ["---"] * 3]
    table += [[f"`{name}`", words.title(name), words.named(name).unit] for name in words.NAMES]
    for name in words.LATENCY_NAMES:
        assert f"{name}_s" in rows.LATENCIES
        example = f"{name}_p95_s"
        table.append([f"`{example}`", f"{words.title(example)} ({words.named(name + '_p95_s').axis})", "s"])
    return table


def warnings_of_summaries() -> list[list[str]]:
    """When each warning is given, and what it advises."""
    table = [["code", "when", "what to try"], ["---"] * 3]
    for code, warning in warnings.TABLE.items():
        table.append([f"`{code}`", warning.when, warning.advice.replace("{first}", warnings.MORE_PROMPTS)])
    return table


TABLES: dict[str, tuple[str, Callable[[], list[list[str]]]]] = {
    "figures": ("metrics.md", figures),
    "warnings": ("metrics.md", warnings_of_summaries),
}


@pytest.mark.parametrize("name", TABLES)
def test_generated(name: str, root: Path, rewrite: bool) -> None:
    page, rows_of = TABLES[name]
    path = root / "docs" / page
    text = path.read_text()
    pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.S)
    assert len(pattern.findall(text)) == 1
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows_of())
    wanted = pattern.sub(lambda match: match[1] + table + match[2], text)
    if rewrite:
        path.write_text(wanted)
    assert path.read_text() == wanted


def test_simulated_tables_have_their_places(root: Path) -> None:
    """Every table that bench/simulate makes is in docs/ once, under the command that makes it, and no other is."""
    made = subprocess.run([root / "bench" / "simulate", "--help"], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^  (\S+) .*; \d+ rounds$", made, re.M)
    places: dict[str, str] = {}
    for page in (root / "docs").glob("*.md"):
        for name, command in re.findall(r"<!-- simulated: (\S+) -->\n(.*)\n", page.read_text()):
            assert name not in places
            places[name] = command
    assert sorted(places) == sorted(names)
    for name, command in places.items():
        assert re.fullmatch(rf"`bench/simulate \d+ {name}`:", command), name


def test_every_figure_has_a_name() -> None:
    for name in (*rows.RATES, *rows.OTHERS, "wall_s"):
        assert name in words.NAMES
    assert {f"{name}_s" for name in words.LATENCY_NAMES} == set(rows.LATENCIES)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0695, "0.0695"),
        (0.00123, "0.00123"),
        (17.83, "17.8"),
        (6190.4, "6190"),
        (0.0, "0"),
        (None, "–"),
        (99.96, "100"),
    ],
)
def test_one_number_everywhere(value: float | None, text: str) -> None:
    from llmpar.render import summaries

    assert words.number(value) == text
    assert summaries.number is words.number


def test_quantities_have_their_unit() -> None:
    assert words.quantity("ttft_p50_s", 0.346) == "346 ms"
    assert words.quantity("ttft_p50_s", 8.723) == "8.72 s"
    assert words.quantity("output_tokens_per_s_steady", 2570.2) == "2570 output tokens/s"
    assert words.quantity("memory_bytes", 20.1 * 2**30) == "20.1 GiB"
