"""`tgi`: Text Generation Inference's own /generate and /generate_stream, versions 1.4 to 3.3."""

from __future__ import annotations

from typing import Any

from llmpar.dialects import base
from llmpar.dialects.base import Call, Event, Reply, Sampling, Unsupported


def request(prompt: str, model: str | None, sampling: Sampling, stream: bool, engine: str | None = None) -> Call:
    """The call for one prompt. The server has one model, so `model` is not sent.

    TGI answers 422 to temperature 0, top_p 1.0 and top_k 0: greedy is do_sample false, and off is leaving out. Any of
    temperature other than 1, top_k or top_p makes it sample, so greedy leaves those out too.
    """
    if sampling.ignore_eos:
        raise Unsupported(
            "tgi cannot go on past the end of text over HTTP: leave ignore_eos out and compare by output tokens"
        )
    parameters: dict[str, Any] = {}
    if sampling.max_tokens is not None:
        parameters["max_new_tokens"] = sampling.max_tokens
    if sampling.temperature == 0:
        parameters["do_sample"] = False
    else:
        if sampling.temperature is not None:
            parameters["temperature"] = sampling.temperature
        if sampling.top_k is not None and sampling.top_k > 0:
            parameters["top_k"] = sampling.top_k
        if sampling.top_p is not None and sampling.top_p < 1:
            parameters["top_p"] = sampling.top_p
        if sampling.temperature == 1 and not parameters.keys() & {"top_k", "top_p"}:
            parameters["do_sample"] = True
    if sampling.seed is not None:
        parameters["seed"] = sampling.seed
    if sampling.stop:
        parameters["stop"] = list(sampling.stop)
    parameters["details"] = True
    body = {"inputs": prompt, "parameters": parameters}
    return Call("/generate_stream" if stream else "/generate", body, dict(parameters))


def parse(status: int, headers: dict[str, str], body: bytes, stream: bool) -> Reply:
    """Read a whole answer. Never raises."""
    if not 200 <= status < 300:
        return Reply(error=base.refused(status, headers, body))
    if not stream or base.is_json(headers, body):
        return _document(status, headers, body)
    return _stream(status, headers, body)


def _details(reply: Reply, details: Any) -> None:
    if isinstance(details, dict):
        reply.finish_reason = base.finish(details.get("finish_reason"))
        output = base.whole(details.get("generated_tokens"))
        if output is not None:
            reply.output_tokens, reply.token_source = output, "engine"
        length = base.whole(details.get("input_length"))
        if length is not None:
            reply.prompt_tokens = length


def _document(status: int, headers: dict[str, str], body: bytes) -> Reply:
    reply = Reply(
        prompt_tokens=base.header_count(headers, "x-prompt-tokens"),
        output_tokens=base.header_count(headers, "x-generated-tokens"),
    )
    reply.token_source = None if reply.output_tokens is None else "engine"
    value = base.document(body, reply, status, unwrap=True)  # the compatibility route `/` wraps the answer
    if value is None:
        return reply
    text = value.get("generated_text")
    if isinstance(text, str):
        reply.text = text
        _details(reply, value.get("details"))
        reply.complete = reply.error is None
    elif reply.error is None:
        reply.error = base.failure("no_text", "the answer holds no generated_text", status)
    return reply


def _stream(status: int, headers: dict[str, str], body: bytes) -> Reply:
    reply = Reply(prompt_tokens=base.header_count(headers, "x-prompt-tokens"))
    tokens = carried = 0
    final = None
    for offset, value in base.objects(body, reply, status):
        token = value.get("token")
        if not isinstance(token, dict):
            reply.error = reply.error or base.envelope(value, status)
            continue
        # One event a token, also under speculation. A token without text belongs to the next event that has some;
        # special tokens (end of text) count as tokens and are not text.
        tokens += 1
        carried += 1
        text = token.get("text")
        if text and isinstance(text, str) and not token.get("special"):
            reply.events.append(Event(offset, text, carried))
            carried = 0
        if isinstance(value.get("generated_text"), str):
            final = value["generated_text"]
            reply.complete = reply.error is None
            _details(reply, value.get("details"))
    reply.text = "".join([event.text for event in reply.events]) if final is None else final
    base.cut(reply, body, status)
    if reply.token_source is None and tokens:
        reply.output_tokens, reply.token_source = tokens, "events"
    return reply
