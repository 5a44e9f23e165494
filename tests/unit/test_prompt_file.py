"""Prompts that ask for something of their own, and conversations, against a server that keeps what it was asked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake import Fake, fake_engine

from llmpar.client import plan, prompt_file, request, run
from llmpar.client.prompt_file import Own, Turn
from llmpar.commands import request as command

TALK = {
    "system": "Be brief.",
    "turns": ["one?", {"content": "two?", "think_s": 0.05, "max_tokens": 3}, "three?"],
    "max_tokens": 2,
}
SENT: Counter[str] = Counter()  # requests by the server they went to


@pytest.fixture(scope="module")
def server() -> Any:
    with fake_engine(tokens=16) as fake:
        yield fake


def asked(server: Fake, *arguments: str, api: str = "openai-chat") -> list[dict[str, Any]]:
    prompts, options = command.read(["--base-url", server.url, "--model", "fake", "--api", api, *arguments])
    made = plan.from_options(prompts, options | {"output": "out.jsonl"}, {})
    Path("out.jsonl").unlink(missing_ok=True)
    run.run(made)
    records = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    SENT[server.url] += len(records)
    return records


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ("{}", "either prompt or turns"),
        ('{"prompt": "a", "turns": ["b"]}', "either prompt or turns"),
        ('{"prompt": " "}', "prompt holds no text"),
        ('{"prompt": "a", "max_token": 1}', "unknown field 'max_token'; known are prompt, turns"),
        ('{"prompt": "a", "max_tokens": true}', "max_tokens is not a number of tokens"),
        ('{"prompt": "a", "body": {"model": "x"}}', "body holds 'model'"),
        ('{"turns": []}', "turns is not a list of questions"),
        ('{"turns": ["a", {"content": "b", "think_s": -1}]}', "turn 2: think_s"),
        ('{"turns": ["a", {"content": ""}]}', "turn 2: content holds no text"),
    ],
)
def test_a_file_that_asks_for_nonsense_is_a_fault_in_words(text: str, words: str) -> None:
    Path("x.prompt.json").write_text(text)
    found = prompt_file.read_prompt("x.prompt.json")
    assert found.fault is not None and found.fault[0] == "prompt_unreadable" and words in found.fault[1]


def test_a_byte_order_mark_is_no_part_of_a_file() -> None:
    for name, text in (("x.prompt.json", '{"prompt": "a"}'), ("x.txt", "a")):
        Path(name).write_text("\ufeff" + text)
        found = prompt_file.read_prompt(name)
        assert (found.text, found.fault) == ("a", None)


def test_what_a_prompt_asks_for_itself_goes_before_the_command_line() -> None:
    Path("x.prompt.json").write_text(
        '{"prompt": "hi", "max_tokens": 7, "model": "lora", "system": "s", "body": {"top_p": null, "min_p": 0.1}}'
    )
    prompt = prompt_file.read_prompt("x.prompt.json")
    assert prompt.own == Own(7, "lora", "s", {"top_p": None, "min_p": 0.1})
    sampling = request.Sampling(max_tokens=64, top_p=0.5)
    settings = request.Settings("http://h", "openai-chat", "base", sampling=sampling, body={"min_p": 0.2, "seed": 1})
    made = request.ask(settings, prompt)
    body = json.loads(made.body)
    assert (body["model"], body["max_tokens"], body["min_p"], body["seed"]) == ("lora", 7, 0.1, 1)
    assert "top_p" not in body and made.sampling["max_tokens"] == 7
    assert body["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    refused = request.ask(request.Settings("http://h", "openai-completions", "base"), prompt)
    assert refused.fault is not None and "--api openai-chat" in refused.fault[1]


@pytest.mark.parametrize("how", [[], ["--threads", "2"], ["--asyncio", "2"]])
def test_a_conversation_is_one_record_a_turn(server: Fake, how: list[str]) -> None:
    if "--asyncio" in how:
        pytest.importorskip("aiohttp")
    Path("talk.prompt.json").write_text(json.dumps(TALK))
    Path("plain.txt").write_text("plain\n")
    made = asked(server, *how, "--no-text", "--max-tokens", "5", "talk.prompt.json", "plain.txt")
    plain = [each for each in made if each["prompt"] == "plain.txt"]
    assert len(plain) == 1 and "turn" not in plain[0] and plain[0]["output_tokens"] == 5
    turns = [each for each in made if each["prompt"] == "talk.prompt.json"]
    assert [(each["status"], each["turn"], each["turns"], each["think_s"]) for each in turns] == [
        ("ok", 1, 3, 0.0),
        ("ok", 2, 3, 0.05),
        ("ok", 3, 3, 0.0),
    ]
    assert [each["output_tokens"] for each in turns] == [2, 3, 2] and len({e["conversation"] for e in turns}) == 1
    assert turns[1]["sent_at"] >= turns[0]["sent_at"] + turns[0]["e2e_s"] + 0.05
    assert all(each["text"] is None for each in made)
    # Each question comes after the server's own answers.
    told = [each for each in server.truth(SENT[server.url]) if "three?" in each["prompt"]][-1]["prompt"]
    assert told.startswith("Be brief.\none?\n") and told.endswith("three?") and len(told.split("\n")) == 6


def test_a_turn_that_fails_is_the_last(server: Fake) -> None:
    Path("talk.prompt.json").write_text(json.dumps({"turns": ["one?", "fake: status=500", "three?"]}))
    made = asked(server, "--max-tokens", "2", "talk.prompt.json")
    assert [(each["turn"], each["status"]) for each in made] == [(1, "ok"), (2, "error")]


def test_the_record_of_a_lost_turn_names_it(server: Fake) -> None:
    """A worker that died after two of three turns: neither asked again nor counted as the first."""
    Path("talk.prompt.json").write_text(json.dumps(TALK))
    prompts, options = command.read(["--base-url", server.url, "--api", "openai-chat", "talk.prompt.json"])
    made = plan.from_options(prompts, options | {"output": "out.jsonl"}, {"LLMPAR_LOST": "2"})
    run.run(made)
    lost = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [(each["turn"], each["error"]["type"]) for each in lost] == [(3, "worker_died")]


def test_a_turn_may_be_a_text_alone() -> None:
    assert prompt_file.parsed(b'{"turns": ["a", {"content": "b"}]}')[1].turns == (Turn("a"), Turn("b"))
