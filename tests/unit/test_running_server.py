"""What is said of a server that llmpar did not start."""

from __future__ import annotations

from typing import Any

import pytest
from fake import fake_engine

from llmpar import exit_codes
from llmpar.failure import Failure
from llmpar.serving import readiness, running_server


def record(url: str, engine: str = "vllm", model: str = "fake") -> dict[str, Any]:
    return running_server.record(url, engine, model, "openai-completions", 10)


def test_what_answers_is_recorded_as_it_is():
    with fake_engine(engine="vllm", tokens=4) as server:
        for url in (server.url, server.url + "/v1"):
            found = record(url)
            assert (found["engine"], found["model"], found["base_url"]) == ("vllm", "fake", url)
            assert found["outcome"] == "running" and found["started_at"] is None and found["commands"] == []
            assert found["metrics_urls"] == [server.url + "/metrics"] and found["probe"]["output_tokens"] == 1


def test_an_unknown_model_comes_with_those_that_are_known():
    with fake_engine(engine="vllm") as server, pytest.raises(Failure) as raised:
        record(server.url, model="my-7b")
    assert raised.value.code == exit_codes.UNAVAILABLE
    assert "has no model 'my-7b'" in str(raised.value) and "MODEL=fake" in str(raised.value.hint)


@pytest.mark.parametrize(
    "url, said",
    [
        ("http://127.0.0.1:9", "nothing answers at http://127.0.0.1:9: connection refused"),
        ("ftp://h", "is not an http"),
    ],
)
def test_where_nothing_answers(url, said):
    with pytest.raises(Failure, match=said):
        record(url)


@pytest.mark.parametrize(
    "owner, engine, refused",
    [
        ("vllm", "tgi", True),
        ("llamacpp", "vllm", True),
        ("vllm", "aphrodite", False),
        ("llamacpp", "powerinfer", False),
        ("my-company", "vllm", False),
        ("vllm", "our-own-fork", False),
    ],
)
def test_a_server_that_says_it_is_another_engine_is_refused(monkeypatch, owner, engine, refused):
    monkeypatch.setattr(running_server, "_ask", lambda *given: running_server.Reply(text="x", output_tokens=1))
    monkeypatch.setattr(readiness, "look", lambda url, verify: {"data": [{"id": "fake", "owned_by": owner}]})
    if not refused:
        assert record("http://h:1", engine)["engine"] == engine
        return
    with pytest.raises(Failure, match=f"says that it is {owner}, not {engine}"):
        record("http://h:1", engine)
