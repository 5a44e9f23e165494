"""Conversations, prefix hits and durations: what the summary says of them, and when loads end."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from unit.made_requests import request

from llmpar import records
from llmpar.client import run
from llmpar.commands import report, until
from llmpar.render import summaries
from llmpar.summary import conversations, read
from llmpar.summary.summariser import Summariser


def turn(name: str, number: int, sent: float, **fields: Any) -> dict[str, Any]:
    return request(sent=sent - 1000.0) | {
        "conversation": name,
        "turn": number,
        "turns": 2,
        "think_s": 0.0 if number == 1 else 1.0,
        "e2e_s": 0.5,
        "prompt_tokens": 10 * number,
        "cached_tokens": 0 if number == 1 else 15,
        **fields,
    }


def summarise(records: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    summariser = Summariser()
    read.feed_records(summariser, records)
    return summariser.summary(**options)


def test_conversations_as_a_whole_and_turn_by_turn() -> None:
    made = [
        turn("a", 1, 1000.0),
        turn("a", 2, 1001.5),
        turn("b", 1, 1000.0),
        turn("b", 2, 1003.0, status="error", error={"type": "x", "message": "y"}),
        request(),
    ]
    found = summarise(made)["conversations"]
    assert (found["n"], found["complete"], found["later_turns"]) == (2, 1, 2)
    assert found["duration_s"] == {"n": 1, "min": 2.0, "mean": 2.0, "p50": 2.0, "p95": 2.0, "max": 2.0}
    assert [(each["turn"], each["n"], each["ok"]) for each in found["turns"]] == [(1, 2, 2), (2, 2, 1)]
    assert [each["cached_ratio"] for each in found["turns"]] == [0.0, 0.75]
    assert found["turns"][1]["prompt_tokens_mean"] == 20
    # The same records in any order, the same bytes.
    assert summarise(made[::-1])["conversations"] == found
    assert "conversations" not in summarise(made[-1:])


def test_think_time_is_no_fault_of_the_client() -> None:
    talks = [turn(f"{name}", number, 1000.0 + 2 * number) for name in range(4) for number in (1, 2)]
    found = summarise(talks, clients=4)
    assert found["client"]["turn_lost_ratio"] is None
    assert "low_concurrency" not in [warning["code"] for warning in found["warnings"]]
    unthinking = [each | {"think_s": 0.0} for each in talks]
    assert summarise(unthinking, clients=4)["client"]["turn_lost_ratio"] > 0.5


@pytest.mark.parametrize("fields", [{"turn": 0}, {"turn": True}, {"turns": 1}, {"conversation": 3}])
def test_a_place_in_no_conversation_is_none(fields: dict[str, Any]) -> None:
    assert conversations.of_record(turn("a", 2, 1.0) | fields) is None


def adapters() -> list[dict[str, Any]]:
    """Requests to two adapters, of which the second is slower, fails once and has the greater share of tokens."""
    made = [request(number, number / 10, (0.1, 0.2), model="lora-a") for number in range(3)]
    made += [request(10 + number, number / 10, (0.4, 0.5, 0.7, 0.8), model="lora-b") for number in range(4)]
    return [*made, request(20, 0.4, (), model="lora-b", status="error", error={"type": "http", "message": "no"})]


CELL = {"kind": "cell", "v": 1, "id": "c004", "sweep": "mix", "load": {"clients": 4}, "server": {}, "varies": {}}


def test_models_mixed_over_the_prompts_have_figures_of_their_own() -> None:
    made = adapters()
    summary = summarise([*made, CELL])
    first, second = summary["models"]
    assert (first["model"], first["n"], first["ok"], first["output_tokens"]) == ("lora-a", 3, 3, 6)
    assert (second["model"], second["n"], second["ok"], second["output_tokens"]) == ("lora-b", 5, 4, 16)
    assert first["ttft_s"]["p95"] == 0.1 and second["ttft_s"]["p50"] == 0.4
    assert second["tpot_s"]["mean"] == pytest.approx((0.801 - 0.4) / 3)
    rates = sum(each["output_tokens_per_s"] for each in summary["models"])
    assert rates == pytest.approx(summary["throughput"]["output_tokens_per_s"]["wall"]["value"])
    assert "mixed_engines" not in [warning["code"] for warning in summary["warnings"]], "the cell's prompts name them"
    assert "mixed_engines" in [warning["code"] for warning in summarise(made)["warnings"]]
    # In any order, and from parts that each hold one model.
    assert summarise([CELL, *made[::-1]])["models"] == summary["models"]
    whole, part = Summariser(), Summariser()
    read.feed_records(whole, [CELL, *made[:3]])
    read.feed_records(part, made[3:])
    whole.merge(part)
    assert whole.summary()["models"] == summary["models"]
    assert "models" not in summarise(made[:3])


def test_tables_and_reports_show_models_and_conversations(tmp_path: Path) -> None:
    talks = [turn(f"{name}", number, 1000.0 + 2 * number) for name in range(4) for number in (1, 2)]
    mixed = summarise([*adapters(), CELL])
    spoken = summarise([*talks, CELL | {"id": "c002", "load": {"clients": 2}}])
    text = summaries.summary(mixed)
    assert re.search(r"^By model\n\nmodel +ok .*\nlora-a +3/3 .*\nlora-b +4/5 +[\d.]+ +400 ms", text, re.M), text
    assert re.search(r"^turn +ok .*\n +1 +4/4 .*\n +2 +4/4 .* 75%$", summaries.summary(spoken), re.M)
    for shown in (summaries.table([mixed, spoken]), _report(tmp_path, "markdown", mixed, spoken)):
        assert all(word in shown for word in ("By model", "lora-b", "Conversations, turn by turn", "75%"))
        assert "clients 2" in shown.split("turn by turn")[1] and "clients 4" in shown.split("By model")[1]
    page = _report(tmp_path, "html", mixed, spoken)
    for title in ("Conversations", "Conversations, turn by turn", "By model"):
        assert page.count(f"<summary>{title}</summary>") == 1
    assert ">lora-b</td>" in page
    assert "By model" not in _report(tmp_path, "html", spoken)


def _report(tmp_path: Path, form: str, *given: dict[str, Any]) -> str:
    file = tmp_path / "summaries.jsonl"
    file.write_bytes(b"".join(records.encode(each) for each in given))
    options = ["--format", form, "--no-claims", "-o", str(tmp_path / "report"), str(file)]
    result = CliRunner().invoke(report.main.command, options, catch_exceptions=False)  # type: ignore[attr-defined]
    assert result.exit_code == 0, result.output
    return (tmp_path / "report").read_text()


def test_prompts_whose_own_length_comes_before_the_cell_s_are_told_of() -> None:
    def warned(*lengths: int, cell: dict[str, Any] | None = None) -> list[str]:
        made = [request(number) | {"sampling": {"max_tokens": length}} for number, length in enumerate(lengths)]
        records = [*made, {"kind": "cell", "v": 1, "id": "c", "load": {"max_tokens": 64}}] if cell is None else made
        return [each["message"] for each in summarise(records)["warnings"] if each["code"] == "own_lengths"]

    assert warned(64, 64) == [] and warned(3, 9, cell={}) == [], "as the cell asks, and without a cell"
    (message,) = warned(64, 3, 9, 3)
    assert message.startswith("3 of 4 requests asked for 3 to 9 output tokens instead of the cell's max_tokens 64")
    assert warned(64, 3)[0].startswith("1 of 2 requests asked for 3 output tokens")


def test_lengths_of_their_own_are_not_mixed_sampling() -> None:
    def sampled(**sampling: Any) -> dict[str, Any]:
        return request() | {"sampling": sampling}

    def warned(*made: dict[str, Any]) -> bool:
        return "mixed_sampling" in [warning["code"] for warning in summarise(list(made))["warnings"]]

    assert not warned(sampled(max_tokens=3, temperature=0), sampled(max_tokens=9, temperature=0))
    assert not warned(sampled(parameters={"max_new_tokens": 3}), sampled(parameters={"max_new_tokens": 4}))
    assert warned(sampled(max_tokens=3, temperature=0), sampled(max_tokens=3, temperature=1))


@pytest.mark.parametrize(("cached", "warned"), [(0, True), (39, True), (48, False), (None, True)])
def test_prefix_hits_asked_and_achieved(cached: int | None, warned: bool) -> None:
    cell = {"kind": "cell", "v": 1, "id": "c", "sweep": "s", "load": {"prefix_ratio": 0.5}, "server": {}}
    made = [request(n, float(n)) | {"prompt_tokens": 100, "cached_tokens": cached} for n in range(4)]
    found = summarise([cell, *made])
    wanted = None if cached is None else cached / 100
    assert found["prefix"]["asked_ratio"] == 0.5 and found["prefix"]["achieved_ratio"] == wanted
    assert ("prefix_missed" in [warning["code"] for warning in found["warnings"]]) is warned


def test_names_come_for_so_many_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.9, 5.1])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert list(run.within(5.0, iter("abc"))) == ["a", "b"]


def test_a_load_is_over_in_time_whatever_its_records_show() -> None:
    Path("out").write_text('{"kind":"request"}\n')
    assert until.watch(None, "out", threading.Event(), over=0.0) == until.TIME_OVER
    ended = threading.Event()
    ended.set()
    assert until.watch(None, "out", ended, over=None) is None
