"""Answers that no wire sample holds: what others are known to send, and what breaks."""

from __future__ import annotations

import json

import pytest

from llmpar.dialects import DIALECTS

SSE = {"content-type": "text/event-stream"}


def stream(*events, api: str = "openai-completions", status: int = 200):
    body = b"".join(
        b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events
    )
    return DIALECTS[api].parse(status, SSE, body, True)


def text(piece: str, reason=None, **more):
    return {"choices": [{"index": 0, "text": piece, "finish_reason": reason}], **more}


def delta(reason=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


def count(prompt: int, output: int):
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def test_aphrodite_says_the_reason_twice() -> None:
    reply = stream(
        text(" mill", usage=None), text(".", "length", usage=None), text("", "length", usage=count(9, 2)), b"[DONE]"
    )
    assert reply.text == " mill." and reply.finish_reason == "length" and reply.complete and reply.output_tokens == 2
    assert [event.tokens for event in reply.events] == [1, 1]


def test_vllm_of_2024_puts_text_reason_and_usage_in_one_event() -> None:
    reply = stream(text(" mill"), text(".", "stop", usage=count(9, 3)), b"[DONE]")
    assert (reply.prompt_tokens, reply.output_tokens, reply.token_source, reply.finish_reason) == (
        9,
        3,
        "engine",
        "stop",
    )
    assert [event.tokens for event in reply.events] == [None, None]  # a last count is not a running count


def test_running_counts_give_tokens_of_each_event_and_silent_ones_are_carried() -> None:
    reply = stream(
        text("a", usage=count(4, 1)),
        text("", usage=count(4, 2)),
        text("é", usage=count(4, 3)),
        text("bcd", "length", usage=count(4, 6)),
        {"choices": [], "usage": count(4, 6)},
        b"[DONE]",
    )
    assert [(event.text, event.tokens) for event in reply.events] == [("a", 1), ("é", 2), ("bcd", 3)]
    assert reply.output_tokens == 6


def test_a_chat_role_and_empty_deltas_are_no_tokens_and_thoughts_and_calls_are_text() -> None:
    reply = stream(
        delta(role="assistant", content=""),
        delta(content=None),
        delta(reasoning_content="hm "),
        delta(reasoning="so "),
        delta(content="4"),
        delta(content="2", reasoning_content=None),
        delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{}"}}]),
        delta("tool_calls"),
        b"[DONE]",
        api="openai-chat",
    )
    assert [event.text for event in reply.events] == ["hm ", "so ", "4", "2", "f{}"]
    assert reply.finish_reason == "tool_calls" and reply.complete
    assert (reply.output_tokens, reply.token_source) == (5, "events")


@pytest.mark.parametrize(
    "error,kind,message",
    [
        ({"error": {"message": "no", "type": "InternalServerError", "code": 500}}, "InternalServerError", "no"),
        ({"error": "overload", "error_type": "overloaded"}, "overloaded", "overload"),
        ({"error": {"message": "full", "http_status_code": 429}}, "http_429", "full"),
        ({"object": "error", "message": "flat", "type": "BadRequestError", "code": 400}, "BadRequestError", "flat"),
        ({"error": "just text"}, "engine_error", "just text"),
        ({"error": {"code": None, "what": 1}}, "engine_error", '{"code":null,"what":1}'),
    ],
)
@pytest.mark.parametrize("api", ["openai-completions", "openai-chat", "tgi", "llamacpp"])
def test_an_error_event_is_an_error_whatever_follows(api: str, error, kind: str, message: str) -> None:
    reply = stream(error, b"[DONE]", api=api)
    assert reply.error == {"type": kind, "message": message, "http_status": 200} and not reply.complete


def test_done_is_not_an_end_without_a_reason() -> None:
    reply = stream(text("a"), b"[DONE]")
    assert not reply.complete and reply.error is not None and reply.error["type"] == "cut_stream"
    assert "after 1 event," in reply.error["message"]


def test_a_reason_is_an_end_without_done() -> None:
    assert stream(text("a", "stop")).complete


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_aborted_request_is_an_error(reason: str) -> None:
    reply = stream(text("a", reason), b"[DONE]")
    assert reply.error is not None and reply.error["type"] == "aborted" and reply.finish_reason == reason


def test_an_empty_stream_is_cut_and_an_empty_answer_is_counted() -> None:
    assert stream().error["message"].startswith("the stream ended before any event")
    reply = stream(text("", "stop"), b"[DONE]")
    assert reply.complete and (reply.output_tokens, reply.token_source, reply.text) == (0, "events", "")


def test_bytes_that_are_not_utf8_are_an_error_and_lose_nothing_else() -> None:
    bad = b'{"choices":[{"text":"\xff x","finish_reason":null}]}'
    reply = stream(text("a"), bad, text("b", "stop", usage=count(1, 3)), b"[DONE]")
    assert reply.error["type"] == "invalid_utf8" and "event 2" in reply.error["message"]
    assert reply.text == "a\ufffd xb" and reply.output_tokens == 3 and reply.finish_reason == "stop"


def test_an_event_that_is_not_json_is_an_error() -> None:
    reply = stream(text("a"), b"<html>", text("b", "stop"), b"[DONE]")
    assert reply.error["type"] == "bad_json" and reply.text == "ab"


def test_a_server_that_does_not_stream_though_asked_is_read_all_the_same() -> None:
    body = json.dumps({"choices": [{"text": "hi", "finish_reason": "stop"}], "usage": count(1, 1)}).encode()
    reply = DIALECTS["openai-completions"].parse(200, {"content-type": "application/json"}, body, True)
    assert reply.complete and reply.text == "hi" and reply.events == []


@pytest.mark.parametrize(
    "status,body,kind,message",
    [
        (502, b"<html>Bad Gateway</html>", "http_502", "<html>Bad Gateway</html>"),
        (404, b"", "http_404", "empty body"),
        (503, b"\xff\xfe", "http_503", "\ufffd\ufffd"),
        (302, b'{"message":"moved","type":"redirect"}', "redirect", "moved"),
        (
            422,
            b'{"detail":[{"loc":["body","x"],"msg":"bad","type":"missing"},{"loc":["q"],"msg":"worse"}]}',
            "missing",
            "body.x: bad; q: worse",
        ),
        (500, b'{"error":{"message":"' + b"x" * 9000 + b'"}}', "http_500", "x" * 2000),
    ],
)
def test_refusals_in_any_shape(status: int, body: bytes, kind: str, message: str) -> None:
    for dialect in DIALECTS.values():
        reply = dialect.parse(status, {}, body, True)
        assert reply.error == {"type": kind, "message": message, "http_status": status}


def test_powerinfer_tells_the_end_by_three_booleans() -> None:
    last = {
        "content": "",
        "stop": True,
        "stopped_eos": False,
        "stopped_limit": True,
        "stopped_word": False,
        "tokens_evaluated": 6,
        "tokens_predicted": 2,
        "timings": {"predicted_per_second": None},
    }
    reply = stream({"content": " mill", "stop": False}, {"content": ".", "stop": False}, last, api="llamacpp")
    assert (reply.finish_reason, reply.prompt_tokens, reply.output_tokens) == ("length", 6, 2)
    assert [event.tokens for event in reply.events] == [1, 1]
    last |= {"stopped_limit": False, "stopped_word": True}
    assert stream(last, api="llamacpp").finish_reason == "stop"


def test_llamacpp_cut_before_the_end_keeps_the_engines_count() -> None:
    reply = stream(
        {"content": "a", "stop": False, "tokens_predicted": 1, "tokens_evaluated": 5},
        {"content": "b", "stop": False, "tokens_predicted": 3, "tokens_evaluated": 5},
        api="llamacpp",
    )
    assert [event.tokens for event in reply.events] == [1, 2]
    assert (reply.output_tokens, reply.token_source, reply.prompt_tokens) == (3, "engine", 5)
    assert reply.error["type"] == "cut_stream"


def test_tgi_tokens_without_text_belong_to_the_next_event() -> None:
    def token(piece: str, special: bool = False, whole: str | None = None):
        return {"token": {"text": piece, "special": special}, "generated_text": whole, "details": None}

    reply = stream(token("a"), token(""), token("é"), token("</s>", True, "aé"), api="tgi")
    assert [(event.text, event.tokens) for event in reply.events] == [("a", 1), ("é", 2)]
    assert (reply.output_tokens, reply.token_source, reply.text, reply.complete) == (4, "events", "aé", True)


def test_mii_answers_a_list() -> None:
    body = b'[{"generated_text":" a time","prompt_length":3,"generated_length":2,"finish_reason":"length"}]'
    reply = DIALECTS["mii"].parse(200, {}, body, False)
    assert (reply.text, reply.prompt_tokens, reply.output_tokens, reply.finish_reason, reply.complete) == (
        " a time",
        3,
        2,
        "length",
        True,
    )
    assert DIALECTS["mii"].parse(200, {}, b"[]", False).error["type"] == "bad_json"


@pytest.mark.parametrize("api", sorted(DIALECTS))
def test_a_cut_document_is_an_error(api: str) -> None:
    reply = DIALECTS[api].parse(200, {"content-type": "application/json"}, b'{"choices":[{"te', False)
    assert reply.error["type"] == "bad_json" and not reply.complete


NDJSON = {"content-type": "application/x-ndjson"}
OLLAMA_END = (
    b'{"model":"m","response":"","done":true,"done_reason":"length",'
    b'"prompt_eval_count":4,"eval_count":2,"eval_duration":9}\n'
)


def test_ollama_streams_lines() -> None:
    first, second = b'{"model":"m","response":"The","done":false}\n', b'{"model":"m","response":" mill","done":false}\n'
    reply = DIALECTS["ollama"].parse(200, NDJSON, first + second + OLLAMA_END, True)
    assert [tuple(event) for event in reply.events] == [(len(first), "The", 1), (len(first + second), " mill", 1)]
    assert (reply.text, reply.prompt_tokens, reply.output_tokens, reply.token_source) == ("The mill", 4, 2, "engine")
    assert (reply.finish_reason, reply.complete, reply.error) == ("length", True, None)
    # A thinking model's thoughts are generated text, as on the OpenAI routes.
    thought = DIALECTS["ollama"].parse(
        200, NDJSON, b'{"response":"","thinking":"hm","done":false}\n' + OLLAMA_END, True
    )
    assert thought.text == "hm" and [event.tokens for event in thought.events] == [None]
    # The text is the same in one piece, and where a proxy collected the stream.
    whole = b'{"model":"m","response":"The mill","done":true,"prompt_eval_count":4,"eval_count":2}'
    for headers, stream in (
        ({"content-type": "application/json"}, False),
        ({"content-type": "application/json; charset=utf-8"}, True),
    ):
        reply = DIALECTS["ollama"].parse(200, headers, whole, stream)
        assert (reply.text, reply.output_tokens, reply.finish_reason, reply.complete) == ("The mill", 2, None, True)


def test_ollama_cut_torn_and_refused() -> None:
    line = b'{"model":"m","response":"The","done":false}\n'
    parse = DIALECTS["ollama"].parse
    for body, events, where in (
        (b"", 0, "before any line"),
        (line, 1, "after 1 line,"),
        (line + line + line[:20], 2, "after 2 lines"),
    ):
        reply = parse(200, NDJSON, body, True)
        assert reply.error["type"] == "cut_stream" and where in reply.error["message"] and not reply.complete
        assert len(reply.events) == events and reply.output_tokens == (events or None)
    broken = parse(200, NDJSON, line + b"{oops}\n" + OLLAMA_END, True)
    assert broken.error["type"] == "bad_json" and "line 2" in broken.error["message"] and not broken.complete
    failed = parse(
        200, NDJSON, line + b'{"error":"an error was encountered while running the model: out of memory"}\n', True
    )
    assert (
        failed.error["type"] == "engine_error" and "out of memory" in failed.error["message"] and failed.text == "The"
    )
    missing = parse(404, {"content-type": "application/json"}, b'{"error":"model \'m\' not found"}', True)
    assert missing.error == {"type": "http_404", "message": "model 'm' not found", "http_status": 404}
    busy = parse(503, {}, b'{"error":"server busy, please try again.  maximum pending requests exceeded"}', False)
    assert busy.error["http_status"] == 503
    loaded = parse(200, {}, b'{"model":"m","response":"","done":true,"done_reason":"load"}', False)
    assert loaded.error["type"] == "nothing_generated" and not loaded.complete
    assert parse(200, {}, b'{"models":[]}', False).error["type"] == "no_text"


def test_powerinfer_without_a_free_slot() -> None:
    parse = DIALECTS["llamacpp"].parse
    refused = parse(404, {"content-type": "text/plain"}, b"File Not Found", False)
    assert refused.error["type"] == "no_free_slot" and "--max-sequences" in refused.error["message"]
    empty = parse(200, {"content-type": "text/event-stream"}, b"", True)
    assert empty.error["type"] == "cut_stream" and "no free slot" in empty.error["message"]
    # llama.cpp itself says it in JSON, and is believed.
    other = parse(404, {}, b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}', False)
    assert other.error["type"] == "not_found_error"
