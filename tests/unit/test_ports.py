"""Ports that llmpar-serve takes by itself."""

from __future__ import annotations

import socket

import pytest

from llmpar.failure import Failure
from llmpar.serving import ports


def test_a_free_port_is_below_those_of_connections_and_leaves_room_above() -> None:
    """SGLang listens on its port + 10000 as well."""
    taken = {ports.free() for _ in range(20)}
    assert len(taken) > 1 and max(taken) + 10000 < 65536
    assert max(taken) < 32768, "the kernel gives ports to connections from here, unless somebody has changed that"


def test_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        monkeypatch.setattr(ports, "FREE", range(port, port + 1))
        with pytest.raises(Failure, match="no port from"):
            ports.free()
    assert ports.free() == port


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(Failure, match="cannot listen on 192.0.2.1"):
        ports.free("192.0.2.1")
