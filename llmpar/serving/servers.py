"""Start the servers of one engine, wait until they truly answer, tell why they did not, and take everything down
again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpar import exit_codes, procfs
from llmpar.engines import flags
from llmpar.engines.base import Engine, Launch
from llmpar.failure import Failure
from llmpar.serving import causes, containers, process_groups

REPORT_S = 300.0  # for a profiler to write its report


@dataclass
class Started:
    """One running server."""

    launch: Launch
    process: subprocess.Popen[bytes]
    log: str
    url: str
    memory_kills: int | None = None  # that the kernel had counted before it started
    startup: dict[str, Any] | None = None  # seconds of each phase of its start, once it is ready

    def ended(self) -> causes.Ended:
        """What is known of its end besides its log."""
        now = causes.memory_kills()
        kills = None if now is None or self.memory_kills is None else now - self.memory_kills
        contained = self.launch.container is not None
        return causes.Ended(self.process.poll(), kills, contained and containers.ran_out_of_memory(self.launch))


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


def start(launch: Launch, log: str, environment: Mapping[str, str]) -> Started:
    """Start a launch, its output in a new log; what an earlier container of its name left is cleared away. Raises
    Failure."""
    if os.path.exists(log):
        os.replace(log, log + ".old")
    if launch.container:
        containers.clear_stopped(launch)
    kills = causes.memory_kills()
    url = f"http://{flags.bracketed(launch.host)}:{launch.port}"
    return Started(launch, spawn(launch, log, environment), log, url, kills)


def spawn(launch: Launch, log: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a launch in a session of its own, its output appended to the log. Raises Failure where it cannot be run."""
    surrounding = dict(environment)
    if launch.path:
        surrounding["PATH"] = os.pathsep.join(filter(None, (launch.path, surrounding.get("PATH"))))
    with open(log, "ab") as stream:
        stream.write(f"# {' '.join(launch.words)}\n".encode())
        stream.flush()
        try:
            return subprocess.Popen(
                launch.words,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=process_groups.die_with_parent,
                env={**surrounding, **launch.environment},
            )
        except OSError as error:
            raise Failure(
                f"cannot run '{launch.words[0]}': {error.strerror}",
                exit_codes.UNAVAILABLE,
                "llmpar-doctor says what is missing",
            ) from None


def root_pids(servers: Sequence[Started]) -> list[int]:
    """The process to follow for each server: of a container the first one inside, which is no child of Docker's
    client."""
    return [
        (containers.first_pid(each.launch) if each.launch.container else None) or each.process.pid for each in servers
    ]


def stop(serving: Serving, say: Callable[[str], None], term_s: float | None = None) -> None:
    """Take everything down, balancer first. What could not be ended is said. `term_s`: from TERM to KILL, for all
    alike."""
    if serving.balancer is not None:
        process_groups.end(serving.balancer, 3.0)
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
    term_s = (REPORT_S if profiler else process_groups.TERM_S) if term_s is None else term_s
    if server.launch.container:
        containers.end(server.launch, term_s)
    # A profiler that is told to end leaves no report; one whose program has ended writes it and ends.
    if not process_groups.end(server.process, term_s, spare=profiler[0] if profiler else None):
        say(f"pids {procfs.members(server.process.pid)} of the server do not end, not even by KILL")
