"""What an llmpar-serve that was killed left running: noted while it runs, found and ended by the next one."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from llmpar import procfs
from llmpar.engines import docker
from llmpar.serving import containers, process_groups
from llmpar.serving.servers import Serving


def remember(serving: Serving, folder: str) -> None:
    """Leave a note of what runs, so that the next start can find it should this process be killed."""
    own = procfs.process_key(os.getpid())
    path = f"{folder}/serve.{own}.json"
    leaders = [each.process.pid for each in serving.servers] + ([serving.balancer.pid] if serving.balancer else [])
    note = {
        "wrapper": own,
        "engine": serving.engine.name,
        "started_at": round(time.time(), 6),
        "sessions": {str(pid): procfs.process_key(pid) for pid in leaders},
        "container_tool": next((each.launch.argv[0] for each in serving.servers if each.launch.container), None),
        "ports": [each.launch.port for each in serving.servers],
    }
    with open(path + ".part", "w", encoding="utf-8") as stream:
        json.dump(note, stream)
    os.replace(path + ".part", path)
    serving.note = path


@dataclass
class Orphan:
    """What an earlier llmpar-serve left running when it was killed."""

    path: str  # of its note
    engine: str
    ports: list[int]
    sessions: list[int]
    containers: list[str]  # their ids
    container_tool: str | None = None

    def text(self) -> str:
        """For people: engine, ports, pids."""
        pids = ", ".join(str(pid) for session in self.sessions for pid in procfs.members(session))
        return f"{self.engine} on port {', '.join(map(str, self.ports))} (pids {pids or 'in a container'})"


def find(folder: str) -> Iterator[Orphan]:
    """Engines whose llmpar-serve is gone but which still run; notes of those that ended are cleared away."""
    for name in sorted(os.listdir(folder)):
        if not (name.startswith("serve.") and name.endswith(".json")):
            continue
        path = f"{folder}/{name}"
        try:
            with open(path, encoding="utf-8") as stream:
                note = json.load(stream)
            wrapper, engine, ports = str(note["wrapper"]), str(note["engine"]), [int(port) for port in note["ports"]]
            leaders = {int(pid): key for pid, key in note["sessions"].items()}
            owner, tool = int(wrapper.partition("-")[0]), note.get("container_tool")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue  # torn, or none of ours
        if procfs.process_key(owner) == wrapper or tool not in (None, *docker.TOOLS):
            continue
        # A session's number is not given to another process while any member lives, so members are ours, unless the
        # leader is somebody else's by now.
        alive = [pid for pid, key in leaders.items() if procfs.members(pid) and procfs.process_key(pid) in (None, key)]
        running = containers.created_by(tool, wrapper, running=True) if tool else []
        for stopped in set(containers.created_by(tool, wrapper)) - set(running) if tool else ():
            containers.remove(tool, stopped)
        if alive or running:
            yield Orphan(path, engine, ports, alive, running, tool)
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)


def end(orphan: Orphan) -> bool:
    """End what it left; False where something outlived KILL."""
    for container in orphan.containers:
        containers.remove(orphan.container_tool or "docker", container)
    gone = all([process_groups.end_session(session, process_groups.TERM_S) for session in orphan.sessions])
    if gone:
        with contextlib.suppress(OSError):
            os.unlink(orphan.path)
    return gone
