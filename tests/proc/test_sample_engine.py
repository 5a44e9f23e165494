"""llmpar-sample-engine as a process, beside the fake engine."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake import fake_engine

from llmpar import records
from llmpar.sampling import engine_figures, engine_metrics

ASK = """
import json, sys, threading, urllib.request
def ask(url):
    body = json.dumps({"prompt": "one two three", "max_tokens": 40, "stream": True}).encode()
    urllib.request.urlopen(urllib.request.Request(url, body), timeout=30).read()
threads = [threading.Thread(target=ask, args=(url,)) for url in sys.argv[1:] for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["llmpar-sample-engine", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def read(path: str) -> list[dict]:
    with open(path, "rb") as stream:
        return list(records.read(stream, path))


def test_beside_a_command_it_sees_what_the_engine_did(tmp_path: Path) -> None:
    with fake_engine(engine="vllm", tokens=40, gap_ms=20, slots=2) as server:
        done = run(
            "--interval",
            "0.1",
            "-o",
            "e.jsonl",
            "--",
            sys.executable,
            "-c",
            ASK,
            server.url + "/v1/completions",
            LLMPAR_METRICS_URLS=server.url + "/metrics",
            LLMPAR_SERVER_PIDS=str(server.pid),
        )
        assert done.returncode == 0 and done.stdout == done.stderr == ""
        truth = server.truth(3)
    samples = read("e.jsonl")
    assert all(
        sample["kind"] == "engine" and sample["error"] is None and sample["processes"] == 1 for sample in samples
    )
    assert max(sample["running"] for sample in samples) == 2 and max(sample["waiting"] for sample in samples) == 1
    # The last sample is taken after the command: it has all that the truth log has.
    assert samples[-1]["generation_tokens_total"] == sum(entry["tokens"] for entry in truth) == 120
    assert samples[-1]["prompt_tokens_total"] == 9 and samples[-1]["counters_at_end"] is False
    counts = [sample["generation_tokens_total"] for sample in samples]
    assert counts == sorted(counts) and len(set(counts)) > 5
    found = engine_figures.reduce(samples, truth[0]["received_at"], max(entry["ended_at"] for entry in truth))
    assert found["running"]["max"] == 2 and found["rss_bytes_max"] > 1e6 and found["cpu_cores_mean"] < 2


@pytest.mark.parametrize(
    "engine,tokens", [("llamacpp", True), ("tgi", True), ("aphrodite", False), ("vllm-0.4", False), ("sglang", True)]
)
def test_counters_that_move_at_the_end_are_said_to(engine: str, tokens: bool, tmp_path: Path) -> None:
    with fake_engine(engine=engine) as server:
        done = run("--duration", "0.3", "--interval", "0.1", "--metrics-url", server.url + "/metrics")
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        sample = json.loads(line)
        assert (sample["running"], sample["counters_at_end"], sample["generation_tokens_total"]) == (0, tokens, 0)


@pytest.mark.parametrize(
    "engine,path,ratio,room",
    [
        ("llamacpp", "/completion", 0.1, 2000),
        ("tgi", "/generate_stream", 0.2, 1000),
        ("tgi-3", "/generate_stream", None, None),
    ],
)
def test_use_of_the_cache_where_the_metrics_alone_do_not_tell_it(
    engine: str, path: str, ratio: float | None, room: int | None, tmp_path: Path
) -> None:
    with fake_engine(engine=engine, slots=2) as server:
        body = json.dumps({"prompt": "fake: stall=60", "inputs": "fake: stall=60", "stream": True}).encode()
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        for client in clients:
            client.sendall(b"POST %s HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
        while server.counters()["running"] != 2:
            pass
        done = run("--duration", "0.1", "--metrics-url", server.url + "/metrics")
        for client in clients:
            client.close()
    sample = json.loads(done.stdout.splitlines()[0])
    assert (sample["running"], sample["kv_usage_ratio"], sample["kv_capacity_tokens"]) == (2, ratio, room)
    assert "kv_used_tokens" not in sample


def test_replicas_are_kept_apart_and_added_up(tmp_path: Path) -> None:
    with (
        fake_engine(engine="vllm", tokens=20, gap_ms=10) as one,
        fake_engine(engine="vllm", tokens=20, gap_ms=10) as two,
    ):
        urls = f"{one.url}/metrics {two.url}/metrics"
        done = run(
            "--interval",
            "0.1",
            "--",
            sys.executable,
            "-c",
            ASK,
            one.url + "/v1/completions",
            two.url + "/v1/completions",
            LLMPAR_METRICS_URLS=urls,
        )
        assert done.returncode == 0
        last = read("engine.jsonl")[-1]
        assert [replica["url"] for replica in last["replicas"]] == urls.split()
        assert [replica["generation_tokens_total"] for replica in last["replicas"]] == [60, 60]
        assert last["generation_tokens_total"] == 120
        one.stop()
        done = run("--duration", "0.2", "--interval", "0.1", LLMPAR_METRICS_URLS=urls)
    sample = json.loads(done.stdout.splitlines()[0])
    assert sample["generation_tokens_total"] is None and "cannot connect" in sample["error"]
    assert [replica["error"] for replica in sample["replicas"]] == ["cannot connect", None]


@pytest.mark.parametrize(
    "written,said", [("two words", "'key' does not hold one API key"), (None, "cannot read the API key file 'key'")]
)
def test_a_file_that_holds_no_key_is_told_of_and_the_command_runs(
    written: str | None, said: str, tmp_path: Path
) -> None:
    if written:
        Path("key").write_text(written)
    with fake_engine() as server:
        done = run("--api-key-file", "key", "-o", "e.jsonl", "--", "true", LLMPAR_METRICS_URLS=server.url + "/metrics")
    assert (
        done.returncode == 0
        and said in done.stderr
        and "going on without a key" in done.stderr
        and "two words" not in done.stderr
    )
    assert read("e.jsonl")[-1]["error"] is None


def test_a_silent_server_gives_nulls_and_never_ends_it(tmp_path: Path) -> None:
    with fake_engine(no_metrics=True) as server:
        done = run("--duration", "0.3", "--interval", "0.1", LLMPAR_BASE_URL=server.url)
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(samples) >= 3
    assert all("http 404" in sample["error"] and sample["running"] is None for sample in samples)
    assert done.stderr.count("http 404") == 1  # said once, then counted
    assert f"{len(samples)} of {len(samples)} samples" in done.stderr


def test_a_server_that_appears_later_is_sampled_from_then_on(tmp_path: Path) -> None:
    with fake_engine() as server:
        port, url = server.port, server.url
    sampler = subprocess.Popen(
        ["llmpar-sample-engine", "--interval", "0.1", "--metrics-url", url + "/metrics"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert sampler.stdout is not None
    assert json.loads(sampler.stdout.readline())["error"]
    with fake_engine(port=port):
        while json.loads(sampler.stdout.readline())["error"]:
            pass
    while not json.loads(sampler.stdout.readline())["error"]:
        pass
    sampler.send_signal(signal.SIGTERM)
    assert sampler.wait(10) == 143
    sampler.stdout.close()


def test_nothing_to_sample(tmp_path: Path) -> None:
    alone = run()
    assert alone.returncode == 4 and "nothing to sample" in alone.stderr and alone.stdout == ""
    beside = run("--", "sh", "-c", "echo ran; exit 5")
    assert (beside.returncode, beside.stdout) == (5, "ran\n") and "nothing to sample" in beside.stderr
    assert not Path("engine.jsonl").exists()
    assert run("--", "true", LLMPAR_METRICS_URLS="", LLMPAR_BASE_URL="http://127.0.0.1:1").returncode == 0
    assert run(LLMPAR_SERVER_PIDS="x").returncode == 2


def test_the_commands_status_and_signals_come_through(tmp_path: Path) -> None:
    with fake_engine() as server:
        url = ["--metrics-url", server.url + "/metrics"]
        assert run(*url, "--", "sh", "-c", "exit 7").returncode == 7
        assert run(*url, "--", "sh", "-c", "kill -KILL $$").returncode == 128 + 9
        assert run(*url, "--", "/nosuch/command").returncode == 127
        assert run(*url, "-o", "/nosuch/file", "--", "touch", "ran").returncode == 2 and not Path("ran").exists()
        sampler = subprocess.Popen(
            [
                "llmpar-sample-engine",
                *url,
                "--",
                "sh",
                "-c",
                "trap 'echo caught; exit 9' TERM; echo up; while :; do sleep 0.1; done",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert sampler.stdout is not None and sampler.stdout.readline() == "up\n"
        sampler.send_signal(signal.SIGTERM)
        assert sampler.stdout.read() == "caught\n" and sampler.wait(10) == 9
        sampler.stdout.close()
    assert read("engine.jsonl")


def test_descendants_are_counted_and_cpu_of_the_ended_is_kept(tmp_path: Path) -> None:
    # It rests before it ends, so that a sample sees all that it used however late samples are.
    burn = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(1)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); input()"
    parent = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE)
    assert parent.stdin is not None
    sampler = subprocess.Popen(
        ["llmpar-sample-engine", "--interval", "0.05", "--pid", str(parent.pid)], stdout=subprocess.PIPE, text=True
    )
    assert sampler.stdout is not None
    samples = [json.loads(sampler.stdout.readline())]
    limit = time.monotonic() + 20
    while not (samples[-1]["processes"] == 1 and (samples[-1]["cpu_s"] or 0) > 0.25) and time.monotonic() < limit:
        samples.append(json.loads(sampler.stdout.readline()))
    cpu = [sample["cpu_s"] for sample in samples]
    assert cpu == sorted(cpu) and cpu[-1] > 0.25
    parent.stdin.close()
    parent.wait()
    while json.loads(sampler.stdout.readline())["processes"] is not None:
        assert time.monotonic() < limit
    sampler.send_signal(signal.SIGINT)
    assert sampler.wait(10) == 130
    sampler.stdout.close()
    assert all(sample["running"] is None and sample["error"] is None for sample in samples)


def test_a_reader_that_leaves_ends_it(tmp_path: Path) -> None:
    with fake_engine() as server:
        done = subprocess.run(
            [
                "bash",
                "-o",
                "pipefail",
                "-c",
                f"llmpar-sample-engine --interval 0.05 --metrics-url {server.url}/metrics | head -1",
            ],
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 1


def test_records_have_the_fields_that_the_reference_lists(root: Path, tmp_path: Path) -> None:
    section = (root / "docs/records.md").read_text().split("## engine, version 1")[1].split("\n## ")[0]
    listed = [
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])
    ]
    with fake_engine() as one, fake_engine() as two:
        done = run("--duration", "0.1", LLMPAR_METRICS_URLS=f"{one.url}/metrics {two.url}/metrics")
    sample = json.loads(done.stdout.splitlines()[0])
    assert sorted(sample) == sorted(listed)
    assert set(sample["replicas"][0]) == {"url", "error", *engine_metrics.FIELDS}
    figures = section.split("reduces the samples")[1]
    assert set(engine_figures.reduce([sample], 0, 1)) <= set(re.findall(r"`([a-z_]+)`", figures))


def test_a_server_that_hangs_costs_a_sample_and_no_more(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run(
            "--interval",
            "0.2",
            "--",
            "sleep",
            "0.7",
            LLMPAR_METRICS_URLS=f"http://127.0.0.1:{silent.getsockname()[1]}/metrics",
        )
    assert done.returncode == 0
    samples = read("engine.jsonl")
    assert samples and all("timed out" in sample["error"] and sample["running"] is None for sample in samples)
