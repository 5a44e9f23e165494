"""The machine that measures: what it is, and what it runs. Facts that a figure depends on, for the `host` record."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from llmpar import clock, hostname
from llmpar.engines import ENGINES

# Packages whose version can move a figure, besides the engines' own.
PACKAGES = (
    "llmpar",
    "requests",
    "urllib3",
    "orjson",
    "click",
    "aiohttp",
    "uvloop",
    "numpy",
    "scipy",
    "nvidia-ml-py",
    "psutil",
    "torch",
    "triton",
    "flash-attn",
    "flashinfer-python",
    "tokenizers",
)
TOOLS = {
    "parallel": ["parallel", "--version"],
    "perl": ["perl", "-e", "print $^V"],
    "bash": ["bash", "--version"],
    "make": ["make", "--version"],
    "curl": ["curl", "--version"],
    "nginx": ["nginx", "-v"],
    "docker": ["docker", "--version"],
}


def record(root: Path | None = None) -> dict[str, Any]:
    """The `host` record of this machine, now. `root`: the checkout, for its commit. Never fails: what cannot be read is
    null."""
    return {
        "kind": "host",
        "v": 1,
        "at": clock.now(),
        "host": hostname.name(),
        **system(),
        **gpus(),
        "software": software(root),
    }


def system() -> dict[str, Any]:
    """Kernel, processor, memory, limits and power settings."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "distribution": distribution(),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "virtual": virtual(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)),
        "cpu_governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cpu_mhz_max": _scaled("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", 1e-3),
        "clock_source": _text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "memory_bytes": memory_bytes(),
        "cgroup": cgroup(),
        "load_1min": round(os.getloadavg()[0], 2),
        "open_files_limit": _soft_limit("NOFILE"),
        "processes_limit": _soft_limit("NPROC"),
    }


def gpus() -> dict[str, Any]:
    """`driver`, `cuda`, `gpus` (a list, empty without a GPU) and `gpus_reason` (why it is empty, else null)."""
    try:
        from llmpar.machine import gpu_facts
        from llmpar.sampling import nvml
    except ModuleNotFoundError as error:  # the doctor before anything is installed
        return {"driver": None, "cuda": None, "gpus": [], "gpus_reason": f"the package {error.name} is not installed"}
    try:
        facts = gpu_facts.facts()
    except nvml.Unavailable as error:
        return {"driver": None, "cuda": None, "gpus": [], "gpus_reason": str(error)}
    return {**facts, "gpus_reason": None if facts["gpus"] else "the driver runs, but sees no GPU"}


def software(root: Path | None = None) -> dict[str, Any]:
    """Versions: Python, packages, tools and llmpar itself with the commit of its checkout."""
    packages = {}
    for name in (*PACKAGES, *engine_packages()):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "packages": packages,
        "tools": {name: tool_version(name) for name in TOOLS},
        **checkout(root),
    }


def engine_packages() -> tuple[str, ...]:
    """The Python distributions that engines are installed from."""
    return tuple(name for engine in ENGINES.values() for name in engine.packages)


def checkout(root: Path | None) -> dict[str, Any]:
    """`commit` and `changed` (whether tracked files differ from it) of a git checkout.

    A copy is told its commit in LLMPAR_COMMIT, which then counts: git's own files may be missing there, or older than
    the copy. `changed` is null then. Both null where nobody knows.
    """
    root = root or Path(__file__).resolve().parents[2]
    named = os.environ.get("LLMPAR_COMMIT", "")
    if re.fullmatch(r"[0-9a-f]{7,40}", named):
        return {"commit": named, "changed": None}
    commit = output(["git", "-C", str(root), "rev-parse", "HEAD"])
    if commit is None or output(["git", "-C", str(root), "rev-parse", "--show-toplevel"]) != str(root):
        return {"commit": None, "changed": None}
    return {"commit": commit, "changed": bool(output(["git", "-C", str(root), "status", "--porcelain", "-uno"]))}


def tool_version(name: str) -> str | None:
    """The version a tool tells, null where it is not installed. Of the two commands named `parallel`, only GNU's
    counts."""
    text = output(TOOLS[name], with_errors=True)
    if text is None or name == "parallel" and not text.startswith("GNU parallel"):
        return None
    number = re.search(r"\d+(\.\d+)*", text)
    return number.group() if number else None


def cpu_model() -> str | None:
    text = _text("/proc/cpuinfo") or ""
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.M)
    return found.group(1).strip() if found else platform.processor() or None


def memory_bytes() -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text("/proc/meminfo") or "", re.M)
    return int(found.group(1)) * 1024 if found else None


def distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def virtual() -> str | None:
    """`container`, `hypervisor` or null: who else may be using this machine."""
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return "container"
    return "hypervisor" if re.search(r"^flags\s*:.*\bhypervisor\b", _text("/proc/cpuinfo") or "", re.M) else None


def cgroup(root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> dict[str, float | int | None]:
    """The tightest limits of this process's cgroup and its parents: `cpus` and `memory_bytes`, null for none (cgroup
    v2, else v1)."""
    cpus: float | None = None
    memory: int | None = None
    path = next((line.split(":", 2)[2] for line in (_text(own) or "").splitlines() if line.startswith("0::")), "/")
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts), -1, -1):
        folder = "/".join([root, *parts[:depth]])
        quota = (_text(f"{folder}/cpu.max") or "max").split()
        if quota[0] != "max" and len(quota) == 2:
            cpus = min(cpus or float("inf"), int(quota[0]) / int(quota[1]))
        limit = _text(f"{folder}/memory.max")
        if limit and limit.isdigit():
            memory = min(memory or int(limit), int(limit))
    old_quota, old_period = _text(f"{root}/cpu/cpu.cfs_quota_us"), _text(f"{root}/cpu/cpu.cfs_period_us")
    if cpus is None and old_quota and old_period and int(old_quota) > 0:
        cpus = int(old_quota) / int(old_period)
    old_limit = _text(f"{root}/memory/memory.limit_in_bytes")
    if memory is None and old_limit and old_limit.isdigit() and int(old_limit) < 1 << 60:  # above: v1's word for none
        memory = int(old_limit)
    return {"cpus": cpus, "memory_bytes": memory}


def _soft_limit(name: str) -> int | None:
    import resource

    value = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]
    return None if value == resource.RLIM_INFINITY else value


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None


def _scaled(path: str, factor: float) -> float | None:
    text = _text(path)
    return float(text) * factor if text and text.isdigit() else None


def output(command: list[str], with_errors: bool = False) -> str | None:
    """What a command prints, stripped; None where it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=10, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout + (done.stderr if with_errors else "")).strip() if done.returncode == 0 else None
