"""Aphrodite's command line before and after it was rebased on vLLM's newer engine."""

from __future__ import annotations

import json

import pytest

from llmpar.engines import aphrodite, vllm
from llmpar.engines.base import Device, Settings, Unsupported


@pytest.fixture(autouse=True)
def engine_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPAR_ENGINE_PYTHON", "/no/such/python")


def words(**settings: object) -> list[str]:
    made = Settings(model="m", port=1, **settings)  # type: ignore[arg-type]
    return list(aphrodite.command(made, Device(gpu_memory_bytes=48 << 30, weight_bytes=12 << 30), "local").argv)


@pytest.mark.parametrize("version", ["0.20", "0.21.0", None])
def test_from_020_on_it_has_a_command_and_flags_like_vllm(version: str | None) -> None:
    found = words(version=version, dtype="float16", kv_bytes=8 << 30)
    assert found[:3] == ["aphrodite", "serve", "m"]
    assert "--no-enable-prefix-caching" in found  # on by default there, off unless asked here
    assert found[found.index("--kv-cache-memory-bytes") + 1] == str(8 << 30)
    assert found[found.index("--dtype") + 1] == "float16"
    assert "--enable-prefix-caching" in words(version=version, prefix_cache=True)


def test_from_020_on_it_speculates_by_ngrams_as_vllm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = words(version="0.21.0", speculate=2)
    config = json.loads(found[found.index("--speculative-config") + 1])
    assert config == {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
    made = Settings(model="m", port=1, version="0.33.0", speculate=2)
    assert json.dumps(config, separators=(",", ":")) in vllm.command(made, Device(), "local").argv
    assert "--speculative-config" not in words(version="0.21.0", speculate=0)
    with pytest.raises(Unsupported, match="n-gram speculation only"):
        words(version="0.21.0", speculate=2, speculate_method="eagle")


@pytest.mark.parametrize("runtime,version", [("local", "0.6.5"), ("docker", "0.5.2"), ("docker", "0.6.5")])
def test_before_020_it_is_refused_speculation(runtime: str, version: str) -> None:
    made = Settings(model="m", port=1, version=version, speculate=1)
    with pytest.raises(Unsupported, match=r"before 0\.20"):
        aphrodite.command(made, Device(gpu_memory_bytes=48 << 30, weight_bytes=12 << 30), runtime)


def test_before_it_is_a_module_with_a_fraction_of_the_card() -> None:
    found = words(version="0.6.5", dtype="float16", kv_bytes=8 << 30)
    assert found[1:3] == ["-m", "aphrodite.endpoints.openai.api_server"]
    assert found[found.index("--dtype") + 1] == "half" and "--gpu-memory-utilization" in found
    assert "--no-enable-prefix-caching" not in found
