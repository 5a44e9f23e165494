"""`mii`: DeepSpeed-MII's REST gateway, POST /mii/DEPLOYMENT. It does not stream, so time to first token is unknown
there."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from llmpar.dialects import base
from llmpar.dialects.base import Call, Reply, Sampling, Unsupported


def request(prompt: str, model: str | None, sampling: Sampling, stream: bool, engine: str | None = None) -> Call:
    """The call for one prompt; `model` is the deployment's name. Raises Unsupported for streaming, seeds and several
    stop texts."""
    if stream:
        raise Unsupported(
            "mii does not stream over REST: use --no-stream, or its OpenAI server with --api openai-completions"
        )
    if not model:
        raise Unsupported("mii needs the deployment's name in the path: give it as --model")
    if sampling.seed is not None:
        raise Unsupported("mii takes no seed: leave --seed out")
    body: dict[str, Any] = {"prompts": [prompt]}
    if sampling.max_tokens is not None:
        body["max_new_tokens"] = sampling.max_tokens
    if sampling.temperature == 0:
        body["do_sample"] = False
    else:
        if sampling.temperature is not None:
            body["temperature"] = sampling.temperature
        if sampling.top_k is not None and sampling.top_k > 0:
            body["top_k"] = sampling.top_k
        if sampling.top_p is not None:
            body["top_p"] = sampling.top_p
    if sampling.ignore_eos:
        body["ignore_eos"] = True
    if sampling.stop:
        if len(sampling.stop) > 1:
            raise Unsupported("mii takes one stop text over REST: give one --stop")
        body["stop"] = sampling.stop[0]  # a list fails every request with 500
    return Call("/mii/" + quote(model, safe=""), body, base.keep(body, "prompts"))


def parse(status: int, headers: dict[str, str], body: bytes, stream: bool) -> Reply:
    """Read a whole answer. Never raises."""
    if not 200 <= status < 300:
        return Reply(error=base.refused(status, headers, body))
    reply = Reply()
    value = base.document(body, reply, status, unwrap=True)
    if value is None:
        return reply
    text = value.get("generated_text")
    if isinstance(text, str):
        reply.text = text
        reply.prompt_tokens = base.whole(value.get("prompt_length"))
        reply.output_tokens = base.whole(value.get("generated_length"))
        reply.token_source = None if reply.output_tokens is None else "engine"
        reply.finish_reason = base.finish(value.get("finish_reason"))
        reply.complete = reply.error is None
    elif reply.error is None:
        reply.error = base.failure("no_text", "the answer holds no generated_text", status)
    return reply
