"""Prompt sets: synthetic text of given token lengths, readers of other formats, manifests and their hash. No I/O.

A set is a directory with one file a prompt, so that `parallel llmpar-request ::: DIR/*` reads naturally, and a manifest
in `.manifest.jsonl`, whose leading dot keeps it out of that glob.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any


class BadPrompts(ValueError):
    """An input or a set that is not what it should be; the text names what and where."""


@dataclass(frozen=True)
class Prompt:
    """One prompt before it has a file. `output_tokens`: length of the reply in the source, where it has one."""

    text: str
    tokens: int
    token_source: str  # rule, tokenizer, server
    source: str
    source_id: str | None = None
    output_tokens: int | None = None


def record(name: str, prompt: Prompt) -> dict[str, Any]:
    """The manifest's record of one prompt."""
    data = prompt.text.encode()
    return {
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


def names(stem: str, number: int) -> list[str]:
    """File names that sort in order: stem-1.txt … or stem-0001.txt …"""
    width = len(str(number))
    return [f"{stem}-{index:0{width}d}.txt" for index in range(1, number + 1)]
