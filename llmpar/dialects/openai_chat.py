"""`openai-chat`: POST /v1/chat/completions, the prompt as one user message."""

from __future__ import annotations

from llmpar.dialects import base, openai
from llmpar.dialects.base import Call, Reply, Sampling


def request(prompt: str, model: str | None, sampling: Sampling, stream: bool, engine: str | None = None) -> Call:
    """The call for one prompt. Raises Unsupported for what the engine cannot do."""
    body: dict = {"model": model} if model is not None else {}
    body |= {"messages": [{"role": "user", "content": prompt}], **openai.settings(sampling, stream, engine)}
    return Call("/v1/chat/completions", body, base.keep(body, "model", "messages"))


def parse(status: int, headers: dict[str, str], body: bytes, stream: bool) -> Reply:
    """Read a whole answer. Never raises."""
    return openai.parse(status, headers, body, stream, chat=True)
