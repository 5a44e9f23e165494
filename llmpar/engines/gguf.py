"""The few numbers of a GGUF file that memory arithmetic needs, read from its header.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little endian). PowerInfer's sparse
models are the same under a magic of their own.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

_SIZES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
MAGICS = (b"GGUF", b"PWRI")


class NotGguf(ValueError):
    """The file is not a GGUF file of a known version."""


def header(path: str) -> dict[str, Any]:
    """The file's metadata up to the tokenizer's: scalars, strings, and lists of numbers; other lists are left out.

    Raises NotGguf, OSError.
    """
    with open(path, "rb") as stream:
        magic, version, _, count = struct.unpack("<4sIQQ", _take(stream, 24))
        if magic not in MAGICS or version not in (2, 3):
            raise NotGguf(f"'{path}' is not a GGUF file")
        found: dict[str, Any] = {}
        for _ in range(count):
            key = _string(stream)
            if key.startswith("tokenizer."):
                break  # its lists are long, and what memory arithmetic needs stands before it
            (kind,) = struct.unpack("<I", _take(stream, 4))
            if kind == _STRING:
                found[key] = _string(stream)
            elif kind == _ARRAY:
                values = _list(stream)
                if values is not None:
                    found[key] = values
            elif kind in _SIZES:
                form = "<" + _SIZES[kind]
                (found[key],) = struct.unpack(form, _take(stream, struct.calcsize(form)))
            else:
                raise NotGguf(f"'{path}' has a value of unknown type {kind}")
        return found


def kv_bytes_per_token(path: str, bytes_per_value: int = 2) -> int | None:
    """Bytes of keys and values that one token holds in all layers; None where the header does not tell."""
    metadata = header(path)
    kind = metadata.get("general.architecture")
    layers = metadata.get(f"{kind}.block_count")
    heads = metadata.get(f"{kind}.attention.head_count_kv", metadata.get(f"{kind}.attention.head_count"))
    width = metadata.get(f"{kind}.attention.key_length")
    if width is None and metadata.get(f"{kind}.embedding_length") and metadata.get(f"{kind}.attention.head_count"):
        width = metadata[f"{kind}.embedding_length"] // metadata[f"{kind}.attention.head_count"]
    values = metadata.get(f"{kind}.attention.value_length", width)
    if not (layers and heads and width and values):
        return None
    # One number for all layers, or one for each.
    heads_in_all = sum(heads) if isinstance(heads, list) else layers * heads
    return int(heads_in_all * (width + values) * bytes_per_value)


def _list(stream: BinaryIO) -> list[Any] | None:
    kind, count = struct.unpack("<IQ", _take(stream, 12))
    if kind in _SIZES:
        if count > 1 << 20:
            raise NotGguf("a list of more than a million numbers before the tokenizer's")
        form = f"<{count}{_SIZES[kind]}"
        return list(struct.unpack(form, _take(stream, struct.calcsize(form))))
    if kind != _STRING:
        raise NotGguf(f"a list of unknown type {kind}")
    for _ in range(count):
        _string(stream)
    return None


def _take(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise NotGguf("the file ends inside its header")
    return data


def _string(stream: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", _take(stream, 8))
    if length > 1 << 20:
        raise NotGguf("a string of more than 1 MiB in the header")
    return _take(stream, length).decode("utf-8", "replace")
