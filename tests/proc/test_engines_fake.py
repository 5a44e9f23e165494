"""The engines that need a GPU, each launched by its own command line over the fake engine of its dialect, asked as the
study asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from engines_on_path import FAKE, docker, executable
from fake import fake_engine

from llmpar import procfs
from llmpar.dialects import DIALECTS, Sampling
from llmpar.engines import ENGINES, check
from llmpar.engines.base import Device, Settings
from llmpar.engines.docker import container_argv
from llmpar.serving import containers, launches, ports, run
from llmpar.serving.record import ServerRecord

CASES = [
    # engine, runtime, version, the fake's dialect, what a line of its own says to find the port
    ("tgi", "docker", "1.4.4", "tgi", None),
    ("tgi", "docker", None, "tgi-3", None),
    ("vllm", "docker", "0.4.0.post1", "vllm-0.4", None),
    ("vllm", "docker", None, "vllm", None),
    ("aphrodite", "docker", "0.5.2", "aphrodite", None),
    ("trtllm", "docker", None, "trtllm", None),
    ("sglang", "docker", None, "sglang", None),
    ("lmdeploy", "docker", None, "lmdeploy", None),
    ("ollama", "docker", None, "ollama", None),
    ("mii", "local", None, "mii", r"s/.*restful_api_port=\([0-9]*\).*/\1/p"),
    ("powerinfer", "local", None, "powerinfer", r"s/.*--port \([0-9]*\).*/\1/p"),
]


@pytest.fixture(autouse=True)
def own_path(clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # engines_on_path changes PATH; monkeypatch puts it back.
    monkeypatch.setenv("PATH", os.environ["PATH"])


@pytest.mark.parametrize("name, runtime, version, dialect, port", CASES, ids=[f"{each[3]}-{each[1]}" for each in CASES])
def test_launch_wait_ask_and_end(
    name: str,
    runtime: str,
    version: str | None,
    dialect: str,
    port: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = "m.gguf" if name == "powerinfer" else "org/m"
    # Engines that know one name only refuse others, and so does the fake.
    if port is None:
        docker(tmp_path, dialect, f"--model {model}")
    else:
        own = executable(
            tmp_path,
            "engine-of-its-own",
            f"port=$(sed -n '{port}' <<< \"$*\")\nexec '{sys.executable}' '{FAKE}' "
            f'--engine {dialect} --port "$port"\n',
        )
        monkeypatch.setenv("LLMPAR_ENGINE_PYTHON", str(own))
        monkeypatch.setenv("LLMPAR_POWERINFER", str(own))
    engine = ENGINES[name]
    settings = Settings(
        model=model,
        version=version,
        runtime=runtime,
        dtype=None if name in ("mii", "powerinfer", "ollama") else "float16",
        max_total_tokens=4000,
    )
    check(engine, settings)
    made = [
        container_argv(each, containers.owner())
        for each in launches.launches(engine, settings, Device(), runtime, [ports.free()])
    ]
    record = ServerRecord(str(tmp_path), engine, settings, runtime, made)
    said: list[str] = []
    with run.running(
        engine,
        made,
        str(tmp_path),
        record,
        str(tmp_path),
        "127.0.0.1",
        None,
        30.0,
        lambda *words: said.append(str(words)),
    ) as servers:
        pid = servers.servers[0].process.pid
        sampling = Sampling(max_tokens=6, temperature=0.1, top_p=0.3, top_k=100)
        for stream in (False, True) if name != "mii" else (False,):
            call = DIALECTS[engine.api].request("Once upon a time", made[0].model, sampling, stream, engine.name)
            answer = requests.post(servers.base_url + call.path, json=call.body, timeout=20)
            reply = DIALECTS[engine.api].parse(
                answer.status_code,
                {key.lower(): value for key, value in answer.headers.items()},
                answer.content,
                stream,
            )
            assert (reply.error, reply.output_tokens, reply.token_source, reply.complete) == (None, 6, "engine", True)
            assert sum(event.tokens or 0 for event in reply.events) == (6 if stream else 0)
        for url in record.fields["metrics_urls"]:
            assert requests.get(url, timeout=20).status_code == 200
    assert record.fields["outcome"] == "ok" and record.fields["probe"]["output_tokens"] >= 1
    assert procfs.members(pid) == [] and not ports.taken(made[0].port), said


def test_powerinfer_refuses_what_finds_no_slot_and_the_record_says_so(tmp_path: Path) -> None:
    (tmp_path / "slow.txt").write_text("x\nfake: gap_ms=40 tokens=12")
    for stream, kind in (("--stream", "cut_stream"), ("--no-stream", "no_free_slot")):
        with fake_engine(engine="powerinfer", tokens=12, slots=1) as server:
            command = (
                f"parallel -j3 llmpar-request --base-url {server.url} --engine powerinfer --api llamacpp "
                f"{stream} {{}} ::: slow.txt slow.txt slow.txt"
            )
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        failed = [row for row in rows if row["status"] != "ok"]
        assert len(rows) == 3 and failed and {row["error"]["type"] for row in failed} == {kind}
        assert all("--max-sequences" in row["error"]["message"] for row in failed)


def test_every_engine_is_proven_somehow() -> None:
    """Here over the fake engine, or for real by scripts/engines."""
    script = (Path(__file__).resolve().parents[2] / "scripts" / "engines").read_text()
    real = {name for name in ENGINES if f"--engine {name} " in script}
    assert real >= {"llamacpp", "vllm", "transformers", "ctranslate2", "tgi", "powerinfer", "sglang", "ollama"}
    assert {case[0] for case in CASES} | real == set(ENGINES)
