"""Kept connections, deadlines, endless files and keys said back: each over real sockets and files."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

import pytest

from llmpar import files
from llmpar.client import exchange, http1, prompt_file, request
from llmpar.client.exchange import Connections, Raw
from llmpar.client.target import Target

BODY = b'{"choices":[{"text":"ok","finish_reason":"stop"}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
ASKED = http1.post("/", "h", [], b"x" * 10, True)


def serve(*steps):
    """A listener whose thread hands each connection to the next step; its target and what the steps noted."""
    listener = socket.create_server(("127.0.0.1", 0))
    noted: list[str] = []

    def work() -> None:
        for step in steps:
            with contextlib.suppress(OSError):  # the client or the test is done with it
                sock, _ = listener.accept()
                with sock:
                    step(sock, noted)

    threading.Thread(target=work, daemon=True).start()
    return Target.of(f"http://127.0.0.1:{listener.getsockname()[1]}"), noted, listener


def ask(connections: Connections, target: Target, message: bytes = ASKED, timeout_s: float = 5.0) -> Raw:
    raw = Raw()
    exchange.exchange(raw, connections, target, message, timeout_s, 1 << 20, True)
    connections.done(raw, target, True)
    return raw


def test_what_came_unasked_is_no_answer():
    def first(sock: socket.socket, noted: list[str]) -> None:
        sock.recv(1000)
        sock.sendall(ANSWER)
        time.sleep(0.1)
        sock.sendall(b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n")
        noted.append("unasked")
        sock.recv(1000)

    def second(sock: socket.socket, noted: list[str]) -> None:
        sock.recv(1000)
        sock.sendall(ANSWER)

    target, noted, listener = serve(first, second)
    with listener:
        connections = Connections()
        assert ask(connections, target).error is None
        while not noted:
            time.sleep(0.01)
        time.sleep(0.05)
        raw = ask(connections, target)
        assert raw.error is None and raw.framer.status == 200 and not raw.reused


def test_a_request_that_the_server_took_is_not_sent_again():
    def only(sock: socket.socket, noted: list[str]) -> None:
        sock.recv(1000)
        sock.sendall(ANSWER)
        sock.recv(1000)
        noted.append("taken")

    def again(sock: socket.socket, noted: list[str]) -> None:
        noted.append("sent again")

    target, noted, listener = serve(only, again)
    with listener:
        connections = Connections()
        assert ask(connections, target).error is None
        raw = ask(connections, target)
        assert raw.error is not None and raw.error[0] in ("no_response", "connection_reset") and raw.reused
        time.sleep(0.1)
        assert noted == ["taken"]


def test_a_slow_reader_and_a_last_byte_do_not_stretch_the_time_limit():
    def slow(sock: socket.socket, noted: list[str]) -> None:
        for _ in range(100):
            sock.recv(5000)
            time.sleep(0.05)

    def drip(sock: socket.socket, noted: list[str]) -> None:
        sock.recv(1000)
        time.sleep(0.9)
        sock.sendall(ANSWER[:5])
        time.sleep(3)

    target, _, listener = serve(slow, drip)
    with listener:
        for message in (http1.post("/", "h", [], bytes(1 << 25), True), ASKED):
            began = time.monotonic()
            raw = ask(Connections(), target, message, 1.0)
            assert raw.error is not None and raw.error[0] == "timeout" and time.monotonic() - began < 1.8


def test_files_without_end_or_writer(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TimeoutError):
        files.read(str(tmp_path / "fifo"), 100, 0.1)
    with pytest.raises(files.TooLong):
        files.read("/dev/zero", 1 << 20, 5)
    (tmp_path / "long").write_bytes(b"x" * 101)
    with pytest.raises(files.TooLong):
        files.read(str(tmp_path / "long"), 100, 1)
    prompt = tmp_path / "p"
    prompt.write_bytes(b"\xef\xbb\xbfSay one.\r\n")
    assert prompt_file.read_prompt(str(prompt)).text == "Say one."


@pytest.mark.parametrize("status", [200, 401])
def test_a_key_that_is_said_back_is_in_no_record(status):
    settings = request.Settings("http://h", "openai-completions", "m", api_key="sk-very-secret")
    raw = Raw(sent_ns=1)
    body = (
        BODY.replace(b"ok", b"sk-very-secret") if status == 200 else b'{"error":{"message":"bad key sk-very-secret"}}'
    )
    raw.stamps.append(2)
    raw.framer.feed(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
    raw.marks.append(len(raw.framer.body))
    prompt = request.Prompt("p", "t", "ab" * 32, None)
    made = request.record(settings, request.Launch("cold", None), prompt, request.Asked(b"", {}, None, "/"), raw)
    assert "sk-very-secret" not in repr(made) and "[API key]" in repr(made)


@pytest.mark.parametrize("kind", ["timeout", "cancelled"])
def test_the_peers_word_is_not_our_status(kind):
    settings = request.Settings("http://h", "openai-completions", "m")
    raw = Raw(sent_ns=1, error=("cut_body", "cut"))
    body = b'data: {"error":{"type":"%s","message":"x"}}\n\n' % kind.encode()
    raw.stamps.append(2)
    raw.framer.feed(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    raw.marks.append(len(raw.framer.body))
    prompt = request.Prompt("p", "t", "ab" * 32, None)
    made = request.record(settings, request.Launch("cold", None), prompt, request.Asked(b"", {}, None, "/"), raw)
    assert made["status"] == "error" and made["error"]["type"] == kind
