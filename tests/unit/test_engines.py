"""Canonical settings on every engine: each one that is given changes the command line, or is refused by name."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from pathlib import Path

import gguf_files
import pytest

from llmpar.dialects import DIALECTS, Sampling
from llmpar.dialects import Unsupported as DialectUnsupported
from llmpar.engines import COMMON, ENGINES, base, check
from llmpar.engines.base import Device, Settings, Unsupported
from llmpar.sampling import engine_metrics
from llmpar.serving import launches

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
    "image": "my/image:1",
    "dtype": "bfloat16",
    "quantize": None,
    "max_input_tokens": 777,
    "max_total_tokens": 1777,
    "max_sequences": 7,
    "kv_bytes": 5 * GIB,
    "gpu_memory_utilization": 0.55,
    "shards": 2,
    "speculate": 3,
    "acceptance_length": 2.0,
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
        "ollama": "my-7b:latest",
    }


def line(engine: base.Engine, settings: Settings, runtime: str) -> list[str]:
    launch = engine.command(settings, DEVICE, runtime)
    return [*(f"{name}={value}" for name, value in launch.environment.items()), *launch.argv]


@pytest.mark.parametrize(("name", "runtime"), EVERY)
def test_no_setting_is_ignored(name: str, runtime: str, models: dict[str, str]) -> None:
    engine = ENGINES[name]
    plain = Settings(model=models[name], runtime=runtime)
    for setting, value in VALUES.items():
        if (name, setting) == ("mii", "dtype"):
            continue  # its own test below
        if setting == "quantize":
            value = QUANTIZE.get(name, "awq")
        # A forced acceptance length means nothing without drafts.
        plainer = dataclasses.replace(plain, speculate=3) if setting == "acceptance_length" else plain
        given_value = dataclasses.replace(plainer if setting in engine.supports else plain, **{setting: value})
        if setting not in engine.supports:
            having = sorted(each.name for each in ENGINES.values() if setting in each.supports)
            with pytest.raises(Unsupported) as refused:
                check(engine, given_value)
            assert all(each in str(refused.value) for each in having) and setting in str(refused.value)
            continue
        if setting == "image" and runtime == "local":
            with pytest.raises(Unsupported, match="image is for containers"):
                check(engine, given_value)
            continue
        check(engine, given_value)
        if setting == "version" and runtime == "local":
            if name in ("llamacpp", "ollama"):
                with pytest.raises(Unsupported, match="the one that is installed"):
                    line(engine, given_value, runtime)
            continue  # elsewhere it decides how flags are spelt, and is compared with what is installed
        if engine.defaults.get(setting) == value:
            assert line(engine, given_value, runtime) == line(engine, plainer, runtime)
            continue  # it cannot be otherwise on this engine
        assert line(engine, given_value, runtime) != line(engine, plainer, runtime), (
            f"{name} on {runtime} drops {setting}"
        )


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
    if name in ("mii", "ollama"):
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
    if engine.defaults.get("prefix_cache"):
        with pytest.raises(Unsupported, match="always reuses the prompt"):
            line(engine, off, runtime)
        off = dataclasses.replace(off, prefix_cache=None)
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
# has a default, a simulation takes engines that schedule as vLLM does,
# one format of results is vLLM's, and make setup installs one engine.
NAMED = {
    "commands/import_.py": {"vllm"},
    "dialects/__init__.py": {"tgi", "llamacpp", "mii", "ollama"},
    "machine/checkup.py": {"llamacpp"},
    "other_tools/__init__.py": {"vllm"},
    "serving/record.py": {"llamacpp"},
    "simulate/from_cells.py": {"vllm", "aphrodite", "sglang", "tgi", "lmdeploy", "trtllm"},
    "sweeps.py": {"tgi", "llamacpp", "mii", "ollama"},
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
            "acceptance_length",
        }
    if engine.openai is None:
        with pytest.raises(DialectUnsupported, match=f"--api {engine.api}"):
            DIALECTS["openai-chat"].request("x", "m", Sampling(), False, name)


def chain_of(engine: str, *wanted: str, **settings: object) -> list[str]:
    words = line(ENGINES[engine], Settings(model="7b", **settings), "local")  # type: ignore[arg-type]
    return [words[words.index(flag) + 1] for flag in wanted]


def test_a_number_of_drafts_is_the_same_number_on_every_engine(models: dict[str, str]) -> None:
    """SGLang counts the token that it verifies as well, and drafts a tree ten wide unless it is told a width of one."""
    for drafts in (1, 2, 5):
        sglang = chain_of(
            "sglang", "--speculative-num-draft-tokens", "--speculative-ngram-max-bfs-breadth", speculate=drafts
        )
        assert sglang == [str(drafts + 1), "1"]
        assert chain_of("tgi", "--speculate", speculate=drafts) == [str(drafts)]
        (vllm,) = chain_of("vllm", "--speculative-config", speculate=drafts)
        assert json.loads(vllm)["num_speculative_tokens"] == drafts
    assert not any("specul" in word for word in line(ENGINES["sglang"], Settings(model="7b", speculate=0), "local"))


def test_what_tgi_would_refuse_after_its_start_is_refused_before(models: dict[str, str]) -> None:
    tgi = ENGINES["tgi"]
    for version in ("1.4.4", "3.3.7"):
        assert "--max-batch-size" in line(tgi, Settings(model="7b", version=version, max_sequences=4), "docker")
        for dtype in ("float32", "half", "auto"):
            with pytest.raises(Unsupported, match=f"does not know --dtype '{dtype}': it takes float16, bfloat16"):
                tgi.command(Settings(model="7b", version=version, dtype=dtype), DEVICE, "docker")
    with pytest.raises(Unsupported, match="2048 total tokens by default"):
        tgi.command(Settings(model="7b", version="1.4.4", max_input_tokens=3600), DEVICE, "docker")
    tgi.command(Settings(model="7b", version="3.3.7", max_input_tokens=3600), DEVICE, "docker")


def test_two_engines_of_a_kind_share_no_port(models: dict[str, str]) -> None:
    """Ports of the inside are derived from the server's own, and never are that one."""
    for name in ("tgi", "mii"):
        inner = {}
        for port in (9091, 20001, 28080, 32768, 45002):
            text = " ".join(line(ENGINES[name], Settings(model="7b", port=port), "local"))
            inner[port] = {
                int(word) for word in re.findall(r"(?:port(?:_number)?=|--(?:master|prometheus)-port )(\d+)", text)
            } - {port}
            assert len(inner[port]) == {"tgi": 2, "mii": 3}[name]
            for own in (50050, 50051, 29500, 25555, 9000):
                assert str(own) not in text
        assert len(set().union(*inner.values())) == 5 * len(inner[9091])


