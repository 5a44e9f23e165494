"""docs/engines.md says what the engines' files and docs/engines.tsv say, and what is said to be run was run by
scripts/engines."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from llmpar.engines import COMMON, ENGINES
from llmpar.engines.base import Settings

HOW = ("run", "own parser", "read")
START, END = "`make golden` rewrites it. -->\n", "<!-- End. -->"


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "engines.md").read_text()


def tsv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture
def proofs(root: Path) -> list[dict[str, str]]:
    return tsv(root / "docs" / "engines.tsv")


def rows(page: str, first: str) -> list[list[str]]:
    """The cells of the table whose head begins with `first`, its head included."""
    lines = page.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip().strip("`") for cell in line.strip().strip("|").split("|")])
    return [row for row in table if not set("".join(row)) <= set("-")]


def generated(proofs: list[dict[str, str]]) -> str:
    """The part of the page that comes from tables."""
    lines = ["| engine | runtimes | port | API |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {', '.join(row.runtimes)} | {row.default_port} | `{row.api}` |" for name, row in ENGINES.items()
    ]
    lines += ["", "| runs | runtime | how | version | where and when | what |", "|---|---|---|---|---|---|"]
    for proof in proofs:
        how = f"**{proof['how']}**" if proof["how"] == "run" else proof["how"]
        where = ", ".join(filter(None, (proof["machine"], proof["date"])))
        lines.append(
            f"| `{proof['engine']}` | {proof['runtime']} | {how} | {proof['version']} | {where} | {proof['what']} |"
        )
    return "\n" + "\n".join(lines) + "\n\n"


def test_settings(page: str) -> None:
    head, *body = rows(page, "setting")
    assert head[1:] == list(ENGINES)
    names = [row[0].removeprefix("--").replace("-", "_").replace("engine_version", "version") for row in body]
    assert set(names) == set(Settings.__dataclass_fields__) - COMMON
    for name, row in zip(names, body, strict=True):
        for engine, cell in zip(head[1:], row[1:], strict=True):
            assert (cell == "yes") == (name in ENGINES[engine].supports), (engine, name)


def test_the_page_is_what_the_tables_say(page: str, root: Path, proofs: list[dict[str, str]], rewrite: bool) -> None:
    before, middle, after = re.split(f"(?<={re.escape(START)})|(?={re.escape(END)})", page)
    if rewrite:
        (root / "docs" / "engines.md").write_text(before + generated(proofs) + after)
    else:
        assert middle == generated(proofs), "make golden rewrites it"


def test_every_runtime_has_its_proof(proofs: list[dict[str, str]]) -> None:
    assert {(row["engine"], row["runtime"]) for row in proofs} == {
        (name, runtime) for name, engine in ENGINES.items() for runtime in engine.runtimes
    }
    for row in proofs:
        assert row["how"] in HOW and row["version"] and row["what"]
        assert bool(row["machine"]) == bool(row["date"]) == (row["how"] != "read"), row


def test_what_is_said_to_be_run_was_run(root: Path, proofs: list[dict[str, str]]) -> None:
    """docs/results/make-engines.tsv is what scripts/engines wrote; both ways."""
    runs = tsv(root / "docs" / "results" / "make-engines.tsv")
    assert all(int(row["requests"]) >= 32 and row["failures"] == "0" for row in runs)
    said = {(row["engine"], row["runtime"], row["version"], row["machine"]) for row in proofs if row["how"] == "run"}
    on_cores = {each for each in said if each[3].endswith("CPU cores")}
    # These servers tell no version: the commit that was built, and the package.
    built = {"powerinfer": "d3ebd7c", "llama-server": "11434.0.0"}
    done = {(row["engine"], row["runtime"], built.get(row["name"], row["version"]), row["machine"]) for row in runs}
    assert done == on_cores
    script = (root / "scripts" / "engines").read_text()
    names = re.search(r"^names=\((.*)\)", script, re.M)
    assert names and {row["name"] for row in runs} <= set(names[1].split())
    results = (root / "docs" / "results" / "README.md").read_text()
    for _, _, version, machine in said - on_cores:
        assert machine in results and ".".join(version.split(".")[:2]) in results


# As the README writes them.
WRITTEN = {
    "llamacpp": "llama.cpp",
    "vllm": "vLLM",
    "transformers": "transformers",
    "ctranslate2": "CTranslate2",
    "aphrodite": "Aphrodite",
    "tgi": "TGI",
    "powerinfer": "PowerInfer",
    "trtllm": "TensorRT-LLM",
    "sglang": "SGLang",
    "lmdeploy": "LMDeploy",
    "mii": "DeepSpeed-MII",
    "ollama": "Ollama",
}


def test_the_readme_says_the_same(root: Path, proofs: list[dict[str, str]]) -> None:
    text = " ".join((root / "README.md").read_text().split())
    named = re.search(
        r"`llmpar-serve` starts (.*?) \(all run here\), and (.*?) \(command lines checked against their sources only\)",
        text,
    )
    assert named
    run, read = (set(re.split(r", | and ", part)) for part in named.groups())
    proven = {proof["engine"] for proof in proofs if proof["how"] == "run"}
    assert run == {WRITTEN[name] for name in proven}
    assert read == {WRITTEN[name] for name in set(ENGINES) - proven}
    assert f"| starts engines | {len(ENGINES)}, " in text
