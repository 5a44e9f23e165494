"""Hostile and broken answers by the seed: what a server could send, from a good answer with pieces cut, doubled and
replaced."""

from __future__ import annotations

import json
import random
import time
from collections import Counter

from llmpar import records
from llmpar.client import exchange, receive, request
from llmpar.client.http1 import BadFraming, Framer
from llmpar.dialects import DIALECTS
from llmpar.outside import COUNT_LIMIT

STATUSES = {"ok", "error", "timeout", "cancelled"}
SLOWEST_S = 5.0  # of one answer of at most some hundred kilobytes, on a busy machine
ODD = [
    b"",
    b"\0",
    b"\r\n",
    b"\n\n",
    b"data:",
    b"data: [DONE]\n\n",
    b"event: error\n",
    b"error: x\n\n",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"{" * 400,
    b"[" * 2000,
    b"1" * 30,
    b"-1",
    b"1e999",
    b"18446744073709551615",
    b"true",
    b"null",
    b'"\\ud83d"',
    b" " * 60000,
    b"data: x\n" * 5000,
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"transfer-encoding: chunked\r\n",
    b"content-length: 99999999999\r\n",
    b"content-encoding: gzip\r\n",
    b"\x1b[2J\x9b",
]
GOOD = {
    "openai-completions": [{"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}],
    "openai-chat": [
        {"choices": [{"delta": {"content": "a", "tool_calls": [{"function": {"arguments": "{}"}}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    ],
    "tgi": [{"token": {"text": "a", "special": False}, "generated_text": "a", "details": {"generated_tokens": 1}}],
    "llamacpp": [
        {"content": "a", "stop": True, "tokens_predicted": 1, "tokens_evaluated": 3, "timings": {"cache_n": 1}}
    ],
    "mii": [{"generated_text": "a", "prompt_length": 3, "generated_length": 1, "finish_reason": "stop"}],
    "ollama": [{"response": "a", "done": True, "eval_count": 1, "prompt_eval_count": 3}],
}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}, "error": None}


def answer(chance: random.Random, api: str) -> bytes:
    """One response with its head."""
    objects = [
        *GOOD[api],
        USAGE,
        {"error": {"message": "no", "type": "timeout"}},
        {"detail": [{"loc": ["a"], "msg": "b"}]},
    ]
    body = b"".join(
        b"data: " + json.dumps(each).encode() + b"\n\n" for each in objects[: chance.randint(1, len(objects))]
    )
    if chance.random() < 0.3:
        body = json.dumps(objects[0]).encode()
    status = chance.choice(["200 OK", "200 OK", "200 OK", "400 Bad", "307 Away", "500 No"])
    head = [f"HTTP/1.1 {status}", "content-type: text/event-stream"]
    framing = chance.random()
    if framing < 0.4:
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:20], body[20:]) if part) + b"0\r\n\r\n"
        head.append("transfer-encoding: chunked")
    elif framing < 0.8:
        head.append(f"content-length: {len(body)}")
    data = bytearray("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    for _ in range(chance.choice([0, 1, 1, 2, 3, 8])):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice([0, 1, 2, 10, 100]))
        how = chance.random()
        if how < 0.4:
            data[at:to] = chance.choice(ODD)
        elif how < 0.6:
            data[at:to] = bytes(chance.randrange(256) for _ in range(to - at))
        elif how < 0.8:
            del data[at:to]
        else:
            data[at:at] = data[at:to] * chance.choice([2, 50])
    return bytes(data)


def read(data: bytes, chance: random.Random, settings: request.Settings) -> dict:
    """The record of an answer that came in random pieces and then ended."""
    raw = receive.Raw(sent_ns=time.time_ns())
    framer: Framer = raw.framer
    try:
        at = 0
        while at < len(data) and not framer.done:
            step = chance.choice([1, 7, 100, 65536])
            raw.stamps.append(time.time_ns())
            framer.feed(data[at : at + step])
            raw.marks.append(len(framer.body))
            at += step
        missing = framer.eof()
        if missing is not None:
            raw.error = ("cut_body" if framer.started else "no_response", missing)
    except BadFraming as error:
        raw.marks.append(len(framer.body))
        raw.error = exchange.named(error, 1)
    prompt = request.Prompt("p", "text", "ab" * 32, None)
    return request.record(settings, request.Launch("cold", None), prompt, request.Asked(b"", {}, None, "/x"), raw)


def fuzz(cases: int, seed: int, apis: tuple[str, ...] = tuple(DIALECTS)) -> Counter[str]:
    """So many answers of each API; statuses counted. Raises AssertionError naming API, seed and case of the first that
    broke."""
    found: Counter[str] = Counter()
    for api in apis:
        settings = request.Settings("http://h", api, "m", stream=api != "mii", api_key="sk-secret-1")
        for case in range(cases):
            chance = random.Random(f"{seed} {api} {case}")
            began = time.monotonic()
            made = read(answer(chance, api), chance, settings)
            line = records.encode(made)
            where = f"{api}, seed {seed}, case {case}"
            assert records.decode(line)["status"] in STATUSES - {"timeout", "cancelled"}, where
            assert line.count(b"\n") == 1 and (made["error"] is None) == (made["status"] == "ok"), where
            assert not made["error"] or made["error"]["type"] != "bad_answer", f"{where}: {made['error']}"
            counts = [made[name] for name in ("prompt_tokens", "cached_tokens", "output_tokens")]
            assert all(each is None or 0 <= each <= COUNT_LIMIT for each in counts), where
            assert time.monotonic() - began < SLOWEST_S, where
            found[made["status"]] += 1
    return found
