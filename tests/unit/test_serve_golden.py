"""tests/cases/serve: settings to command lines, word for word, and what is refused. `make golden` rewrites them."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import gguf_files
import pytest

from llmpar import cli
from llmpar.commands import serve as command

CASES = sorted(path for path in (Path(__file__).resolve().parents[1] / "cases" / "serve").iterdir() if path.is_dir())
# Vicuna 7B is a Llama 2 7B: config.json as published.
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "torch_dtype": "float16",
    "max_position_embeddings": 4096,
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No GPU, no engine, no Docker on PATH; a model directory `7b` and files that engines look for, without weights."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("LLMPAR_DATA", "/data")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setattr("llmpar.serving.gpu_memory.gpu_memory", lambda gpus=None: None)
    monkeypatch.setattr("llmpar.engines.installed.CHECKOUT", tmp_path / "checkout")
    for folder in ("7b", "7b-ct2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(LLAMA))
    for name in ("7b-ct2/model.bin", "7b-ct2/tokenizer.json", "7b.powerinfer.gguf"):
        (tmp_path / name).touch()
    gguf_files.write(tmp_path / "7b.gguf", gguf_files.VICUNA)
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path, machine: Path, root: Path, capsys: pytest.CaptureFixture[str], rewrite: bool) -> None:
    words = shlex.split((case / "cmd").read_text(), comments=True)
    assert words[0] == command.NAME
    code = cli.run(command.NAME, command.main.command, [*words[1:], "--dry-run"])
    seen = capsys.readouterr()
    got = {"status": f"{code}\n"}
    for name, text in (("stdout", seen.out), ("stderr", seen.err)):
        for place, short in ((str(machine), "$PWD"), (sys.executable, "$PYTHON"), (str(root), "$ROOT")):
            text = text.replace(place, short)
        got[name] = text
    for name, text in got.items():
        if rewrite:
            (case / name).write_text(text)
        assert (case / name).read_text() == text


def test_the_historic_lines_are_those_of_april_2024() -> None:
    """Not rewritten by --golden-rewrite: the four ways in which users ran then, as they typed them."""
    vicuna = "lmsys/vicuna-7b-v1.5"
    tgi = (
        "docker run --gpus all --shm-size 1g -p 9091:80 -v /data:/data "
        "ghcr.io/huggingface/text-generation-inference:1.4.4 "
        f"--model-id {vicuna} {{}} --num-shard 1 --max-input-length 3600 --max-total-tokens 4000 --speculate 2\n"
    )
    lines = {
        "historic-tgi": tgi.format("--dtype float16"),
        "historic-tgi-eetq": tgi.format("--quantize eetq"),
        "historic-vllm": "docker run --gpus all --ipc=host -p 8000:8000 -v /data:/root/.cache/huggingface "
        f"vllm/vllm-openai:v0.4.0.post1 --model {vicuna} --dtype float16 --max-model-len 4000\n",
        "historic-aphrodite-docker": f"docker run --gpus all --ipc=host -p 2242:7860 -e MODEL_NAME={vicuna} -e "
        "DATATYPE=half "
        "-e CONTEXT_LENGTH=4000 alpindale/aphrodite-engine\n",
        "historic-aphrodite-python": f"python -m aphrodite.endpoints.openai.api_server --model {vicuna} "
        "--dtype half --max-model-len 4000 --port 2242\n",
    }
    folder = CASES[0].parent
    for name, line in lines.items():
        # What is ours: --init ends a container at its TERM, and servers listen on the loopback address only.
        printed = (folder / name / "stdout").read_text()
        assert printed.replace(" --init", "").replace("-p 127.0.0.1:", "-p ").replace(" --host 127.0.0.1", "") == line
        assert name == "historic-aphrodite-python" or printed.count(" --init") == printed.count("-p 127.0.0.1:") == 1
