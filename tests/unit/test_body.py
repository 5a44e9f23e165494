"""Further fields of a body: merged as RFC 7396 has it, sent, and told in the record."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from pathlib import Path

import orjson
import pytest

from llmpar.client import body, request
from llmpar.dialects import DIALECTS, Sampling

# The examples of RFC 7396, appendix A, that have objects on both sides.
RFC = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize("before, patch, after", RFC)
def test_the_examples_of_the_standard(before, patch, after):
    kept = json.dumps(before)
    assert body.merged(before, patch) == after and json.dumps(before) == kept


@pytest.mark.parametrize("api", sorted(DIALECTS))
def test_every_api_sends_the_fields_and_the_record_has_them(api):
    patch = {"chat_template_kwargs": {"enable_thinking": False}, "stream_options": None, "temperature": None}
    sampling = Sampling(max_tokens=8, temperature=0.5)
    settings = request.Settings("http://h", api, "m", None, api != "mii", sampling, body=patch)
    asked = request.ask(settings, request.Prompt("p", "text", None, None))
    sent = orjson.loads(asked.body)
    assert sent["chat_template_kwargs"] == {"enable_thinking": False} == asked.sampling["chat_template_kwargs"]
    assert "stream_options" not in sent and "temperature" not in sent and "temperature" not in asked.sampling
    assert asked.message.endswith(asked.body) and f"content-length: {len(asked.body)}".encode() in asked.message.lower()
    plain = request.ask(
        request.Settings("http://h", api, "m", None, api != "mii", sampling), request.Prompt("p", "text", None, None)
    )
    assert set(orjson.loads(plain.body)) - {"temperature", "stream_options"} <= set(sent), "nothing else is lost"


@pytest.mark.parametrize("form", [[], ["--threads", "2"], ["--asyncio", "2"]])
def test_a_renamed_field_reaches_an_endpoint_that_refuses_the_other(form, tmp_path: Path):
    if "--asyncio" in form:
        pytest.importorskip("aiohttp")
    seen: list[dict] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            data = b""
            while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < length(data):
                data += connection.recv(65536)
            seen.append(json.loads(data.partition(b"\r\n\r\n")[2]))
            answer = b'data: {"choices":[{"delta":{"content":"one"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
            head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(answer)}\r\n\r\n"
            connection.sendall(head.encode() + answer)

    threading.Thread(target=serve, daemon=True).start()
    (tmp_path / "p").write_text("hi")
    (tmp_path / "b.json").write_text('{"max_tokens": null, "max_completion_tokens": 8}')
    done = subprocess.run(
        ["llmpar-request", "--base-url", f"http://127.0.0.1:{listener.getsockname()[1]}", "--api", "openai-chat"]
        + ["--max-tokens", "8", "--body", f"@{tmp_path}/b.json", *form, str(tmp_path / "p")],
        capture_output=True,
        timeout=60,
    )
    listener.close()
    made = json.loads(done.stdout)
    assert done.returncode == 0 and made["status"] == "ok", done.stderr
    assert "max_tokens" not in seen[0] and seen[0]["max_completion_tokens"] == 8
    assert made["sampling"]["max_completion_tokens"] == 8 and "max_tokens" not in made["sampling"]
    assert made["body"] == {"max_tokens": None, "max_completion_tokens": 8}


def length(data: bytes) -> int:
    lines = data.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    return next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
