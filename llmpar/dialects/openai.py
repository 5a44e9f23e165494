"""What the two OpenAI routes share: the engines' differences in a request, and reading answers."""

from __future__ import annotations

from typing import Any

import orjson

from llmpar.dialects import base
from llmpar.dialects.base import Event, Reply, Sampling, Unsupported


def settings(sampling: Sampling, stream: bool, engine: str | None) -> dict[str, Any]:
    """The fields of an OpenAI body besides model and prompt. Raises Unsupported for what the engine cannot do."""
    from llmpar.engines.base import OpenAi  # late: the other routes do without

    row = base.engine_row(engine)
    route = row.openai if row else OpenAi()
    if route is None:
        raise Unsupported(f"{engine} has no OpenAI routes: use --api {row.api if row else None}")
    own = f": use --api {row.api}" if row and not row.api.startswith("openai") else ""
    body: dict[str, Any] = {}
    if sampling.max_tokens is not None:
        body["max_tokens"] = sampling.max_tokens
    if sampling.temperature is not None:
        if sampling.temperature == 0 and not route.zero_temperature:
            raise Unsupported(f"{engine} refuses temperature 0 on its OpenAI routes{own}")
        body["temperature"] = sampling.temperature
    if route.generation_config:
        body.update(_generation_config(sampling, engine))
    elif sampling.top_k is not None:
        if sampling.top_k > 0:
            if not route.top_k:
                raise Unsupported(
                    f"{engine} does not pass top_k on from its OpenAI routes{own}{', or' if own else ': use'} --top-k 0"
                )
            body["top_k"] = sampling.top_k
        elif route.top_k and route.top_k_off is not None:
            body["top_k"] = route.top_k_off
    if sampling.top_p is not None and (sampling.top_p < 1 or route.top_p_of_1):
        body["top_p"] = sampling.top_p
    if sampling.seed is not None:
        if not route.seed:
            raise Unsupported(f"{engine} takes no seed: leave --seed out")
        body["seed"] = sampling.seed
    if sampling.ignore_eos and not route.generation_config:
        if not route.ignore_eos:
            raise Unsupported(
                f"{engine} cannot go on past the end of text over HTTP: leave ignore_eos out and compare "
                "by output tokens"
            )
        body["ignore_eos"] = True
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if row:
        body |= row.always
    if route.cache_prompt:
        body["cache_prompt"] = sampling.cache_prompt
    body["stream"] = stream
    if stream and route.usage:
        body["stream_options"] = {"include_usage": True}
        if route.running_usage:
            body["stream_options"]["continuous_usage_stats"] = True
    return body


def _generation_config(sampling: Sampling, engine: str | None) -> dict[str, Any]:
    """transformers serve refuses fields outside its schema; they go into generation_config, a JSON string."""
    inner: dict[str, Any] = {}
    if sampling.temperature:
        inner["do_sample"] = True
    if sampling.top_k is not None:
        inner["top_k"] = max(sampling.top_k, 0)
    if sampling.ignore_eos:
        if sampling.max_tokens is None:
            raise Unsupported(f"{engine} cannot go on past the end of text without a limit: give --max-tokens")
        inner["min_new_tokens"] = sampling.max_tokens
    return {"generation_config": orjson.dumps(inner).decode()} if inner else {}


# Under these names text stands inside a part of a message; other fields (ids, signatures, types) are none of it.
_PARTS = ("thinking", "reasoning", "text", "content", "value", "summary", "refusal", "name", "arguments", "transcript")
_DEPTH = 6


def _text(value: Any, depth: int = _DEPTH) -> str:
    """The text in a part of a message of any shape: a string, a list of parts, an object with text under a known
    name."""
    if isinstance(value, str):
        return value
    if depth and isinstance(value, list):
        return "".join([_text(item, depth - 1) for item in value])
    if depth and isinstance(value, dict):
        return "".join([_text(value[name], depth - 1) for name in _PARTS if name in value])
    return ""


def _call(value: Any) -> str:
    """The generated text of one tool call: its name and its arguments, which some engines send as an object."""
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict):
        return ""
    arguments = function.get("arguments")
    name = function.get("name")
    return (name if isinstance(name, str) else "") + (base.words(arguments) if arguments else "")


def _piece(choice: dict[str, Any], chat: bool) -> str:
    """The text in a choice: of a completion, of a message or of a delta; all that is generated is text, reasoning,
    refusals and tool calls as well.
    """
    if not chat:
        text = choice.get("text")
        return text if isinstance(text, str) else _text(text)
    delta = choice.get("delta") or choice.get("message")
    if not isinstance(delta, dict):
        return ""
    content = delta.get("content")
    if isinstance(content, str) and (len(delta) == 1 or len(delta) == 2 and "role" in delta):
        return content
    # Some servers send a thought under two names.
    thought = (
        delta.get("reasoning_content")
        or delta.get("reasoning")
        or delta.get("thinking")
        or delta.get("reasoning_details")
    )
    calls = delta.get("tool_calls") or []
    parts = [_text(thought), _text(content), _text(delta.get("refusal")), _text(delta.get("audio"))]
    parts += [_call(call) for call in (calls if isinstance(calls, list) else [calls])]
    parts.append(_call(delta.get("function_call")))
    return "".join(parts)


