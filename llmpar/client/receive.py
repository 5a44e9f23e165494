"""Each read of a socket and its time stamp: the kernel's where it gives one, else the clock's at the read."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from llmpar.client import stamps
from llmpar.client.http1 import Framer

READ_BYTES = 1 << 16
SLACK_NS = 200_000_000  # a request may outlive its time limit by so much


@dataclass(slots=True)
class Raw:
    """What one exchange left. Instants in epoch nanoseconds, None where it did not get so far.

    `stamps[i]` is when the body had grown to `marks[i]` bytes. `error` is (type, message) of the transport's own, None
    where a whole response came; the status may still be an engine's error. `sock` is the connection, to be put back or
    closed by the caller.
    """

    kernel: bool = True
    asked_kernel: bool = True
    error: tuple[str, str] | None = None
    connect_ns: int | None = None
    sent_ns: int | None = None
    headers_ns: int | None = None
    stamps: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    framer: Framer = field(default_factory=Framer)
    reused: bool = False
    bytes_sent: int = 0
    bytes_received: int = 0
    cpu_wait_ns: int | None = None
    clock_step_ns: int = 0
    sock: socket.socket | None = None

    @property
    def end_ns(self) -> int | None:
        """When the last byte came."""
        return self.stamps[-1] if self.stamps else None


class PlainSocket(socket.socket):
    """A blocking TCP socket whose time-outs are the kernel's (SO_RCVTIMEO and SO_SNDTIMEO, which bounds connect
    too)."""


def left(deadline: int) -> float:
    left = (deadline - time.monotonic_ns()) / 1e9
    if left <= 0:
        raise TimeoutError
    return left


def limit(sock: socket.socket, deadline: int) -> None:
    """Make every wait on the socket end at the deadline."""
    rest = left(deadline)
    if isinstance(sock, PlainSocket):
        # The kernel's own time-outs: no poll before each read.
        value = stamps.timeval(max(int(rest * 1e6), 1000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    else:
        sock.settimeout(rest)


def collect(sock: socket.socket, deadline: int, max_bytes: int, raw: Raw, framer: Framer) -> None:
    """Read until the response has ended. What `receive` does, with everything at hand: this loop wakes for each token,
    in as many processes as there are streams, none of which finds the others' caches warm."""
    # The deadline is checked on receipts: a stream that never pauses never runs into the socket's time-out. That was
    # set for the time left when the wait began, and is set again where much less is left.
    monotonic = time.monotonic_ns
    limited = monotonic()
    receipts, marks, feed, body = raw.stamps, raw.marks, framer.feed, framer.body
    kernel, space, stamp, now_ns = raw.kernel, stamps.SPACE, stamps.stamp, time.time_ns
    recvmsg, recv = sock.recvmsg, sock.recv
    received = 0
    try:
        while True:
            if kernel:
                data, ancillary, _, _ = recvmsg(READ_BYTES, space)
                now = stamp(ancillary)
                if now is None:
                    now = now_ns()
                    raw.kernel = raw.kernel and not data
            else:
                data = recv(READ_BYTES)
                now = now_ns()
            if not data:
                missing = framer.eof()
                if missing is not None and not (raw.reused and not framer.started):
                    raw.error = ("no_response" if not framer.started else "cut_body", missing)
                return
            received += len(data)
            receipts.append(now)
            done = feed(data)
            marks.append(len(body))
            if raw.headers_ns is None and framer.status is not None:
                raw.headers_ns = now
            if done:
                return
            if received > max_bytes:
                raw.error = too_many(max_bytes)
                return
            at = monotonic()
            if at > deadline:
                raise TimeoutError
            if at - limited > SLACK_NS:
                limit(sock, deadline)
                limited = at
    finally:
        raw.bytes_received = received


def receive(sock: socket.socket, raw: Raw, recv: Callable[[int], bytes]) -> bytes:
    """Read once and note in `raw` what came and when; nothing at the end. `recv` reads where the kernel does not stamp.
    Raises OSError, BadFraming."""
    if raw.asked_kernel:
        data, ancillary, _, _ = sock.recvmsg(READ_BYTES, stamps.SPACE)
        now = stamps.stamp(ancillary)
        if now is None:
            now = time.time_ns()
            raw.kernel = raw.kernel and not data
    else:
        data = recv(READ_BYTES)
        now = time.time_ns()
    if data:
        framer = raw.framer
        raw.bytes_received += len(data)
        raw.stamps.append(now)
        framer.feed(data)
        raw.marks.append(len(framer.body))
        if raw.headers_ns is None and framer.status is not None:
            raw.headers_ns = now
    return data


def too_many(max_bytes: int) -> tuple[str, str]:
    return "too_many_bytes", f"more than {max_bytes} bytes came"
