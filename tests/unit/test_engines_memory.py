"""KV bytes into each engine's own measure, and the sizes read from a model's files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpar.engines import ENGINES, check, memory, model_files
from llmpar.engines.base import Device, Settings, Unsupported
from llmpar.engines.memory import GIB, REST_BYTES

LLAMA_7B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "torch_dtype": "float16",
}
MISTRAL_7B = {**LLAMA_7B, "model_type": "mistral", "intermediate_size": 14336, "num_key_value_heads": 8}
QWEN2_05B = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "vocab_size": 151936,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def test_parameters_are_those_published() -> None:
    # 6,738,415,616 and 7,241,732,096 are the model cards' own counts; Qwen2-0.5B's 494,032,768 has 31,232 biases more.
    assert sum(memory.parameters(LLAMA_7B)) == 6_738_415_616
    assert sum(memory.parameters(MISTRAL_7B)) == 7_241_732_096
    assert 494_032_768 - sum(memory.parameters(QWEN2_05B)) == 24 * (896 + 2 * 128)


def test_kv_bytes_per_token() -> None:
    assert memory.kv_bytes_per_token(LLAMA_7B) == GIB // 2048  # half a MiB
    assert memory.kv_bytes_per_token(MISTRAL_7B) == GIB // 8192
    assert memory.kv_bytes_per_token(LLAMA_7B, shards=2) == GIB // 4096
    assert memory.kv_bytes_per_token(MISTRAL_7B, shards=16) == memory.kv_bytes_per_token(
        MISTRAL_7B, shards=8
    )  # one head at least
    assert memory.kv_bytes_per_token({**QWEN2_05B, "head_dim": 128}) == 2 * 24 * 2 * 128 * 2


def test_weight_bytes() -> None:
    assert memory.weight_bytes(LLAMA_7B, "float16", None) == 2 * 6_738_415_616
    assert memory.weight_bytes(LLAMA_7B, None, None) == memory.weight_bytes(LLAMA_7B, "half", None)
    assert memory.weight_bytes(LLAMA_7B, "float32", None, shards=2) == 2 * 6_738_415_616
    # Half a byte a weight and a scale for each group, embeddings in full: AWQ checkpoints of it are 3.9 GB.
    assert 3.7e9 < memory.weight_bytes(LLAMA_7B, "float16", "awq") < 4.1e9
    assert 6.7e9 < memory.weight_bytes(LLAMA_7B, "float16", "eetq") < 7.1e9
    with pytest.raises(ValueError, match="'q9' is not known"):
        memory.weight_bytes(LLAMA_7B, None, "q9")
    with pytest.raises(ValueError, match="mamba"):
        memory.weight_bytes({**LLAMA_7B, "model_type": "mamba"}, None, None)


def test_24_of_48_gb_is_one_setting() -> None:
    """The study's cap: 8.4 GiB of cache is half of a 45 GiB card, and 0.27 of what is free after the weights."""
    device = Device(45 * GIB, memory.weight_bytes(LLAMA_7B, "float16", None), memory.kv_bytes_per_token(LLAMA_7B))
    settings = Settings(kv_bytes=round(8.45 * GIB))
    assert memory.fraction_of_card(settings, device) == pytest.approx(0.5, abs=0.002)
    assert memory.fraction_of_free(settings, device) == pytest.approx(0.27, abs=0.005)
    assert memory.bytes_kept_free(settings, device) == pytest.approx(22.5 * GIB, rel=0.005)


@given(card=st.integers(8 * GIB, 200 * GIB), weights=st.integers(0, 100 * GIB), kv=st.integers(1, 150 * GIB))
def test_all_three_meanings_give_the_same_bytes(card: int, weights: int, kv: int) -> None:
    device, settings = Device(card, weights), Settings(kv_bytes=kv)
    if weights + kv + REST_BYTES > 0.99 * card:
        with pytest.raises(Unsupported, match="do not fit"):
            memory.fraction_of_card(settings, device)
        with pytest.raises(Unsupported, match="do not fit"):
            memory.bytes_kept_free(settings, device)
        return
    step = card / 10000
    assert memory.fraction_of_card(settings, device) * card - weights - REST_BYTES == pytest.approx(kv, abs=step)
    assert card - weights - REST_BYTES - memory.bytes_kept_free(settings, device) == kv
    free = card - weights - REST_BYTES
    if kv <= 0.99 * free:
        assert memory.fraction_of_free(settings, device) * free == pytest.approx(kv, abs=step)


