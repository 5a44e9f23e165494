"""One HTTP exchange over a blocking socket, every receipt stamped, nothing parsed while it runs but the framing.

What it gives is a `Raw`; llmpar.request makes a record of it.
"""

from __future__ import annotations

import errno
import socket
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from llmpar import stamps
from llmpar.http1 import BadFraming, Framer

READ_BYTES = 1 << 16


class Cancelled(BaseException):
    """The request is no longer wanted: its launcher died. Like KeyboardInterrupt no kind of fault."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `prefix` is the base URL's path without a closing slash."""

    tls: bool
    host: str
    port: int
    prefix: str
    authority: str

    @classmethod
    def of(cls, base_url: str) -> Target:
        """Raises ValueError, whose text says what is wrong, for anything but http and https with a host."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"'{base_url}' is not an http:// or https:// URL")
        if not parts.hostname:
            raise ValueError(f"'{base_url}' names no host")
        if parts.username is not None or parts.password is not None:
            # It would end in every record's base_url.
            raise ValueError("the base URL holds a user name or password; give a key with --api-key-file")
        if parts.query or parts.fragment:
            raise ValueError(f"'{base_url}' has a query or fragment; give the part before the API's own path")
        tls = parts.scheme == "https"
        return cls(tls, parts.hostname, parts.port or (443 if tls else 80), parts.path.rstrip("/"),
                   parts.netloc.rpartition("@")[2])

    def path(self, route: str) -> str:
        """The request's path: base URLs are given with and without the /v1 that OpenAI routes begin with."""
        if self.prefix.endswith("/v1") and route.startswith("/v1/"):
            return self.prefix + route[3:]
        return self.prefix + route


@dataclass(slots=True)
class Raw:
    """What one exchange left. Instants in epoch nanoseconds, None where it did not get so far.

    `stamps[i]` is when the body had grown to `marks[i]` bytes. `error` is (type, message) of the transport's own, None
    where a whole response came; the status may still be an engine's error.
    """

    connect_ns: int | None = None
    sent_ns: int | None = None
    headers_ns: int | None = None
    end_ns: int | None = None
    stamps: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: tuple[str, str] | None = None
    kernel: bool = True
    reused: bool = False
    bytes_sent: int = 0
    bytes_received: int = 0
    cpu_wait_ns: int | None = None
    clock_step_ns: int = 0


class Connections:
    """At most one open connection to each target, reused where both sides keep it alive. For one thread."""

    def __init__(self) -> None:
        self._open: dict[tuple[Target, bool], socket.socket] = {}
        self._addresses: dict[tuple[str, int], list[Any]] = {}
        self._tls: Any = None

    def take(self, target: Target, kernel: bool) -> socket.socket | None:
        return self._open.pop((target, kernel), None)

    def put(self, target: Target, kernel: bool, sock: socket.socket) -> None:
        self._open[(target, kernel)] = sock

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
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if kernel:
                    stamps.enable(sock)
                sock.settimeout(_left(deadline))
                sock.connect(address)
                if target.tls:
                    sock = self._wrap(sock, target.host)
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
    """Make blocking reads end at the deadline without a poll before each: the kernel's own receive time-out."""
    microseconds = max(int(_left(deadline) * 1e6), 1000)
    sock.setblocking(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, stamps.timeval(microseconds))


