"""Servers and files as they are: forms that public bug reports tell of, and what is right for each."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from llmpar import records
from llmpar.client.coding import BadCoding, decode
from llmpar.client.target import Target
from llmpar.dialects import DIALECTS
from llmpar.prompts import formats
from llmpar.sampling import engine_metrics


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def token(text: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "text": text, "finish_reason": finish}]})


def usage(count: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": count}})


DONE = b"data: [DONE]\n\n"
THREE = token("one") + token(" two") + token(" three", "stop")


def parse(
    body: bytes, api: str = "openai-completions", kind: str = "text/event-stream", status: int = 200, **more: str
):
    return DIALECTS[api].parse(status, {"content-type": kind, **more}, body, True)


@pytest.mark.parametrize(
    "body",
    [
        THREE + usage(3) + b"data: [DONE] \n\n: bye\n\n",
        b"data:\n\n" + token("one") + b"data:\n\n" + token(" two") + token(" three", "stop") + b"data: \n\n" + usage(3),
        b"event: ping\ndata: now\n\n" + THREE + b"event: heartbeat\ndata: {]\n\n" + usage(3) + DONE,
        b'event: ping\r\ndata: {"type": "ping"}\r\n\r\n' + THREE.replace(b"\n", b"\r\n") + usage(3) + DONE,
        b"event: message\n" + THREE + usage(3) + DONE,
        b": hi\n\n" + THREE + b"retry: 5\n\n" + usage(3) + DONE,
    ],
)
def test_what_is_no_answer_fails_none(body):
    reply = parse(body)
    assert reply.error is None and len(reply.events) == 3 and reply.output_tokens == 3, reply.error


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "text/event-stream"])
def test_the_body_outweighs_its_label(kind):
    assert len(parse(THREE + usage(3) + DONE, kind=kind).events) == 3
    document = json.dumps({"choices": [{"text": "one", "finish_reason": "stop"}]}).encode()
    reply = parse(document, kind=kind)
    assert reply.error is None and reply.text == "one" and reply.complete


FAULT = {"code": 400, "message": "context is full: 9000 of 512", "type": "exceed_context_size_error"}


@pytest.mark.parametrize(
    "last",
    [
        b"error: " + json.dumps(FAULT).encode() + b"\n\n",
        b"event: error\ndata: " + json.dumps(FAULT).encode() + b"\n\n",
        b"event: error\ndata: " + json.dumps({"error": FAULT}).encode() + b"\n\n",
        b"data: " + json.dumps(FAULT).encode() + b"\n\n",
    ],
)
@pytest.mark.parametrize("api", ["openai-completions", "openai-chat", "llamacpp", "tgi"])
def test_an_engines_words_on_its_way_out(api, last):
    reply = parse(last, api)
    assert reply.error and reply.error["type"] == FAULT["type"] and reply.error["message"] == FAULT["message"]


def test_words_that_stand_in_no_form_are_kept():
    reply = parse(token("one") + b"event: error\ndata: the disk is gone\n\n")
    assert reply.error and reply.error["message"] == "the disk is gone"
    reply = parse(token("one") + b"Traceback (most recent call last): KeyError")
    assert reply.error and reply.error["type"] == "cut_stream" and "KeyError" in reply.error["message"]
    reply = parse(b"", status=307, location="http://there/v1")
    assert reply.error and "redirected to http://there/v1" in reply.error["message"]


def chat(*deltas: dict[str, object]) -> bytes:
    made = [event({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    return b"".join(made) + event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + usage(2) + DONE


@pytest.mark.parametrize(
    "delta,text",
    [
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": " hm"}]}]}, " hm"),
        ({"content": [{"type": "text", "text": "a"}, "b"]}, "ab"),
        ({"content": {"text": "a"}}, "a"),
        ({"thinking": "a"}, "a"),
        ({"reasoning": "a", "reasoning_details": [{"text": "a"}]}, "a"),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "a"}]}, "a"),
        ({"refusal": "no"}, "no"),
        ({"tool_calls": {"function": {"name": "", "arguments": '{"city"'}}}, '{"city"'),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"city": "Bern"}}}]}, 'f{"city":"Bern"}'),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "f{}"),
        ({"role": "assistant", "content": ""}, ""),
        ({"content": None, "tool_calls": None}, ""),
        ({"content": [None, 5, {"type": "image", "url": "x"}]}, ""),
    ],
)
def test_generated_text_of_any_shape_is_an_event(delta, text):
    reply = parse(chat({"role": "assistant"}, delta, {"content": "z"}), "openai-chat")
    assert reply.error is None and reply.text == text + "z" and len(reply.events) == (2 if text else 1)


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("api", ["openai-completions", "openai-chat", "llamacpp", "tgi", "mii", "ollama"])
def test_a_byte_order_mark_is_no_part_of_an_answer(api):
    document = json.dumps({"error": {"message": "no such model", "type": "not_found"}}).encode()
    for status in (200, 404):
        reply = parse(BOM + document, api, "application/json", status)
        assert reply.error and (reply.error["type"], reply.error["message"]) == ("not_found", "no such model")


def test_a_byte_order_mark_before_a_stream_or_an_event():
    document = json.dumps({"choices": [{"text": "one", "finish_reason": "stop"}]}).encode()
    assert parse(BOM + document, kind="application/json").text == "one"
    assert len(parse(BOM + THREE + usage(3) + DONE).events) == 3
    assert len(parse((THREE + usage(3)).replace(b"data: {", b"data: " + BOM + b"{") + DONE).events) == 3


def test_a_usage_of_zeros_is_none():
    reply = parse(THREE + usage(0) + DONE)
    assert (reply.output_tokens, reply.token_source, reply.prompt_tokens) == (3, "events", None)
    reply = parse(THREE + usage(3) + usage(0) + DONE)
    assert (reply.output_tokens, reply.token_source) == (3, "engine")


@pytest.mark.parametrize("count", [-1, 2**63, 2**64 - 1, 10**13, "3", 3.5, True, None])
def test_a_count_that_is_none_is_not_taken(count):
    body = THREE + event({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": count}}) + DONE
    reply = parse(body)
    assert (reply.output_tokens, reply.token_source, reply.prompt_tokens) == (3, "events", None)


def test_half_a_letter_costs_that_letter():
    body = b'data: {"choices":[{"text":"a \\ud83d b","finish_reason":"stop"}]}\n\n' + DONE
    reply = parse(body)
    assert reply.error is None and reply.text == "a \ufffd b"


def deep(depth: int) -> bytes:
    return b'{"error":' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize("depth", [200, 255, 990, 5000])
@pytest.mark.parametrize("api", list(DIALECTS))
def test_nothing_that_is_nested_raises(api, depth):
    for body in (deep(depth), b"data: " + deep(depth) + b"\n\n", b'{"detail":[{"loc":' + deep(depth) + b"}]}"):
        for status in (200, 400):
            assert DIALECTS[api].parse(status, {}, body, True).error


@pytest.mark.parametrize("name,pack", [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)])
def test_a_coded_stream_is_read_with_its_times(name, pack):
    body = THREE + usage(3) + DONE
    coded = pack(body)
    decoded, marks = decode(name, coded, [len(coded) // 2, len(coded)], 1 << 20)
    assert decoded == body and marks[-1] == len(body) and 0 < marks[0] <= len(body)


@pytest.mark.parametrize(
    "name,pack",
    [
        ("gzip", lambda body: gzip.compress(body[:100]) + gzip.compress(body[100:])),
        ("gzip", lambda body: gzip.compress(body) + bytes(7)),
        ("identity, gzip", gzip.compress),
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
        ("GZIP,x-gzip", lambda body: gzip.compress(gzip.compress(body))),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_members_and_several_codings_are_read_however_they_came(name, pack, step):
    body = THREE + usage(3) + DONE
    coded = pack(body)
    marks = [*range(step, len(coded), step), len(coded)]
    decoded, found = decode(name, coded, marks, 1 << 20)
    assert decoded == body and len(found) == len(marks) and found == sorted(found) and found[-1] == len(body)


BOMB = gzip.compress(gzip.compress(bytes(1 << 25)))


def test_codings_that_cannot_be_read_are_named():
    coded = [("br", b"x"), ("zstd", b"x"), ("gzip, br", b"x"), ("gzip", b"no gzip"), ("gzip, gzip", BOMB)]
    for name, body in [*coded, ("gzip," * 9 + "gzip", b""), ("gzip", gzip.compress(bytes(1 << 22)))]:
        with pytest.raises(BadCoding, match="compressed|gzip"):
            decode(name, body, [len(body)], 1 << 20)


@pytest.mark.parametrize(
    "base,route,path",
    [
        ("http://h/v1", "/metrics", "/metrics"),
        ("http://h/v1", "/tokenize", "/tokenize"),
        ("http://h/v1/", "/v1/completions", "/v1/completions"),
        ("http://h/v3", "/v1/chat/completions", "/v3/chat/completions"),
        ("http://h/api/paas/v4", "/v1/chat/completions", "/api/paas/v4/chat/completions"),
        ("http://h/v1beta/openai/", "/v1/chat/completions", "/v1beta/openai/chat/completions"),
        ("http://h/v1/chat/completions", "/v1/chat/completions", "/v1/chat/completions"),
        ("http://h/v1/chat/completions", "/v1/completions", "/v1/completions"),
        ("http://h/v1/chat/completions/", "/v1/chat/completions", "/v1/chat/completions/"),
        ("http://h/v1/chat/completions/", "/v1/completions", "/v1/completions"),
        ("http://h/llm", "/metrics", "/llm/metrics"),
        ("http://h/模型/v1", "/v1/completions", "/%E6%A8%A1%E5%9E%8B/v1/completions"),
        ("http://h/a%20b", "/v1/completions", "/a%20b/v1/completions"),
        ("http+unix://%2Frun%2Fx.sock/v1", "/v1/completions", "/v1/completions"),
    ],
)
def test_a_base_url_of_any_path(base, route, path):
    assert Target.of(base).path(route) == path


def test_names_of_servers():
    assert Target.of("http://bücher.example:80").host == "xn--bcher-kva.example"
    assert Target.of("unix:///run/x.sock").unix == "/run/x.sock"
    zone = Target.of("http://[fe80::1%25lo]:8000")
    assert (zone.host, zone.authority) == ("fe80::1%lo", "[fe80::1]:8000")
    for bad in (
        "http://a..b",
        "http://" + "a" * 64,
        "http://a b",
        "http://h/\n",
        "http://[::1",
        "unix://x",
        "http://\udcff",
    ):
        with pytest.raises(ValueError, match="."):
            Target.of(bad)


def test_labels_mean_something():
    reasons = {"stop": 7, "length": 2, "abort": 5, "error": 1}
    lines = [
        f'vllm:request_success_total{{engine="0",finished_reason="{name}"}} {count}' for name, count in reasons.items()
    ]
    assert engine_metrics.parse("\n".join([*lines, ""]).encode())["requests_total"] == 9
    ranks = [f'sglang:num_running_reqs{{tp_rank="{rank}",pp_rank="0"}} 4.0' for rank in range(4)]
    assert engine_metrics.parse("\n".join([*ranks, ""]).encode())["running"] == 4
    engines = [f'sglang:num_running_reqs{{tp_rank="0",dp_rank="{rank}"}} 4.0' for rank in range(4)]
    assert engine_metrics.parse("\n".join([*engines, ""]).encode())["running"] == 16


@pytest.mark.parametrize("value", ["+Inf", "-Inf", "NaN", "-3", "1e300", "3e18", "0x10", "seven", ""])
def test_one_odd_reading_is_one_null(value):
    text = f'vllm:num_requests_running{{engine="0"}} 3.0\nvllm:num_requests_waiting{{engine="0"}} {value}\n'
    found = engine_metrics.parse(text.encode())
    assert (found["running"], found["waiting"]) == (3, None)


@pytest.mark.parametrize(
    "page",
    [
        b'vllm:num_requests_running 3\nvllm:prompt_tokens_total 17 # {trace_id="a b"} 0.67 1520879607.789\n# EOF\n',
        b'\xef\xbb\xbfvllm:num_requests_running{engine="0"} 3.0 1520879607.789\r\nvllm:prompt_tokens_total 17\r\n',
        b"vllm:num_requests_running\t3\nvllm:prompt_tokens_created 1.7e9\nvllm:prompt_tokens_total  17\n",
        b'vllm:num_requests_running{engine="0} 9\nvllm:num_requests_running 3\nvllm:prompt_tokens_total 17\n',
    ],
)
def test_metrics_text_of_every_exporter(page):
    found = engine_metrics.parse(page)
    assert (found["running"], found["prompt_tokens_total"]) == (3, 17)


@pytest.mark.parametrize(
    "page",
    [
        b'vllm:num_requests_running 3\nvllm:cache_config_info{block_size="99999999",num_gpu_blocks="9999999"} 1\n',
        'vllm:num_requests_running 3\nvllm:cache_config_info{kv_cache_size_tokens="²"} 1\n'.encode(),
        b'vllm:num_requests_running 3\nvllm:cache_config_info{kv_cache_size_tokens="' + b"9" * 5000 + b'"} 1\n',
        b'[{"numActiveRequests":3,"kvCacheStats":{"maxNumBlocks":999999999999,"tokensPerBlock":999999999999}}]',
        b'[{"numActiveRequests":3,"numQueuedRequests":18446744073709551615}]',
    ],
)
def test_every_reading_is_a_number_that_a_record_holds(page):
    found = engine_metrics.parse(page)
    assert (found["running"], found["waiting"], found["kv_capacity_tokens"]) == (3, None, None)
    records.encode({"kind": "engine", "v": 1, **found})


@pytest.mark.parametrize("tokens", ["18446744073709551615", "1e300", '"5"', "null", "-1"])
def test_slots_without_counts_are_none(tokens):
    with pytest.raises(ValueError, match="not slots"):
        engine_metrics.slots(f'[{{"n_prompt_tokens":{tokens},"is_processing":true,"n_ctx":512}}]'.encode())


def test_one_unusable_entry_costs_one_entry():
    data = (
        b'[{"conversations":[{"from":"human","value":"Name three rivers."}]},'
        b'{"conversations":[{"from":"human","value":"Smile \\ud83d and go on."}]},'
        b'{"conversation":[{"role":"user","content":[{"type":"text","text":"And two lakes?"}]}]},{"conversations":5}]'
    )
    left_out: list[str] = []
    found = [prompt.text for prompt in formats.sharegpt(data, "f", left_out)]
    assert found == ["Name three rivers.", "Smile \ufffd and go on.", "And two lakes?"] and len(left_out) == 1
    lines = b'{"conversations":[{"from":"human","value":"a?"}]}\n{]\n{"messages":[{"role":"user","content":"b?"}]}\n'
    assert [prompt.text for prompt in formats.sharegpt(lines, "f")] == ["a?", "b?"]
    found_lines = list(formats.jsonl([b'{"prompt":"a"}', b"{]", b'{"other":1}', b'"b"'], "f", None, left_out))
    assert [prompt.text for prompt in found_lines] == ["a", "b"] and len(left_out) == 3
