"""Phases of a cold start out of log lines as engines write them; sources beside each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from llmpar.engines import ENGINES
from llmpar.results import words
from llmpar.serving.startup import Watch

# vLLM 0.9, from its issue 20264; two ranks as in pull request 23066; 0.19 says "took" where it said "takes".
VLLM = """INFO 06-19 23:04:59 [gpu_model_runner.py:1250] Starting to load model /m...
(TP0 pid=39) INFO 06-19 23:05:01 [loader.py:447] Loading weights took 0.69 seconds
(TP0 pid=39) INFO 06-19 23:05:01 [gpu_model_runner.py:1273] Model loading took 3.4213 GiB and 0.902026 seconds
(TP1 pid=40) INFO 06-19 23:05:01 [gpu_model_runner.py:1273] Model loading took 3.4213 GiB memory and 1.25 seconds
INFO 06-19 23:05:18 [monitor.py:33] torch.compile takes 7.51 s in total
INFO 06-19 23:05:35 [gpu_model_runner.py:1608] Graph capturing finished in 17 secs, took 0.48 GiB
INFO 06-19 23:05:35 [core.py:162] init engine (profile, create kv cache, warmup model) took 34.11 seconds
"""
# SGLang, from pull requests 15426 and 12978; later releases tell the time of loading themselves.
SGLANG = """[2025-12-23 14:18:00] Init torch distributed begin.
[2025-12-23 14:18:01] Load weight begin. avail mem=46.81 GB
[2025-12-23 14:18:07 TP0] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=31.7 GB.
[2025-11-10 19:59:09 TP1] Capture cuda graph end. Time elapsed: 11.35 s. mem usage=1.04 GB. avail mem=11.22 GB.
[2025-11-10 19:59:09 TP0] Capture cuda graph end. Time elapsed: 11.39 s. mem usage=1.00 GB. avail mem=11.17 GB.
"""
SGLANG_LATER = """[2026-05-15 08:39:30 TP0] Load weight begin. avail mem=78.1 GB
[2026-05-15 08:39:38 TP0] Load weight end. elapsed=8.01 s, type=Qwen3MoeForCausalLM, dtype=torch.bfloat16
[2026-05-15 08:40:32 TP0] Capture target decode CUDA graph end. elapsed=16.40 s, mem usage=1.93 GB.
"""
# TGI 3, from its issue 2823, coloured as on a terminal.
TGI = """2024-12-11T10:03:51.366772Z  INFO shard-manager: text_generation_launcher: Starting shard rank=0
2024-12-11T10:04:00.680759Z  INFO shard-manager: text_generation_launcher: Shard ready in 9.313982844s rank=0
\x1b[2m2024-12-11T10:04:00.802105Z\x1b[0m \x1b[32m INFO\x1b[0m text_generation_router_v3: Warming up model
2024-12-11T10:04:03.614039Z  INFO text_generation_launcher: Cuda Graphs are enabled for sizes [32, 16, 8, 4, 2, 1]
2024-12-11T10:04:04.302105Z  INFO text_generation_router_v3: Setting max batch total tokens to 2484579
"""
# llama.cpp's server of October 2026, as the embedded engine writes it.
LLAMACPP = """0.00.003.352 I srv          init: loading model
0.00.003.401 I srv    load_model: loading model '/models/gemma-3-270m-q4_k_m.gguf'
0.01.592.254 I cmn          init: llama threadpool init, n_threads = 2
1.01.714.660 I srv          init: model loaded
1.01.714.684 I srv          init: listening on http://127.0.0.1:33979
"""


@pytest.mark.parametrize(
    ("engine", "log", "found"),
    [
        ("vllm", VLLM, {"weights": 1.25, "compile": 7.51, "graphs": 17.0}),
        ("aphrodite", VLLM, {"weights": 1.25, "compile": 7.51, "graphs": 17.0}),
        (
            "vllm",
            "torch.compile took 9.04 s in total\nLoading weights took 2.6 seconds",
            {"weights": 2.6, "compile": 9.04},
        ),
        ("sglang", SGLANG, {"weights": 6.0, "graphs": 11.39}),
        ("sglang", SGLANG_LATER, {"weights": 8.01, "graphs": 16.4}),
        ("tgi", TGI, {"weights": 9.313982844, "graphs": 3.5}),
        ("llamacpp", LLAMACPP, {"weights": 61.711308}),
        ("tgi", "nothing of the kind", {}),
    ],
)
def test_phases_of_a_log(engine: str, log: str, found: dict[str, float]) -> None:
    startup = ENGINES[engine].startup
    assert startup is not None
    assert {name: pytest.approx(value) for name, value in found.items()} == startup.phases(log)


def test_every_engine_that_tells_says_when_it_begins_to_load() -> None:
    for engine, log in (("vllm", VLLM), ("sglang", SGLANG), ("tgi", TGI), ("llamacpp", LLAMACPP)):
        Path("log").write_text(log)
        watch = Watch(ENGINES[engine], "log", time.monotonic())
        watch.look()
        assert watch.weights_from is not None, engine


def test_a_line_that_comes_in_two_pieces_is_seen() -> None:
    Path("log").write_text("[2025-12-23 14:18:01] Load wei")
    watch = Watch(ENGINES["sglang"], "log", time.monotonic() - 3.0)
    watch.look()
    assert watch.weights_from is None
    with open("log", "a") as stream:
        stream.write("ght begin.\n")
    watch.look()
    assert watch.weights_from is not None and watch.weights_from >= 3.0
    found = watch.phases(10.0, 0.5)
    assert found["first_token_s"] == 0.5 and found["weights_s"] is None
    assert found["other_s"] == pytest.approx(10.0 - found["spawn_s"] - 0.5, abs=0.01)


def test_an_engine_without_words_for_it_has_its_first_token_alone() -> None:
    silent: Any = ENGINES["ctranslate2"]
    watch = Watch(silent, "nowhere", 0.0)
    watch.look()
    assert watch.phases(2.0, 0.25) == {
        "spawn_s": None,
        "weights_s": None,
        "compile_s": None,
        "graphs_s": None,
        "first_token_s": 0.25,
        "other_s": 1.75,
    }


def test_a_start_in_words() -> None:
    assert words.startup(None) == "" and words.startup({"ready_s": 2.2}) == "2.20 s"
    started = {"ready_s": 30.0, "startup": {"spawn_s": 4.04, "weights_s": 12.0, "compile_s": None, "other_s": 13.9}}
    assert words.startup(started) == "30.0 s (spawn 4.0, weights 12.0, other 13.9)"
