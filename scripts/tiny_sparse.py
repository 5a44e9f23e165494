"""A tiny Llama with activation predictors for PowerInfer: FILE. Random weights (seed 0), bytes and a few words as
tokens.

The file is GGUF 3 under the magic that PowerInfer gives sparse models; the down projection is stored transposed, and
each layer has the two matrices of its predictor. Made to prove the engine end to end: it speaks nonsense.
"""

from __future__ import annotations

import struct
import sys

import numpy as np

LAYERS, WIDTH, HEADS, HIDDEN, PREDICTOR, CONTEXT = 2, 128, 4, 512, 64, 4096
WORDS = [
    "the",
    "mill",
    "was",
    "a",
    "small",
    "one",
    "of",
    "and",
    "wind",
    "it",
    "river",
    "to",
    "in",
    "is",
    "house",
    "green",
]
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
ALIGNMENT = 32


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, value: object) -> bytes:
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    if isinstance(value, int):
        return text(key) + struct.pack("<II", 4, value)
    assert isinstance(value, list)
    if isinstance(value[0], str):
        return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    kind, letter = (6, "f") if isinstance(value[0], float) else (5, "i")
    return text(key) + struct.pack(f"<IIQ{len(value)}{letter}", 9, kind, len(value), *value)


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *("▁" + word for word in WORDS),
        *(chr(code) for code in range(33, 127)),
        "▁",
    ]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(tokens) - 259)]
    return tokens, [-float(number) for number in range(len(tokens))], kinds


def tensors(vocabulary_size: int) -> list[tuple[str, np.ndarray]]:
    """Names and values; a matrix is (rows, columns) with the columns contiguous, as the format lists them backwards."""
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float16)

    output = matrix(vocabulary_size, WIDTH) * np.float16(8)
    output[: 3 + 256] = 0  # it never says a lone byte: PowerInfer goes past n_predict where a character is incomplete
    made: list[tuple[str, np.ndarray]] = [
        ("token_embd.weight", matrix(vocabulary_size, WIDTH)),
        ("output_norm.weight", np.ones(WIDTH, np.float32)),
        ("output.weight", output),
    ]
    for layer in range(LAYERS):
        for name, value in (
            ("attn_norm", np.ones(WIDTH, np.float32)),
            ("attn_q", matrix(WIDTH, WIDTH)),
            ("attn_k", matrix(WIDTH, WIDTH)),
            ("attn_v", matrix(WIDTH, WIDTH)),
            ("attn_output", matrix(WIDTH, WIDTH)),
            ("ffn_norm", np.ones(WIDTH, np.float32)),
            ("ffn_gate", matrix(HIDDEN, WIDTH)),
            ("ffn_down_t", matrix(HIDDEN, WIDTH)),
            ("ffn_up", matrix(HIDDEN, WIDTH)),
            ("fc1", matrix(PREDICTOR, WIDTH)),
            ("fc2", matrix(HIDDEN, PREDICTOR)),
        ):
            made.append((f"blk.{layer}.{name}.weight", value))
    return made


def write(path: str) -> None:
    tokens, scores, kinds = vocabulary()
    head = {
        "general.architecture": "llama",
        "general.name": "tiny-sparse",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": HIDDEN,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "general.file_type": 1,
        "powerinfer.sparse_threshold": 0.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    values = tensors(len(tokens))
    listed, data, offset = b"", b"", 0
    for name, value in values:
        shape = value.shape[::-1]
        listed += text(name) + struct.pack(
            f"<I{len(shape)}QIQ", len(shape), *shape, 1 if value.dtype == np.float16 else 0, offset
        )
        raw = value.tobytes()
        raw += bytes(-len(raw) % ALIGNMENT)
        data += raw
        offset += len(raw)
    start = (
        struct.pack("<4sIQQ", b"PWRI", 3, len(values), len(head))
        + b"".join(pair(*item) for item in head.items())
        + listed
    )
    with open(path, "wb") as stream:
        stream.write(start + bytes(-len(start) % ALIGNMENT) + data)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: tiny_sparse.py FILE.powerinfer.gguf")
    write(sys.argv[1])
