"""Why a server ended: its log, the kernel's count of processes killed for memory, a container's own word."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llmpar.engines.base import Engine

LOG_TAIL_BYTES = 65536
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)

# (outcome, what the log says, what to tell): of containers, the kernel and CUDA, under any engine.
FAILURES = (
    ("no_docker", r"Cannot connect to (?:the Docker daemon|Podman).*", "no docker daemon runs"),
    (
        "no_docker",
        r"permission denied while trying to connect to the [Dd]ocker.*",
        "this user may not use docker: sudo usermod -aG docker $USER, then log in again",
    ),
    (
        "missing_image",
        r"manifest unknown.*|manifest for .* not found.*|pull access denied.*|failed to resolve reference.*"
        r"|Error response from daemon: (?:Get|Head) .*|initializing source docker://.*|short-name .* did not resolve "
        r"to an alias.*",
        "the image is not there and could not be pulled",
    ),
    (
        "container_exists",
        r"[Cc]ontainer name .* is already in use.*",
        "a container of that name is there already: docker rm -f it, or give another --port",
    ),
    (
        "missing_package",
        r"container-init binary not found.*",
        "podman needs catatonit for --init: sudo apt-get install catatonit",
    ),
    (
        "no_gpu",
        r"could not select device driver.*|no CUDA-capable device.*|unresolvable CDI devices.*|No GPU devices found "
        r"on the node.*",
        "no usable NVIDIA GPU: for a container install the NVIDIA Container Toolkit, or give --gpus none for the CPU",
    ),
    ("port_taken", r"[Aa]ddress already in use|port is already allocated", "the port is taken"),
    ("out_of_memory", r"out of memory.*|std::bad_alloc|Cannot allocate memory", "out of memory"),
    (
        "bad_arguments",
        r"unrecognized arguments: .*|error: argument .*|unexpected argument .*|invalid value '.*' for .*|No such "
        r"option: .*"
        r"|unknown (?:flag|option|argument): .*",
        "the engine refused its arguments",
    ),
)

# Lines that follow an error and say nothing of it, and errors that only point to the one before.
_HINT = re.compile(
    r"Run '.*--help'|[Ss]ee '.*--help'|For more information,? (?:try|see|about)|Try '.*--help'|^usage: |[Ss]ee "
    r"(?:root cause|the .*)? ?above"
)
# What is logged below the level of an error is a mention: of a GPU that is not there, a module that is not needed.
_MENTION = re.compile(
    r"(?:\([^)]*\) )?[^A-SU-Ya-z]*\b(?:INFO|DEBUG|TRACE|WARN|WARNING)\b|\d[\d.]* [IWDT] |(?:\S+:\d+: )?\w*Warning: "
    # Of compilers and tools, of glog, of names in brackets, of logfmt, of JSON.
    r"|(?:warning|info|note|W|I|D): |\[?[IWDV]\d{4} \d\d:"
    r"|(?:\[[^\]]*\]\s*)*\[(?:INFO|DEBUG|TRACE|VERBOSE|WARN|WARNING)\]"
    r"|(?:\w+=\S+ )*level=(?i:info|debug|trace|warn|warning)\b"
    r"|\{.*\"(?:level|levelname|severity)\": ?\"(?i:info|debug|trace|warn|warning)\""
    # llama.cpp goes on with memory that is not pinned.
    r"|.*failed to allocate .* of pinned memory"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PROCESS = re.compile(r"^\(\w+ pid=\d+\) ")  # that vLLM puts before each line
_EXCEPTION = re.compile(r"\w(?:Error|Exception): \S")
_ERROR = re.compile(r"\b(?:error|fatal|panicked|failed|cannot|denied)\b", re.IGNORECASE)


def tail(log: str) -> str:
    """The end of a log, as text."""
    with open(log, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - LOG_TAIL_BYTES))
        return stream.read().decode("utf-8", "replace")


def evidence(text: str) -> list[str]:
    """The lines of a log that can name a cause: without our own, hints, and mentions below the level of an error."""
    lines = [_PROCESS.sub("", _COLOUR.sub("", line).strip()) for line in text.splitlines()]
    return [
        line
        for line in lines
        if line and not line.startswith("#") and not _HINT.search(line) and not _MENTION.match(line)
    ]


@dataclass(frozen=True)
class Ended:
    """What is known of the end besides the log. `memory_kills`: processes that the kernel killed for memory while it
    ran; None: unknown."""

    code: int | None = None
    memory_kills: int | None = None
    container_out_of_memory: bool = False


def explain(engine: Engine, log: str, ended: Ended) -> tuple[str, str]:
    """(outcome, text) of a server that ended. What its log names comes first, then the kernel, then its last error."""
    text = tail(log)
    lines = evidence(text)
    named = classify(lines, (*engine.failures, *FAILURES)) or classify(lines, engine.consequences)
    if named:
        return named
    if ended.container_out_of_memory or ended.memory_kills:
        return "out_of_memory", "the kernel killed it because memory ran out"
    said = _last(lines, text)
    if ended.code in KILLED:
        known = "" if ended.memory_kills is None else ", and not by the kernel for lack of memory"
        return (
            "killed",
            f"something ended it with SIGKILL{known}; its last error: {said}"
            if said
            else f"something ended it with SIGKILL{known}",
        )
    return "crashed", f"its last error: {said}" if said else "its log says nothing"


def classify(lines: list[str], failures: Iterable[tuple[str, str, str]]) -> tuple[str, str] | None:
    """(outcome, text) of the last line that a failure's pattern matches; among several on one line the first of
    `failures`."""
    failures = tuple(failures)
    for line in reversed(lines):
        for outcome, pattern, say in failures:
            if re.search(pattern, line):
                return outcome, f"{say}: {line[:300]}"
    return None


def _last(lines: list[str], text: str) -> str:
    # Python engines warn on after the exception that ended them.
    for pattern in (_EXCEPTION, _ERROR):
        for place, line in reversed(list(enumerate(lines))):
            if pattern.search(line):
                return _with_what_follows(line, lines[place + 1 : place + 6])[:300]
    whole = [_COLOUR.sub("", line).strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return (lines or whole or [""])[-1][:300]


def _with_what_follows(line: str, after: list[str]) -> str:
    """An error that ends with a colon, with the line behind it that says what it was."""
    if not line.endswith(":") or not after:
        return line
    return f"{line} {next(filter(_ERROR.search, after), after[0])}"


def memory_kills(cgroup: Path | None = None, vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """Processes that the kernel has killed for memory so far: in this process's control group, else on the machine;
    None: not told.

    `oom_kill` of memory.events (version 2) or memory.oom_control (version 1), else of /proc/vmstat.
    """
    folder = _own_cgroup() if cgroup is None else cgroup
    places = [folder / "memory.events", folder / "memory.oom_control"] if folder else []
    for path in (*places, vmstat):
        try:
            match = re.search(r"^oom_kill (\d+)$", path.read_text(), re.M)
        except OSError:
            continue
        if match:
            return int(match[1])
    return None


def _own_cgroup(listing: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> Path | None:
    """The control group that counts this process's memory; None where it cannot be found."""
    try:
        rows = [line.split(":", 2) for line in listing.read_text().splitlines()]
    except OSError:
        return None
    for _, controllers, path in rows:
        if "memory" in controllers.split(","):
            # In a container the path is the host's, and the mount shows the container's own group at its top.
            group = mount / "memory" / path.lstrip("/")
            return group if group.is_dir() else mount / "memory"
    for number, _, path in rows:
        if number == "0":
            group = mount / path.lstrip("/")
            return group if group.is_dir() else mount
    return None
