"""One HTTP exchange over a blocking socket, every receipt stamped, nothing parsed while it runs but the framing.

What it gives is a `Raw`; llmpar.client.request makes a record of it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llmpar.client import stamps
from llmpar.client.http1 import BadFraming, Framer
from llmpar.client.target import Target

READ_BYTES = 1 << 16


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
    """A blocking TCP socket whose time-outs are the kernel's (SO_RCVTIMEO and SO_SNDTIMEO, which bounds connect too)."""


class Connections:
    """At most one open connection to each target, reused where both sides keep it alive. For one thread."""

    def __init__(self) -> None:
        self._open: dict[tuple[Target, bool], socket.socket] = {}
        self._addresses: dict[tuple[str, int], list[Any]] = {}
        self._tls: Any = None
        self._current: socket.socket | None = None
        self.interrupted: str | None = None

    def interrupt(self, why: str) -> None:
        """From another thread: end what waits on the present connection."""
        self.interrupted = why
        sock = self._current
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def take(self, target: Target, kernel: bool) -> socket.socket | None:
        self._current = self._open.pop((target, kernel), None)
        return self._current

    def done(self, raw: Raw, target: Target, keep_alive: bool) -> None:
        """Keep the connection of a finished exchange, or close it."""
        self._current = None
        if self.interrupted is not None and not raw.framer.done:
            raw.error = ("cancelled", self.interrupted)
        if raw.sock is None:
            return
        if keep_alive and raw.error is None and raw.framer.done and raw.framer.reusable:
            self._open[(target, raw.asked_kernel)] = raw.sock
        else:
            raw.sock.close()
        raw.sock = None

    def close(self) -> None:
        for sock in self._open.values():
            sock.close()
        self._open.clear()

    def connect(self, target: Target, kernel: bool, deadline: int) -> socket.socket:
        """A new connection. `deadline` in monotonic nanoseconds. Raises OSError (TimeoutError when too late)."""
        key = target.host, target.port
        addresses = self._addresses.get(key)
        if addresses is None:
            addresses = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        for family, kind, protocol, _, address in addresses:
            sock: socket.socket = (socket.socket if target.tls else PlainSocket)(family, kind, protocol)
            self._current = sock
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if kernel:
                    stamps.enable(sock)
                _limit(sock, deadline)
                sock.connect(address)
                if target.tls:
                    sock = self._current = self._wrap(sock, target.host)
            except OSError as error:
                sock.close()
                failure = error
                continue
            except BaseException:
                sock.close()
                raise
            # Names are looked up once: a lookup for each request would be timed as the engine's.
            self._addresses[key] = addresses
            return sock
        raise failure or OSError(errno.EADDRNOTAVAIL, "no address")

    def _wrap(self, sock: socket.socket, host: str) -> socket.socket:
        import ssl  # 40 ms that plain HTTP need not pay

        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls.wrap_socket(sock, server_hostname=host)


def _left(deadline: int) -> float:
    left = (deadline - time.monotonic_ns()) / 1e9
    if left <= 0:
        raise TimeoutError
    return left


def _limit(sock: socket.socket, deadline: int) -> None:
    """Make every wait on the socket end at the deadline."""
    left = _left(deadline)
    if isinstance(sock, PlainSocket):
        # The kernel's own time-outs: no poll before each read.
        value = stamps.timeval(max(int(left * 1e6), 1000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    else:
        sock.settimeout(left)


def exchange(
    raw: Raw,
    connections: Connections,
    target: Target,
    message: bytes,
    timeout_s: float,
    max_bytes: int,
    keep_alive: bool = False,
) -> None:
    """Send `message` (a whole request) and receive its response into `raw`. Never raises for what a peer or a network
    does; Cancelled passes through, with `raw` as far as it got."""
    raw.kernel = raw.kernel and not target.tls
    kernel = raw.asked_kernel = raw.kernel
    deadline = time.monotonic_ns() + int(timeout_s * 1e9)
    offset = stamps.clock_offset()
    try:
        if keep_alive:
            raw.sock = connections.take(target, kernel)
            raw.reused = raw.sock is not None
        while True:
            if raw.sock is None:
                began = time.monotonic_ns()
                raw.sock = connections.connect(target, kernel, deadline)
                raw.connect_ns = time.monotonic_ns() - began
            if not _converse(raw.sock, message, deadline, max_bytes, raw) or connections.interrupted is not None:
                break
            # The server had closed an idle connection before it saw the request: ask anew on a fresh one.
            raw.sock.close()
            raw.sock, raw.reused, raw.framer = None, False, Framer()
    except Exception as error:
        raw.error = named(error, timeout_s)
    finally:
        raw.clock_step_ns = stamps.clock_offset() - offset


def _converse(sock: socket.socket, message: bytes, deadline: int, max_bytes: int, raw: Raw) -> bool:
    """Fill `raw`; True where a reused connection turned out dead before the first byte of a response."""
    framer = raw.framer
    waited = stamps.cpu_wait()
    try:
        _limit(sock, deadline)
        raw.sent_ns = time.time_ns()
        try:
            sock.sendall(message)
            raw.bytes_sent = len(message)
        except (BrokenPipeError, ConnectionResetError):
            # A server may answer (413, 401) and close before it has read all; its answer matters more.
            if raw.reused and not framer.started:
                return True
        try:
            _collect(sock, deadline, max_bytes, raw, framer)
        except ConnectionResetError:
            if raw.reused and not framer.started:
                return True
            raise
        return raw.reused and not framer.started
    finally:
        if waited is not None:
            now = stamps.cpu_wait()
            raw.cpu_wait_ns = None if now is None else now - waited


def _collect(sock: socket.socket, deadline: int, max_bytes: int, raw: Raw, framer: Framer) -> None:
    """Read until the response has ended. What `receive` does, with everything at hand: this loop wakes for each token, in
    as many processes as there are streams, none of which finds the others' caches warm."""
    # The deadline is checked on receipts: a stream that never pauses never runs into the socket's time-out.
    latest = time.time_ns() + deadline - time.monotonic_ns()
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
            if now > latest:
                raise TimeoutError
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


def named(error: Exception, timeout_s: float) -> tuple[str, str]:
    """A transport error as (type, message)."""
    if (
        isinstance(error, TimeoutError | BlockingIOError) and error.errno != errno.EINPROGRESS
    ):  # SO_RCVTIMEO ends a read with EAGAIN
        return "timeout", f"no complete response within {timeout_s:g} s"
    if isinstance(error, OSError) and error.errno == errno.EINPROGRESS:  # connect, by SO_SNDTIMEO
        return "timeout", f"no connection within {timeout_s:g} s"
    if isinstance(error, BadFraming):
        return "bad_http", str(error)
    if isinstance(error, ConnectionRefusedError):
        return "connect_refused", "connection refused: nothing listens there"
    if isinstance(error, ConnectionResetError):
        return "connection_reset", "the server reset the connection"
    if isinstance(error, socket.gaierror):
        return "unknown_host", error.strerror or "cannot resolve the host's name"
    if isinstance(error, OSError):
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "too_many_files", "too many open files: raise `ulimit -n`"
        if type(error).__module__ == "ssl":
            return "tls", str(error)
        name = errno.errorcode.get(error.errno or 0, "OSError").lower()
        return f"socket_{name}", error.strerror or str(error)
    raise error
