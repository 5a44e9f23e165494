"""The name of this host, as records and tables have it."""

from __future__ import annotations

import os
import socket


def name() -> str:
    """LLMPAR_HOST where it is set (in a container: the name of the node, not of the pod), else the kernel's."""
    told = os.environ.get("LLMPAR_HOST", "").strip()
    return told if told.isprintable() and told else socket.gethostname()
