"""GGUF headers made byte by byte as the format's document has it; files without weights."""

from __future__ import annotations

import struct
from pathlib import Path


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, value: object) -> bytes:
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    if isinstance(value, list):
        return text(key) + struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)
    return text(key) + struct.pack("<II", 4, value)


def write(path: Path, pairs: dict[str, object]) -> str:
    path.write_bytes(
        struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(pair(key, value) for key, value in pairs.items())
    )
    return str(path)


VICUNA = {
    "general.architecture": "llama",
    "general.tags": ["text", "chat"],
    "llama.block_count": 32,
    "llama.embedding_length": 4096,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 32,
    "tokenizer.ggml.tokens": ["<s>"] * 50,
}
