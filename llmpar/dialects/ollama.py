"""`ollama`: Ollama's own POST /api/generate, a stream of JSON lines. Read in its docs/api.md and server; not run
here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from llmpar.dialects import base
from llmpar.dialects.base import Call, Event, Reply, Sampling, Unsupported


def request(prompt: str, model: str | None, sampling: Sampling, stream: bool, engine: str | None = None) -> Call:
    """The call for one prompt, sent as it is: `raw` keeps the model's chat template away. Raises Unsupported."""
    if not model:
        raise Unsupported("ollama serves many models and needs a name: give it as --model")
    if sampling.ignore_eos:
        raise Unsupported(
            "ollama cannot go on past the end of text over HTTP: leave ignore_eos out and compare by output tokens"
        )
    # No num_ctx: another length than the server's makes it load the model again. Its own defaults penalise repetition
    # by 1.1.
    options: dict[str, Any] = {"min_p": 0.0, "repeat_penalty": 1.0}
    if sampling.max_tokens is not None:
        options["num_predict"] = sampling.max_tokens
    if sampling.temperature is not None:
        options["temperature"] = sampling.temperature
    if sampling.top_k is not None:
        options["top_k"] = max(sampling.top_k, 0)
    if sampling.top_p is not None:
        options["top_p"] = sampling.top_p
    if sampling.seed is not None:
        options["seed"] = sampling.seed
    if sampling.stop:
        options["stop"] = list(sampling.stop)
    body = {"model": model, "prompt": prompt, "raw": True, "stream": stream, "options": options}
    return Call("/api/generate", body, {**options, "raw": True, "stream": stream})


def parse(status: int, headers: dict[str, str], body: bytes, stream: bool) -> Reply:
    """Read a whole answer. Never raises."""
    if not 200 <= status < 300:
        return Reply(error=base.refused(status, headers, body))
    if not stream or headers.get("content-type", "").startswith("application/json"):
        return _document(status, body)
    return _stream(status, body)


def _text(value: dict[str, Any]) -> str | None:
    """What was generated, thinking included as it is on the OpenAI routes; None where the object is about something
    else."""
    response, thinking = value.get("response"), value.get("thinking")
    if not isinstance(response, str):
        return None
    return (thinking if isinstance(thinking, str) else "") + response


def _end(reply: Reply, value: dict[str, Any], status: int) -> None:
    """Counts and reason of the object whose `done` is true."""
    reply.finish_reason = base.finish(value.get("done_reason"))
    if reply.finish_reason in ("load", "unload"):
        reply.error = reply.error or base.failure(
            "nothing_generated", "the engine loaded the model and generated nothing: is the prompt empty?", status
        )
    reply.prompt_tokens = base.whole(value.get("prompt_eval_count"))
    reply.output_tokens = base.whole(value.get("eval_count"))
    reply.token_source = None if reply.output_tokens is None else "engine"
    reply.complete = reply.error is None


def _document(status: int, body: bytes) -> Reply:
    reply = Reply()
    value = base.document(body, reply, status)
    if value is None:
        return reply
    reply.text = _text(value)
    if reply.text is not None:
        _end(reply, value, status)
    elif reply.error is None:
        reply.error = base.failure("no_text", "the answer holds no response", status)
    return reply


def _stream(status: int, body: bytes) -> Reply:
    reply = Reply()
    lines = 0
    for offset, value in _objects(body, reply, status):
        lines += 1
        text = _text(value)
        if text is None:
            reply.error = reply.error or base.envelope(value, status)
            continue
        if text:
            reply.events.append(Event(offset, text, None))
        if value.get("done"):
            _end(reply, value, status)
    reply.text = "".join([event.text for event in reply.events])
    base.spread(reply)
    if not reply.complete and reply.error is None:
        where = f"after {lines} line{'s' if lines > 1 else ''}" if lines else "before any line"
        reply.error = base.failure("cut_stream", f"the stream ended {where}, without a line that is done", status)
    if reply.token_source is None and reply.events:
        reply.output_tokens, reply.token_source = len(reply.events), "events"
    return reply


def _objects(body: bytes, reply: Reply, status: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON object of each line with the offset of its end; the first line that cannot be read goes into `reply`."""
    offset = 0
    for number, line in enumerate(body.splitlines(keepends=True), 1):
        offset += len(line)
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except ValueError:
            value, bad = base.load(line)
            if bad and line.endswith(b"\n"):  # a torn last line is the mark of a cut stream
                what = "is not UTF-8" if bad == "invalid_utf8" else "is not JSON"
                reply.error = reply.error or base.failure(bad, f"line {number} of the stream {what}", status)
        if isinstance(value, dict):
            yield offset, value
