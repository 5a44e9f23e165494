"""`openai-completions`: POST /v1/completions."""

from __future__ import annotations

from llmpar.dialects import base, openai
from llmpar.dialects.base import Call, Reply, Sampling


def request(prompt: str, model: str | None, sampling: Sampling, stream: bool, engine: str | None = None) -> Call:
    """The call for one prompt. Raises Unsupported for what the engine cannot do."""
    body = {"model": model} if model is not None else {}
    body |= {"prompt": prompt, **openai.settings(sampling, stream, engine)}
    return Call("/v1/completions", body, base.keep(body, "model", "prompt"))


def parse(status: int, headers: dict[str, str], body: bytes, stream: bool) -> Reply:
    """Read a whole answer. Never raises."""
    return openai.parse(status, headers, body, stream, chat=False)