def exchange(connections: Connections, target: Target, message: bytes, timeout_s: float, max_bytes: int,
             kernel: bool = True, keep_alive: bool = False) -> Raw:
    """Send `message` (a whole request) and receive its response. Never raises for what a peer or a network does.

    KeyboardInterrupt and the like become `error` of type `cancelled` and are raised again after the Raw is made, as the
    attribute `raw` of the exception.
    """
    kernel = kernel and not target.tls
    deadline = time.monotonic_ns() + int(timeout_s * 1e9)
    offset = stamps.clock_offset()
    raw = Raw(kernel=kernel)
    sock = connections.take(target, kernel) if keep_alive else None
    raw.reused = sock is not None
    framer = Framer()
    try:
        try:
            while True:
                if sock is None:
                    began = time.monotonic_ns()
                    sock = connections.connect(target, kernel, deadline)
                    raw.connect_ns = time.monotonic_ns() - began
                again = _converse(sock, message, deadline, max_bytes, raw, framer)
                if not again:
                    break
                # The server had closed an idle connection before it saw the request: ask anew on a fresh one.
                sock.close()
                sock = None
                fresh = Raw(kernel=kernel)
                raw, framer = fresh, Framer()
        except Exception as error:
            raw.error = _named(error, timeout_s)
        except BaseException as error:
            raw.error = ("cancelled", "interrupted" if isinstance(error, KeyboardInterrupt) else "cancelled")
            _finish(raw, framer, offset)
            error.raw = raw  # type: ignore[attr-defined]
            raise
        _finish(raw, framer, offset)
        if sock is not None and keep_alive and raw.error is None and framer.reusable:
            connections.put(target, kernel, sock)
            sock = None
        return raw
    finally:
        if sock is not None:
            sock.close()


def _finish(raw: Raw, framer: Framer, offset: int) -> None:
    raw.status, raw.headers, raw.body = framer.status, framer.headers, bytes(framer.body)
    raw.clock_step_ns = stamps.clock_offset() - offset
    if raw.end_ns is None and raw.stamps:
        raw.end_ns = raw.stamps[-1]


def _converse(sock: socket.socket, message: bytes, deadline: int, max_bytes: int, raw: Raw, framer: Framer) -> bool:
    """Fill `raw`; True where a reused connection turned out dead before the first byte of a response."""
    plain = raw.kernel
    waited = stamps.cpu_wait()
    try:
        sock.settimeout(_left(deadline))
        raw.sent_ns = time.time_ns()
        try:
            sock.sendall(message)
            raw.bytes_sent = len(message)
        except (BrokenPipeError, ConnectionResetError):
            # A server may answer (413, 401) and close before it has read all; its answer matters more.
            if raw.reused and not framer.started:
                return True
        if plain:
            _limit(sock, deadline)
        try:
            _collect(sock, deadline, max_bytes, raw, framer)
        except ConnectionResetError:
            if raw.reused and not framer.started:
                return True
            raise
        if raw.reused and not framer.started:
            return True
    finally:
        if waited is not None:
            now = stamps.cpu_wait()
            raw.cpu_wait_ns = None if now is None else now - waited
    return False


def _collect(sock: socket.socket, deadline: int, max_bytes: int, raw: Raw, framer: Framer) -> None:
    receipts, marks, feed, body = raw.stamps, raw.marks, framer.feed, framer.body
    kernel, space, stamp = raw.kernel, stamps.SPACE, stamps.stamp
    received = 0
    # The deadline is checked on receipts: a stream that never pauses never runs into the socket's time-out.
    latest = time.time_ns() + deadline - time.monotonic_ns()
    try:
        while True:
            if kernel:
                data, ancillary, _, _ = sock.recvmsg(READ_BYTES, space)
                now = stamp(ancillary)
                if now is None:
                    now = time.time_ns()
                    raw.kernel = raw.kernel and not data
            else:
                data = sock.recv(READ_BYTES)
                now = time.time_ns()
            if not data:
                missing = framer.eof()
                if missing is not None and not (raw.reused and not framer.started):
                    raw.error = ("no_response" if not framer.started else "cut_body", missing)
                return
            received += len(data)
            done = feed(data)
            if raw.headers_ns is None and framer.status is not None:
                raw.headers_ns = now
            receipts.append(now)
            marks.append(len(body))
            if done:
                raw.end_ns = now
                return
            if received > max_bytes:
                raw.error = ("too_many_bytes", f"more than {max_bytes} bytes came")
                return
            if now > latest:
                raise TimeoutError
    finally:
        raw.bytes_received = received


def _named(error: Exception, timeout_s: float) -> tuple[str, str]:
    """A transport error as (type, message)."""
    if isinstance(error, TimeoutError | BlockingIOError):  # SO_RCVTIMEO ends a read with EAGAIN
        return "timeout", f"no complete response within {timeout_s:g} s"
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