@pytest.mark.parametrize("device, names", [(Device(), "--gpu-memory-bytes"), (Device(48 * GIB), "--weight-bytes")])
def test_what_is_unknown_names_the_option_to_give(device: Device, names: str) -> None:
    with pytest.raises(Unsupported, match=names):
        memory.fraction_of_card(Settings(kv_bytes=GIB), device)


def _model(folder: Path, config: dict | None, **files: int) -> Path:
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    for name, size in files.items():
        with open(folder / name.replace("__", "."), "wb") as stream:
            stream.truncate(size)
    return folder


def test_weights_as_stored(tmp_path: Path) -> None:
    model = str(_model(tmp_path / "m", LLAMA_7B, a__safetensors=700, b__safetensors=300, pytorch_model__bin=999))
    assert model_files.measured(Settings(model=model), Device()) == Device(None, 1000, GIB // 2048)
    assert model_files.measured(Settings(model=model, dtype="float16", shards=2), Device()).weight_bytes == 500
    # Changed while loading: counted, not read.
    assert model_files.measured(Settings(model=model, dtype="float32"), Device()).weight_bytes == 4 * 6_738_415_616
    assert model_files.measured(Settings(model=model, quantize="eetq"), Device()).weight_bytes == memory.weight_bytes(
        LLAMA_7B, None, "eetq"
    )
    # What was named is kept.
    assert model_files.measured(Settings(model=model), Device(1, 2, 3)) == Device(1, 2, 3)


def test_weights_of_a_quantised_checkpoint_are_its_files(tmp_path: Path) -> None:
    model = str(_model(tmp_path / "m", {**LLAMA_7B, "quantization_config": {"quant_method": "awq"}}, a__safetensors=77))
    assert model_files.measured(Settings(model=model, quantize="awq"), Device()).weight_bytes == 77


def test_without_weights_they_are_counted(tmp_path: Path) -> None:
    model = str(_model(tmp_path / "m", LLAMA_7B))
    assert model_files.measured(Settings(model=model, dtype="float16"), Device()).weight_bytes == 2 * 6_738_415_616


def test_a_model_in_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HOME", raising=False)
    assert model_files.folder("org/name") is None
    place = _model(tmp_path / "data" / "hub" / "models--org--name" / "snapshots" / "abc", MISTRAL_7B)
    monkeypatch.setenv("LLMPAR_DATA", str(tmp_path / "data"))
    assert model_files.folder("org/name") == place
    assert model_files.measured(Settings(model="org/name"), Device()).kv_bytes_per_token == GIB // 8192


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"model_type": "llama"}', '{"hidden_size": "many", "num_attention_heads": 1}']
)
def test_a_config_that_tells_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert model_files.measured(Settings(model=str(tmp_path)), Device()) == Device()


def test_no_model_is_no_device() -> None:
    assert model_files.measured(Settings(), Device()) == Device()
    assert model_files.measured(Settings(model="not/here"), Device(5)) == Device(5)


def test_a_share_of_the_card_is_passed_on_and_excludes_bytes():
    wanted = Settings(model="m", version="0.33.0", runtime="docker", gpu_memory_utilization=0.5)
    for name, flag in (
        ("vllm", "--gpu-memory-utilization"),
        ("aphrodite", "--gpu-memory-utilization"),
        ("tgi", "--cuda-memory-fraction"),
        ("sglang", "--mem-fraction-static"),
    ):
        argv = ENGINES[name].command(wanted, Device(), "docker").argv
        assert argv[argv.index(flag) + 1] == "0.5", name
        with pytest.raises(Unsupported, match="give one of them"):
            ENGINES[name].command(dataclasses.replace(wanted, kv_bytes=GIB), Device(), "docker")
    with pytest.raises(Unsupported, match="is a setting of aphrodite, sglang, tgi, vllm"):
        check(ENGINES["llamacpp"], wanted)
