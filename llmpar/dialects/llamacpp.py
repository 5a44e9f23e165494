"""`llamacpp`: llama.cpp's own POST /completion; PowerInfer's as well, which forked it in November 2023."""

from __future__ import annotations

from typing import Any

from llmpar.dialects import base
from llmpar.dialects.base import Call, Event, Reply, Sampling

_MORE_SLOTS = "start it with --max-sequences of at least the number of clients"


def request(prompt: str, model: str | None, sampling: Sampling, stream: bool, engine: str | None = None) -> Call:
    """The call for one prompt. The server has one model, so `model` is not sent."""
    body: dict[str, Any] = {"prompt": prompt}
    if sampling.max_tokens is not None:
        body["n_predict"] = sampling.max_tokens
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.top_k is not None:
        body["top_k"] = max(sampling.top_k, 0)
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    body["min_p"] = 0  # the server's own default is 0.05
    row = base.engine_row(engine)
    if row:
        body |= row.always
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.ignore_eos:
        body["ignore_eos"] = True
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    body["cache_prompt"] = sampling.cache_prompt
    body["stream"] = stream
    return Call("/completion", body, base.keep(body, "prompt"))


def parse(status: int, headers: dict[str, str], body: bytes, stream: bool) -> Reply:
    """Read a whole answer. Never raises."""
    # PowerInfer does not queue: what finds no free slot gets this, or a stream without a word. llama.cpp says all in
    # JSON.
    if status == 404 and body.strip() == b"File Not Found":
        return Reply(error=base.failure("no_free_slot", f"PowerInfer had no free slot: {_MORE_SLOTS}", status))
    if not 200 <= status < 300:
        return Reply(error=base.refused(status, headers, body))
    if not stream or base.is_json(headers, body):
        return _document(status, body)
    return _stream(status, body)


def _end(reply: Reply, value: dict[str, Any], status: int) -> None:
    """Counts and reason of the last object. llama.cpp's prompt_n leaves cached tokens out; tokens_evaluated does
    not."""
    reply.complete = reply.error is None
    reason = base.finish(value.get("stop_type"))
    if reason is None:
        if value.get("stopped_eos") or value.get("stopped_word"):
            reason = "stop"
        elif value.get("stopped_limit"):
            reason = "length"
    reply.finish_reason = reason
    timings = value.get("timings")
    timings = timings if isinstance(timings, dict) else {}
    reply.cached_tokens = base.whole(timings.get("cache_n"))
    reply.prompt_tokens = base.whole(value.get("tokens_evaluated"))
    reply.output_tokens = base.whole(value.get("tokens_predicted"))
    if reply.output_tokens is None:
        reply.output_tokens = base.whole(timings.get("predicted_n"))
    reply.token_source = None if reply.output_tokens is None else "engine"


def _document(status: int, body: bytes) -> Reply:
    reply = Reply()
    value = base.document(body, reply, status)
    if value is None:
        return reply
    content = value.get("content")
    if isinstance(content, str):
        reply.text = content
        _end(reply, value, status)
    elif reply.error is None:
        reply.error = base.failure("no_content", "the answer holds no content", status)
    return reply


def _stream(status: int, body: bytes) -> Reply:
    reply = Reply()
    before = 0
    known = True
    evaluated = None
    for offset, value in base.objects(body, reply, status):
        content = value.get("content")
        if content is None:
            reply.error = reply.error or base.envelope(value, status)
            continue
        sofar = value.get("tokens_predicted")
        # Progress events carry no text and come before the first token; a token may also carry none, when it ends
        # inside a character, and then belongs to the next event that does.
        if content and isinstance(content, str):
            if type(sofar) is int:
                tokens = max(sofar - before, 0)
                before = sofar
            else:
                tokens, known = 0, False
            reply.events.append(Event(offset, content, tokens))
            evaluated = value.get("tokens_evaluated")
        if value.get("stop"):
            _end(reply, value, status)
    if not known:
        reply.events = [Event(event.offset, event.text, None) for event in reply.events]
        base.spread(reply)
    reply.text = "".join([event.text for event in reply.events])
    base.cut(reply, body, status)
    if reply.error is not None and not body:
        reply.error["message"] += f"; from PowerInfer that means no free slot: {_MORE_SLOTS}"
    if reply.token_source is None and reply.events:
        reply.prompt_tokens = base.whole(evaluated)
        reply.output_tokens = before if known else len(reply.events)
        reply.token_source = "engine" if known else "events"
    return reply
