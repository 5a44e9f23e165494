"""Every wire sample in tests/wire and what a person read in it: the table that conformance tests share."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from llmpar.dialects import DIALECTS, Reply

WIRE = Path(__file__).resolve().parent / "wire"
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
TINY = "<w915><w915><w1272>" + "<w1283>" * 5
AREA = "fter value" * 20
REPEATED = "<w869>" + "<w1307>" * 5
SAMPLES = [
    # llama.cpp, captured
    Want("llamacpp/completion.txt", LC, " the capital of the country of", 0, None, 6, 1, 6, "engine", "length"),
    Want(
        "llamacpp/completion_stop_string.txt",
        LC,
        " 2+2=4+2=8+2=16+2=24+2=32+2=48+2=72+2=14",
        0,
        None,
        10,
        5,
        40,
        "engine",
        "length",
    ),
    Want(
        "llamacpp/completion_stream.txt", LC, " the capital of the country of", 6, [1] * 6, 6, 0, 6, "engine", "length"
    ),
    Want(
        "llamacpp/completion_stream_options.txt",
        LC,
        " the capital of the country of",
        6,
        [1] * 6,
        6,
        0,
        6,
        "engine",
        "length",
    ),
    Want("llamacpp/completion_stream_spec.txt", LC, None, 48, [1] * 48, 43, 0, 48, "engine", "length"),
    Want("llamacpp/out_of_range_accepted.txt", LC, " = int(input", 0, None, 2, 0, 4, "engine", "length"),
    Want("llamacpp/model_name_ignored.txt", OC, None, 0, None, 2, 0, 2, "engine", "length"),
    Want("llamacpp/v1_chat.txt", CH, "<|im_end|>", 0, None, 26, 21, 6, "engine", "length"),
    Want("llamacpp/v1_chat_stream.txt", CH, "<|im", 3, [1] * 3, 26, 21, 3, "engine", "length"),
    Want("llamacpp/v1_chat_stream_usage.txt", CH, "<|im_end|>", 6, [1] * 6, 26, 0, 6, "engine", "length"),
    Want("llamacpp/v1_completions.txt", OC, " the capital of the United Kingdom", 0, None, 6, 1, 6, "engine", "length"),
    Want("llamacpp/v1_completions_hits_context.txt", OC, None, 0, None, 3, 1, 509, "engine", "length"),
    Want("llamacpp/v1_completions_stop_string.txt", OC, " The answer is 2.", 0, None, 10, 0, 7, "engine", "stop"),
    Want(
        "llamacpp/v1_completions_stream.txt",
        OC,
        " the capital of the French Republic",
        6,
        [1] * 6,
        6,
        1,
        6,
        "engine",
        "length",
    ),
    Want(
        "llamacpp/v1_completions_stream_usage.txt",
        OC,
        " the capital of the French Republic",
        6,
        [1] * 6,
        6,
        1,
        6,
        "engine",
        "length",
    ),
    Want("llamacpp/v1_completions_stream_spec.txt", OC, None, 16, [1] * 16, 43, 38, 16, "engine", "length"),
    Want("llamacpp/err_bad_json.txt", LC, error="invalid_request_error", message="[json.exception.parse_error.101]"),
    Want("llamacpp/err_get_method.txt", LC, error="not_found_error", message="File Not Found"),
    Want("llamacpp/err_no_api_key.txt", LC, error="authentication_error", message="Invalid API Key"),
    Want("llamacpp/err_no_prompt.txt", LC, error="invalid_request_error", message="[json.exception.out_of_range.403]"),
    Want(
        "llamacpp/err_prompt_too_long.txt",
        LC,
        error="exceed_context_size_error",
        message="request (802 tokens) exceeds",
    ),
    Want(
        "llamacpp/err_prompt_too_long_stream.txt", LC, error="exceed_context_size_error", message="request (802 tokens)"
    ),
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
    Want(
        "vllm-cpu/v1_completions.txt",
        OC,
        " sends wra sends '\"': standardToo",
        0,
        None,
        11,
        None,
        6,
        "engine",
        "length",
    ),
    Want(
        "vllm-cpu/v1_completions_stream.txt",
        OC,
        " sends wra sends '\"': standardToo",
        6,
        None,
        None,
        None,
        6,
        "events",
        "length",
    ),
    Want(
        "vllm-cpu/v1_completions_stream_usage.txt",
        OC,
        " sends wra sends '\"': standardToo",
        6,
        [1] * 6,
        11,
        None,
        6,
        "engine",
        "length",
    ),
    Want(
        "vllm-cpu/v1_completions_stream_continuous_usage.txt",
        OC,
        " sends wra sends '\"': standardToo",
        6,
        [1] * 6,
        11,
        None,
        6,
        "engine",
        "length",
    ),
    Want("vllm-cpu/v1_completions_stream_spec.txt", OC, AREA, 12, None, 8, None, 40, "engine", "length"),
    Want("vllm-cpu/v1_chat_stream_usage.txt", CH, " provi via Coodified", 4, [1] * 4, 12, None, 4, "engine", "length"),
    Want(
        "vllm-cpu/err_in_stream_on_shutdown.txt",
        OC,
        "MISSING",
        1,
        None,
        None,
        None,
        1,
        "events",
        None,
        "InternalServerError",
        "EngineCore encountered an issue",
    ),
    Want("vllm-cpu/err_bad_json.txt", OC, error="Bad Request", message="1 validation error"),
    Want("vllm-cpu/err_get_method.txt", OC, error="http_405", message="Method Not Allowed"),
    Want("vllm-cpu/err_no_api_key.txt", OC, error="http_401", message="Unauthorized"),
    Want("vllm-cpu/err_out_of_range.txt", OC, error="BadRequestError", message="temperature must be non-negative"),
    Want(
        "vllm-cpu/err_prompt_too_long.txt",
        OC,
        error="BadRequestError",
        message="This model's maximum context length is 4000",
    ),
    Want(
        "vllm-cpu/err_prompt_too_long_stream.txt", OC, error="BadRequestError", message="This model's maximum context"
    ),
    Want("vllm-cpu/err_queue_full.txt", OC, error="Service Unavailable", message="The engine is currently busy"),
    Want("vllm-cpu/err_queue_full_stream.txt", OC, error="Service Unavailable", message="The engine is currently busy"),
    Want("vllm-cpu/err_unknown_endpoint.txt", OC, error="http_404", message="Not Found"),
    Want("vllm-cpu/err_unknown_model.txt", OC, error="NotFoundError", message="The model `zz` does not exist."),
    Want("vllm-cpu/err_wrong_type.txt", OC, error="Bad Request", message="1 validation error"),
    # SGLang, captured
    Want("sglang-cpu/v1_completions.txt", OC, REPEATED, 0, None, 15, None, 6, "engine", "length"),
    Want("sglang-cpu/v1_completions_stream.txt", OC, REPEATED, 6, None, None, None, 6, "events", "length"),
    Want("sglang-cpu/v1_completions_stream_usage.txt", OC, REPEATED, 6, [1] * 6, 15, None, 6, "engine", "length"),
    Want(
        "sglang-cpu/v1_completions_stream_continuous_usage.txt",
        OC,
        REPEATED,
        6,
        [1] * 6,
        15,
        None,
        6,
        "engine",
        "length",
    ),
    Want("sglang-cpu/model_name_ignored.txt", OC, "<w45><w1021>\ufffd<w878>", 0, None, 2, None, 4, "engine", "length"),
    Want("sglang-cpu/err_get_method.txt", OC, error="http_405", message="Method Not Allowed"),
    Want("sglang-cpu/err_out_of_range.txt", OC, error="BadRequestError", message="temperature must be a non-negative"),
    Want("sglang-cpu/err_prompt_too_long.txt", OC, error="BadRequestError", message="The input (30001 tokens) is"),
    Want("sglang-cpu/err_prompt_too_long_stream.txt", OC, error="BadRequestError", message="The input (30001 tokens)"),
    Want("sglang-cpu/err_total_tokens.txt", OC, error="BadRequestError", message="Requested token count exceeds"),
    Want("sglang-cpu/err_unknown_endpoint.txt", OC, error="http_404", message="Not Found"),
    Want("sglang-cpu/err_wrong_type.txt", OC, error="Bad Request", message="1 validation error"),
    # transformers, captured
    Want(
        "transformers/v1_completions.txt",
        OC,
        " trailingREQ OtherwisemproperConnectionState Otherwise ali",
        0,
        None,
        11,
        None,
        6,
        "engine",
        "length",
    ),
    Want(
        "transformers/v1_completions_stream_usage.txt",
        OC,
        " trailingREQ OtherwisemproperConnectionState Otherwise ali",
        6,
        [1] * 6,
        11,
        None,
        6,
        "engine",
        "length",
    ),
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
    Want("tgi/err_generation.txt", TGI, error="generation", message="Request failed during generation"),
    Want(
        "tgi/err_generation_stream.txt",
        TGI,
        " The",
        1,
        [1],
        None,
        None,
        1,
        "events",
        None,
        "generation",
        "Request failed during",
    ),
    Want("tgi/err_incomplete.txt", TGI, error="incomplete_generation", message="Incomplete generation"),
    Want("tgi/err_input_length.txt", TGI, error="validation", message="Input validation error: `inputs` must have"),
    Want("tgi/err_no_chat_template.txt", CH, error="template_error", message="Template error: template not found"),
    Want("tgi/err_overloaded.txt", TGI, error="overloaded", message="Model is overloaded"),
    Want("tgi/err_overloaded_stream.txt", TGI, error="overloaded", message="Model is overloaded"),
    Want(
        "tgi/err_temperature_zero.txt", TGI, error="validation", message="Input validation error: `temperature` must be"
    ),
    Want("tgi/err_top_p_one.txt", TGI, error="validation", message="Input validation error: `top_p` must be"),
    Want("tgi/err_total_tokens.txt", TGI, error="validation", message="Input validation error: `inputs` tokens +"),
    Want(
        "tgi/err_total_tokens_stream.txt", TGI, error="validation", message="Input validation error: `inputs` tokens +"
    ),
    Want("tgi/err_unhealthy.txt", TGI, error="healthcheck", message="unhealthy"),
    # TGI, captured on a CPU: a tiny random Llama whose tokens have names, <w915> and the like
    Want(
        "tgi-cpu/1.4.4_compat.txt",
        TGI,
        "The mill by the river was old when the road was new." + TINY,
        0,
        None,
        14,
        None,
        8,
        "engine",
        "length",
    ),
    Want("tgi-cpu/1.4.4_generate.txt", TGI, TINY, 0, None, 14, None, 8, "engine", None),
    Want("tgi-cpu/1.4.4_generate_details.txt", TGI, TINY, 0, None, 14, None, 8, "engine", "length"),
    Want("tgi-cpu/1.4.4_generate_decoder_input_details.txt", TGI, TINY, 0, None, 14, None, 8, "engine", "length"),
    Want("tgi-cpu/1.4.4_generate_stream.txt", TGI, TINY, 8, [1] * 8, None, None, 8, "events", None),
    Want("tgi-cpu/1.4.4_generate_stream_details.txt", TGI, TINY, 8, [1] * 8, None, None, 8, "engine", "length"),
    Want(
        "tgi-cpu/1.4.4_v1_completions.txt",
        OC,
        "<w774>d<w516>\ufffd<w665><w136>\x07in",
        0,
        None,
        14,
        None,
        8,
        "engine",
        "length",
    ),
    Want(
        "tgi-cpu/1.4.4_v1_completions_stream.txt",
        OC,
        "<w774>d<w516>\ufffd<w665><w136>\x07in",
        7,
        None,
        None,
        None,
        7,
        "events",
        None,
    ),
    Want("tgi-cpu/1.4.4_err_bad_json.txt", TGI, error="http_400", message="Failed to parse the request body as JSON"),
    Want(
        "tgi-cpu/1.4.4_err_input_length.txt",
        TGI,
        error="validation",
        message="Input validation error: `inputs` tokens +",
    ),
    Want(
        "tgi-cpu/1.4.4_err_no_chat_template.txt",
        CH,
        error="template_error",
        message="Template error: template not found",
    ),
    Want("tgi-cpu/1.4.4_err_overloaded.txt", TGI, error="overloaded", message="Model is overloaded"),
    Want("tgi-cpu/1.4.4_err_overloaded_stream.txt", TGI, error="overloaded", message="Model is overloaded"),
    Want(
        "tgi-cpu/1.4.4_err_temperature_zero.txt",
        TGI,
        error="validation",
        message="Input validation error: `temperature` must be",
    ),
    Want(
        "tgi-cpu/1.4.4_err_top_k_zero.txt", TGI, error="validation", message="Input validation error: `top_k` must be"
    ),
    Want("tgi-cpu/1.4.4_err_top_p_one.txt", TGI, error="validation", message="Input validation error: `top_p` must be"),
    Want(
        "tgi-cpu/1.4.4_err_total_tokens.txt",
        TGI,
        error="validation",
        message="Input validation error: `inputs` tokens +",
    ),
    Want(
        "tgi-cpu/1.4.4_err_total_tokens_stream.txt",
        TGI,
        error="validation",
        message="Input validation error: `inputs` tokens +",
    ),
    Want("tgi-cpu/3.3.7_generate.txt", TGI, TINY, 0, None, 14, None, 8, "engine", None),
    Want("tgi-cpu/3.3.7_generate_details.txt", TGI, TINY, 0, None, 14, None, 8, "engine", "length"),
    Want("tgi-cpu/3.3.7_generate_decoder_input_details.txt", TGI, TINY, 0, None, 14, None, 8, "engine", "length"),
    Want("tgi-cpu/3.3.7_generate_stream.txt", TGI, TINY, 8, [1] * 8, None, None, 8, "events", None),
    Want("tgi-cpu/3.3.7_generate_stream_details.txt", TGI, TINY, 8, [1] * 8, 14, None, 8, "engine", "length"),
    Want("tgi-cpu/3.3.7_generate_stop.txt", TGI, "<w915><w915><w1272><w1283>", 0, None, 14, None, 4, "engine", "stop"),
    Want(
        "tgi-cpu/3.3.7_compat.txt",
        TGI,
        "The mill by the river was old when the road was new." + TINY,
        0,
        None,
        14,
        None,
        8,
        "engine",
        None,
    ),
    Want(
        "tgi-cpu/3.3.7_v1_completions_stream.txt",
        OC,
        "<w774><w937>\ufffd\ufffd<w665><w136><w1209>in",
        6,
        None,
        14,
        None,
        8,
        "engine",
        "length",
    ),
    Want("tgi-cpu/3.3.7_err_bad_json.txt", TGI, error="http_400", message="Failed to parse the request body as JSON"),
    Want(
        "tgi-cpu/3.3.7_err_input_length.txt",
        TGI,
        error="validation",
        message="Input validation error: `inputs` tokens +",
    ),
    Want(
        "tgi-cpu/3.3.7_err_no_chat_template.txt",
        CH,
        error="template_error",
        message="Template error: template not found",
    ),
    Want("tgi-cpu/3.3.7_err_overloaded.txt", TGI, error="overloaded", message="Model is overloaded"),
    Want("tgi-cpu/3.3.7_err_overloaded_stream.txt", TGI, error="overloaded", message="Model is overloaded"),
    # 422 and no type in the stream: the words say it.
    Want("tgi-cpu/3.3.7_err_v1_stream.txt", OC, error="overloaded", message="Model is overloaded"),
    Want(
        "tgi-cpu/3.3.7_err_temperature_zero.txt",
        TGI,
        error="validation",
        message="Input validation error: `temperature` must be",
    ),
    Want(
        "tgi-cpu/3.3.7_err_top_k_zero.txt", TGI, error="validation", message="Input validation error: `top_k` must be"
    ),
    Want("tgi-cpu/3.3.7_err_top_p_one.txt", TGI, error="validation", message="Input validation error: `top_p` must be"),
]
# Answers to other questions than "generate": read by llmpar-serve and llmpar-sample-engine, or for people.
OTHER = {
    "health.txt",
    "health_starting.txt",
    "metrics.txt",
    "3.3.7_metrics.txt",
    "metrics_idle.txt",
    "metrics_spec.txt",
    "metrics_under_load.txt",
    "load.txt",
    "props.txt",
    "metrics_under_load_spec.txt",
    "slots_under_load.txt",
    "slots_fail_on_no_slot.txt",
    "tokenize.txt",
    "version.txt",
    "v1_models.txt",
}


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
