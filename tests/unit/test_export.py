"""Results in the forms of other tools, read back by their readers where those are at hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from llmpar import cli
from llmpar.commands import export as command
from llmpar.render import export_llm_d, export_metrics, export_parquet

RESULTS = "docs/results/h100/summaries.jsonl"


@pytest.fixture(scope="module")
def summaries() -> list[dict[str, Any]]:
    lines = (Path(__file__).resolve().parents[2] / RESULTS).read_text().splitlines()
    return [json.loads(line) for line in lines[:6]]


def run(*arguments: str) -> int:
    return cli.run("llmpar-export", command.main.command, list(arguments))  # type: ignore[attr-defined]


def statistics(value: Any) -> list[dict[str, Any]]:
    """All objects of the schema's Statistics within a report."""
    if isinstance(value, list):
        return [found for each in value for found in statistics(each)]
    if not isinstance(value, dict):
        return []
    return ([value] if "units" in value else []) + [found for each in value.values() for found in statistics(each)]


def test_an_llm_d_report_has_the_figures_of_the_whole_run(summaries: list[dict[str, Any]]) -> None:
    summary = summaries[0]
    report = json.loads(export_llm_d.line(summary))
    assert report["version"] == "0.2.1" and set(report) == {"version", "run", "scenario", "results"}
    aggregate = report["results"]["request_performance"]["aggregate"]
    assert aggregate["requests"] == {
        "total": 512,
        "failures": 0,
        "incomplete": 0,
        "input_length": {"units": "count", "mean": 356.51953125, "min": 115, "max": 586, "p50": 354},
        "output_length": {"units": "count", "mean": 200.0, "min": 200, "max": 200, "p50": 200},
    }
    wall = summary["throughput"]["output_tokens_per_s"]["wall"]["value"]
    assert aggregate["throughput"]["output_token_rate"] == {"units": "tokens/s", "mean": wall}
    assert aggregate["latency"]["time_to_first_token"]["mean"] == summary["latency"]["ttft_s"]["mean"]["value"]
    assert aggregate["latency"]["time_per_output_token"]["units"] == "s/token"
    # Every statistic needs a mean, and no null stands in for a figure.
    assert all(isinstance(one["mean"], int | float) and None not in one.values() for one in statistics(report))
    load = report["scenario"]["load"]["standardized"]
    assert (load["tool"], load["concurrency"], load["output_seq_len"]["value"]) == ("llmpar", 24, 200.0)
    engine = report["scenario"]["stack"][0]["standardized"]
    assert engine["kind"] == "inference_engine" and engine["tool"] == "vllm" and engine["accelerator"]["count"] == 1


def test_an_llm_d_report_of_almost_nothing_has_almost_nothing() -> None:
    assert export_llm_d.report({"kind": "summary", "v": 2, "label": "x"}) == {
        "version": "0.2.1",
        "run": {"uid": "x", "description": "x"},
        "results": {"request_performance": {"aggregate": {"requests": {"total": 0, "failures": 0, "incomplete": 0}}}},
    }


def test_openmetrics_has_instants_and_the_plain_text_has_none(summaries: list[dict[str, Any]]) -> None:
    families = {
        family.name: family.samples
        for family in openmetrics.text_string_to_metric_families(export_metrics.text(summaries, True).decode())
    }
    rate = families["llmpar_output_tokens_per_second"]
    assert sorted((sample.value, round(float(sample.timestamp), 3)) for sample in rate) == sorted(
        (each["throughput"]["output_tokens_per_s"]["wall"]["value"], round(each["ended_at"], 3)) for each in summaries
    )
    first = summaries[0]
    ttft = [
        sample
        for sample in families["llmpar_ttft_seconds"]
        if sample.labels["session"] == first["session"] and sample.labels["cell"] == first["cell"]["id"]
    ]
    assert {sample.labels["statistic"] for sample in ttft} == {"mean", "p50"}  # the others need more requests
    assert ttft[0].labels["engine"] == "vllm" and ttft[0].labels["clients"] == "24"
    assert "llmpar_ttft_low_seconds" in families and "llmpar_goodput_ratio" not in families
    plain = export_metrics.text(summaries, False).decode()
    assert all(
        sample.timestamp is None for family in text_string_to_metric_families(plain) for sample in family.samples
    )


