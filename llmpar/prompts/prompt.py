"""Prompt sets: synthetic text of given token lengths, readers of other formats, manifests and their hash. No I/O.

A set is a directory with one file a prompt, so that `parallel llmpar-request ::: DIR/*` reads naturally, and a manifest
in `.manifest.jsonl`, whose leading dot keeps it out of that glob.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson


class BadPrompts(ValueError):
    """An input or a set that is not what it should be; the text names what and where."""


@dataclass(frozen=True)
class Prompt:
    """One prompt before it has a file.

    `output_tokens`: length of the reply in the source, where it has one; `at_s`: when it came there, in seconds.
    `max_tokens`, `model`: what it asks for itself.
    """

    text: str
    tokens: int
    token_source: str  # rule, tokenizer, server
    source: str
    source_id: str | None = None
    output_tokens: int | None = None
    at_s: float | None = None
    max_tokens: int | None = None
    model: str | None = None

    def data(self) -> bytes:
        """The file: the text, or a `.prompt.json` where the prompt asks for something itself."""
        own = self.own()
        return orjson.dumps({"prompt": self.text} | own) + b"\n" if own else self.text.encode()

    def own(self) -> dict[str, Any]:
        """What the prompt asks for itself, by the names of a `.prompt.json`."""
        return {name: value for name, value in (("max_tokens", self.max_tokens), ("model", self.model)) if value}


def record(name: str, prompt: Prompt) -> dict[str, Any]:
    """The manifest's record of one prompt."""
    data = prompt.data()
    found = {
        "kind": "prompt",
        "v": 1,
        "name": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "tokens": prompt.tokens,
        "token_source": prompt.token_source,
        "source": prompt.source,
        "source_id": prompt.source_id,
        "output_tokens": prompt.output_tokens,
    }
    # Only where there is one, so that a set without has the manifest that it always had.
    more = {"at_s": prompt.at_s, "max_tokens": prompt.max_tokens, "model": prompt.model}
    return found | {key: value for key, value in more.items() if value is not None}


def names(stem: str, made: Sequence[Prompt]) -> list[str]:
    """File names that sort in order: stem-1.txt … or stem-0001.txt …, `.prompt.json` for those that ask for something
    themselves."""
    width = len(str(len(made)))
    return [
        f"{stem}-{index:0{width}d}{'.prompt.json' if prompt.own() else '.txt'}" for index, prompt in enumerate(made, 1)
    ]
