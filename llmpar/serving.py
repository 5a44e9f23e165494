"""Start one engine (or several copies behind a balancer), wait until it truly answers, and take everything down again."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

from llmpar import runtime, status
from llmpar.cli import Failure
from llmpar.dialects import DIALECTS, Sampling
from llmpar.engines.base import Engine, Launch

TERM_S = 20.0  # from TERM to KILL: vLLM took 4 s once and 61 s once with a stream open
KILL_S = 10.0
LOG_TAIL_BYTES = 65536
# (outcome, what the log says, what to tell): the engine's own come first.
FAILURES = (
    ("out_of_memory", r"CUDA out of memory.*|OutOfMemoryError.*|out of memory.*|No available memory for the cache blocks.*"
     r"|larger than the available KV cache memory.*|std::bad_alloc|Cannot allocate memory", "out of memory"),
    ("port_taken", r"[Aa]ddress already in use|port is already allocated", "the port is taken"),
    ("missing_image", r"Unable to find image .*|manifest unknown.*|pull access denied.*", "the image is not there and could not be pulled"),
    ("no_docker", r"Cannot connect to the Docker daemon.*", "no docker daemon runs"),
    ("no_gpu", r"could not select device driver.*|No CUDA GPUs are available|no CUDA-capable device.*"
     r"|Failed to infer device type|Found no NVIDIA driver.*", "no GPU is to be had"),
    ("unknown_model", r"is not a local folder and is not a valid model identifier.*|Repository Not Found.*|RepositoryNotFoundError"
     r"|does not appear to have a file named.*|No such file or directory: .*config\.json.*|Can't load the configuration.*",
     "the model is not there"),
    ("bad_arguments", r"unrecognized arguments: .*|error: argument .*|unexpected argument .*", "the engine refused its arguments"),
)  # fmt: skip


@dataclass
class Started:
    """One running server."""

    launch: Launch
    process: subprocess.Popen[bytes]
    log: str
    url: str
    ended: bool = False


@dataclass
class Serving:
    """All that llmpar-serve has started."""

    engine: Engine
    servers: list[Started] = field(default_factory=list)
    balancer: subprocess.Popen[bytes] | None = None
    base_url: str = ""
    ready_s: float | None = None
    probe: dict[str, Any] | None = None
    state: str | None = None


def port_owner(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: where llmpar-serve is killed with -9, the engine still gets a TERM.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)


def spawn(launch: Launch, log: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a launch in a session of its own, its output appended to the log. Raises Failure where it cannot be run."""
    with open(log, "ab") as stream:
        stream.write(f"# {' '.join(launch.argv)}\n".encode())
        stream.flush()
        try:
            return subprocess.Popen(launch.argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                                    start_new_session=True, preexec_fn=_die_with_parent,
                                    env={**environment, **launch.environment})  # fmt: skip
        except OSError as error:
            raise Failure(f"cannot run '{launch.argv[0]}': {error.strerror}", status.UNAVAILABLE,
                          "llmpar-doctor says what is missing") from None  # fmt: skip


def tail(log: str) -> str:
    """The end of a log, as text."""
    with open(log, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - LOG_TAIL_BYTES))
        return stream.read().decode("utf-8", "replace")


def explain(engine: Engine, log: str, code: int | None) -> tuple[str, str]:
    """(outcome, text) of a launch that failed, from its log."""
    text = tail(log)
    for outcome, pattern, say in (*engine.failures, *FAILURES):
        found = re.search(pattern, text)
        if found:
            line = text[text.rfind("\n", 0, found.start()) + 1 :].split("\n", 1)[0].strip()
            return outcome, f"{say}: {line[:300]}"
    if code is not None and code in (-signal.SIGKILL, 137):
        return "out_of_memory", "it was killed, by the kernel for want of memory or by somebody"
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    # Python engines warn on after the exception that ended them.
    last = next((line for line in reversed(lines) if re.search(r"\w(Error|Exception): \S", line)), lines[-1] if lines else "it said nothing")
    return "crashed", f"its last words: {last[:300]}"


class NotReady(Failure):
    """The engine did not come up; `outcome` is for the server record."""

    def __init__(self, outcome: str, message: str, hint: str):
        super().__init__(message, status.UNAVAILABLE, hint)
        self.outcome = outcome