def _counts(reply: Reply, value: dict[str, Any]) -> None:
    """Take over what a usage block or llama.cpp's timings say; usage goes first."""
    usage = value.get("usage")
    if isinstance(usage, dict):
        reply.prompt_tokens = base.whole(usage.get("prompt_tokens"))
        output = base.whole(usage.get("completion_tokens"))
        if output is not None:
            reply.output_tokens, reply.token_source = output, "engine"
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            reply.cached_tokens = base.whole(details.get("cached_tokens"))
        return
    timings = value.get("timings")
    if isinstance(timings, dict) and reply.token_source is None:
        reply.cached_tokens = base.whole(timings.get("cache_n"))
        evaluated = base.whole(timings.get("prompt_n"))
        if evaluated is not None:
            reply.prompt_tokens = evaluated + (reply.cached_tokens or 0)
        reply.output_tokens = base.whole(timings.get("predicted_n"))
        reply.token_source = "engine" if reply.output_tokens is not None else None


def _nothing(usage: Any) -> bool:
    return isinstance(usage, dict) and not usage.get("completion_tokens") and not usage.get("prompt_tokens")


def _refuse_zero(reply: Reply) -> None:
    """Gateways without counts send zeros: text was not made of no tokens, and no prompt is empty."""
    if reply.text and reply.output_tokens == 0:
        reply.output_tokens = reply.token_source = None
        reply.prompt_tokens = reply.prompt_tokens or None


def parse(status: int, headers: dict[str, str], body: bytes, stream: bool, chat: bool) -> Reply:
    """Read a whole answer of an OpenAI route. Never raises."""
    if not 200 <= status < 300:
        return Reply(error=base.refused(status, headers, body))
    if not stream or base.is_json(headers, body):
        return _document(status, headers, body, chat)
    return _stream(status, body, chat)


def _document(status: int, headers: dict[str, str], body: bytes, chat: bool) -> Reply:
    reply = Reply()
    value = base.document(body, reply, status)
    if value is None:
        return reply
    _counts(reply, value)
    if reply.prompt_tokens is None:
        reply.prompt_tokens = base.header_count(headers, "x-prompt-tokens")
    if reply.output_tokens is None:
        reply.output_tokens = base.header_count(headers, "x-generated-tokens")
        reply.token_source = None if reply.output_tokens is None else "engine"
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        reply.text = _piece(choices[0], chat)
        _refuse_zero(reply)
        reply.finish_reason = base.finish(choices[0].get("finish_reason"))
        reply.complete = reply.error is None
    elif reply.error is None:
        reply.error = base.failure("no_choices", "the answer holds no choices", status)
    base.ended(reply, status)
    return reply


def _stream(status: int, body: bytes, chat: bool) -> Reply:
    reply = Reply()
    pieces: list[tuple[int, str, int | None]] = []  # offset, text, tokens so far or None
    usage = None
    last: Any = None  # the last object that may hold counts
    first: Any = None
    blank = False  # finish reasons came, and all were empty strings
    for offset, value in base.objects(body, reply, status):
        if first is None:
            first = value
        usage = value.get("usage")
        # A last usage of nothing but zeros says less than one before it.
        if (usage or "timings" in value) and (last is None or not _nothing(usage)):
            last = value
        choices = value.get("choices")
        if not choices:
            reply.error = reply.error or base.envelope(value, status)
            continue
        choice = choices[0] if isinstance(choices, list) else None
        if not isinstance(choice, dict):
            continue
        reason = choice.get("finish_reason")
        if reason:
            reply.finish_reason = base.finish(reason)
        elif reason == "":
            blank = True
        text = _piece(choice, chat)
        if text:
            pieces.append((offset, text, usage.get("completion_tokens") if isinstance(usage, dict) else None))
    if last is not None:
        _counts(reply, last)
    reply.text = "".join([piece[1] for piece in pieces])
    _refuse_zero(reply)
    if pieces and all([type(piece[2]) is int for piece in pieces]):
        before = 0
        for offset, text, sofar in pieces:
            reply.events.append(Event(offset, text, max((sofar or 0) - before, 0)))
            before = sofar or 0
    else:
        reply.events = [Event(offset, text, None) for offset, text, _ in pieces]
        base.spread(reply)
    reply.complete = reply.error is None and (
        reply.finish_reason is not None
        # TGI 1.x never tells the reason in /v1/completions streams: their end is all there is to see.
        or (blank and base.words(first.get("system_fingerprint")).startswith("1."))
    )
    base.cut(reply, body, status)
    base.ended(reply, status)
    if reply.token_source is None and (pieces or reply.error is None):
        reply.output_tokens, reply.token_source = len(pieces), "events"
    return reply
