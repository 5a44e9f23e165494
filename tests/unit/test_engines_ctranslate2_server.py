"""The server over CTranslate2: its batching and its answers, over a generator whose every token is known beforehand."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from llmpar.dialects import openai_completions
from llmpar.engines import ctranslate2_server as server
from llmpar.sampling import engine_metrics

PATIENCE_S = 20.0
# A byte a token: what a byte-level vocabulary does to characters of several bytes.
END = 0


class Tokenizer:
    def encode(self, text: str) -> SimpleNamespace:
        return SimpleNamespace(tokens=[chr(byte) for byte in text.encode()])

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return bytes(each for each in ids if each != END).decode("utf-8", "replace")


class Generator:
    """Answers each prompt with its own bytes again and again, a step for all of the batch at a time, as CTranslate2
    does.

    A prompt that begins with `!` makes the batch fail, one with `.` ends after itself. `gate` holds a batch back.
    """

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.options: list[dict] = []
        self.gate = threading.Event()
        self.gate.set()
        self.stopped: list[int] = []

    def generate_batch(self, prompts, *, callback, max_length, end_token=None, **options):
        words = ["".join(each) for each in prompts]
        self.batches.append(words)
        self.options.append({**options, "max_length": max_length, "end_token": end_token})
        assert self.gate.wait(PATIENCE_S)
        if words[0].startswith("!"):
            raise RuntimeError("out of memory")
        alive = set(range(len(prompts)))
        for step in range(max_length):
            for index in sorted(alive):
                raw = [ord(each) for each in prompts[index]]
                token = END if raw[0] == ord(".") and step >= len(raw) else raw[step % len(raw)]
                last = step == max_length - 1 or token == END and end_token is None
                if callback(SimpleNamespace(step=step, batch_id=index, token_id=token, is_last=last)):
                    self.stopped.append(step)
                    last = True
                if last:
                    alive.discard(index)
            if not alive:
                return


@pytest.fixture
def service() -> Iterator[SimpleNamespace]:
    """A running server: `.generator` and `.ask(body) -> (status, headers, body)`."""
    made = object.__new__(server.Service)
    made.tokenizer, made.engine_version, made.name, made.max_length, made.ends = Tokenizer(), "0.0", "m", 100, {END}
    made.prompt_tokens = made.output_tokens = 0
    made._lock = threading.Lock()
    generator = Generator()
    made.batcher = server.Batcher(generator, 4, 1)
    handler = type("Bound", (server.Handler,), {"service": made})
    running = server.Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()

    def ask(body: object, path: str = "/v1/completions", method: str = "POST") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=PATIENCE_S)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data if method == "POST" else None)
        answer = connection.getresponse()
        got = answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        connection.close()
        return got

    yield SimpleNamespace(generator=generator, ask=ask, port=running.server_port, service=made)
    generator.gate.set()
    running.shutdown()
    thread.join(PATIENCE_S)
    running.server_close()


def _parsed(answer: tuple[int, dict[str, str], bytes], stream: bool):
    return openai_completions.parse(*answer, stream)


def test_whole_answer(service: SimpleNamespace) -> None:
    answer = service.ask({"prompt": "abc", "max_tokens": 5, "temperature": 0})
    reply = _parsed(answer, False)
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.output_tokens, reply.complete) == (
        "abcab",
        "length",
        3,
        5,
        True,
    )
    assert "llmpar's own server over ctranslate2" in answer[1]["server"]
    assert json.loads(answer[2])["system_fingerprint"] == server.FINGERPRINT
    # Greedy is the best of one; the prompt does not come back.
    assert service.generator.options[0]["sampling_topk"] == 1
    assert service.generator.options[0]["include_prompt_in_result"] is False


@pytest.mark.parametrize(
    "usage", [None, {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}]
)
@pytest.mark.parametrize("prompt", ["abc", "aéb", "日本", "🦙"])
def test_stream(service: SimpleNamespace, usage: dict | None, prompt: str) -> None:
    """Whole characters only, and tokens of events sum to the total where running counts were asked for."""
    size = len(prompt.encode())
    answer = service.ask({"prompt": prompt, "max_tokens": 2 * size, "stream": True, "stream_options": usage})
    reply = _parsed(answer, True)
    assert answer[1]["content-type"] == "text/event-stream" and answer[2].endswith(b"data: [DONE]\n\n")
    assert reply.error is None and reply.text == 2 * prompt and reply.finish_reason == "length"
    assert "\ufffd" not in "".join(event.text for event in reply.events)
    if usage:
        assert (reply.prompt_tokens, reply.output_tokens, reply.token_source) == (size, 2 * size, "engine")
    if usage and "continuous_usage_stats" in usage:
        assert sum(event.tokens for event in reply.events) == reply.output_tokens
        assert len(reply.events) == 2 * len(prompt)


def test_an_answer_cut_inside_a_character_ends_in_a_replacement(service: SimpleNamespace) -> None:
    reply = _parsed(
        service.ask({"prompt": "é", "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}), True
    )
    assert (reply.text, reply.output_tokens, reply.finish_reason) == ("é\ufffd", 3, "length")


def test_end_of_text(service: SimpleNamespace) -> None:
    reply = _parsed(service.ask({"prompt": ".ab", "max_tokens": 9}), False)
    assert (reply.text, reply.finish_reason, reply.output_tokens) == (".ab", "stop", 3)
    reply = _parsed(service.ask({"prompt": ".ab", "max_tokens": 9, "ignore_eos": True}), False)
    assert (reply.finish_reason, reply.output_tokens) == ("length", 9)
    assert service.generator.options[1]["end_token"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_stop_string_that_spans_tokens(service: SimpleNamespace, stream: bool) -> None:
    reply = _parsed(service.ask({"prompt": "abcd", "max_tokens": 40, "stop": ["da", "zz"], "stream": stream}), stream)
    assert (reply.text, reply.finish_reason, reply.error) == ("abc", "stop", None)


def test_waiting_requests_of_equal_sampling_make_one_batch(service: SimpleNamespace) -> None:
    service.generator.gate.clear()
    asked = [{"prompt": "first", "max_tokens": 4}] + [{"prompt": f"p{n}", "max_tokens": 4 + n // 6} for n in range(8)]
    answers: list = []
    threads = [threading.Thread(target=lambda body=body: answers.append((body, service.ask(body)))) for body in asked]
    threads[0].start()
    while not service.generator.batches:
        pass
    for thread in threads[1:]:
        thread.start()
    while len(service.service.batcher.waiting) < 8:
        pass
    service.generator.gate.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    # At most four at a time, never of unequal sampling, none lost, each with its own text.
    assert service.generator.batches[0] == ["first"]
    assert max(map(len, service.generator.batches)) == 4
    assert sorted(word for batch in service.generator.batches for word in batch) == sorted(
        body["prompt"] for body in asked
    )
    for batch in service.generator.batches[1:]:
        assert len({word in ("p6", "p7") for word in batch}) == 1
    for body, answer in answers:
        text = _parsed(answer, False).text
        assert text == (body["prompt"] * 9)[: body["max_tokens"]]


@pytest.mark.parametrize("stream", [False, True])
def test_a_batch_that_fails_is_the_request_s_error(service: SimpleNamespace, stream: bool) -> None:
    answer = service.ask({"prompt": "!", "stream": stream})
    reply = _parsed(answer, stream)
    assert answer[0] == (200 if stream else 500)
    assert reply.error is not None and reply.error["message"] == "out of memory" and not reply.complete
    assert _parsed(service.ask({"prompt": "ab", "max_tokens": 2}), False).text == "ab"  # and the next is served


def test_a_client_that_leaves_ends_its_generation(service: SimpleNamespace) -> None:
    service.service.max_length = 1 << 22
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "ab", "max_tokens": 1 << 20, "stream": True}))
    response = connection.getresponse()
    response.read(64)
    response.close()
    connection.close()
    # The next request gets its turn only when the first batch has ended; it would take a million steps otherwise.
    assert _parsed(service.ask({"prompt": "cd", "max_tokens": 2}), False).text == "cd"
    assert service.generator.stopped and service.generator.stopped[0] < (1 << 20) - 1


@pytest.mark.parametrize(
    "body, says",
    [
        (b"{", "not JSON"),
        (b"[]", "one string"),
        ({"prompt": ["a"]}, "one string"),
        ({"prompt": ""}, "no tokens"),
        ({"prompt": "a", "seed": 1}, "--seed at the start"),
        ({"prompt": "a", "n": 2}, "n above 1"),
        ({"prompt": "a", "logprobs": 1}, "logprobs"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "whole number"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
        ({"prompt": "a", "top_p": 2}, "top_p"),
        ({"prompt": "a", "top_k": True}, "top_k"),
        ({"prompt": "a", "stop": [1]}, "stop"),
        ({"prompt": "a", "stop": [""]}, "stop"),
        ({"prompt": "a" * 100}, "fills the context"),
    ],
)
def test_refused(service: SimpleNamespace, body: object, says: str) -> None:
    answer = service.ask(body)
    reply = _parsed(answer, False)
    assert answer[0] == 400 and says in reply.error["message"]
    assert service.generator.batches == []


def test_the_context_bounds_the_output(service: SimpleNamespace) -> None:
    assert _parsed(service.ask({"prompt": "a" * 90, "max_tokens": 50}), False).output_tokens == 10


def test_other_routes(service: SimpleNamespace) -> None:
    assert service.ask({}, "/v1/chat/completions")[0] == 404
    assert service.ask(None, "/health", "GET")[0] == 200
    assert json.loads(service.ask(None, "/v1/models", "GET")[2])["data"][0]["id"] == "m"
    service.ask({"prompt": "abc", "max_tokens": 5})
    told = engine_metrics.parse(service.ask(None, "/metrics", "GET")[2])
    assert (told["running"], told["waiting"], told["counters_at_end"]) == (0, 0, False)
    assert (told["generation_tokens_total"], told["prompt_tokens_total"]) == (5, 3)