def wait_ready(engine: Engine, started: Started, timeout_s: float, api: str, deadline_from: float,
               sampling: Sampling | None = None) -> dict[str, Any]:
    """Ask for two tokens, greedily or by `sampling`, until one comes: {"status", "text", "output_tokens", "waited_s", "sampling"}.

    Raises NotReady where the process ends, the engine keeps refusing the question, or the time is over.
    """
    dialect = DIALECTS[api]
    call = dialect.request("Hello, how are", started.launch.model or None, sampling or Sampling(max_tokens=2, temperature=0.0), False, engine.name)
    last, refused_since = "nothing listens yet", None
    with requests.Session() as session:
        session.trust_env = False  # no proxy between us and our own server
        session.headers["connection"] = "close"  # nothing stays open that the engine could wait for at its end
        while True:
            code = started.process.poll()
            if code is not None:
                outcome, why = explain(engine, started.log, code)
                raise NotReady(outcome, f"{engine.title} ended before it was ready: {why}", f"its log: {started.log}")
            try:
                answer = session.post(started.url + call.path, json=call.body, timeout=(2, 60))
                reply = dialect.parse(answer.status_code, {key.lower(): value for key, value in answer.headers.items()}, answer.content, False)
                if answer.status_code == 200 and reply.error is None and (reply.output_tokens or reply.text):
                    return {"status": answer.status_code, "text": reply.text, "output_tokens": reply.output_tokens,
                            "waited_s": round(time.monotonic() - deadline_from, 3), "sampling": call.sampling}  # fmt: skip
                last = str(reply.error["message"] if reply.error else f"HTTP {answer.status_code}")[:300]
                refused = 400 <= answer.status_code < 500 and answer.status_code not in (408, 425, 429)
                refused_since = (refused_since or time.monotonic()) if refused else None
            except requests.RequestException as error:
                last = f"{type(error).__name__}"
            now = time.monotonic()
            if refused_since is not None and now - refused_since > 10:
                raise NotReady("refused", f"{engine.title} runs but refuses to generate: {last}", f"its log: {started.log}")
            if now - deadline_from > timeout_s:
                raise NotReady("timeout", f"{engine.title} was not ready after {timeout_s:.0f} s: {last}",
                               f"its log: {started.log}; --ready-timeout gives it longer")  # fmt: skip
            time.sleep(0.1)


def root_pids(servers: Sequence[Started]) -> list[int]:
    """The process to follow for each server: of a container the first one inside, which is no child of Docker's client."""
    found = []
    for each in servers:
        pid: int = each.process.pid
        if each.launch.container:
            with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
                done = subprocess.run(["docker", "inspect", "--format", "{{.State.Pid}}", each.launch.container],
                                      stdin=subprocess.DEVNULL, capture_output=True, timeout=20)  # fmt: skip
                pid = int(done.stdout) or pid
        found.append(pid)
    return found


def look(url: str) -> Any:
    """What a server says at a URL, as JSON; None where it says nothing of the kind."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(url, timeout=5)
            return answer.json() if answer.status_code == 200 else None
    except (requests.RequestException, ValueError):
        return None


NGINX = """\
# Made by llmpar-serve: the request goes to the server with the fewest open ones, and nothing is buffered.
daemon off;
worker_processes 1;
pid "{folder}/nginx.pid";
error_log "{folder}/nginx.log";
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path "{folder}/nginx-body";
  proxy_temp_path "{folder}/nginx-proxy";
  fastcgi_temp_path "{folder}/nginx-fastcgi";
  uwsgi_temp_path "{folder}/nginx-uwsgi";
  scgi_temp_path "{folder}/nginx-scgi";
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  upstream engine {{
    least_conn;
{servers}
    keepalive 512;
    # Engines close idle connections after 5 s; one that is just being closed would cost a request.
    keepalive_timeout 2s;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_connect_timeout 60s;
      proxy_read_timeout 1d;
      proxy_send_timeout 1d;
      proxy_next_upstream off;
    }}
  }}
}}
"""


def balancer_config(port: int, ports: Sequence[int], folder: str) -> str:
    """nginx's configuration: least connections, streaming unbuffered, no second try of a request."""
    servers = "\n".join(f"    server 127.0.0.1:{each} max_fails=0;" for each in ports)
    return NGINX.format(folder=folder, servers=servers, port=port)


