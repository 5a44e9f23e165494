"""Every wire sample against what a person read in it; framing and parsing split at every position."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import made_requests
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_samples import OTHER, SAMPLES, SPEC, STREAMS, WIRE, Want, head_and_body, load, parse

from llmpar.client.http1 import Framer
from llmpar.dialects import DIALECTS
from llmpar.summary import read
from llmpar.summary.summariser import Summariser


def test_every_sample_is_here_or_named_as_another_matter() -> None:
    present = {str(path.relative_to(WIRE)) for path in WIRE.rglob("*.txt")}
    told = {want.file for want in SAMPLES}
    assert present - told == {file for file in present if file.rsplit("/", 1)[1] in OTHER}
    assert told <= present


@pytest.mark.parametrize("want", SAMPLES, ids=lambda want: want.file)
def test_a_sample_is_read_as_a_person_reads_it(want: Want) -> None:
    status = load(want.file)[0]
    reply = parse(want)
    assert len(reply.events) == want.events
    if want.text is not None:
        assert reply.text == want.text
    if want.events:
        assert "".join(event.text for event in reply.events) == reply.text
        assert [event.tokens for event in reply.events] == (want.tokens or [None] * want.events)
    assert (reply.prompt_tokens, reply.cached_tokens) == (want.prompt, want.cached)
    assert (reply.output_tokens, reply.token_source) == (want.output, want.source)
    assert reply.finish_reason == want.finish
    if want.error is None:
        assert reply.error is None and reply.complete
    else:
        assert not reply.complete
        assert reply.error is not None
        assert reply.error["type"] == want.error
        assert reply.error["message"].startswith(want.message)
        assert reply.error["http_status"] == status


def test_texts_too_long_for_the_table() -> None:
    replies = {want.file: parse(want) for want in SAMPLES if want.text is None and want.output}
    spec = replies["llamacpp/completion_stream_spec.txt"].text
    assert spec is not None and spec.startswith(SPEC) and SPEC.startswith(spec.removeprefix(SPEC * (spec.count(SPEC))))
    short = replies["llamacpp/v1_completions_stream_spec.txt"].text
    assert short is not None and short.startswith(SPEC)
    full = replies["llamacpp/v1_completions_hits_context.txt"].text
    assert (
        full is not None and full.startswith(" of the Republic of the Congo") and full.endswith(" center of political")
    )


@pytest.mark.parametrize("want", STREAMS, ids=lambda want: want.file)
def test_offsets_are_the_true_ends_of_events(want: Want) -> None:
    body = load(want.file)[2]
    at, ends = 0, {}
    for block in body.split(b"\n\n"):
        at += len(block) + 2
        ends.setdefault(min(at, len(body)), block)
    offsets = [event.offset for event in parse(want).events]
    assert offsets == sorted(set(offsets))
    for event in parse(want).events:
        assert event.offset in ends
        block = ends[event.offset].decode()
        assert event.text in block or json.dumps(event.text, ensure_ascii=False)[1:-1] in block


@pytest.mark.parametrize("want", STREAMS, ids=lambda want: want.file)
def test_cut_anywhere_it_holds_what_had_come_and_says_so(want: Want) -> None:
    status, headers, body, _ = load(want.file)
    read = DIALECTS[want.api].parse
    whole = read(status, headers, body, True)
    done = False
    for end in range(len(body)):
        part = read(status, headers, body[:end], True)
        arrived = [event for event in whole.events if event.offset <= end]
        texts = [event.text for event in part.events]
        assert texts[: len(arrived)] == [event.text for event in arrived]
        assert len(texts) - len(arrived) <= 1  # an event whose empty line is missing counts at the end of the body
        assert [event.offset for event in part.events[: len(arrived)]] == [event.offset for event in arrived]
        assert part.complete or part.error is not None
        assert part.complete or not done  # once the engine has said the end, more bytes do not unsay it
        done = part.complete
        if not part.complete and want.error is None:
            assert part.error is not None and part.error["type"] == "cut_stream"


def framed(want: Want) -> tuple[bytes, list[int]]:
    """The response as on the wire, one chunk for each event, and where in it each event of the body is whole."""
    head, body = head_and_body(want.file)
    raw, ends, at = head + b"\r\n\r\n", {}, 0
    pieces = body.split(b"\n\n")
    for number, piece in enumerate(pieces):
        piece += b"\n\n" if number < len(pieces) - 1 else b""
        if piece:
            raw += b"%x\r\n" % len(piece)
            at += len(piece)
            ends[at] = len(raw) + len(piece)
            raw += piece + b"\r\n"
    return raw + b"0\r\n\r\n", [ends[event.offset] for event in parse(want).events]


@pytest.mark.parametrize("want", STREAMS, ids=lambda want: want.file)
def test_split_at_every_position_events_land_in_the_segment_that_completed_them(want: Want) -> None:
    body = load(want.file)[2]
    raw, ends = framed(want)
    offsets = [event.offset for event in parse(want).events]
    for split in range(1, len(raw)):
        framer = Framer()
        sizes = []
        for segment in (raw[:split], raw[split:]):
            done = framer.feed(segment)
            sizes.append(len(framer.body))
        assert done and framer.body == body
        # The transport's mapping: the first segment after which the body was at least as long as the event's offset.
        assert [bisect.bisect_left(sizes, offset) for offset in offsets] == [0 if end <= split else 1 for end in ends]


WHOLE = [want for want in SAMPLES if want not in STREAMS]
ASIDE = sorted(path for path in WIRE.rglob("*.txt") if path.name in OTHER and path.read_bytes().startswith(b"HTTP/"))


def with_length(head: bytes, body: bytes) -> bytes:
    """The response with the body's true length: captured files whose long fields were cut have one that no longer
    fits."""
    lines = [
        line for line in head.split(b"\r\n") if not line.lower().startswith((b"content-length:", b"transfer-encoding:"))
    ]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])


def splits(raw: bytes, body: bytes) -> Iterator[Framer]:
    """What reads the response, for each position at which it can be split in two."""
    for split in range(1, len(raw)):
        framer = Framer()
        assert not framer.feed(raw[:split]), "it is whole only when all has come"
        assert framer.feed(raw[split:]) and framer.body == body
        yield framer


@pytest.mark.parametrize("want", WHOLE, ids=lambda want: want.file)
def test_whole_answers_split_at_every_position(want: Want) -> None:
    head, body = head_and_body(want.file)
    expected = parse(want)
    for framer in splits(with_length(head, body), body):
        assert DIALECTS[want.api].parse(framer.status or 0, framer.headers, bytes(framer.body), False) == expected


@pytest.mark.parametrize("path", ASIDE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_answers_to_other_questions_split_at_every_position(path: Path) -> None:
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    for framer in splits(with_length(head, body), body):
        assert framer.status == int(head.split()[1])


@pytest.mark.parametrize(
    "file, words",
    [
        ("llamacpp/completion_stream_spec", None),
        ("tgi/stream_speculate2", None),
        ("vllm-cpu/v1_completions_stream_spec", r"fter| value"),
    ],
)
def test_bursts_as_they_arrived_are_counted_by_tokens(file: str, words: str | None) -> None:
    """Under speculation a burst is several events at once (llama.cpp, TGI), or several tokens in one event (vLLM)."""
    rows = [line.split("\t") for line in (WIRE / f"{file}_arrivals.tsv").read_text().splitlines()[1:]]
    events = [
        (float(row[0]), json.loads(row[2]))
        for row in rows
        if row[2].startswith('"') and json.loads(row[2]) not in ("", "<no choices>", "data: [DONE]")
    ]
    at = [second for second, _ in events]
    tokens = [len(re.findall(words, text)) if words else 1 for _, text in events]
    record = made_requests.request(
        0, events=tuple(at), event_tokens=tokens, output_tokens=sum(tokens), e2e_s=at[-1], ttft_s=at[0]
    )
    summariser = Summariser()
    read.feed_records(summariser, [record])
    latency = summariser.summary()["latency"]
    assert latency["event_latency_s"]["n"] == len(events) - 1
    assert latency["itl_s"]["n"] == sum(tokens[1:])
    # However the tokens are bundled, they took what they took.
    assert latency["itl_s"]["mean"]["value"] * sum(tokens[1:]) == pytest.approx(at[-1] - at[0], abs=1e-6 * sum(tokens))
    assert (latency["itl_s"]["n"] > latency["event_latency_s"]["n"]) == bool(words)


@pytest.mark.parametrize("want", STREAMS, ids=lambda want: want.file)
def test_byte_by_byte(want: Want) -> None:
    raw, ends = framed(want)
    framer, sizes = Framer(), []
    for index in range(len(raw)):
        framer.feed(raw[index : index + 1])
        sizes.append(len(framer.body))
    reply = DIALECTS[want.api].parse(framer.status or 0, framer.headers, bytes(framer.body), True)
    assert reply == parse(want)
    assert [bisect.bisect_left(sizes, event.offset) + 1 for event in reply.events] == ends


@pytest.mark.parametrize("want", STREAMS, ids=lambda want: want.file)
@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b"\n", b"\r\n"),
        lambda body: body.replace(b"\n", b"\r"),
        lambda body: body.replace(b"data: ", b"data:") if b"data: " in body else body.replace(b"data:", b"data: "),
        lambda body: b":\n\n" + body.replace(b"data:", b": ping\n\nevent: message\ndata:"),
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: body.rstrip(b"\n"),
    ],
    ids=["crlf", "cr", "space", "comments", "bom", "no-last-line"],
)
def test_legal_variants_read_alike(want: Want, change) -> None:
    status, headers, body, _ = load(want.file)
    plain = DIALECTS[want.api].parse(status, headers, body, True)
    other = DIALECTS[want.api].parse(status, headers, change(body), True)
    assert [event[1:] for event in other.events] == [event[1:] for event in plain.events]
    other.events, plain.events = [], []
    assert other == plain


@pytest.mark.parametrize("want", SAMPLES, ids=lambda want: want.file)
@pytest.mark.parametrize("stream", [True, False])
def test_any_dialect_bears_any_sample(want: Want, stream: bool) -> None:
    status, headers, body, _ = load(want.file)
    for dialect in DIALECTS.values():
        reply = dialect.parse(status, headers, body, stream)
        assert reply.complete or reply.error is not None


JUNK = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"data: ", b"\n\n", b"\r\n", b"[DONE]", b"null", b"[]", b"{}", b"[[]]", b'"x"', b"1e999", b"\xff\xfe"]
    ),
    st.sampled_from(
        [
            '{"choices":',
            '{"choices":[{"text":',
            '{"choices":[{"delta":{"content":',
            '{"content":',
            '{"token":',
            '{"error":',
            '{"usage":',
            '{"timings":',
            '{"details":',
            '{"detail":',
            '{"generated_text":',
            '{"choices":[{"finish_reason":',
        ]
    ).flatmap(
        lambda start: st.sampled_from(
            ["null", "1", '"s"', "[]", "{}", "[1]", '[{"loc":3}]', '{"type":[]}', "true", "1.5"]
        ).map(
            lambda middle: (
                "data: " + start + middle + "]" * start.count("[") + "}" * start.count("{") + "\n\n"
            ).encode()
        )
    ),
)


@settings(deadline=None, derandomize=True)
@given(
    st.lists(JUNK, max_size=6).map(b"".join),
    st.sampled_from([200, 206, 302, 400, 503]),
    st.booleans(),
    st.sampled_from(["text/event-stream", "application/json", "", "text/html"]),
    st.sampled_from(sorted(DIALECTS)),
)
def test_junk_never_raises(body: bytes, status: int, stream: bool, kind: str, api: str) -> None:
    reply = DIALECTS[api].parse(status, {"content-type": kind, "x-prompt-tokens": "²"}, body, stream)
    assert reply.complete or reply.error is not None
    assert all(0 < event.offset <= len(body) and event.text for event in reply.events)
    for count in (reply.prompt_tokens, reply.cached_tokens, reply.output_tokens):
        assert count is None or count >= 0
