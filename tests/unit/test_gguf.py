"""The header of a GGUF file: what memory arithmetic reads from it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from gguf_files import VICUNA, write
from hypothesis import given
from hypothesis import strategies as some

from llmpar.engines import gguf


def test_vicuna_7b_holds_half_a_mebibyte_a_token(tmp_path: Path) -> None:
    assert gguf.kv_bytes_per_token(write(tmp_path / "a.gguf", VICUNA)) == 512 * 1024


def test_grouped_heads_own_head_sizes_and_heads_by_layer(tmp_path: Path) -> None:
    grouped = {
        "llama.attention.head_count_kv": 8,
        "llama.attention.key_length": 64,
        "llama.attention.value_length": 32,
    } | {key: value for key, value in VICUNA.items() if key != "llama.attention.head_count_kv"}
    assert gguf.kv_bytes_per_token(write(tmp_path / "a.gguf", grouped)) == 32 * 8 * (64 + 32) * 2
    layered = VICUNA | {"llama.attention.head_count_kv": [8] * 16 + [0] * 16}
    assert gguf.kv_bytes_per_token(write(tmp_path / "b.gguf", layered)) == 16 * 8 * 256 * 2


def test_unknown_where_the_header_does_not_tell(tmp_path: Path) -> None:
    assert (
        gguf.kv_bytes_per_token(write(tmp_path / "a.gguf", {"general.architecture": "mamba", "mamba.block_count": 4}))
        is None
    )


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"PK\x03\x04" + b"\0" * 40)
    with pytest.raises(gguf.NotGguf, match="not a GGUF file"):
        gguf.header(str(tmp_path / "a"))


@given(cut=some.integers(0, 400))
def test_a_file_that_ends_inside_its_header_is_refused_or_whole(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.gguf"
    whole = Path(write(path, VICUNA)).read_bytes()
    needed = whole.index(b"tokenizer.")
    path.write_bytes(whole[:cut])
    if cut < needed:
        with pytest.raises(gguf.NotGguf):
            gguf.header(str(path))
    else:
        with pytest.raises(gguf.NotGguf) if cut < needed + len("tokenizer.ggml.tokens") else contextlib.nullcontext():
            assert gguf.header(str(path))["llama.block_count"] == 32
