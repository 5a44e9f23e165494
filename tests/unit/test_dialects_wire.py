"""Every wire sample against what a person read in it; framing and parsing split at every position."""

from __future__ import annotations

import bisect
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpar.dialects import DIALECTS, Reply
from llmpar.http1 import Framer

WIRE = Path(__file__).resolve().parent.parent / "wire"
MILL = " The mill was a small one."


class Want(NamedTuple):
    """What is in a sample. `tokens`: of each event with text; None where the engine does not tell."""

    file: str
    api: str
    text: str | None = None
    events: int = 0
    tokens: list[int] | None = None
    prompt: int | None = None
    cached: int | None = None
    output: int | None = None
    source: str | None = None
    finish: str | None = None
    error: str | None = None
    message: str = ""


OC, CH, TGI, LC = "openai-completions", "openai-chat", "tgi", "llamacpp"
SPEC = "def area_of_square(x): return x * x\n"
AREA = "fter value" * 20
SAMPLES = [
    # llama.cpp, captured
    Want("llamacpp/completion.txt", LC, " the capital of the country of", 0, None, 6, 1, 6, "engine", "length"),
    Want("llamacpp/completion_stop_string.txt", LC, " 2+2=4+2=8+2=16+2=24+2=32+2=48+2=72+2=14", 0, None, 10, 5, 40, "engine", "length"),
    Want("llamacpp/completion_stream.txt", LC, " the capital of the country of", 6, [1] * 6, 6, 0, 6, "engine", "length"),
    Want("llamacpp/completion_stream_options.txt", LC, " the capital of the country of", 6, [1] * 6, 6, 0, 6, "engine", "length"),
    Want("llamacpp/completion_stream_spec.txt", LC, None, 48, [1] * 48, 43, 0, 48, "engine", "length"),
    Want("llamacpp/out_of_range_accepted.txt", LC, " = int(input", 0, None, 2, 0, 4, "engine", "length"),
    Want("llamacpp/model_name_ignored.txt", OC, None, 0, None, 2, 0, 2, "engine", "length"),
    Want("llamacpp/v1_chat.txt", CH, "<|im_end|>", 0, None, 26, 21, 6, "engine", "length"),
    Want("llamacpp/v1_chat_stream.txt", CH, "<|im", 3, [1] * 3, 26, 21, 3, "engine", "length"),
    Want("llamacpp/v1_chat_stream_usage.txt", CH, "<|im_end|>", 6, [1] * 6, 26, 0, 6, "engine", "length"),
    Want("llamacpp/v1_completions.txt", OC, " the capital of the United Kingdom", 0, None, 6, 1, 6, "engine", "length"),
    Want("llamacpp/v1_completions_hits_context.txt", OC, None, 0, None, 3, 1, 509, "engine", "length"),
    Want("llamacpp/v1_completions_stop_string.txt", OC, " The answer is 2.", 0, None, 10, 0, 7, "engine", "stop"),
    Want("llamacpp/v1_completions_stream.txt", OC, " the capital of the French Republic", 6, [1] * 6, 6, 1, 6, "engine", "length"),
    Want("llamacpp/v1_completions_stream_usage.txt", OC, " the capital of the French Republic", 6, [1] * 6, 6, 1, 6, "engine", "length"),
    Want("llamacpp/v1_completions_stream_spec.txt", OC, None, 16, [1] * 16, 43, 38, 16, "engine", "length"),
    Want("llamacpp/err_bad_json.txt", LC, error="invalid_request_error", message="[json.exception.parse_error.101]"),
    Want("llamacpp/err_get_method.txt", LC, error="not_found_error", message="File Not Found"),
    Want("llamacpp/err_no_api_key.txt", LC, error="authentication_error", message="Invalid API Key"),
    Want("llamacpp/err_no_prompt.txt", LC, error="invalid_request_error", message="[json.exception.out_of_range.403]"),
    Want("llamacpp/err_prompt_too_long.txt", LC, error="exceed_context_size_error", message="request (802 tokens) exceeds"),
    Want("llamacpp/err_prompt_too_long_stream.txt", LC, error="exceed_context_size_error", message="request (802 tokens)"),
    Want("llamacpp/err_prompt_too_long_v1.txt", OC, error="exceed_context_size_error", message="request (802 tokens)"),
    Want("llamacpp/err_prompt_type_v1.txt", OC, error="invalid_request_error", message='"prompt" elements must be'),
    Want("llamacpp/err_unknown_endpoint.txt", LC, error="not_found_error", message="File Not Found"),
    Want("llamacpp/err_wrong_type.txt", LC, error="invalid_request_error", message="Field 'n_predict'"),
    Want("llamacpp/err_wrong_type_v1.txt", OC, error="invalid_request_error", message="Field 'temperature'"),
    # vLLM, captured
    Want("vllm/sse.txt", OC, " PartialDerivativeomorphic ELLmag", 4, [1] * 4, 2, None, 4, "engine", "length"),
    Want("vllm/sse_spec.txt", OC, "'^(lacian" * 12, 11, None, 17, None, 24, "engine", "length"),
    Want("vllm/err_json.txt", OC, error="Bad Request", message="1 validation error"),
    Want("vllm/err_model.txt", OC, error="NotFoundError", message="The model `zz` does not exist."),
    Want("vllm/err_toolong.txt", OC, error="BadRequestError", message="max_tokens=9999 cannot be greater"),
    Want("vllm-cpu/v1_completions.txt", OC, " sends wra sends '\"': standardToo", 0, None, 11, None, 6, "engine", "length"),
    Want("vllm-cpu/v1_completions_stream.txt", OC, " sends wra sends '\"': standardToo", 6, None, None, None, 6, "events", "length"),
    Want("vllm-cpu/v1_completions_stream_usage.txt", OC, " sends wra sends '\"': standardToo", 6, [1] * 6, 11, None, 6, "engine", "length"),
    Want("vllm-cpu/v1_completions_stream_continuous_usage.txt", OC, " sends wra sends '\"': standardToo", 6, [1] * 6, 11, None, 6, "engine", "length"),
    Want("vllm-cpu/v1_completions_stream_spec.txt", OC, AREA, 12, None, 8, None, 40, "engine", "length"),
    Want("vllm-cpu/v1_chat_stream_usage.txt", CH, " provi via Coodified", 4, [1] * 4, 12, None, 4, "engine", "length"),
    Want("vllm-cpu/err_in_stream_on_shutdown.txt", OC, "MISSING", 1, None, None, None, 1, "events", None,
         "InternalServerError", "EngineCore encountered an issue"),
    Want("vllm-cpu/err_bad_json.txt", OC, error="Bad Request", message="1 validation error"),
    Want("vllm-cpu/err_get_method.txt", OC, error="http_405", message="Method Not Allowed"),
    Want("vllm-cpu/err_no_api_key.txt", OC, error="http_401", message="Unauthorized"),
    Want("vllm-cpu/err_out_of_range.txt", OC, error="BadRequestError", message="temperature must be non-negative"),
    Want("vllm-cpu/err_prompt_too_long.txt", OC, error="BadRequestError", message="This model's maximum context length is 4000"),
    Want("vllm-cpu/err_prompt_too_long_stream.txt", OC, error="BadRequestError", message="This model's maximum context"),
    Want("vllm-cpu/err_queue_full.txt", OC, error="Service Unavailable", message="The engine is currently busy"),
    Want("vllm-cpu/err_queue_full_stream.txt", OC, error="Service Unavailable", message="The engine is currently busy"),
    Want("vllm-cpu/err_unknown_endpoint.txt", OC, error="http_404", message="Not Found"),
    Want("vllm-cpu/err_unknown_model.txt", OC, error="NotFoundError", message="The model `zz` does not exist."),
    Want("vllm-cpu/err_wrong_type.txt", OC, error="Bad Request", message="1 validation error"),
    # transformers, captured
    Want("transformers/v1_completions.txt", OC, " trailingREQ OtherwisemproperConnectionState Otherwise ali", 0, None, 11, None, 6, "engine", "length"),
    Want("transformers/v1_completions_stream_usage.txt", OC, " trailingREQ OtherwisemproperConnectionState Otherwise ali", 6, [1] * 6, 11, None, 6, "engine", "length"),
    Want("transformers/v1_chat_stream.txt", CH, "ix clockix spaces", 4, [1] * 4, 10, None, 4, "engine", "length"),
    Want("transformers/err_bad_json.txt", OC, error="json_invalid", message="body.11: JSON decode error"),
    Want("transformers/err_unexpected_field.txt", OC, error="http_422", message="Unexpected fields in the request"),
    Want("transformers/err_unknown_model.txt", OC, error="http_400", message="Server is pinned to"),
    # TGI, constructed
    Want("tgi/1.4.4_generate.txt", TGI, MILL, 0, None, 9, None, 8, "engine", None),
    Want("tgi/1.4.4_generate_details.txt", TGI, MILL, 0, None, 9, None, 8, "engine", "stop"),
    Want("tgi/1.4.4_generate_decoder_input_details.txt", TGI, MILL, 0, None, 9, None, 8, "engine", "stop"),
    Want("tgi/1.4.4_generate_stream.txt", TGI, MILL, 7, [1] * 7, None, None, 8, "events", None),
    Want("tgi/1.4.4_generate_stream_details.txt", TGI, MILL, 7, [1] * 7, None, None, 8, "engine", "stop"),
    Want("tgi/1.4.4_generate_stream_keepalive.txt", TGI, MILL, 7, [1] * 7, None, None, 8, "engine", "stop"),
    Want("tgi/1.4.4_v1_completions.txt", OC, MILL, 0, None, 9, None, 8, "engine", "stop"),
    Want("tgi/1.4.4_v1_completions_stream.txt", OC, MILL + "</s>", 8, None, None, None, 8, "events", None),
    Want("tgi/1.4.4_v1_chat_stream.txt", CH, MILL + "</s>", 8, None, None, None, 8, "events", "stop"),
    Want("tgi/3.3.7_generate_stream_details.txt", TGI, MILL, 7, [1] * 7, 9, None, 8, "engine", "stop"),
    Want("tgi/3.3.7_v1_completions_stream.txt", OC, MILL + "</s>", 8, [1] * 8, 9, None, 8, "engine", "stop"),
    Want("tgi/3.3.7_v1_chat_stream_usage.txt", CH, MILL, 7, None, 9, None, 8, "engine", "stop"),
    Want("tgi/3.3.7_err_v1_stream.txt", OC, error="http_422", message="Model is overloaded"),
    Want("tgi/err_generation.txt", TGI, error="generation", message="Request failed during generation"),
    Want("tgi/err_generation_stream.txt", TGI, " The", 1, [1], None, None, 1, "events", None, "generation", "Request failed during"),
    Want("tgi/err_incomplete.txt", TGI, error="incomplete_generation", message="Incomplete generation"),
    Want("tgi/err_input_length.txt", TGI, error="validation", message="Input validation error: `inputs` must have"),
    Want("tgi/err_no_chat_template.txt", CH, error="template_error", message="Template error: template not found"),
    Want("tgi/err_overloaded.txt", TGI, error="overloaded", message="Model is overloaded"),
    Want("tgi/err_overloaded_stream.txt", TGI, error="overloaded", message="Model is overloaded"),
    Want("tgi/err_temperature_zero.txt", TGI, error="validation", message="Input validation error: `temperature` must be"),
    Want("tgi/err_top_p_one.txt", TGI, error="validation", message="Input validation error: `top_p` must be"),
    Want("tgi/err_total_tokens.txt", TGI, error="validation", message="Input validation error: `inputs` tokens +"),
    Want("tgi/err_total_tokens_stream.txt", TGI, error="validation", message="Input validation error: `inputs` tokens +"),
    Want("tgi/err_unhealthy.txt", TGI, error="healthcheck", message="unhealthy"),
]
# Answers to other questions than "generate": read by llmpar-serve and llmpar-sample-engine, or for people.
OTHER = {"health.txt", "metrics.txt", "metrics_idle.txt", "metrics_spec.txt", "metrics_under_load.txt", "load.txt", "props.txt",
         "metrics_under_load_spec.txt", "slots_under_load.txt", "slots_fail_on_no_slot.txt", "tokenize.txt", "version.txt",
         "v1_models.txt"}


