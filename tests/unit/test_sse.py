"""The event-stream reader against a naive reading of the standard, byte by byte."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llmpar.dialects import sse


def naive(body: bytes) -> list[tuple[int, bytes]]:
    """WHATWG's algorithm, one byte at a time, except that the end of the body ends an event as an empty line does."""
    found: list[tuple[int, bytes]] = []
    at = 3 if body.startswith(b"\xef\xbb\xbf") else 0
    line, data = b"", None
    while at <= len(body):
        byte = body[at : at + 1]
        ends = byte in (b"\n", b"\r", b"")
        if byte == b"\r" and body[at + 1 : at + 2] == b"\n":
            at += 1
        at += 1
        if not ends:
            line += byte
            continue
        here = min(at, len(body))
        if line:
            name, colon, value = line.partition(b":")
            if name == b"data":
                value = value[1:] if value[:1] == b" " else value
                data = value if data is None else data + b"\n" + value
        if data is not None and (not line or not byte):
            found.append((here, data))
            data = None
        line = b""
    return found


PIECES = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data:  c",
        b"data",
        b"datax: no",
        b": note",
        b":",
        b"event: e",
        b"id:1",
        "data: é🙂".encode(),
        b"data: \xff",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b"\r\r",
        b"",
    ]
)


@settings(deadline=None, derandomize=True)
@given(st.lists(PIECES, max_size=14).map(b"".join))
def test_agrees_with_the_standard(body: bytes) -> None:
    assert sse.events(body) == naive(body)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([b"data: a", b"data:b", b":", b"event: e", b"\n", b"\n\n"]), max_size=12).map(b"".join))
def test_agrees_with_the_standard_without_carriage_returns(body: bytes) -> None:
    assert sse.events(body) == naive(body)


def test_offsets_are_where_the_empty_line_ends() -> None:
    assert sse.events(b"data: 1\n\ndata: 2\n\n") == [(9, b"1"), (18, b"2")]
    assert sse.events(b"data: 1\r\n\r\ndata: 2\r\n\r\n") == [(11, b"1"), (22, b"2")]


def test_one_space_goes_and_no_more() -> None:
    assert sse.events(b"data:  {}\n\ndata:{}\n\n") == [(11, b" {}"), (20, b"{}")]


def test_comments_and_other_fields_are_no_events() -> None:
    assert sse.events(b":\n\n: ping\n\nevent: x\nid: 3\n\nretry: 5\n\n") == []
    assert sse.events(b": ping\ndata: 1\nid: 3\n\n") == [(22, b"1")]


def test_lines_of_data_are_joined() -> None:
    assert sse.events(b"data: 1\ndata: 2\n\n") == [(17, b"1\n2")]


def test_the_end_of_the_body_ends_an_event() -> None:
    assert sse.events(b"data: 1\n\ndata: 2") == [(9, b"1"), (16, b"2")]
    assert sse.events(b"data: 1\n") == [(8, b"1")]
