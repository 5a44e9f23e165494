"""What llmpar needs on this machine, what is missing, and the command that installs or fixes it."""

from __future__ import annotations

import importlib.util
import locale
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from llmpar import runtime_directory
from llmpar.client import stamps
from llmpar.engines import ENGINES
from llmpar.machine import host, installation

OK, NOTE, MISSING = "ok", "note", "missing"
NEEDED = ("click", "requests", "orjson", "numpy", "scipy", "psutil", "pynvml", "prometheus_client")
DISTRIBUTIONS = {"pynvml": "nvidia-ml-py", "prometheus_client": "prometheus-client"}
SIGNS = {OK: "ok", NOTE: "note", MISSING: "MISSING"}


# Setting up fetches its one Perl script without root where apt is; else clients can be threads of one process.
NO_ROOT = ", or without root: `make setup` (`llmpar setup`), or LAUNCHER=threads"


@dataclass(frozen=True)
class Finding:
    """One check: `state` is `ok`, `note` (something works less well, or one feature is missing) or `missing` (the main
    job fails)."""

    check: str
    state: str
    found: str
    needed_for: str
    fix: str | None = None

    def record(self) -> dict[str, Any]:
        return asdict(self)


def installer(root: bool | None = None) -> str:
    """How packages are installed on this machine, as a command prefix."""
    root = os.geteuid() == 0 if root is None else root
    sudo = "" if root else "sudo "
    for manager, words in (
        ("apt-get", "apt-get install"),
        ("dnf", "dnf install"),
        ("zypper", "zypper install"),
        ("pacman", "pacman -S"),
        ("apk", "apk add"),
        ("brew", "brew install"),
    ):
        if shutil.which(manager):
            return f"{'' if manager == 'brew' else sudo}{words}"
    return f"{sudo}apt-get install"


def text(finding: Finding) -> str:
    """One to three lines: the state, what was found, what needs it, what to type."""
    lines = f"{SIGNS[finding.state]:<8}{finding.check:<20} {finding.found}\n"
    if finding.state != OK:
        lines += f"{'':<8}for {finding.needed_for}\n"
        if finding.fix:
            lines += f"{'':<8}  {finding.fix}\n"
    return lines


def findings(facts: dict[str, Any] | None = None) -> Iterator[Finding]:
    """All checks in turn, as each is done. `facts`: a `host` record, made when not given."""
    facts = facts if facts is not None else host.record()
    for check in CHECKS:
        yield from check(facts)


def python(facts: dict[str, Any]) -> Iterator[Finding]:
    version = facts["software"]["python"]
    old = sys.version_info < (3, 11)
    yield Finding(
        "python",
        MISSING if old else OK,
        version,
        "everything",
        f"{installer()} python3.11 python3.11-venv" if old else None,
    )
    checkout = installation.how() == installation.CHECKOUT
    inside = sys.prefix != sys.base_prefix
    yield Finding(
        "virtual environment",
        OK if inside else NOTE,
        sys.prefix if inside else "none",
        "packages apart from the system's",
        None if inside else "make setup" if checkout else "pipx install, or uv tool install, in place of pip",
    )
    missing_packages = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    yield Finding(
        "python packages",
        MISSING if missing_packages else OK,
        f"missing: {', '.join(missing_packages)}" if missing_packages else "all installed",
        "everything",
        shlex.join(installation.add(*(DISTRIBUTIONS.get(name, name) for name in missing_packages)))
        if missing_packages
        else None,
    )


def tools(facts: dict[str, Any]) -> Iterator[Finding]:
    have = facts["software"]["tools"]
    for name, package, needed_for, must in (
        ("parallel", "parallel", "clients as processes (every sweep)", True),
        ("perl", "perl", "GNU parallel, and llmpar-request's launcher", True),
        ("bash", "bash", "the scripts of a sweep", True),
        ("make", "make", "sweeps", True),
        ("curl", "curl", "comparisons with curl (make bench)", False),
        ("nginx", "nginx-light", "several replicas behind one address", False),
        ("docker", "docker.io", "engines from images", False),
    ):
        version = have.get(name)
        state = OK if version else MISSING if must else NOTE
        if name == "docker" and version and host.output(["docker", "info", "--format", "{{.ServerVersion}}"]) is None:
            yield Finding(
                name,
                NOTE,
                f"{version}, but its daemon does not answer this user",
                needed_for,
                f"{'' if os.geteuid() == 0 else 'sudo '}systemctl start docker, or join its group: usermod -aG "
                "docker USER",
            )
            continue
        other = name == "parallel" and not version and shutil.which(name)
        yield Finding(
            name,
            state,
            version or ("another command of this name (moreutils)" if other else "not found"),
            needed_for,
            None if version else f"{installer()} {package}" + (NO_ROOT if name == "parallel" and os.geteuid() else ""),
        )


def gpu(facts: dict[str, Any]) -> Iterator[Finding]:
    names = [str(each.get("name")) for each in facts["gpus"]]
    if names:
        yield Finding("gpu", OK, f"{', '.join(names)}; driver {facts['driver']}, CUDA {facts['cuda']}", "GPU engines")
        if not any(each.get("gpm") for each in facts["gpus"]):
            yield Finding(
                "gpu counters",
                NOTE,
                "no GPM: older than Hopper, or switched off",
                "tensor activity and occupancy in samples",
            )
        return
    fix = "install NVIDIA's driver (Debian, Ubuntu: apt-get install nvidia-driver), then reboot"
    if "loaded" in (facts["gpus_reason"] or ""):
        fix = "modprobe nvidia, or reboot"
    yield Finding("gpu", NOTE, facts["gpus_reason"] or "none", "GPU engines (the embedded CPU engine needs none)", fix)