def test_an_engine_finds_the_programs_of_its_own_environment(models: dict[str, str], tmp_path: Path) -> None:
    """MII runs `deepspeed` by name, others call ninja or their own commands."""
    for name, engine in ENGINES.items():
        if (
            name in ("llamacpp", "tgi", "ollama", "powerinfer", "ctranslate2", "trtllm")
            or "local" not in engine.runtimes
        ):
            continue  # one executable on the PATH, or a server of ours
        python = tmp_path / "checkout" / f".venv-{name}" / "bin" / "python"
        python.parent.mkdir(parents=True)
        for program in ("python", "vllm", "aphrodite", "transformers", "trtllm-serve", "lmdeploy"):
            (python.parent / program).touch()
        launch = engine.command(Settings(model=models[name], dtype=None), DEVICE, "local")
        assert launch.path == str(python.parent), name
        assert launches.shell_line(launch).startswith(f'PATH={python.parent}:"$PATH" ')


def test_containers_are_out_of_reach_from_outside_and_end_at_their_term(models: dict[str, str]) -> None:
    for name in (name for name, engine in ENGINES.items() if "docker" in engine.runtimes):

        def words_of(name: str = name, **settings: str) -> list[str]:
            return list(ENGINES[name].command(Settings(model=models[name], **settings), DEVICE, "docker").argv)  # type: ignore[arg-type]

        words = words_of()
        assert words[:3] == ["docker", "run", "--init"] and "--gpus" in words, name
        assert words[words.index("-p") + 1].startswith("127.0.0.1:")
        for mount in (words[index + 1] for index, word in enumerate(words) if word == "-v"):
            cache = mount.split(":")[1] in ("/data", "/root/.cache/huggingface", "/root/.ollama/models")
            assert mount.endswith(":ro") or cache, f"{name} mounts {mount}"
        assert "--gpus" not in words_of(gpus="none") and "my/own:1" in words_of(image="my/own:1")


def test_podman_takes_the_same_line_and_names_gpus_its_own_way(models: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    podman = tmp_path / "empty" / "podman"
    podman.write_text("#!/bin/sh\n")
    podman.chmod(0o755)
    plain = ENGINES["llamacpp"].command(Settings(model="m.gguf"), DEVICE, "docker").argv
    assert plain[:5] == ("podman", "run", "--init", "--device", "nvidia.com/gpu=all")
    two = ENGINES["llamacpp"].command(Settings(model="m.gguf", gpus="0,1"), DEVICE, "docker").argv
    assert two[3:7] == ("--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=1")


def test_powerinfer_has_a_slot_to_spare_for_every_client(models: dict[str, str]) -> None:
    """It refuses what finds no free slot, and frees one only after the client has its last event."""
    powerinfer = ENGINES["powerinfer"]
    words = line(powerinfer, Settings(model="m.powerinfer.gguf", max_sequences=4, max_total_tokens=1000), "local")
    assert words[words.index("-np") + 1] == "8" and words[words.index("-c") + 1] == "8000"
    # 512 KiB a token by the file's header (32 layers, 32 heads of 128, 2 bytes): 16 GiB hold 32 slots of 1000 tokens.
    held = powerinfer.command(
        Settings(model="m.powerinfer.gguf", max_sequences=100, max_total_tokens=1000, kv_bytes=16 * GIB),
        Device(),
        "local",
    )
    assert held.argv[held.argv.index("-np") + 1] == "32"
    assert any("16 clients" in note and "does not queue" in note for note in held.notes) and any(
        "no limit" in note for note in held.notes
    )
    with pytest.raises(Unsupported, match="less than the two slots of 2048 tokens"):
        powerinfer.command(Settings(model="m.powerinfer.gguf", kv_bytes=GIB), Device(), "local")
