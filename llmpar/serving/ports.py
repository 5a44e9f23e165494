"""TCP ports of this machine."""

from __future__ import annotations

import errno
import random
import socket

from llmpar import exit_codes, failure
from llmpar.engines import base, flags


def taken(port: int, host: str = flags.LOOPBACK) -> bool:
    """Whether something listens on a port of this machine."""
    with _socket(host) as probe:
        probe.settimeout(1)
        return probe.connect_ex((flags.reached_at(host), port)) == 0


# Below those that the kernel gives to connections, and low enough for engines that listen on theirs + 10000 as well.
FREE = range(20000, 32768)


def free(host: str = flags.LOOPBACK) -> int:
    """A port that is free now. Raises Failure where there is none, or the address is not one of this machine's."""
    for port in random.sample(FREE, len(FREE)):
        with _socket(host) as probe:
            try:
                probe.bind((host, port))
                return port
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise failure.Failure(
                    f"cannot listen on {host}: {error.strerror}",
                    exit_codes.USAGE,
                    "ip addr lists this machine's addresses; 0.0.0.0 and :: are all of them",
                ) from None
    raise failure.Failure(
        f"no port from {FREE.start} to {FREE.stop - 1} is free", exit_codes.UNAVAILABLE, "give one with --port"
    )


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def choose_ports(default: int, wanted: base.Settings, dry: bool) -> tuple[int | None, list[int]]:
    """(the balancer's port or None, a port for each server). Raises Failure where a port is taken."""
    count = wanted.replicas or 1
    host = flags.host(wanted)
    asked = default if wanted.port is None or (dry and wanted.port == 0) else wanted.port
    spare = None if dry else free(host)
    first = spare if asked == 0 and spare is not None else asked
    if not dry and taken(first, host):
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
