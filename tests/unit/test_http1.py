"""The HTTP/1.1 framer: any split gives the same, h11 says the same, and what is not HTTP is refused."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpar.client.http1 import HEAD_LIMIT, BadFraming, Framer, parse_head, post

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
RESERVED = {"content-length", "transfer-encoding", "connection", "trailer"}


@st.composite
def responses(draw) -> bytes:
    """A well-formed response with one of the three framings, interim responses before it."""
    end = "\r\n"
    interim = "".join(
        f"HTTP/1.1 {draw(st.sampled_from([100, 102, 103]))} Wait{end}{end}" for _ in range(draw(st.integers(0, 2)))
    )
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 404, 429, 500, 503]))
    headers = [
        (name, value)
        for name, value in draw(st.lists(st.tuples(TOKEN, VALUE), max_size=4))
        if name.lower() not in RESERVED
    ]
    body = draw(st.binary(max_size=200))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    payload = body
    if status in (204, 304):
        framing, payload = "none", b""
    if framing == "length":
        headers.append(("Content-Length", str(len(body))))
    elif framing == "chunked":
        headers.append(
            (
                draw(st.sampled_from(["Transfer-Encoding", "transfer-encoding"])),
                draw(st.sampled_from(["chunked", "Chunked"])),
            )
        )
        payload, at = b"", 0
        while at < len(body):
            size = draw(st.integers(1, len(body) - at))
            extension = draw(st.sampled_from(["", ";a=b"]))
            payload += (
                f"{size:{draw(st.sampled_from(['x', 'X', '04x']))}}{extension}{end}".encode()
                + body[at : at + size]
                + b"\r\n"
            )
            at += size
        payload += b"0\r\n" + draw(st.sampled_from([b"", b"X-Sum: 1\r\n"])) + b"\r\n"
    if draw(st.booleans()):
        headers.append(("Connection", draw(st.sampled_from(["close", "keep-alive"]))))
    head = f"HTTP/1.1 {status} Some Reason{end}" + "".join(f"{name}: {value}{end}" for name, value in headers) + end
    return interim.encode() + head.encode() + payload


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in zip(at, at[1:], strict=False)]


def outcome(parts: list[bytes]) -> tuple:
    framer = Framer()
    try:
        for part in parts:
            framer.feed(part)
        missing = framer.eof()
    except BadFraming:
        return ("bad",)
    return framer.status, framer.headers, bytes(framer.body), framer.reusable, framer.interim, missing


def oracle(data: bytes) -> tuple[int, dict[str, str], bytes]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    status, headers, body = 0, {}, b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            status = event.status_code
            for name, value in event.headers:
                key, text = name.decode(), value.decode()
                headers[key] = f"{headers[key]}, {text}" if key in headers else text
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, headers, body


@settings(max_examples=200, deadline=None)
@given(responses(), st.lists(st.integers(0, 1000), max_size=12))
def test_any_split_gives_what_h11_gives(data, cuts):
    status, headers, body, _, _, missing = outcome(pieces(data, cuts))
    assert missing is None
    expected = oracle(data)
    # h11 lowers the case of the framing header's value.
    assert (
        status,
        {name: value.lower() if name == "transfer-encoding" else value for name, value in headers.items()},
        body,
    ) == expected
    assert outcome(pieces(data, cuts)) == outcome([data]) == outcome([data[at : at + 1] for at in range(len(data))])


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=120),
        responses().flatmap(
            lambda data: st.tuples(st.just(data), st.integers(0, len(data)), st.binary(max_size=6)).map(
                lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + len(t[2]) :]
            )
        ),
    ),
    st.lists(st.integers(0, 1000), max_size=8),
)
def test_spoilt_responses_end_the_same_however_they_are_split(data, cuts):
    assert outcome(pieces(data, cuts)) == outcome([data])


@settings(max_examples=60, deadline=None)
@given(responses(), st.integers(0, 400))
def test_a_cut_response_is_never_taken_for_a_whole_one(data, at):
    whole, part = outcome([data]), outcome([data[: at % max(len(data), 1)]])
    by_close = "content-length" not in whole[1] and "transfer-encoding" not in whole[1] and whole[0] not in (204, 304)
    if at % max(len(data), 1) < len(data):
        assert part[-1] is not None or by_close


@settings(deadline=None)
@given(responses(), st.lists(st.integers(0, 1000), max_size=12))
def test_the_body_grows_and_is_done_once(data, cuts):
    framer, marks, done = Framer(), [], []
    for part in pieces(data, cuts):
        done.append(framer.feed(part))
        marks.append(len(framer.body))
    assert marks == sorted(marks) and done == sorted(done)
    assert framer.done == any(done)


@pytest.mark.parametrize(
    "data,words",
    [
        (b"SSH-2.0-OpenSSH\r\n", "not an HTTP/1 response"),
        (b"HTTP/2 200\r\n\r\n", "status line"),
        (b"HTTP/1.1 99 x\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "header"),
        (b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", "header"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "header"),
        (b"HTTP/1.1 101 Up\r\n\r\n", "101"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\n", "content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n", "content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n", "content-length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "not offered"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\n", "chunk size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", "longer than its size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 5000, "chunk-size line"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbad\r\n", "trailer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 12000, "trailers"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * (HEAD_LIMIT + 1), "no end of the headers"),
    ],
)
def test_what_is_not_http_is_refused(data, words):
    framer = Framer()
    with pytest.raises(BadFraming, match=words):
        for at in range(0, len(data), 1000):
            framer.feed(data[at : at + 1000])


@pytest.mark.parametrize(
    "data,reusable",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 1\r\n\r\nx", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy", False),
        (b"HTTP/1.1 200 OK\r\n\r\nx", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", False),
        (b"\r\nHTTP/1.1 200 OK\nContent-Length: 1\n\nx", True),
    ],
)
def test_reuse_of_the_connection(data, reusable):
    assert outcome([data])[2:4] == (b"x" if data != b"HTTP/1.1 200 OK\r\n\r\nx" else b"x", reusable)


def test_post_is_one_request_and_refuses_line_ends():
    message = post("/v1/x", "host:1", [("A", "b")], b"{}", keep_alive=False)
    server = h11.Connection(h11.SERVER)
    server.receive_data(message)
    request, data, end = server.next_event(), server.next_event(), server.next_event()
    assert (request.method, request.target, bytes(data.data)) == (b"POST", b"/v1/x", b"{}") and isinstance(
        end, h11.EndOfMessage
    )
    assert dict(request.headers) == {b"host": b"host:1", b"a": b"b", b"content-length": b"2", b"connection": b"close"}
    for bad in ("b\r\nC: d", "b\nC: d", "b\0"):
        with pytest.raises(ValueError, match="line end"):
            post("/", "h", [("A", bad)], b"", keep_alive=True)


def test_folded_and_repeated_headers():
    assert parse_head(b"HTTP/1.1 200 OK\r\nA: b\r\n  c\r\nB: 1\r\nb: 2") == (200, 1, {"a": "b c", "b": "1, 2"})