def test_one_series_goes_forward_in_time(summaries: list[dict[str, Any]]) -> None:
    """promtool refuses samples of one series that go back, whatever the order of the files."""
    older = summaries[0] | {"ended_at": summaries[0]["ended_at"] - 86_400.0}
    seen: dict[tuple[Any, ...], float] = {}
    text = export_metrics.text([summaries[0], older, summaries[0]], True).decode()
    for family in openmetrics.text_string_to_metric_families(text):
        for sample in family.samples:
            series = (sample.name, *sorted(sample.labels.items()))
            assert float(sample.timestamp) > seen.get(series, 0.0)
            seen[series] = float(sample.timestamp)
    assert seen


def test_the_dashboard_asks_for_series_that_are_exported(root: Path) -> None:
    dashboard = json.loads((root / "docs" / "grafana.json").read_text())
    asked = set(re.findall(r"llmpar_[a-z0-9_]+", json.dumps([dashboard["panels"], dashboard["templating"]])))
    known = {f"{name}_{unit}" for name, unit, _, _ in export_metrics.FIGURES}
    known |= {f"{name}_seconds" for name, _, _ in export_metrics.LATENCIES} | {"llmpar_requests", "llmpar_warnings"}
    assert asked and asked <= known
    labels = set(re.findall(r"(\w+)=~?\\?\"\$", json.dumps(dashboard["panels"]).replace("\\", "")))
    assert labels == {"engine", "model", "sweep", "host"} and labels <= set(export_metrics.LABELS)


def test_predictions_are_left_out(summaries: list[dict[str, Any]], capfdbinary: Any) -> None:
    Path("s.jsonl").write_text(json.dumps(summaries[0]) + "\n" + json.dumps(summaries[1] | {"simulated": True}) + "\n")
    assert run("--format", "llm-d", "s.jsonl") == 0
    said = capfdbinary.readouterr()
    assert len(said.out.splitlines()) == 1 and b"1 predictions were left out" in said.err
    Path("p.jsonl").write_text(json.dumps(summaries[1] | {"simulated": True}) + "\n")
    assert run("--format", "prometheus", "p.jsonl") == 6


def test_columns_of_a_table_have_one_type_each() -> None:
    record = {"a": {"b": 1, "c": {}}, "words": ["x"], "steps": [1, 2.5], "odd": "x", "flag": True}
    assert dict(export_parquet._flat(record)) == {
        "a.b": 1,
        "a.c": None,
        "words": ["x"],
        "steps": [1, 2.5],
        "odd": "x",
        "flag": True,
    }
    of = export_parquet._of_one_type
    assert of([1, None, 2]) == [1, None, 2] and of([1, 2.5]) == [1.0, 2.5] and of([1, 2**70]) == [1.0, float(2**70)]
    assert of([[1], [2.5, None], None]) == [[1.0], [2.5, None], None]
    assert (
        of([["x"], None]) == ['["x"]', None]
        and of([1, "x", [2]]) == ["1", '"x"', "[2]"]
        and of([True, 1]) == ["true", "1"]
    )


def test_parquet_is_read_back(summaries: list[dict[str, Any]]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")
    Path("s.jsonl").write_text("".join(json.dumps(each) + "\n" for each in summaries))
    assert run("--format", "parquet", "s.jsonl", "-o", "s.parquet") == 0
    table = parquet.read_table("s.parquet")
    assert table.column("latency.ttft_s.p50.value").to_pylist() == [
        each["latency"]["ttft_s"]["p50"]["value"] for each in summaries
    ]
    assert table.column("series.in_flight").to_pylist()[0] == summaries[0]["series"]["in_flight"]
