"""Start the servers of one engine, wait until they truly answer, tell why they did not, and take everything down again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

from llmpar import apikey, sessions, status
from llmpar.cli import Failure
from llmpar.dialects import DIALECTS, Sampling
from llmpar.engines.base import Engine, Launch

LOG_TAIL_BYTES = 65536
REPORT_S = 300.0  # for a profiler to write its report
# (outcome, what the log says, what to tell): of Docker, the kernel and CUDA, under any engine. The engine's own come first.
FAILURES = (
    ("no_docker", r"Cannot connect to the Docker daemon.*", "no docker daemon runs"),
    ("missing_image", r"manifest unknown.*|manifest for .* not found.*|pull access denied.*|failed to resolve reference.*"
     r"|Error response from daemon: (?:Get|Head) .*", "the image is not there and could not be pulled"),
    ("no_gpu", r"could not select device driver.*|no CUDA-capable device.*", "no GPU is to be had"),
    ("port_taken", r"[Aa]ddress already in use|port is already allocated", "the port is taken"),
    ("out_of_memory", r"out of memory.*|std::bad_alloc|Cannot allocate memory", "out of memory"),
    ("bad_arguments", r"unrecognized arguments: .*|error: argument .*|unexpected argument .*", "the engine refused its arguments"),
)  # fmt: skip


@dataclass
class Started:
    """One running server."""

    launch: Launch
    process: subprocess.Popen[bytes]
    log: str
    url: str


@dataclass
class Serving:
    """All that llmpar-serve has started."""

    engine: Engine
    servers: list[Started] = field(default_factory=list)
    balancer: subprocess.Popen[bytes] | None = None
    base_url: str = ""
    ready_s: float | None = None
    probe: dict[str, Any] | None = None
    note: str | None = None  # the path of what orphans.remember wrote


def spawn(launch: Launch, log: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a launch in a session of its own, its output appended to the log. Raises Failure where it cannot be run."""
    with open(log, "ab") as stream:
        stream.write(f"# {' '.join(launch.words)}\n".encode())
        stream.flush()
        try:
            return subprocess.Popen(launch.words, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                                    start_new_session=True, preexec_fn=sessions.die_with_parent,
                                    env={**environment, **launch.environment})  # fmt: skip
        except OSError as error:
            raise Failure(f"cannot run '{launch.words[0]}': {error.strerror}", status.UNAVAILABLE,
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
    with _session() as session:
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


def _session() -> requests.Session:
    """For our own servers. Raises Failure where the file with their API key cannot be read."""
    session = requests.Session()
    session.trust_env = False  # no proxy between us and them
    session.headers["connection"] = "close"  # nothing stays open that the engine could wait for at its end
    name = os.environ.get("LLMPAR_API_KEY_FILE")
    if name:
        try:
            session.headers["authorization"] = f"Bearer {apikey.read(name)}"
        except ValueError as error:
            raise Failure(str(error), status.USAGE, "LLMPAR_API_KEY_FILE names it") from None
    return session


def look(url: str) -> Any:
    """What a server says at a URL, as JSON; None where it says nothing of the kind."""
    try:
        with _session() as session:
            answer = session.get(url, timeout=5)
            return answer.json() if answer.status_code == 200 else None
    except (requests.RequestException, ValueError):
        return None


def stop(serving: Serving, say: Callable[[str], None], term_s: float | None = None) -> None:
    """Take everything down, balancer first. What could not be ended is said. `term_s`: from TERM to KILL, for all alike."""
    if serving.balancer is not None:
        sessions.end(serving.balancer, 3.0)
    # All at once, or N replicas would take N times as long.
    threads = [threading.Thread(target=_stop_one, args=(each, say, term_s)) for each in serving.servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if serving.note:
        with contextlib.suppress(OSError):
            os.unlink(serving.note)


def _stop_one(server: Started, say: Callable[[str], None], term_s: float | None) -> None:
    profiler = server.launch.profiler
    term_s = (REPORT_S if profiler else sessions.TERM_S) if term_s is None else term_s
    if server.launch.container:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["docker", "stop", "-t", str(int(term_s)), server.launch.container],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=term_s + 30)  # fmt: skip
            subprocess.run(["docker", "rm", "-f", server.launch.container],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=60)  # fmt: skip
    # A profiler that is told to end leaves no report; one whose program has ended writes it and ends.
    if not sessions.end(server.process, term_s, spare=profiler[0] if profiler else None):
        say(f"pids {sessions.members(server.process.pid)} of the server do not end, not even by KILL")
