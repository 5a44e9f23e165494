"""The README's figures are those of the results in docs/."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from llmpar.render import summaries
from llmpar.results import words
from llmpar.results.rows import Row, group
from llmpar.verdicts import knee


@pytest.fixture
def text(root: Path) -> str:
    return " ".join((root / "README.md").read_text().split())


@pytest.fixture
def clients(root: Path) -> list[Row]:
    everything = map(orjson.loads, (root / "docs/results/h100/summaries.jsonl").read_bytes().splitlines())
    sweep = [record for record in everything if (record.get("cell") or {}).get("sweep") == "gpu-host-clients"]
    return sorted(group(sweep), key=lambda row: row.settings["clients"])


def test_the_answer_is_what_the_results_say(text: str, clients: list[Row]) -> None:
    assert knee.sentence(clients) in text.replace(" > ", " ")
    assert knee.clients(clients) == 128


def test_the_picture_and_its_words_show_them(root: Path, text: str, clients: list[Row]) -> None:
    alt = re.search(r"!\[(.*?)\]\((docs/results/h100/clients\.png)\)", text)
    assert alt and (root / alt[2]).read_bytes().startswith(b"\x89PNG")
    assert (root / alt[2]).stat().st_size < 150_000
    rates = {row.settings["clients"]: words.number(row.figure("output_tokens_per_s").value, 4) for row in clients}
    assert f"{rates[128]} at 128 clients" in alt[1] and f"{rates[512]} at 512" in alt[1]
    waits = [row.figure("ttft_mean_s").value or 0.0 for row in clients if row.settings["clients"] in (24, 128, 512)]
    assert "from {:.2f} s over {:.2f} s to {:.1f} s".format(*waits) in alt[1]


def test_the_table_is_what_a_sweep_prints(root: Path, clients: list[Row]) -> None:
    printed = summaries.table([summary for row in clients for summary in row.summaries])
    head, *cells = [line for line in printed.splitlines() if re.match(r"clients  |\s+\d+ ", line)]
    assert len(cells) == 5 and "\n".join(["```", head, *cells, "```"]) in (root / "README.md").read_text()


def test_other_tools_have_the_figures_of_the_benchmark(root: Path, text: str) -> None:
    page = (root / "docs" / "benchmarks.md").read_text()
    rows = {
        cells[0]: cells
        for line in page.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 8
    }

    def two(value: str) -> str:
        number = float(value)
        return f"{number:.1f}" if 1 <= number < 10 else f"{number:.0f}" if number >= 10 else f"{number:.1g}"

    tools = ("llmpar, pool", "guidellm", "aiperf")
    errors = " | ".join(f"{two(rows[tool][3])}, {two(rows[tool][4])}" for tool in tools)
    costs = " | ".join(f"{float(rows[tool][6]):.0f}" for tool in tools)
    assert f"| error of TTFT, p50 and p99 in ms | {errors} |" in text
    assert f"| CPU a request in ms | {costs} |" in text


def test_it_is_short(root: Path) -> None:
    assert len((root / "README.md").read_text().split()) < 1000