def engines(facts: dict[str, Any]) -> Iterator[Finding]:
    have = facts["software"]["packages"]
    embedded = ENGINES["llamacpp"].packages[0]
    yield Finding(
        embedded,
        OK if embedded in have else NOTE,
        have.get(embedded, "not installed"),
        "the embedded CPU engine (make sweep)",
        None if embedded in have else installation.remedy("cpu"),
    )
    served = [f"{name} {have[name]}" for name in host.engine_packages() if name in have and name != embedded]
    if served:
        yield Finding("other engines", OK, ", ".join(served), "llmpar-serve --runtime local")
    plot = importlib.util.find_spec("matplotlib") is not None
    yield Finding(
        "matplotlib",
        OK if plot else NOTE,
        "there" if plot else "not installed",
        "llmpar-plot",
        None if plot else installation.remedy("plot"),
    )


def limits(facts: dict[str, Any]) -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft < 4096
    yield Finding(
        "open files",
        NOTE if few else OK,
        str(soft),
        "1000 clients and more at once",
        f"ulimit -n {min(65536, hard) if hard != resource.RLIM_INFINITY else 65536}" if few else None,
    )
    usable, load = facts["cpus_usable"], facts["load_1min"]
    quota = facts["cgroup"]["cpus"]
    cpus = min(usable, quota) if quota else usable
    busy = load > 0.5 * cpus
    yield Finding(
        "cpu",
        NOTE if busy else OK,
        f"{cpus:g} usable, load {load:g}",
        "measuring without disturbing the engine",
        "stop other programs here, and measure again" if busy else None,
    )
    governor = facts["cpu_governor"]
    slow = governor not in (None, "performance", "schedutil")
    yield Finding(
        "cpu governor",
        NOTE if slow else OK,
        governor or "not set here",
        "steady clocks",
        "cpupower frequency-set -g performance" if slow else None,
    )
    encoding = locale.getpreferredencoding(False)
    odd = encoding.upper().replace("-", "") != "UTF8"
    yield Finding(
        "locale",
        NOTE if odd else OK,
        encoding,
        "prompts that are not plain ASCII",
        "export LC_ALL=C.UTF-8" if odd else None,
    )


def clocks(facts: dict[str, Any]) -> Iterator[Finding]:
    source = facts["clock_source"]
    slow = source in ("hpet", "acpi_pm", "jiffies")
    yield Finding(
        "clock source",
        NOTE if slow else OK,
        source or "unknown",
        "cheap and accurate timestamps",
        "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource" if slow else None,
    )
    error = kernel_stamp_error()
    bad = error is None or abs(error) > 0.05
    offset = "not offered" if error is None else f"{error * 1e3:+.3f} ms from the sender's clock on loopback"
    yield Finding(
        "kernel time stamps",
        NOTE if bad else OK,
        offset,
        "arrival times that a busy client cannot distort",
        "nothing to do: llmpar stamps at the read and records it (`clock: user`)" if bad else None,
    )


def kernel_stamp_error() -> float | None:
    """Seconds from sending on loopback to the kernel's stamp of the arrival; None where the kernel stamps nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 2) as sender:
        receiver, _ = server.accept()
        with receiver:
            receiver.settimeout(2)
            if not stamps.enable(receiver):
                return None
            # The first segment may find the stamping not switched on yet.
            for _ in range(3):
                sent = time.time_ns()
                sender.sendall(b"x")
                at = stamps.stamp(receiver.recvmsg(1, stamps.SPACE)[1])
                if at is not None:
                    return (at - sent) / 1e9
                time.sleep(0.01)
    return None


def places(facts: dict[str, Any]) -> Iterator[Finding]:
    try:
        directory, state, fix = runtime_directory.directory(), OK, None
    except OSError as error:
        directory, state = str(error), MISSING
        fix = "export XDG_RUNTIME_DIR=$(mktemp -d)"
    yield Finding("runtime directory", state, directory, "the pool of llmpar-request", fix)
    try:
        with tempfile.TemporaryFile():
            pass
        yield Finding("temporary files", OK, tempfile.gettempdir(), "GNU parallel")
    except OSError as error:
        yield Finding("temporary files", MISSING, str(error), "GNU parallel", "export TMPDIR=/a/writable/directory")
    free = shutil.disk_usage(".").free
    short = free < 2 << 30
    yield Finding(
        "disk space",
        NOTE if short else OK,
        f"{free / 2**30:.1f} GiB free here",
        "records, and models of engines",
        "make clean-run, or set RUNS to another disk" if short else None,
    )


CHECKS: tuple[Callable[[dict[str, Any]], Iterator[Finding]], ...] = (
    python,
    tools,
    engines,
    gpu,
    limits,
    clocks,
    places,
)


def main() -> int:
    """The checks as text, before anything is installed. Exit status 4 where something needed is missing."""
    state = [sys.stdout.write(text(finding)) and finding.state for finding in findings()]
    return 4 if MISSING in state else 0


if __name__ == "__main__":
    sys.exit(main())