def head_and_body(file: str) -> tuple[bytes, bytes]:
    raw = (WIRE / file).read_bytes()
    if not raw.startswith(b"HTTP/"):  # the tail of a body only
        return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked", raw
    head, _, body = raw.partition(b"\r\n\r\n")
    return head, body


def load(file: str) -> tuple[int, dict[str, str], bytes, bool]:
    head, body = head_and_body(file)
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, body, headers.get("content-type", "").startswith("text/event-stream")


def parse(want: Want) -> Reply:
    status, headers, body, stream = load(want.file)
    return DIALECTS[want.api].parse(status, headers, body, stream)


STREAMS = [want for want in SAMPLES if load(want.file)[3]]


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
    assert full is not None and full.startswith(" of the Republic of the Congo") and full.endswith(" center of political")


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
        assert event.text in block or event.text.replace("\n", "\\n").replace('"', '\\"') in block


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
@pytest.mark.parametrize("change", [
    lambda body: body.replace(b"\n", b"\r\n"),
    lambda body: body.replace(b"\n", b"\r"),
    lambda body: body.replace(b"data: ", b"data:") if b"data: " in body else body.replace(b"data:", b"data: "),
    lambda body: b":\n\n" + body.replace(b"data:", b": ping\n\nevent: message\ndata:"),
    lambda body: b"\xef\xbb\xbf" + body,
    lambda body: body.rstrip(b"\n"),
], ids=["crlf", "cr", "space", "comments", "bom", "no-last-line"])
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
    st.sampled_from([b"data: ", b"\n\n", b"\r\n", b"[DONE]", b"null", b"[]", b"{}", b"[[]]", b'"x"', b"1e999", b"\xff\xfe"]),
    st.sampled_from(['{"choices":', '{"choices":[{"text":', '{"choices":[{"delta":{"content":', '{"content":', '{"token":',
                     '{"error":', '{"usage":', '{"timings":', '{"details":', '{"detail":', '{"generated_text":',
                     '{"choices":[{"finish_reason":']).flatmap(
        lambda start: st.sampled_from(["null", "1", '"s"', "[]", "{}", "[1]", '[{"loc":3}]', '{"type":[]}', "true", "1.5"]).map(
            lambda middle: ("data: " + start + middle + "]" * start.count("[") + "}" * start.count("{") + "\n\n").encode())))


@settings(deadline=None, derandomize=True)
@given(st.lists(JUNK, max_size=6).map(b"".join), st.sampled_from([200, 206, 302, 400, 503]), st.booleans(),
       st.sampled_from(["text/event-stream", "application/json", "", "text/html"]), st.sampled_from(sorted(DIALECTS)))
def test_junk_never_raises(body: bytes, status: int, stream: bool, kind: str, api: str) -> None:
    reply = DIALECTS[api].parse(status, {"content-type": kind, "x-prompt-tokens": "²"}, body, stream)
    assert reply.complete or reply.error is not None
    assert all(0 < event.offset <= len(body) and event.text for event in reply.events)
    for count in (reply.prompt_tokens, reply.cached_tokens, reply.output_tokens):
        assert count is None or count >= 0
