"""Conversations, prefix hits and durations: what the summary says of them, and when loads end."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from unit.made_requests import request

from llmpar.client import run
from llmpar.commands import until
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
