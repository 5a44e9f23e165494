"""Others' traces to prompts with their answers' lengths and their times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpar import cli
from llmpar.commands import arrivals as arrivals_command
from llmpar.commands import prompts as command
from llmpar.prompts import synthetic, traces
from llmpar.prompts.prompt import BadPrompts

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2024-05-10 00:00:02.5000000,20,5\r\n"
    "2024-05-10 00:00:00.0094090+00:00,10,3\r\n"
)
BURST = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,API log\n47.5,GPT-4,12,230,242,API log\n"
)
MOONCAKE = (
    '{"timestamp": 27482, "input_length": 1100, "output_length": 52, "hash_ids": [46, 47, 48]}\n'
    '{"timestamp": 30535, "input_length": 1000, "output_length": 26, "hash_ids": [46, 2353]}\n'
)
SERVEGEN = "timestamp,input_tokens,output_tokens\n0.25,7,2\n0.5,8,3\n"


@pytest.mark.parametrize(
    ("text", "found", "left_out"),
    [
        (AZURE, [(0.0, 10, 3), (2.490591, 20, 5)], 0),
        (BURST, [(0.0, 472, 18), (42.5, 12, 230)], 1),
        (MOONCAKE, [(0.0, 1100, 52), (3.053, 1000, 26)], 0),
        (SERVEGEN, [(0.0, 7, 2), (0.25, 8, 3)], 0),
    ],
)
def test_times_and_lengths(text: str, found: list[tuple[float, int, int]], left_out: int) -> None:
    assert traces.is_trace(text.split("\n")[0])
    said: list[str] = []
    made = traces.arrivals(text, "t", said)
    assert [(each.at_s, each.tokens, each.output_tokens) for each in made] == found and len(said) == left_out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "first line"),
        ("timestamp,input_tokens,output_tokens\n1,2\n", "line 2"),
        ("timestamp,input_tokens,output_tokens\n1,2,3\nsoon,2,3\n", "line 3"),
        ("timestamp,input_tokens,output_tokens\n1,1e99,3\n", "line 2"),
        (MOONCAKE + '{"timestamp": 1}\n', "line 3"),
        (MOONCAKE + "[]\n", "line 3"),
    ],
)
def test_what_is_no_trace_is_refused_by_line(text: str, words: str) -> None:
    with pytest.raises(BadPrompts, match=words):
        traces.arrivals(text, "t", [])


@pytest.mark.parametrize("line", ["", "Once upon a time, there was", '{"prompt": "x"}', '"a\0b', "{"])
def test_other_files_are_no_traces(line: str) -> None:
    assert not traces.is_trace(line)


def run(made: Any, *arguments: str) -> int:
    return cli.run("x", made.main.command, list(arguments))


def test_a_trace_becomes_prompts_that_ask_for_its_answers_and_come_at_its_times(capfdbinary: Any) -> None:
    Path("burst.csv").write_text(BURST)
    assert run(command, "--from", "burst.csv", "burst") == 0
    assert b"1 entries of 'burst.csv' were left out: line 3" in capfdbinary.readouterr().err
    files = sorted(Path("burst").glob("*.prompt.json"))
    assert [json.loads(path.read_text())["max_tokens"] for path in files] == [18, 230]
    manifest = [json.loads(line) for line in Path("burst/.manifest.jsonl").read_text().splitlines()]
    assert [(each["tokens"], each["at_s"], each["output_tokens"]) for each in manifest] == [
        (472, 0, 18),
        (12, 42.5, 230),
    ]
    assert run(command, "--check", "burst") == 0
    names = [str(path) for path in files]
    capfdbinary.readouterr()
    assert run(arrivals_command, "--start", "0", "--trace", "burst/.manifest.jsonl", *names) == 0
    assert capfdbinary.readouterr().out.decode() == f"0.000000\t{names[0]}\n42.500000\t{names[1]}\n"


def test_the_manifest_counts_what_a_prompt_file_asks(capfdbinary: Any) -> None:
    Path("own").mkdir()
    Path("own/a.prompt.json").write_text('{"turns": ["one two", {"content": "three", "think_s": 9}]}')
    assert run(command, "--index", "own") == 0
    assert json.loads(Path("own/.manifest.jsonl").read_text())["tokens"] == 3
    Path("own/b.prompt.json").write_text("{}")
    assert run(command, "--index", "own") == 3
    assert b"b.prompt.json" in capfdbinary.readouterr().err


def test_prompts_of_the_same_blocks_share_a_prefix() -> None:
    one, other, third = (
        synthetic.synthetic(index, tokens, 0, blocks=blocks, block=512).text
        for index, tokens, blocks in ((0, 1100, (46, 47, 48)), (1, 1000, (46, 2353)), (2, 500, (9,)))
    )
    same = len([1 for a, b in zip(one.split(), other.split(), strict=False) if a == b and one.index(a) >= 0])
    shared = next(at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert same and 400 < len(one[:shared].split()) < 512
    assert third.split()[1:9] != one.split()[1:9]


def test_answer_lengths_differ_and_models_are_mixed(capfdbinary: Any) -> None:
    assert run(command, "-n", "40", "--output-tokens", "100", "--lora", "a", "--lora", "b", "set") == 0
    asked = [json.loads(path.read_text()) for path in sorted(Path("set").glob("*.prompt.json"))]
    lengths = [each["max_tokens"] for each in asked]
    assert len(set(lengths)) > 20 and 80 < sum(lengths) / 40 < 120 and {each["model"] for each in asked} == {"a", "b"}
    assert run(command, "-n", "4", "--output-tokens", "9", "--output-deviation", "0", "even") == 0
    assert {json.loads(path.read_text())["max_tokens"] for path in Path("even").glob("*.json")} == {9}


@pytest.mark.parametrize("process", ["poisson", "gamma", "constant", "ramp"])
def test_a_load_of_a_given_duration(process: str, capfdbinary: Any) -> None:
    assert (
        run(arrivals_command, "--rate", "50", "--duration", "20", "--process", process, "--start", "0", "--to", "50")
        == 0
    )
    times = [float(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert max(times) < 20 and max(times) > 19 and 800 < len(times) < 1200
