"""The work: COUNT prompts of some 300 words, and for curl the same requests as bodies, each in a file of its own."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = "the mill by the river was old when the road was new and nobody knows who built the wheel " * 16


def write(folder: Path, count: int, tokens: int) -> tuple[list[str], list[str]]:
    """Names of prompt files and of body files. Prompts begin with their file's name, by which a server's log is
    matched."""
    prompts, bodies = folder / "prompts", folder / "bodies"
    prompts.mkdir(parents=True, exist_ok=True)
    bodies.mkdir(exist_ok=True)
    for number in range(count):
        name = f"p{number:05d}"
        text = f"{name} {WORDS.strip()}"
        (prompts / name).write_text(text + "\n")
        (bodies / name).write_text(
            json.dumps(
                {
                    "model": "truth",
                    "prompt": text,
                    "max_tokens": tokens,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                }
            )
        )
    return (
        [str(prompts / f"p{number:05d}") for number in range(count)],
        [str(bodies / f"p{number:05d}") for number in range(count)],
    )
