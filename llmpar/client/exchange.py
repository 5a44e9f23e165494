"""One HTTP exchange over a blocking socket, every receipt stamped, nothing parsed while it runs but the framing.

What it gives is a `Raw`; llmpar.client.request makes a record of it.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import threading
import time
from typing import Any

from llmpar.client import stamps
from llmpar.client.http1 import BadFraming, Framer
from llmpar.client.receive import PlainSocket, Raw, collect, left, limit
from llmpar.client.target import Target

_ACKED = struct.Struct("=120xQ")  # struct tcp_info: tcpi_bytes_acked


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
        """The connection kept for the target; none that the server has closed meanwhile, or sent something unasked
        on."""
        sock = self._open.pop((target, kernel), None)
        if sock is not None and not idle(sock):
            sock.close()
            sock = None
        self._current = sock
        return sock

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
        if target.unix is not None:
            return self._connect_unix(target.unix, deadline)
        key = target.host, target.port
        addresses = self._addresses.get(key)
        if addresses is None:
            addresses = _look_up(target.host, target.port, deadline)
        failure: OSError | None = None
        for family, kind, protocol, _, address in addresses:
            sock: socket.socket = (socket.socket if target.tls else PlainSocket)(family, kind, protocol)
            self._current = sock
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if kernel:
                    stamps.enable(sock)
                limit(sock, deadline)
                sock.connect(address)
                if target.tls:
                    sock.settimeout(left(deadline))
                    sock = self._current = self._wrap(sock, target)
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

    def _connect_unix(self, path: str, deadline: int) -> socket.socket:
        sock = PlainSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._current = sock
        try:
            limit(sock, deadline)
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _wrap(self, sock: socket.socket, target: Target) -> socket.socket:
        if self._tls is None:
            self._tls = tls_context(target)
        return self._tls.wrap_socket(sock, server_hostname=target.host)


def tls_context(target: Target) -> Any:
    """How servers are trusted: by the system's certificates (or SSL_CERT_FILE's), those of --ca, or all with
    --insecure."""
    import ssl  # 40 ms that plain HTTP need not pay

    context = ssl.create_default_context(cafile=target.ca)
    if target.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def idle(sock: socket.socket) -> bool:
    """Whether a kept connection may carry a request: open, and with nothing on it that nobody asked for."""
    ready = select.poll()
    ready.register(sock, select.POLLIN | select.POLLRDHUP)
    if not ready.poll(0):
        return True
    if isinstance(sock, PlainSocket):
        return False
    # Under TLS records of the protocol's own may have come (session tickets); reading takes them in.
    sock.settimeout(0)
    try:
        sock.recv(1)
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        return type(error).__name__ == "SSLWantReadError"


def acknowledged(sock: socket.socket) -> int | None:
    """Bytes that the peer's kernel has acknowledged so far; None where that cannot be known."""
    try:
        return int(_ACKED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size))[0])
    except (OSError, struct.error, AttributeError):
        return None


def _look_up(host: str, port: int, deadline: int) -> list[Any]:
    """The addresses of a name, in time: the resolver has no limit of its own."""
    try:  # a number needs no resolver, and no thread
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(left(deadline))
    if not answer:
        raise TimeoutError
    if isinstance(answer[0], UnicodeError):
        raise socket.gaierror(socket.EAI_NONAME, "the host's name is not one that can be looked up")
    if isinstance(answer[0], OSError):
        raise answer[0]
    return list(answer[0])


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
            before = acknowledged(raw.sock) if raw.reused else None
            dead = _converse(raw.sock, message, deadline, max_bytes, raw)
            if not dead or connections.interrupted is not None:
                break
            # Only where the server's kernel took no byte of the request is it certain that the server did not either:
            # it had closed the idle connection. Anything else is a failure of this request.
            if target.tls or before is None or acknowledged(raw.sock) != before:
                raw.error = raw.error or ("no_response", "the kept connection was closed before a response")
                break
            raw.sock.close()
            raw.sock, raw.reused, raw.framer, raw.error = None, False, Framer(), None
    except Exception as error:
        raw.error = named(error, timeout_s)
    finally:
        raw.clock_step_ns = stamps.clock_offset() - offset


def _converse(sock: socket.socket, message: bytes, deadline: int, max_bytes: int, raw: Raw) -> bool:
    """Fill `raw`; True where a reused connection turned out dead before the first byte of a response."""
    framer = raw.framer
    waited = stamps.cpu_wait()
    try:
        limit(sock, deadline)
        raw.sent_ns = time.time_ns()
        try:
            _send(sock, message, deadline, raw)
        except (BrokenPipeError, ConnectionResetError):
            # A server may answer (413, 401) and close before it has read all; its answer matters more.
            if raw.reused and not framer.started:
                return True
        try:
            collect(sock, deadline, max_bytes, raw, framer)
        except ConnectionResetError:
            if raw.reused and not framer.started:
                return True
            raise
        return raw.reused and not framer.started
    finally:
        if waited is not None:
            now = stamps.cpu_wait()
            raw.cpu_wait_ns = None if now is None else now - waited


def _send(sock: socket.socket, message: bytes, deadline: int, raw: Raw) -> None:
    """Send it all before the deadline, however slowly the peer reads."""
    raw.bytes_sent = sock.send(message)
    while raw.bytes_sent < len(message):
        limit(sock, deadline)
        raw.bytes_sent += sock.send(memoryview(message)[raw.bytes_sent :])


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
            untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            why = "; name its certificates with --ca FILE, or --insecure to trust it as it is" if untrusted else ""
            return "tls", f"{str(error)[:500]}{why}"
        name = errno.errorcode.get(error.errno or 0, "OSError").lower()
        return f"socket_{name}", error.strerror or str(error)
    raise error
