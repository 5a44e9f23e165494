"""A command line to a plan: what does not go together, what a pool remembers, where names come from."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpar import procfs
from llmpar.client import prompt_queue, run
from llmpar.client.plan import Plan, Unread, Wrong, from_options
from llmpar.commands.request import read
from llmpar.pool.parser import Parser
from llmpar.pool.protocol import MAGIC, Call, RunCold

ENVIRON = {"LLMPAR_BASE_URL": "http://127.0.0.1:9"}


def plan(*arguments: str, **environ: str) -> Plan:
    prompts, options = read(["--base-url", "http://127.0.0.1:9", *arguments])
    return from_options(prompts, options, ENVIRON | environ)


@pytest.mark.parametrize(
    "options,words",
    [
        ([], "no prompt file is named"),
        (["--queue", "q", "p"], "--queue takes no prompt files"),
        (["--stdin", "p"], "exclude one another"),
        (["--stdin", "--queue", "q"], "exclude one another"),
        (["--threads", "2", "--asyncio", "2", "p"], "exclude one another"),
        (["--at", "+1", "p", "q"], "--at is for one prompt file"),
        (["--at", "+1", "--threads", "2", "p"], "--at is for one"),
        (["--at", "noon", "p"], "'noon' is not an instant"),
        (["--at", "nan", "p"], "'nan' is not an instant"),
        (["--at", "-1", "p"], "not an instant"),
        (["--header", "no", "p"], "is not a header"),
        (["--header", "Host: x", "p"], "llmpar-request's own"),
        (["--header", "A: b\r\nC: d", "p"], "is not a header"),
        (["--header", "A: ü", "p"], "is not a header"),
        (["--header", "authorization: Bearer sk", "p"], "list of processes"),
        (["--body", "{", "p"], "--body is not JSON"),
        (["--body", "[1]", "p"], "not a JSON object"),
        (["--body", '{"a": NaN}', "p"], "--body is not JSON"),
        (["--body", "@none", "p"], "cannot read 'none'"),
        (["--body", '{"model": "m"}', "p"], "comes from --model"),
        (["--body", '{"messages": []}', "p"], "comes from the prompt file"),
        (["--body", '{"stream": false}', "p"], "--no-stream"),
        (["--body", '{"n": 2}', "p"], "one answer"),
        (["--body", '{"a":' * 120 + "1" + "}" * 120, "p"], "deeper than 100"),
        (["--api-key-file", "none", "p"], "cannot read the API key file 'none'"),
        (["--timeout", "inf", "p"], "--timeout must be a finite number"),
        (["--temperature", "nan", "p"], "--temperature must be"),
        (["--base-url", "ftp://x", "p"], "is not an http"),
        (["--base-url", "http://", "p"], "names no host"),
        (["--base-url", "http://user:word@x", "p"], "user name or password"),
        (["--base-url", "http://x:99999", "p"], "names no port"),
        (["--base-url", "http://x/?a=b", "p"], "query"),
        (["--base-url", "", "p"], "no server is named"),
    ],
)
def test_what_does_not_go_together(options, words, monkeypatch):
    monkeypatch.setenv("LLMPAR_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(Wrong, match="(?s)") as caught:
        prompts, parsed = read(options)
        from_options(prompts, parsed, ENVIRON)
    assert words in str(caught.value) and "word@" not in str(caught.value) and "sk" not in str(caught.value).split()


@pytest.mark.parametrize(
    "options",
    [["--timeout", "0", "p"], ["--max-bytes", "0", "p"], ["--colour"], ["--api", "x", "p"], ["--threads", "0"]],
)
def test_what_click_refuses_comes_with_its_words(options):
    with pytest.raises(Unread, match="(?s)Usage: llmpar-request.*Error: "):
        read(options)


@pytest.mark.parametrize("text", ["", "\n", "two words", "caf\xe9", "a\nb"])
def test_key_file_that_holds_no_key(text):
    Path("key").write_text(text, encoding="utf-8")
    with pytest.raises(Wrong, match="'key' does not hold one API key"):
        plan("--api-key-file", "key", "p")


def test_key_and_headers_are_taken():
    Path("key").write_text("sk-1\n")
    made = plan("--api-key-file", "key", "--header", "X-Team: a b", "p")
    assert made.settings.api_key == "sk-1" and made.settings.headers == (("X-Team", "a b"),)


def test_launchers_by_name():
    assert [
        plan(*words).launcher
        for words in (["p"], ["p", "q"], ["--queue", "l"], ["--threads", "3", "p"], ["--asyncio", "2", "p"])
    ] == ["cold", "turns", "queue", "threads", "asyncio"]
    assert (
        plan("--threads", "3", "p").settings.concurrency == 3
        and plan("--concurrency", "9", "p").settings.concurrency == 9
    )
    made = plan("p", PARALLEL_SEQ="12", PARALLEL_JOBSLOT="3", LLMPAR_ATTEMPT="2", LLMPAR_LAUNCHED_NS="5")
    assert (made.seq, made.slot, made.attempt, made.launched_ns) == (12, 3, 2, 5)
    assert plan("p", PARALLEL_SEQ="x", LLMPAR_LAUNCHED_NS="٣").seq is None


def call(*arguments: str, directory: str = "/", **variables: str) -> Call:
    named = [f"{name}={value}" for name, value in (ENVIRON | variables).items()]
    return Call(
        b"\0".join(
            [
                MAGIC,
                b"7",
                os.fsencode(directory),
                b"%d" % len(named),
                *map(os.fsencode, named),
                *map(os.fsencode, arguments),
            ]
        )
    )


class Counting:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, arguments):
        self.count += 1
        return read(arguments)


def test_a_pool_parses_once_for_jobs_that_differ_in_their_prompt():
    reading = Counting()
    parser = Parser(reading, 16)
    for number in range(5):
        made = parser.parse(call("--max-tokens", "4", f"p{number}", PARALLEL_SEQ=str(number), PARALLEL_JOBSLOT="2"))
        assert (
            made.prompts == (f"p{number}",)
            and made.seq == number
            and made.launcher == "pool"
            and made.settings.concurrency == 16
        )
    for number in range(3):
        made = parser.parse(call("--max-tokens", "4", "--at", f"{number + 1}.5", f"p{number}"))
        assert made.at_ns == int((number + 1.5) * 1e9) and made.prompts == (f"p{number}",)
    assert parser.parse(call("--max-tokens", "4", "p")).at_ns is None
    assert reading.count == 1
    assert parser.parse(call("--max-tokens", "5", "p")).settings.sampling.max_tokens == 5
    assert parser.parse(call("--max-tokens", "5", "p", LLMPAR_MODEL="m")).settings.model == "m"
    assert parser.parse(call("--max-tokens", "5", "p")).settings.model is None
    assert parser.parse(call("--max-tokens", "5", "p", directory="/tmp")).prompts == ("p",)
    assert reading.count == 5
    assert parser.parse(call("--max-tokens", "5", "p", "q")).launcher == "turns"
    assert parser.parse(call("--queue", "l")).queue == "l"
    with pytest.raises(Unread):
        parser.parse(call("p", "--max-tokens", "x"))
    with pytest.raises(Wrong, match="--at is for one"):
        parser.parse(call("--at", "+1", "p", "q"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["-h"],
        ["--version"],
        ["--stdin"],
        ["--threads", "2", "p"],
        ["--asyncio", "2", "p"],
        ["-"],
        ["/dev/stdin"],
        ["p", "/dev/fd/3"],
        ["/proc/self/fd/0"],
    ],
)
def test_what_only_the_own_process_can_do(arguments):
    with pytest.raises(RunCold):
        Parser(read, None).parse(call(*arguments))


@given(st.binary(max_size=80))
def test_no_message_of_a_stranger_is_taken_for_a_call(data):
    try:
        made = Call(data)
    except ValueError:
        return
    assert data.startswith(MAGIC + b"\0") and made.directory is not None


names = st.text(st.characters(exclude_characters="\0\n\r\ufeff", exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(st.lists(names, max_size=8), st.booleans())
def test_names_from_a_stream(found, last):
    text = "\n".join(found) + ("\n" if last and found else "")
    assert list(run.names(io.BytesIO(text.encode()))) == found  # type: ignore[arg-type]
    if found:
        assert list(run.names(io.BytesIO("\0".join([*found, "a\nb", ""]).encode()))) == [*found, "a\nb"]  # type: ignore[arg-type]


def test_a_list_made_on_windows():
    text = "\ufeffone\r\ntwo\r\n".encode()
    assert list(run.names(io.BytesIO(text))) == ["one", "two"]  # type: ignore[arg-type]
    Path("list").write_bytes(text)
    assert prompt_queue.read("list") == ["one", "two"]


def test_names_that_come_in_pieces():
    class Slow(io.RawIOBase):
        pieces = [b"on", b"e\ntw", b"o", b"\n\nthr", b"ee"]

        def read(self, size: int = -1) -> bytes:
            return self.pieces.pop(0) if self.pieces else b""

    assert list(run.names(Slow())) == ["one", "two", "three"]


def test_queue_of_many_takers():
    Path("list").write_text("".join(f"n{number}\n" for number in range(50)) + "\n")
    mine, other = procfs.process_key(os.getpid()), procfs.process_key(os.getppid())
    first, second = prompt_queue.Queue("list", mine), prompt_queue.Queue("list", mine)
    one, two = first.take(11), second.take(22)
    got = [(next(one), next(two)) for _ in range(10)]
    assert got == [(f"n{2 * number}", f"n{2 * number + 1}") for number in range(10)]
    assert first.taken(11) == [pair[0] for pair in got] and second.taken(22) == [pair[1] for pair in got]
    rest = list(one)
    assert rest == [f"n{number}" for number in range(20, 50)] and list(two) == []
    assert list(prompt_queue.Queue("list", mine).take(33)) == []
    assert next(prompt_queue.Queue("list", other).take(33)) == "n0"
    # Positions of fan-outs that are gone are swept up.
    assert list(prompt_queue.Queue("list", "1-1").take(44)) and list(prompt_queue.Queue("list", "1-1").take(44))
    Path("nul").write_bytes(b"a\nb\0c\0")
    assert prompt_queue.read("nul") == ["a\nb", "c"]
