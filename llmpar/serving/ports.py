"""TCP ports of this machine."""

from __future__ import annotations

import socket

from llmpar import exit_codes, failure
from llmpar.engines import base


def taken(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def choose_ports(default: int, wanted: base.Settings, dry: bool) -> tuple[int | None, list[int]]:
    """(the balancer's port or None, a port for each server). Raises Failure where a port is taken."""
    count = wanted.replicas or 1
    asked = default if wanted.port is None or (dry and wanted.port == 0) else wanted.port
    first = free() if asked == 0 and not dry else asked
    if not dry and taken(first):
        raise failure.Failure(
            f"port {first} is taken",
            exit_codes.UNAVAILABLE,
            "another server runs there; end it, or give --port 0 for a free one",
        )
    if count == 1:
        return None, [first]
    behind: list[int] = []
    while len(behind) < count:
        port = first + 1 + len(behind) if dry else free()
        if port != first and port not in behind:
            behind.append(port)
    return first, behind