def start_balancer(port: int, ports: Sequence[int], folder: str) -> subprocess.Popen[bytes]:
    """Start nginx in the foreground of a session of its own. Raises Failure where it is missing or does not come up."""
    if not shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
        raise Failure("several servers need nginx, which is not installed", status.UNAVAILABLE, "sudo apt-get install nginx-light")
    config = f"{folder}/nginx.conf"
    with open(config, "w", encoding="utf-8") as stream:
        stream.write(balancer_config(port, ports, folder))
    with open(f"{folder}/nginx.log", "ab") as log:
        process = subprocess.Popen(["nginx", "-p", folder, "-e", f"{folder}/nginx.log", "-c", config], stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log, start_new_session=True, preexec_fn=_die_with_parent,
                                   env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"})  # fmt: skip
    limit = time.monotonic() + 10
    while not port_owner(port):
        if process.poll() is not None or time.monotonic() > limit:
            end_group(process, 1.0)
            said = tail(f"{folder}/nginx.log").strip().splitlines()[-1:] or ["it said nothing"]
            raise Failure(f"nginx did not start: {said[0]}", status.UNAVAILABLE, f"its configuration: {config}")
        time.sleep(0.02)
    return process


def members(session: int) -> list[int]:
    """Pids of a session that still live (zombies do not)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
                if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
                    found.append(int(name))
    return found


def end_group(process: subprocess.Popen[bytes], term_s: float = TERM_S) -> bool:
    """TERM, then KILL, every process of the session that `process` leads; False where one outlived even that."""
    return end_session(process.pid, term_s, process.poll)


def end_session(session: int, term_s: float, reap: Callable[[], int | None] = lambda: 0) -> bool:
    """TERM to all of a session, after `term_s` seconds KILL; False where one outlived even that."""
    for number, patience in ((signal.SIGTERM, term_s), (signal.SIGKILL, KILL_S)):
        for pid in members(session):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        limit = time.monotonic() + patience
        while time.monotonic() < limit:
            # The leader looks dead while its threads still give its memory back; it can be reaped when they are done.
            if not members(session) and reap() is not None:
                return True
            time.sleep(0.02)
    return not members(session)


def stop(serving: Serving, say: Callable[[str], None], term_s: float = TERM_S) -> None:
    """Take everything down, balancer first. What could not be ended is said."""
    if serving.balancer is not None:
        end_group(serving.balancer, 3.0)
    # All at once, or N replicas would take N times as long.
    threads = [threading.Thread(target=_stop_one, args=(each, say, term_s)) for each in serving.servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if serving.state:
        with contextlib.suppress(OSError):
            os.unlink(serving.state)


def _stop_one(server: Started, say: Callable[[str], None], term_s: float) -> None:
    if server.launch.container:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["docker", "stop", "-t", str(int(term_s)), server.launch.container],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=term_s + 30)  # fmt: skip
            subprocess.run(["docker", "rm", "-f", server.launch.container],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=60)  # fmt: skip
    if not end_group(server.process, term_s):
        say(f"pids {members(server.process.pid)} of the server do not end, not even by KILL")


def remember(serving: Serving, folder: str) -> None:
    """Leave a note of what runs, so that the next start can find it should this process be killed."""
    key = runtime.process_key(os.getpid())
    path = f"{folder}/serve.{key}.json"
    note = {"wrapper": key, "engine": serving.engine.name, "started_at": round(time.time(), 6),
            "servers": [{"key": runtime.process_key(each.process.pid), "session": each.process.pid, "container": each.launch.container,
                         "port": each.launch.port, "log": each.log} for each in serving.servers],
            "balancer": serving.balancer.pid if serving.balancer else None}  # fmt: skip
    with open(path + ".part", "w", encoding="utf-8") as stream:
        json.dump(note, stream)
    os.replace(path + ".part", path)
    serving.state = path


@dataclass
class Orphan:
    """What an earlier llmpar-serve left running when it was killed."""

    path: str
    note: dict[str, Any]
    sessions: list[int]
    containers: list[str]

    def text(self) -> str:
        """For people: engine, pids, ports."""
        ports = ", ".join(str(each["port"]) for each in self.note["servers"])
        pids = ", ".join(str(pid) for session in self.sessions for pid in members(session))
        return f"{self.note['engine']} on port {ports} (pids {pids or 'in a container'})"


def orphans(folder: str) -> Iterator[Orphan]:
    """Engines whose llmpar-serve is gone but which still run; notes of those that ended are cleared away."""
    for name in sorted(os.listdir(folder)):
        if not (name.startswith("serve.") and name.endswith(".json")):
            continue
        path = f"{folder}/{name}"
        try:
            with open(path, encoding="utf-8") as stream:
                note = json.load(stream)
            wrapper = note["wrapper"]
        except (OSError, ValueError, KeyError):
            continue
        if runtime.process_key(int(wrapper.partition("-")[0])) == wrapper:
            continue
        # A session's number is not given to another process while any member lives, so members are ours, unless the
        # leader is somebody else's by now.
        sessions = [each["session"] for each in note["servers"]
                    if members(each["session"]) and runtime.process_key(each["session"]) in (None, each["key"])]  # fmt: skip
        if note.get("balancer") and members(note["balancer"]):
            sessions.append(note["balancer"])
        containers = [each["container"] for each in note["servers"] if each["container"] and _container_runs(each["container"])]
        if sessions or containers:
            yield Orphan(path, note, sessions, containers)
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _container_runs(name: str) -> bool:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["docker", "ps", "-q", "--filter", f"name=^{name}$"], capture_output=True, timeout=20)
        return bool(done.stdout.strip())
    return False


def end_orphan(orphan: Orphan) -> bool:
    """End what it left; False where something outlived KILL."""
    for name in orphan.containers:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["docker", "rm", "-f", name], capture_output=True, timeout=60)
    gone = all([end_session(session, TERM_S) for session in orphan.sessions])
    if gone:
        with contextlib.suppress(OSError):
            os.unlink(orphan.path)
    return gone
