"""Answers that are legal, or nearly, and rare: each is read alike by every form of client, and the key stays here."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import optional
import pools
import pytest

BOM = b"\xef\xbb\xbf"


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def token(text: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "text": text, "finish_reason": finish}]})


BODY = token("one") + token(" two") + token(" three", "stop")
BODY += event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3}}) + b"data: [DONE]\n\n"
TWICE = b'data: {"choices":[{"text":"x"}],"choices":[{"text":"x","text":"one"}]}\n\n'  # the last key counts


def head(*fields: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    return "\r\n".join([f"HTTP/{version} {status}", "content-type: text/event-stream", *fields, "", ""]).encode()


def whole(body: bytes, *fields: str, **more: str) -> bytes:
    return head(f"content-length: {len(body)}", *fields, **more) + body


def chunked(body: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    parts = [body[at : at + 50] for at in range(0, len(body), 50)]
    sent = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    return head("transfer-encoding: chunked") + sent + b"0" + extension + b"\r\n" + trailers + b"\r\n"


READ = {
    "HTTP/1.0 without a length": head(version="1.0") + BODY,
    "HTTP/1.0 that is kept": whole(BODY, "connection: keep-alive", version="1.0"),
    "no length": head() + BODY,
    "extensions of chunks": chunked(BODY, b';a=b;c="d;e"'),
    "trailers": chunked(BODY, trailers=b"x-sum: 1\r\nserver-timing: a;dur=1\r\n"),
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + whole(BODY),
    "lines that end in CR": chunked(BODY.replace(b"\n", b"\r")),
    "comments between events": whole(b":\n\n" + BODY.replace(b"\n\n", b"\n\n: still here\n\n:\n")),
    "a mark before the stream": whole(BOM + BODY),
    "a mark before each event": whole(BODY.replace(b"data: {", b"data: " + BOM + b"{")),
    "keys that come twice": whole(TWICE + BODY[len(token("one")) :]),
    "members of gzip": whole(gzip.compress(BODY[:99]) + gzip.compress(BODY[99:]), "content-encoding: gzip"),
    "two codings": whole(gzip.compress(gzip.compress(BODY)), "content-encoding: gzip, gzip"),
    "separators that JSON allows": whole(BODY.replace(b" two", b" t\xe2\x80\xa8\xc2\x85w")),
}
REFUSED = {
    "zstd": (whole(b"\x28\xb5\x2f\xfd", "content-encoding: zstd"), "content_coding", "compressed (zstd)"),
    "br": (whole(b"\x0b\x02", "content-encoding: br", status="400 No"), "content_coding", "compressed (br)"),
    "elsewhere": (head("location: ELSEWHERE/v1/completions", status="307 Away") + b"", "http_307", "ELSEWHERE/v1"),
    "elsewhere for good": (head("location: ELSEWHERE/", status="308 Away"), "http_308", "ELSEWHERE/"),
    "a place beside": (head("location: ../x", status="308 Away"), "http_308", "HERE/x: give that"),
    "no address": (head("location: http://[", status="302 Away"), "http_302", "redirected to http://[:"),
    "another protocol": (head("upgrade: h2c", status="101 Switching"), "bad_http", "101"),
    "a document with a mark": (
        whole(BOM + b'{"error":{"message":"no room","type":"full"}}', status="503 No"),
        "full",
        "no room",
    ),
}


class Server:
    """Answers a prompt by its text; `asked` are the requests as they came."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answers: dict[str, bytes] = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                lines = []
                while (line := stream.readline()).strip():
                    lines.append(line)
                size = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
                body = stream.read(size[0]) if size else b""
                self.asked.append(b"".join(lines) + body)
                if body:
                    connection.sendall(self.answers[json.loads(body)["prompt"]])


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    here, elsewhere = Server(), Server()
    yield here, elsewhere
    here.listener.close()
    elsewhere.listener.close()


@pytest.mark.parametrize("form", [[], ["--threads", "3"], ["--asyncio", "3"]])
def test_every_form_reads_them_alike(form, servers):
    if form[:1] == ["--asyncio"]:
        optional.need("aiohttp")
    here, elsewhere = servers
    answers = READ | {name: answer for name, (answer, *_) in REFUSED.items()}
    here.answers = {name: answer.replace(b"ELSEWHERE", elsewhere.url.encode()) for name, answer in answers.items()}
    Path("key").write_text("sk-of-mine")
    files = pools.prompts({f"{number:02d}": name for number, name in enumerate(answers)})
    words = ["--base-url", here.url, "--model", "m", "--api-key-file", "key", *form]
    done = pools.run(["llmpar-request", *words, *files])
    found = {record["prompt"]: record for record in map(json.loads, done.stdout.encode().split(b"\n")[:-1])}
    assert done.returncode == 7 and len(found) == len(answers) == len(here.asked), done.stderr
    for number, name in enumerate(answers):
        record = found[f"{number:02d}"]
        if name in READ:
            assert (record["status"], len(record["event_s"]), record["output_tokens"]) == ("ok", 3, 3), (name, record)
        else:
            _, kind, said = REFUSED[name]
            said = said.replace("ELSEWHERE", elsewhere.url).replace("HERE", here.url)
            assert (record["status"], record["error"]["type"]) == ("error", kind), (name, record["error"])
            assert said in record["error"]["message"], record["error"]
    # A redirect is followed by nobody, least of all with the key.
    assert elsewhere.asked == [] and all(b"Bearer sk-of-mine" in request for request in here.asked)
