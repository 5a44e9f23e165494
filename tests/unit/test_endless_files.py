"""Files that never end, or are far too long for what they should be, cost a message and not the memory."""

from __future__ import annotations

import importlib
import io
import itertools
import math
import resource
import subprocess
import sys
from pathlib import Path

import made
import pytest

from llmpar import cli, files, records
from llmpar.client import prompt_file
from llmpar.commands import prompts
from llmpar.prompts import files as prompt_files
from llmpar.prompts.prompt import BadPrompts
from llmpar.summary import read
from llmpar.summary.summariser import Summariser

# Each reads the file `f`; what is read line by line, and what as a whole.
READERS = [
    "summarise f",
    "table f",
    "compare --by engine f",
    "pick --slo ttft-p95<1s f",
    "next find --slo ttft-p95<1s f",
    "plan f",
    "cells f",
    "cells --shell f",
    "claims --claims f good",
    "report --walls f good",
    "simulate --prompt-tokens 9 f",
    "next best --space f --slo ttft-p95<1s good",
]


@pytest.mark.parametrize("words", READERS)
@pytest.mark.parametrize("kind", ["device", "sparse"])
def test_every_reader_ends_on_a_file_without_one(words, kind, monkeypatch, capsys):
    # The limits are lower here, so that reaching them takes no time.
    monkeypatch.setattr(files, "LINE_LIMIT", 1 << 20)
    monkeypatch.setattr(files, "TABLE_LIMIT", 1 << 20)
    if kind == "device":
        Path("f").symlink_to("/dev/zero")
    else:
        with open("f", "wb") as stream:
            stream.truncate(1 << 42)
    Path("good").write_bytes(records.encode(made.summary(20.0)))
    name, *rest = words.split()
    module = importlib.import_module(f"llmpar.commands.{name}")
    code = cli.run(f"llmpar-{name}", module.main.command, rest)
    said = capsys.readouterr().err
    assert code == 3 and "'f'" in said and ("MiB" in said or "bytes" in said), (code, said)


def test_the_limits_are_those_of_what_is_read():
    stream = io.BytesIO(b'{"kind":"x","v":1}\n' * 3)
    assert len(list(records.read(stream, "f"))) == 3
    assert files.whole(io.BytesIO(b"x" * 10), 10) == b"x" * 10
    with pytest.raises(files.TooLong):
        files.whole(io.BytesIO(b"x" * 11), 10)


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r\n\n\n"])
def test_lines_are_whole_however_they_are_read(size, end, monkeypatch):
    data = b"one\ntwo\rtwo\n\nthree" + end
    monkeypatch.setattr(read, "BLOCK_BYTES", size)
    blocks = list(read._blocks(io.BytesIO(data), "f", math.inf))
    assert [line for block in blocks for line in io.BytesIO(block)] == io.BytesIO(data).readlines()
    assert all(len(block) >= min(size, 3) for block in blocks[:-1])


def test_a_part_of_a_file_is_read_to_its_end_and_no_further():
    lines = [b'{"kind":"other","v":1,"n":%d}\n' % number for number in range(100)]
    stream = io.BytesIO(b"".join(lines))
    read.feed(Summariser(), stream, "f", sum(map(len, lines[:40])))
    assert stream.readline() == lines[40]


def test_a_set_with_a_file_that_is_no_prompt_is_refused_by_name(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with open(tmp_path / "b.txt", "wb") as stream:
        stream.truncate(1 << 42)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(BadPrompts, match="b.txt"):
        prompt_files.digests(tmp_path)
    (tmp_path / "b.txt").unlink()
    assert list(prompt_files.digests(tmp_path)) == ["a.txt"]
    assert prompt_file.read_prompt(str(tmp_path / "loop")).fault


def test_too_little_memory_is_said(capsys):
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))

    command = [sys.executable, "-c", "from llmpar.commands.import_ import main; main()", "/dev/zero"]
    done = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "not enough memory" in done.stderr, done.stderr


def test_asyncio_reads_no_further_than_it_asks(monkeypatch):
    """A list that never ends is no reason to hold it."""
    import asyncio

    from llmpar.client import coroutines

    drawn = itertools.count()

    async def some() -> list[str | None]:
        take = coroutines._reader((f"p{number}" for number in drawn), asyncio.get_running_loop())
        return [await take() for _ in range(10)]

    assert asyncio.run(some()) == [f"p{number}" for number in range(10)]
    assert next(drawn) <= coroutines.AHEAD + 12


def test_a_list_of_conversations_a_line_is_one_of_questions(tmp_path):
    Path("s.jsonl").write_text(
        '{"id":"a","conversations":[{"from":"human","value":"Name three rivers."},{"from":"gpt","value":"Aare."}]}\n'
        '{"conversation":[{"role":"user","content":"And two lakes?"}]}\n'
    )
    found, left_out = prompts._convert("s.jsonl", None, None, lambda arrivals: [])
    assert [prompt.text for prompt in found] == ["Name three rivers.", "And two lakes?"] and not left_out
