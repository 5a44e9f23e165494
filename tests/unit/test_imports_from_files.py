"""Result files that are not one JSON object: AIPerf's lines, inference-perf's list, evalscope's database."""

from __future__ import annotations

import json
import pickle
import sqlite3
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from llmpar import cli
from llmpar.commands import import_ as command


def imported(capfdbinary: Any, *arguments: str) -> list[dict[str, Any]]:
    assert cli.run("llmpar-import", command.main.command, list(arguments)) == 0  # type: ignore[attr-defined]
    return [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]


def aiperf(number: int, **changes: Any) -> dict[str, Any]:
    """A line of profile_export.jsonl, with the fields and units of MetricRecordInfo in AIPerf 0.13.0."""
    start = 1_759_813_207_532_900_000 + number * 1_000_000_000
    return {
        "metadata": {
            "session_num": number,
            "conversation_id": f"c{number}",
            "turn_index": 0,
            "credit_issued_ns": start - 2_000_000,
            "request_start_ns": start,
            "request_end_ns": start + 300_000_000,
            "worker_id": "w",
            "record_processor_id": "r",
            "benchmark_phase": "profiling",
            "was_cancelled": False,
        },
        "metrics": {
            "input_sequence_length": {"value": 550, "unit": "tokens"},
            "time_to_first_token": {"value": 255.5, "unit": "ms"},
            "request_latency": {"value": 300.0, "unit": "ms"},
            "inter_chunk_latency": {"value": [10.0, 20.0], "unit": "ms"},
            "output_sequence_length": {"value": 3, "unit": "tokens"},
        },
        "error": None,
        **changes,
    }


def test_aiperf_lines_with_the_configuration_beside_them(capfdbinary: Any) -> None:
    warmup = aiperf(9)
    warmup["metadata"]["benchmark_phase"] = "warmup"
    failed = aiperf(2, metrics={}, error={"code": 503, "type": "Overloaded", "message": "busy"})
    counted = aiperf(1)
    counted["metrics"] |= {
        "usage_completion_tokens": {"value": 4, "unit": "tokens"},
        "usage_prompt_cache_read_tokens": {"value": 512, "unit": "tokens"},
    }
    lines = [warmup, aiperf(0), counted, failed]
    Path("profile_export.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("profile_export_aiperf.json").write_text(
        json.dumps(
            {
                "input_config": {
                    "models": {"items": [{"name": "my-7b"}]},
                    "endpoint": {"type": "chat"},
                    "phases": [{"name": "profiling", "concurrency": 8}],
                }
            }
        )
    )
    made = imported(capfdbinary, "profile_export.jsonl", "--engine", "vllm")
    assert [each["status"] for each in made] == ["ok", "ok", "error"]
    assert made[0]["event_s"] == [0.2555, 0.2655, 0.2855] and (made[0]["ttft_s"], made[0]["e2e_s"]) == (0.2555, 0.3)
    assert made[0]["sent_at"] == 1759813207.5329 and made[0]["launched_at"] == 1759813207.5309
    assert {(each["concurrency"], each["model"], each["api"], each["engine"]) for each in made} == {
        (8, "my-7b", "openai-chat", "vllm")
    }
    assert (made[0]["output_tokens"], made[0]["token_source"], made[0]["cached_tokens"]) == (3, "tokenizer", None)
    assert (made[1]["output_tokens"], made[1]["token_source"], made[1]["cached_tokens"]) == (4, "engine", 512)
    assert made[2]["error"] == {"type": "Overloaded", "message": "busy", "http_status": 503}
    assert made[2]["e2e_s"] == 0.3 and made[2]["output_tokens"] is None


def test_an_unknown_unit_of_aiperf_costs_its_request_and_no_more(capfdbinary: Any) -> None:
    odd = aiperf(1)
    odd["metrics"]["time_to_first_token"]["unit"] = "fortnights"
    Path("p.jsonl").write_text(json.dumps(aiperf(0)) + "\n" + json.dumps(odd) + "\n")
    assert cli.run("llmpar-import", command.main.command, ["p.jsonl", "-o", "out.jsonl"]) == 0  # type: ignore[attr-defined]
    assert b"1 requests of 'p.jsonl' were left out" in capfdbinary.readouterr().err
    assert len(Path("out.jsonl").read_text().splitlines()) == 1


