"""Canonical settings on every engine: each one that is given changes the command line, or is refused by name."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import gguf_files
import pytest

from llmpar.dialects import DIALECTS, Sampling
from llmpar.dialects import Unsupported as DialectUnsupported
from llmpar.engines import COMMON, ENGINES, base, check
from llmpar.engines.base import Device, Settings, Unsupported
from llmpar.sampling import engine_metrics

GIB = 1 << 30
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "torch_dtype": "float16",
}
DEVICE = Device(gpu_memory_bytes=48 * GIB, weight_bytes=13 * GIB, kv_bytes_per_token=512 * 1024)
VALUES: dict[str, object] = {
    "version": "9.9.9",
    "dtype": "float32",
    "quantize": None,
    "max_input_tokens": 777,
    "max_total_tokens": 1777,
    "max_sequences": 7,
    "kv_bytes": 5 * GIB,
    "shards": 2,
    "speculate": 3,
    "prefix_cache": True,
    "gpus": "1",
    "seed": 4321,
}
QUANTIZE = {
    "tgi": "awq",
    "vllm": "awq",
    "aphrodite": "awq",
    "mii": "wf6af16",
    "ctranslate2": "int8",
    "transformers": "bnb-4bit",
    "sglang": "awq",
    "lmdeploy": "awq",
}
SETTINGS = [each.name for each in dataclasses.fields(Settings)]
EVERY = [(name, runtime) for name, engine in ENGINES.items() for runtime in engine.runtimes]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A model that each engine takes; no engine is installed."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr("llmpar.engines.installed.CHECKOUT", tmp_path / "checkout")
    for folder in ("7b", "ct2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(LLAMA))
    for name in ("ct2/model.bin", "ct2/tokenizer.json"):
        (tmp_path / name).touch()
    for name in ("m.gguf", "m.powerinfer.gguf"):
        gguf_files.write(tmp_path / name, gguf_files.VICUNA)
    return dict.fromkeys(ENGINES, "7b") | {
        "llamacpp": "m.gguf",
        "powerinfer": "m.powerinfer.gguf",
        "ctranslate2": "ct2",
    }


def line(engine: base.Engine, settings: Settings, runtime: str) -> list[str]:
    launch = engine.command(settings, DEVICE, runtime)
    return [*(f"{name}={value}" for name, value in launch.environment.items()), *launch.argv]


@pytest.mark.parametrize(("name", "runtime"), EVERY)
def test_no_setting_is_ignored(name: str, runtime: str, models: dict[str, str]) -> None:
    engine = ENGINES[name]
    plain = Settings(model=models[name], runtime=runtime)
    before = line(engine, plain, runtime)
    for setting, value in VALUES.items():
        if (name, setting) == ("mii", "dtype"):
            continue  # its own test below
        if setting == "quantize":
            value = QUANTIZE.get(name, "awq")
        given_value = dataclasses.replace(plain, **{setting: value})
        if setting not in engine.supports:
            having = sorted(each.name for each in ENGINES.values() if setting in each.supports)
            with pytest.raises(Unsupported) as refused:
                check(engine, given_value)
            assert all(each in str(refused.value) for each in having) and setting in str(refused.value)
            continue
        check(engine, given_value)
        if setting == "version" and runtime == "local":
            if name == "llamacpp":
                with pytest.raises(Unsupported, match="the one that is installed"):
                    line(engine, given_value, runtime)
            continue  # elsewhere it decides how flags are spelt, and is compared with what is installed
        assert line(engine, given_value, runtime) != before, f"{name} on {runtime} drops {setting}"


@pytest.mark.parametrize("name", ENGINES)
def test_the_method_of_speculation_is_ngram_or_refused(name: str, models: dict[str, str]) -> None:
    engine = ENGINES[name]
    settings = Settings(model=models[name], speculate=3, speculate_method="ngram")
    if "speculate" not in engine.supports:
        with pytest.raises(Unsupported, match="has no speculate; it is a setting of .*llamacpp.*tgi.*vllm"):
            check(engine, settings)
        return
    check(engine, settings)
    assert line(engine, settings, engine.runtimes[0]) == line(
        engine, dataclasses.replace(settings, speculate_method=None), engine.runtimes[0]
    )
    for other in (
        dataclasses.replace(settings, speculate_method="eagle3"),
        dataclasses.replace(settings, speculate=None),
    ):
        with pytest.raises(Unsupported, match="speculate|draft model"):
            check(engine, other)
            line(engine, other, engine.runtimes[0])


@pytest.mark.parametrize(("name", "runtime"), EVERY)
def test_port_extra_arguments_and_api(name: str, runtime: str, models: dict[str, str]) -> None:
    engine = ENGINES[name]
    settings = Settings(model=models[name], port=43210)
    assert "43210" in " ".join(line(engine, settings, runtime))
    settings = dataclasses.replace(settings, engine_args=("--brand-new", "a b"))
    if name == "mii":
        with pytest.raises(Unsupported, match="no flags"):
            line(engine, settings, runtime)
    else:
        text = " ".join(line(engine, settings, runtime))
        assert "--brand-new" in text and "a b" in text
    assert (
        engine.api in DIALECTS
        and engine.default_port > 1024
        and engine.supports <= set(SETTINGS) - COMMON | {"version"}
    )


@pytest.mark.parametrize(("name", "runtime"), EVERY)
def test_what_is_off_need_not_exist(name: str, runtime: str, models: dict[str, str]) -> None:
    engine = ENGINES[name]
    plain = Settings(model=models[name], runtime=runtime)
    off = dataclasses.replace(plain, speculate=0, prefix_cache=False, shards=1, replicas=1)
    check(engine, off)
    assert line(engine, off, runtime) == line(engine, plain, runtime)


@pytest.mark.parametrize("name", ENGINES)
def test_a_runtime_that_an_engine_lacks_is_refused(name: str, models: dict[str, str]) -> None:
    engine = ENGINES[name]
    for runtime in {"local", "docker"} - set(engine.runtimes):
        with pytest.raises(Unsupported, match="docker" if runtime == "local" else "local"):
            check(engine, Settings(model=models[name], runtime=runtime))


def test_mii_runs_the_model_in_its_own_type(models: dict[str, str]) -> None:
    engine = ENGINES["mii"]
    assert line(engine, Settings(model="7b", dtype="float16"), "local") == line(engine, Settings(model="7b"), "local")
    for model, dtype in (("7b", "bfloat16"), ("no/such", "float16")):
        with pytest.raises(Unsupported, match="its own type"):
            engine.command(Settings(model=model, dtype=dtype), DEVICE, "local")


def test_kv_bytes_buy_slots_of_llama_cpp_up_to_those_wanted(models: dict[str, str]) -> None:
    engine, device = ENGINES["llamacpp"], Device()  # the file's header has the bytes of a token
    settings = Settings(model="m.gguf", max_total_tokens=1000, kv_bytes=10 * 512 * 1024 * 1000)
    words = line(engine, settings, "local")
    assert words[words.index("-np") + 1] == "10" and words[words.index("-c") + 1] == "10000"
    for asked, got in ((4, 4), (64, 10)):
        launch = engine.command(dataclasses.replace(settings, max_sequences=asked), device, "local")
        assert (
            launch.argv[launch.argv.index("-np") + 1] == str(got)
            and f"{got} sequences of 1000 tokens" in launch.notes[0]
        )
    with pytest.raises(Unsupported, match="less than one sequence"):
        engine.command(dataclasses.replace(settings, kv_bytes=512 * 1024 * 999), device, "local")


# Where a file outside llmpar/engines may name an engine: dialects are called after the engine that speaks them, a sweep
# has a default, one format of results is vLLM's, and make setup installs one engine.
NAMED = {
    "commands/import_.py": {"vllm"},
    "dialects/__init__.py": {"tgi", "llamacpp", "mii"},
    "machine/checkup.py": {"llamacpp"},
    "other_tools.py": {"vllm"},
    "serving/record.py": {"llamacpp"},
    "sweeps.py": {"llamacpp"},
}


def test_what_is_known_of_an_engine_is_in_its_file() -> None:
    package = Path(base.__file__).parent.parent
    named = {}
    for path in package.rglob("*.py"):
        words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        if path.parent.name != "engines" and words & set(ENGINES):
            named[str(path.relative_to(package))] = words & set(ENGINES)
    assert named == NAMED


@pytest.mark.parametrize("name", ENGINES)
def test_a_row_is_whole(name: str) -> None:
    engine = ENGINES[name]
    assert engine.name == name and engine.api in DIALECTS
    assert engine.packages or engine.version_at or name == "powerinfer", "its version is never known"
    if engine.metrics and engine.metrics.names:
        assert engine.metrics.prefix and engine.metrics.names.keys() <= {
            *engine_metrics.FIELDS,
            "swapped",
            "kv_used_tokens",
        }
    if engine.openai is None:
        with pytest.raises(DialectUnsupported, match=f"--api {engine.api}"):
            DIALECTS["openai-chat"].request("x", "m", Sampling(), False, name)
