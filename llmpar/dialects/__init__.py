"""The wire dialects: how each kind of API is asked and read. Pure: no sockets, no clocks.

Each module has `request(prompt, model, sampling, stream, engine) -> Call`, which raises Unsupported, and
`parse(status, headers, body, stream) -> Reply`, which never raises; headers have lower-case names, the body is whole
and free of chunk framing.
"""

from __future__ import annotations

from typing import Protocol

from llmpar.dialects import llamacpp, mii, ollama, openai_chat, openai_completions, tgi
from llmpar.dialects.base import Call, Event, Reply, Sampling, Unsupported

__all__ = ["DIALECTS", "Call", "Dialect", "Event", "Reply", "Sampling", "Unsupported"]


class Dialect(Protocol):
    def request(
        self, prompt: str, model: str | None, sampling: Sampling, stream: bool, engine: str | None = None
    ) -> Call: ...

    def parse(self, status: int, headers: dict[str, str], body: bytes, stream: bool) -> Reply: ...


DIALECTS: dict[str, Dialect] = {
    "openai-completions": openai_completions,
    "openai-chat": openai_chat,
    "tgi": tgi,
    "llamacpp": llamacpp,
    "mii": mii,
    "ollama": ollama,
}
