"""What launcher and worker say to one another: frames over a Unix socket, and the words of a call."""

from __future__ import annotations

import os
import select
import socket
import struct

MAGIC = b"llmpar1"
FRAME = struct.Struct("!BI")  # kind, length
STDOUT, STDERR, EXIT, COLD = b"oexc"

MESSAGE_LIMIT = 4 << 20  # arguments are bounded by ARG_MAX, of which the kernel gives 2 MiB unless the stack is larger


class RunCold(Exception):
    """This command line is not for a pool: the launcher shall run it itself."""


class Call:
    """What a launcher sent: magic, start in epoch nanoseconds, directory, number of variables, variables, arguments."""

    __slots__ = ("launched_ns", "directory", "environ", "arguments", "key")

    def __init__(self, data: bytes):
        """Raises ValueError for anything else."""
        fields = data.split(b"\0")
        if fields[0] != MAGIC or len(fields) < 4:
            raise ValueError("not a launcher")
        count = int(fields[3])
        variables, arguments = fields[4 : 4 + count], fields[4 + count :]
        if len(variables) != count:
            raise ValueError("not a launcher")
        self.launched_ns = int(fields[1]) or None
        self.directory = fields[2]
        self.environ = {}
        for variable in variables:
            name, _, value = os.fsdecode(variable).partition("=")
            self.environ[name] = value
        self.arguments = [os.fsdecode(argument) for argument in arguments]
        # What a parsed command line depends on besides its last argument and GNU parallel's numbers.
        kept = [variable for variable in variables if not variable.startswith(b"PARALLEL_")]
        self.key = (self.directory, *kept, b"\0", *arguments[:-1])


def gone(launcher: socket.socket) -> bool:
    """Whether a launcher has closed its side, or asked to stop by shutting down the sending half."""
    ready = select.poll()
    ready.register(launcher, select.POLLRDHUP)
    return bool(ready.poll(0))


def dead(launcher: socket.socket) -> bool:
    """Whether nobody reads there any more."""
    ready = select.poll()
    ready.register(launcher, 0)
    return bool(ready.poll(0))


def peer(launcher: socket.socket) -> tuple[int, int]:
    """Process and user at the other end; process 0 where it is in a namespace that we cannot see."""
    pid, uid, _ = struct.unpack("iII", launcher.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def receive(launcher: socket.socket) -> bytes:
    """A launcher's message: four bytes of length, then as many. Raises ValueError, OSError."""
    data = launcher.recv(1 << 16)
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        if len(data) >= 4 and int.from_bytes(data[:4], "big") > MESSAGE_LIMIT:
            raise ValueError("too long")
        piece = launcher.recv(1 << 16)
        if not piece:
            raise ValueError("cut short")
        data += piece
    if len(data) != 4 + int.from_bytes(data[:4], "big"):
        raise ValueError("too long")
    return data[4:]


def frame(kind: int, data: bytes) -> bytes:
    return FRAME.pack(kind, len(data)) + data


def exit_frame(code: int) -> bytes:
    return FRAME.pack(EXIT, 1) + bytes([code])
