"""The host and the GPUs that a summary was measured on, as its host record has them."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def host_of(summary: dict[str, Any]) -> str:
    """The name of the host that measured, or ''."""
    host = summary.get("host")
    name = host.get("hostname") or host.get("name") or host.get("host") if isinstance(host, dict) else host
    return str(name or next(iter((summary.get("client") or {}).get("hosts") or []), ""))


def gpus_of(summary: dict[str, Any]) -> list[str]:
    """Names of the GPUs that the host that measured had for it; empty without a GPU or a host record."""
    return [str(gpu.get("name")) for gpu in _own(summary) if gpu.get("name")]


def _own(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The GPUs of the host record, less those that a scheduler kept from the job (`used` false)."""
    host = summary.get("host")
    listed = host.get("gpus") if isinstance(host, dict) else None
    return [gpu for gpu in listed or [] if isinstance(gpu, dict) and gpu.get("used") is not False]


def fingerprint(summary: dict[str, Any]) -> str:
    """What the host that measured is made of, whatever it is called: its processors and the GPUs that it used; '' where
    nothing says.

    Two machines may have one name, and one machine may do work on different GPUs. What a reboot, a new driver or other
    software changes is no part of it.
    """
    host = summary.get("host")
    if not isinstance(host, dict):
        return ""
    facts: list[Any] = [host.get(name) for name in ("machine", "cpu", "cpus")]
    facts.append(sorted(f"{gpu.get('name')} {gpu.get('memory_bytes')}" for gpu in _own(summary)))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12] if any(facts) else ""


def device(summary: dict[str, Any]) -> str:
    """`gpu` or `cpu`: what the engine ran on. The tables of sweeps/cpu are for the CPU on whatever host."""
    small = str((summary.get("cell") or {}).get("sweep") or "").startswith("cpu-")
    return "gpu" if gpus_of(summary) and not small else "cpu"


def hardware(summary: dict[str, Any]) -> str:
    """The same in words: the GPUs' names, or `CPU of HOST`."""
    if device(summary) == "gpu":
        return ", ".join(dict.fromkeys(gpus_of(summary)))
    return f"CPU of {host_of(summary)}" if host_of(summary) else "CPU"


def machine(summary: dict[str, Any]) -> str:
    """The GPUs of the host that measured, else its processor, in words."""
    host = summary.get("host")
    cpu = host.get("cpu") if isinstance(host, dict) else None
    return ", ".join(dict.fromkeys(gpus_of(summary))) or str(cpu or "no host record")


def where(summary: dict[str, Any]) -> str | None:
    """The host that measured and its GPUs; None where nothing names it."""
    name = host_of(summary)
    return ", ".join([name, *gpus_of(summary)]) if name else None
