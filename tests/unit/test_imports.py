"""Importers: files in the shape that the tools' sources write, to records and on to a summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpar import cli, other_tools
from llmpar.commands import import_ as command
from llmpar.summary import read
from llmpar.summary.summariser import Summariser


def vllm(**changes: Any) -> dict[str, Any]:
    """As vllm/benchmarks/serve.py writes with --save-result --save-detailed: three ok, one failed."""
    return {
        "date": "20260131-120100",
        "backend": "vllm",
        "model_id": "lmsys/vicuna-7b-v1.5",
        "num_prompts": 4,
        "request_rate": "inf",
        "max_concurrency": 2,
        "duration": 2.0,
        "completed": 3,
        "failed": 1,
        "total_input_tokens": 30,
        "total_output_tokens": 11,
        "request_throughput": 1.5,
        "input_lens": [10, 10, 10, 10],
        "output_lens": [3, 3, 5, 0],
        "ttfts": [0.1, 0.2, 0.15, 0.0],
        "itls": [[0.01, 0.02], [0.01, 0.01], [0.05, 0.05], []],
        "start_times": [5000.0, 5000.1, 5000.2, 5000.3],
        "generated_texts": ["a b c", "d e f", "g h i j k", ""],
        "errors": ["", "", "", "Bad Gateway"],
        **changes,
    }


def guidellm(streams: int = 4) -> dict[str, Any]:
    """As guidellm/schemas write it: timings in `info`, token counts in `output_metrics`."""

    def one(start: float, **fields: Any) -> dict[str, Any]:
        return {
            "type_": "generative_request_stats",
            "request_id": "r",
            "request_args": '{"prompt": "hi"}',
            "output": "x y",
            "info": {
                "status": "completed",
                "timings": {
                    "request_start": start,
                    "first_token_iteration": start + 0.2,
                    "last_token_iteration": start + 1.0,
                    "request_end": start + 1.01,
                },
            },
            "input_metrics": {"text_tokens": 7, "total_tokens": 7},
            "output_metrics": {"text_tokens": 9, "total_tokens": 9},
            **fields,
        }

    failed = one(
        1.8e9 + 3,
        info={
            "status": "errored",
            "error": "boom",
            "timings": {"request_start": 1.8e9 + 3, "request_end": 1.8e9 + 3.1},
        },
    )
    return {
        "metadata": {"version": 1},
        "benchmarks": [
            {
                "config": {"strategy": {"type_": "concurrent", "streams": streams}},
                "requests": {
                    "successful": [one(1.8e9 + number) for number in range(3)],
                    "errored": [failed],
                    "incomplete": [],
                },
            }
        ],
    }


def summarise(made: list[dict[str, Any]]) -> dict[str, Any]:
    summariser = Summariser()
    read.feed_records(summariser, made)
    return summariser.summary()


def test_vllm_lists_become_records_on_our_definitions() -> None:
    made = list(other_tools.requests(vllm(), "vllm"))
    assert [each["status"] for each in made] == ["ok", "ok", "ok", "error"]
    assert made[0]["event_s"] == [0.1, 0.11, 0.13] and made[0]["e2e_s"] == 0.13 and made[0]["output_tokens"] == 3
    assert made[1]["sent_at"] - made[0]["sent_at"] == pytest.approx(0.1)
    assert made[0]["sent_at"] == 1769860860.0 - 2.0  # `date` is the end, the run took 2 s
    assert made[3]["error"]["message"] == "Bad Gateway"
    found = summarise(made)
    assert found["n"]["ok"] == 3 and found["concurrency"]["asked"] == 2 and found["tokens"]["output"] == 11
    assert found["wall_s"]["value"] == pytest.approx(0.45) and found["latency"]["ttft_s"]["n"] == 3
    # Five tokens in three events: vLLM's own ITL takes events for tokens, ours leaves that request out and says so.
    assert found["latency"]["event_latency_s"]["n"] == 6 and found["latency"]["itl_s"]["n"] == 4
    assert "split_unknown" in [each["code"] for each in found["warnings"]]


def test_results_without_start_times_have_latencies_but_no_throughput() -> None:
    document = vllm()
    del document["start_times"]
    made = list(other_tools.requests(document, other_tools.detect(document)))
    assert made[0]["sent_at"] is None and made[0]["e2e_s"] == 0.13
    found = summarise(made)
    assert found["latency"]["ttft_s"]["n"] == 3 and found["throughput"]["output_tokens_per_s"]["wall"]["value"] is None
    assert "no_instants" in [each["code"] for each in found["warnings"]]


def sglang(**changes: Any) -> dict[str, Any]:
    """As sglang/bench_serving.py writes with --output-details: no start times, no model; the rate is no number of
    strict JSON."""
    return {
        "backend": "sglang",
        "dataset_name": "random",
        "request_rate": float("inf"),
        "max_concurrency": 2,
        "duration": 2.0,
        "completed": 2,
        "total_input_tokens": 20,
        "total_output_tokens": 6,
        "total_output_tokens_retokenized": 6,
        "request_throughput": 1.0,
        "input_lens": [10, 10, 10],
        "output_lens": [3, 3, 0],
        "ttfts": [0.1, 0.2, 0.0],
        "itls": [[0.01, 0.02], [0.015, 0.015], []],
        "generated_texts": ["a b c", "d e f", ""],
        "errors": ["", "", "Service Unavailable"],
        **changes,
    }


def test_sglang_lines_with_infinity(capfdbinary: Any) -> None:
    Path("sglang.jsonl").write_text(json.dumps(sglang()) + "\n" + json.dumps(sglang(max_concurrency=4)) + "\n")
    assert "Infinity" in Path("sglang.jsonl").read_text()
    assert run("sglang.jsonl", "--run", "2", "--engine", "sglang") == 0
    made = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [(each["status"], each["launcher"], each["concurrency"]) for each in made] == [
        ("ok", "sglang-bench", 4),
        ("ok", "sglang-bench", 4),
        ("error", "sglang-bench", 4),
    ]
    assert made[1]["e2e_s"] == 0.23 and made[1]["engine"] == "sglang"
    found = summarise(made)
    assert found["latency"]["itl_s"]["n"] == 4 and found["throughput"]["output_tokens_per_s"]["wall"]["value"] is None


def test_guidellm_keeps_first_and_last_token_only() -> None:
    document = guidellm()
    made = list(other_tools.requests(document["benchmarks"][0], other_tools.detect(document), engine="vllm"))
    assert [each["status"] for each in made] == ["ok", "ok", "ok", "error"]
    assert (
        made[0]["ttft_s"] == pytest.approx(0.2) and made[0]["e2e_s"] == pytest.approx(1.01) and made[0]["event_s"] == []
    )
    found = summarise(made)
    assert found["latency"]["itl_s"] is None and found["latency"]["tpot_s"]["mean"]["value"] == pytest.approx(
        0.81 / 8, abs=1e-6
    )
    assert (
        found["concurrency"]["asked"] == 4
        and found["workload"]["engine"] == "vllm"
        and found["workload"]["prompts"]["distinct"] == 1
    )


def test_flat_fields_of_older_guidellm_reports() -> None:
    each = {
        "start_time": 10.0,
        "end_time": 12.0,
        "first_token_time": 10.5,
        "output_tokens": 4,
        "prompt_tokens": 2,
        "prompt": "p",
    }
    made = list(other_tools.requests({"requests": {"successful": [each]}}, "guidellm"))
    assert made[0]["ttft_s"] == 0.5 and made[0]["e2e_s"] == 2.0 and made[0]["output_tokens"] == 4


def run(*arguments: str) -> int:
    return cli.run("llmpar-import", command.main.command, list(arguments))  # type: ignore[attr-defined]


def test_the_command_reads_one_run_and_asks_which_of_several(capfdbinary: Any) -> None:
    Path("r.json").write_text(json.dumps(vllm()))
    assert run("r.json") == 0
    assert len(capfdbinary.readouterr().out.splitlines()) == 4
    Path("appended.json").write_text(json.dumps(vllm()) + "\n" + json.dumps(vllm(max_concurrency=8)))
    assert run("appended.json") == 2
    assert b"--run N (1: 4 prompts, concurrency 2; 2: 4 prompts, concurrency 8)" in capfdbinary.readouterr().err
    assert run("appended.json", "--run", "2", "-o", "out.jsonl") == 0
    assert json.loads(Path("out.jsonl").read_text().splitlines()[0])["concurrency"] == 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", b"not JSON"),
        ('{"a": 1}', b"not a result"),
        (json.dumps({"request_throughput": 1.0}), b"--save-detailed"),
        (json.dumps(vllm(itls=[[]])), b"not of one length"),
        ('{"benchmarks": []}', b"no runs"),
        ('{"benchmarks": [{"requests": {}}]}', b"no requests"),
    ],
)
def test_what_is_no_result_is_refused_with_what_to_do(text: str, words: bytes, capfdbinary: Any) -> None:
    Path("x.json").write_text(text)
    assert run("x.json") == 3
    assert words in capfdbinary.readouterr().err


def test_a_list_of_runs_is_offered_for_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps([vllm(), vllm(max_concurrency=7)]))
    assert cli.run("llmpar-import", command.main.command, [str(path)]) == 2
    assert "holds 2 runs" in capsys.readouterr().err
    assert cli.run("llmpar-import", command.main.command, ["--run", "2", str(path)]) == 0
