"""llmpar-calibrate with a Python that answers for one with torch, and what llmpar-simulate makes of its card record."""

from __future__ import annotations

import ast
import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import called
import pytest
from unit.test_summary_docs import fields

from llmpar.simulate import calibration, cards
from llmpar.simulate.models import Refused

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = "engine\tmodel\tclients\tcount\tmax_tokens\nvllm\tvicuna-7b-v1.5\t16\t32\t50\n"


def measured(**changes: Any) -> dict[str, Any]:
    h100 = cards.card("h100")
    made: dict[str, Any] = {
        "title": "NVIDIA Something 9",
        "memory_bytes": h100.memory_bytes,
        "measured_bandwidth_bytes_per_s": 2.8e12,
        "measured_tensor_flops": 7e14,
        "torch": "torch 2.11, CUDA 13.0",
    }
    made |= {key: getattr(h100, key) for key in cards.POINTS}
    return made | changes


def python_that_prints(tmp_path: Path, text: str, status: int = 0) -> str:
    """In place of a Python with torch: checks that it was given the microbenchmark and prints."""
    path = tmp_path / "python"
    path.write_text(
        f"#!/bin/sh\ncase \"$2\" in *'import torch'*) ;; *) exit 9 ;; esac\ncat {tmp_path}/answer\n[ {status} = 0 ] "
        f"|| echo \"ModuleNotFoundError: No module named 'torch'\" >&2\nexit {status}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "answer").write_text(text)
    return str(path)


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return called.run_text(arguments, given)


def test_a_card_of_its_own_predicts_as_its_table_says(tmp_path: Path) -> None:
    python = python_that_prints(tmp_path, json.dumps(measured()))
    where = str(tmp_path / "card.json")
    done = run("llmpar-calibrate", "--python", python, "-o", where)
    assert done.returncode == 0, done.stderr
    record = json.loads(Path(where).read_text())
    assert set(record) == fields("card")
    assert record["name"] == "something-9"
    assert record["bandwidth_bytes_per_s"] == pytest.approx(2.8e12 / cards.MEMORY_REACHED)
    done = run(
        "llmpar-simulate",
        "--card",
        where,
        "--card",
        "h100",
        "--prompt-tokens",
        "200",
        "--format",
        "json",
        "-",
        given=TABLE,
    )
    assert done.returncode == 0, done.stderr
    own, published = (json.loads(line) for line in done.stdout.splitlines())
    assert (own["basis"], published["basis"]) == ("microbenchmark", "kernel table")
    rates = [each["figures"]["output_tokens_per_s"]["value"] for each in (own, published)]
    assert rates[0] == pytest.approx(rates[1], rel=0.02)


def test_a_known_card_keeps_its_datasheet() -> None:
    record = calibration.record(measured(title="NVIDIA H100 80GB HBM3"))
    assert record["bandwidth_bytes_per_s"] == 3352e9 and record["measured_bandwidth_bytes_per_s"] == 2.8e12


@pytest.mark.parametrize(
    "text, status, words",
    [("", 1, "name the Python of an engine"), ("hello", 0, "no kernel times"), ("{}", 0, "title")],
)
def test_a_python_that_cannot(tmp_path: Path, text: str, status: int, words: str) -> None:
    done = run("llmpar-calibrate", "--python", python_that_prints(tmp_path, text, status))
    assert done.returncode == (4 if status else 1) and words in done.stderr and "Traceback" not in done.stderr


def test_figures_that_cannot_be_are_refused() -> None:
    with pytest.raises(Refused, match="as many times"):
        calibration.record(measured(tokens=[1, 2]))
    with pytest.raises(Refused, match="time of 0"):
        calibration.record(measured(head_ms=[0.0] * len(cards.card("h100").head_ms)))


@pytest.mark.parametrize(
    "text, words", [("{}", "not a card record"), ("[1]", "not a card record"), ('{"kind":"card","v":1}', "name")]
)
def test_a_file_that_is_no_card(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(Refused, match=words):
        cards.card(str(tmp_path / "x.json"))


def test_the_microbenchmark_imports_nothing_of_llmpar_and_times_the_table_s_model() -> None:
    tree = ast.parse(calibration.source())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"json", "sys", "time", "torch"}
    from llmpar.simulate import microbenchmark, models

    model = models.load("llama-3.1-8b")
    assert (model.layers, model.hidden, model.intermediate) == (
        microbenchmark.LAYERS,
        microbenchmark.HIDDEN,
        microbenchmark.INTERMEDIATE,
    )
    assert (model.kv_heads * model.head, model.vocabulary) == (microbenchmark.KV, microbenchmark.VOCABULARY)


def test_the_microbenchmark_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/fake_torch"))
    where = str(tmp_path / "card.json")
    done = run("llmpar-calibrate", "--seconds", "1", "--name", "fake", "-o", where)
    assert done.returncode == 0, done.stderr
    card = cards.card(where)
    assert (card.name, card.memory_bytes, card.basis) == ("fake", 48 << 30, "microbenchmark")
    assert len(card.tokens) == len(card.dense_ms) > 15 and min(card.dense_ms) > 0 and card.tokens[-1] == 4096


def test_the_gpu_is_chosen_among_the_visible_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert calibration.environment(1)["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert calibration.environment(2)["CUDA_VISIBLE_DEVICES"] == "2"