def test_inference_perf_times_are_of_a_clock_without_a_date(capfdbinary: Any) -> None:
    def one(start: float, **changes: Any) -> dict[str, Any]:
        return {
            "start_time": start,
            "end_time": start + 0.5,
            "request": json.dumps({"model": "m", "prompt": "hi", "stream": True}),
            "response": "data: ...",
            "info": {
                "request_metrics": {"text": {"input_tokens": 7}, "image": None},
                "input_tokens": 7,
                "response_metrics": {
                    "output_tokens": 3,
                    "chunk_times": [start + 0.1, start + 0.2, start + 0.4],
                    "server_usage": {"prompt_tokens": 8, "prompt_tokens_details": {"cached_tokens": 4}},
                },
            },
            "error": None,
            **changes,
        }

    failed = one(70.0, error={"error_type": "HTTP Error 504", "error_msg": "gateway"}, info={"response_metrics": None})
    Path("per_request_lifecycle_metrics.json").write_text(json.dumps([one(61.0), one(60.0), failed]))
    made = imported(capfdbinary, "per_request_lifecycle_metrics.json", "--clients", "4")
    assert [each["sent_at"] for each in made] == [86400.0, 86401.0, 86410.0]
    assert made[0]["event_s"] == [0.1, 0.2, 0.4] and (made[0]["ttft_s"], made[0]["e2e_s"]) == (0.1, 0.5)
    assert (made[0]["prompt_tokens"], made[0]["cached_tokens"], made[0]["output_tokens"]) == (8, 4, 3)
    assert made[0]["token_source"] == "tokenizer" and made[0]["model"] == "m" and made[0]["concurrency"] == 4
    assert made[2]["error"] == {"type": "HTTP Error 504", "message": "gateway", "http_status": None}


class Trap:
    """Unpickling this leaves a file behind."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, ("trapped", "w")


def test_evalscope_rows_are_read_and_its_pickles_are_not(capfdbinary: Any) -> None:
    """The columns of create_result_table in evalscope 1.14.1."""
    names = (
        "request, start_time, inter_token_latencies, success, response_messages, completed_time, latency,"
        " first_chunk_latency, prompt_tokens, completion_tokens, is_stream"
    )
    request = json.dumps({"model": "m", "messages": [], "stream": True})
    pickled = b64encode(pickle.dumps(Trap())).decode()
    rows = [
        (request, 50.0, "[0.1, 0.2]", 1, pickled, 50.6, 0.6, 0.3, 9, 3, 1),
        (request, 51.0, "[]", 0, pickled, 51.4, None, None, None, None, 1),
    ]
    with sqlite3.connect("benchmark_data.db") as database:
        database.execute(f"CREATE TABLE result({names})")
        database.executemany(f"INSERT INTO result({names}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)
    Path("benchmark_args.json").write_text(json.dumps({"parallel": 2, "open_loop": False}))
    made = imported(capfdbinary, "benchmark_data.db")
    assert [(each["status"], each["sent_at"], each["e2e_s"]) for each in made] == [
        ("ok", 86400.0, 0.6),
        ("error", 86401.0, 0.4),
    ]
    assert made[0]["event_s"] == [0.3, 0.4, 0.6] and made[0]["output_tokens"] == 3 and made[0]["model"] == "m"
    assert {(each["concurrency"], each["api"], each["launcher"]) for each in made} == {(2, "openai-chat", "evalscope")}
    assert not Path("trapped").exists()


@pytest.mark.parametrize("table", ["other(a)", "result(a)"])
def test_another_database_is_refused(table: str, capfdbinary: Any) -> None:
    with sqlite3.connect("x.db") as database:
        database.execute(f"CREATE TABLE {table}")
    assert cli.run("llmpar-import", command.main.command, ["x.db"]) == 3  # type: ignore[attr-defined]
    assert b"is not evalscope's" in capfdbinary.readouterr().err
    Path("y.db").write_bytes(Path("x.db").read_bytes()[:700])
    assert cli.run("llmpar-import", command.main.command, ["y.db"]) == 3  # type: ignore[attr-defined]
