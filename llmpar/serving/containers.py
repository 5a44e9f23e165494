"""The containers that this llmpar-serve created, by their label: found, looked into, ended. One place asks docker or
podman."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess

from llmpar import procfs
from llmpar.engines.base import NO_GPUS, Launch, Settings
from llmpar.engines.docker import LABEL, tool

ASK_S = 20.0  # for an answer of the daemon


def owner() -> str:
    """The label's value: this process, told from an earlier one of the same number."""
    return procfs.process_key(os.getpid()) or str(os.getpid())


def _run(*argv: str, timeout_s: float = ASK_S) -> str:
    """What it prints; nothing where it fails, or does not answer in time."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


def created_by(program: str, key: str, name: str | None = None, running: bool = False) -> list[str]:
    """Ids of the containers that the llmpar-serve of that key created, stopped ones too unless `running`."""
    named = ["--filter", f"name=^{name}$"] if name else []
    return _run(
        program, "ps", "-q", "--no-trunc", *([] if running else ["-a"]), "--filter", f"label={LABEL}={key}", *named
    ).split()


def inspect(launch: Launch, form: str) -> str:
    """One field of the launch's own container, by a template such as {{.State.Pid}}; empty where there is none."""
    ids = created_by(launch.argv[0], owner(), launch.container)
    return _run(launch.argv[0], "inspect", "--format", form, *ids[:1]) if ids else ""


def first_pid(launch: Launch) -> int | None:
    """The first process inside, as this machine counts it; it is no child of docker's client."""
    text = inspect(launch, "{{.State.Pid}}")
    return int(text) if text.isdigit() and int(text) > 0 else None


def ran_out_of_memory(launch: Launch) -> bool:
    """Whether the container's own limit of memory ended it."""
    return inspect(launch, "{{.State.OOMKilled}}") == "true"


def end(launch: Launch, term_s: float) -> None:
    """TERM, after `term_s` seconds KILL, then remove the launch's own container; one of that name that another made is
    left alone."""
    for identity in created_by(launch.argv[0], owner(), launch.container):
        _run(launch.argv[0], "stop", "-t", str(int(term_s)), identity, timeout_s=term_s + 30)
        remove(launch.argv[0], identity)


def remove(program: str, identity: str) -> None:
    """End it at once where it runs, and remove it."""
    _run(program, "rm", "-f", identity, timeout_s=60)


def clear_stopped(launch: Launch) -> None:
    """Remove a stopped container of the launch's name that an llmpar-serve left when it was killed."""
    program = launch.argv[0]
    stopped = [
        word
        for state in ("exited", "created", "dead")
        for word in _run(
            program,
            "ps",
            "-aq",
            "--filter",
            f"label={LABEL}",
            "--filter",
            f"name=^{launch.container}$",
            "--filter",
            f"status={state}",
        ).split()
    ]
    for identity in stopped:
        _run(program, "rm", identity)


def for_this_machine(settings: Settings, gpu_memory_bytes: int | None) -> tuple[Settings, str | None]:
    """The settings of a container, and a note: no GPU where none was named and neither this machine nor the daemon has
    one.

    On a machine with a GPU nothing changes: a daemon that cannot give it refuses, and says so, rather than serve from
    the CPU.
    """
    if (
        settings.gpus is not None
        or gpu_memory_bytes is not None
        or "nvidia" in _run(tool(), "info", "--format", "{{json .Runtimes}}")
    ):
        return settings, None
    return dataclasses.replace(
        settings, gpus=NO_GPUS
    ), "no GPU was found, so the container gets none: --gpus all asks for them all the same"
