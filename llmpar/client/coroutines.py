"""N client coroutines in one process over aiohttp, each with its own connection, sharing one stream of prompts.

aiohttp speaks HTTP; what its sockets receive is noted on the way, at the read, by the code that every other client
uses:
same stamps (the kernel's on plain HTTP), same framer, same record. Under TLS the sockets see nothing but ciphertext;
there each piece of the body is stamped when the coroutine gets it, after whatever else the event loop had to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from llmpar.client import exchange, receive, stamps
from llmpar.client.conversation import Conversation, Launch, Place
from llmpar.client.gate import Gate
from llmpar.client.http1 import HEAD_LIMIT, BadFraming, Framer
from llmpar.client.output import Output, Tally
from llmpar.client.plan import Missing, Plan
from llmpar.client.prompt_file import Prompt, read_prompt
from llmpar.client.receive import Raw
from llmpar.client.request import Settings, ask, record, request_headers

Take = Callable[[], Awaitable[str | None]]
AHEAD = 1000  # names read before they are wanted, of a list that may have no end
TEXT_LIMIT = 200  # characters of an error's text, which quotes what came
OURS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")  # headers that aiohttp would add by itself


class _Socket(socket.socket):
    """A socket that notes what passes through it in its client's present exchange."""

    client: Client

    def recv(self, size: int, flags: int = 0) -> bytes:
        raw = self.client.raw
        if raw is None:
            data = super().recv(size, flags)
            # Under TLS that may be a record of the protocol's own; otherwise nobody asked for it.
            self.client.spoiled = self.client.spoiled or bool(data) and not self.client.tls
            return data
        if raw.bytes_received > self.client.settings.max_bytes:
            raw.error = receive.too_many(self.client.settings.max_bytes)
            return b""
        if self.client.tls:
            data = super().recv(size, flags)
            raw.bytes_received += len(data)
            return data
        try:
            return receive.receive(self, raw, super().recv)
        except BadFraming as error:
            raw.error = exchange.named(error, 0)
            return b""

    def send(self, data: Any, flags: int = 0) -> int:
        return self._sent(super().send, data, flags)

    def sendmsg(self, buffers: Any, *rest: Any) -> int:
        return self._sent(super().sendmsg, buffers, *rest)

    def _sent(self, send: Callable[..., int], *arguments: Any) -> int:
        raw = self.client.raw
        # A TLS handshake is no part of the request: there `sent_ns` is set when it is over.
        if raw is None or self.client.tls and raw.sent_ns is None:
            return send(*arguments)
        if raw.sent_ns is None:
            self.client.begin()
        count = send(*arguments)
        raw.bytes_sent += count
        return count


class Client:
    """One coroutine's connection and the exchange that is out on it."""

    def __init__(self, settings: Settings):
        import aiohttp
        import yarl

        self.settings, self.tls = settings, settings.target.tls
        self.errors = (aiohttp.ClientError, OSError, ValueError)
        self.raw: Raw | None = None
        self._url = lambda path: yarl.URL(
            f"{'https' if self.tls else 'http'}://{settings.target.authority}{path}", encoded=True
        )
        self._waited: int | None = None
        self._connecting = 0
        self.spoiled = False  # something came while no request was out
        self.sock: _Socket | None = None
        self.acked: int | None = None
        self.session = self._open()

    def _open(self) -> Any:
        import aiohttp

        settings = self.settings
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_start.append(self._connect)
        trace.on_connection_create_end.append(self._connected)
        trace.on_connection_reuseconn.append(self._reused)
        kept: dict[str, Any] = {"keepalive_timeout": 3600} if settings.keep_alive else {"force_close": True}
        context = exchange.tls_context(settings.target) if self.tls else True
        connector = aiohttp.TCPConnector(limit=1, ttl_dns_cache=None, socket_factory=self._socket, ssl=context, **kept)
        return aiohttp.ClientSession(
            connector=connector,
            trace_configs=[trace],
            auto_decompress=False,
            skip_auto_headers=OURS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
        )

    def _socket(self, address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = _Socket(family, kind, protocol)
        made.client = self
        self.sock = made
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.raw is not None and self.raw.asked_kernel:
            stamps.enable(made)
        return made

    async def _connect(self, *_: Any) -> None:
        self._connecting = time.monotonic_ns()

    async def _connected(self, *_: Any) -> None:
        if self.raw is not None:
            self.raw.connect_ns = time.monotonic_ns() - self._connecting
            if self.tls:
                self.begin()

    async def _reused(self, *_: Any) -> None:
        if self.raw is not None:
            self.raw.reused = True
            self.acked = exchange.acknowledged(self.sock) if self.sock is not None else None
            if self.tls:
                self.begin()

    def begin(self) -> None:
        """The next byte to the kernel is the request's first."""
        if self.raw is not None:
            self._waited = stamps.cpu_wait()
            self.raw.sent_ns = time.time_ns()

    async def perform(self, launch: Launch, prompt: Prompt, place: Place | None, gate: Gate) -> dict[str, Any]:
        """One request, one record; cancelling the task makes it one that says so."""
        asked = ask(self.settings, prompt, place)
        if asked.fault is not None:
            return record(self.settings, launch, prompt, asked, Raw(error=asked.fault), place)
        kernel = self.settings.kernel and not self.tls
        while True:
            if (
                self.spoiled
                or self.sock is not None
                and self.sock.fileno() >= 0
                and not self.tls
                and not _quiet(self.sock)
            ):
                await self.session.close()
                self.session, self.spoiled, self.sock = self._open(), False, None
            raw = self.raw = Raw(kernel, kernel)
            offset = stamps.clock_offset()
            try:
                await self._converse(raw, asked.path, asked.body)
            except asyncio.CancelledError:
                if not raw.framer.done:
                    raw.error = ("cancelled", gate.why or "cancelled")
            finally:
                self.raw = None
                raw.clock_step_ns = stamps.clock_offset() - offset
                waited = stamps.cpu_wait()
                if raw.sent_ns is not None and waited is not None and self._waited is not None:
                    raw.cpu_wait_ns = waited - self._waited
            dead = (
                raw.reused
                and not raw.stamps
                and raw.error is not None
                and raw.error[0] in ("no_response", "connection_reset")
            )
            # Only where the server's kernel took no byte of it was the request certainly not seen.
            if not dead or self.tls or self.acked is None or self.sock is None:
                return record(self.settings, launch, prompt, asked, raw, place)
            if exchange.acknowledged(self.sock) != self.acked:
                return record(self.settings, launch, prompt, asked, raw, place)

    async def _converse(self, raw: Raw, path: str, body: bytes) -> None:
        """Fill `raw`; raises nothing for what a peer or a network does."""
        settings = self.settings
        headers = [*request_headers(settings), ("Connection", "keep-alive" if settings.keep_alive else "close")]
        try:
            async with asyncio.timeout(settings.timeout_s):
                async with self.session.post(
                    self._url(path), data=body, headers=headers, allow_redirects=False
                ) as response:
                    if self.tls:
                        await self._encrypted(raw, response)
                    else:
                        async for _ in response.content.iter_any():
                            if raw.bytes_received > settings.max_bytes:
                                break
            if raw.bytes_received > settings.max_bytes and not raw.framer.done:
                raw.error = receive.too_many(settings.max_bytes)
            elif raw.error is None and not self.tls and (missing := raw.framer.eof()) is not None:
                raw.error = ("cut_body", missing)
        except TimeoutError:
            where = "connection" if raw.sent_ns is None else "complete response"
            raw.error = ("timeout", f"no {where} within {settings.timeout_s:g} s")
        except self.errors as error:
            raw.error = raw.error or self._named(error, raw)

    async def _encrypted(self, raw: Raw, response: Any) -> None:
        """The body of an answer under TLS, stamped as it reaches this coroutine."""
        framer = raw.framer
        raw.headers_ns = time.time_ns()
        framer.status = response.status
        for name, value in response.headers.items():
            name = name.lower()
            framer.headers[name] = f"{framer.headers[name]}, {value}" if name in framer.headers else value
        raw.stamps.append(raw.headers_ns)
        raw.marks.append(0)
        async for data in response.content.iter_any():
            raw.stamps.append(time.time_ns())
            framer.body += data
            raw.marks.append(len(framer.body))
            if raw.bytes_received > self.settings.max_bytes:
                return

    def _named(self, error: Exception, raw: Raw) -> tuple[str, str]:
        """aiohttp's exception as (type, message), as the other clients name what happened."""
        import aiohttp

        framer: Framer = raw.framer
        if isinstance(error, aiohttp.ClientConnectorError):
            return exchange.named(error.os_error, self.settings.timeout_s)
        cause = error.__cause__ if isinstance(error, aiohttp.ClientPayloadError) else error
        if isinstance(cause, ConnectionResetError) or isinstance(cause, OSError) and cause.errno:
            return exchange.named(
                cause if isinstance(cause, ConnectionResetError) else OSError(cause.errno, cause.strerror), 0
            )
        if isinstance(error, aiohttp.ClientOSError):
            return exchange.named(ConnectionResetError(), 0)  # writing to a connection that the server had closed
        if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
            if self.tls:
                return (
                    ("cut_body", "the connection was closed inside the body")
                    if framer.status is not None
                    else ("no_response", "the connection was closed before a response")
                )
            missing = framer.eof()
            if missing is not None:
                return "cut_body" if framer.started else "no_response", missing
        if isinstance(error, aiohttp.ClientResponseError):
            return "bad_http", error.message[:TEXT_LIMIT]
        return "bad_http", str(error)[:TEXT_LIMIT] or type(error).__name__


def _quiet(sock: socket.socket) -> bool:
    ready = select.poll()
    ready.register(sock, select.POLLIN | select.POLLRDHUP)
    return not ready.poll(0)


def run(plan: Plan, paths: Iterator[str], output: Output, tally: Tally, gate: Gate) -> None:
    """Returns when every prompt has its record, or when the gate is shut and every request that was out has its. Raises
    client.plan.Missing, OSError where a record cannot be written."""
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        raise Missing(
            "--asyncio needs aiohttp, which is not installed", f"{sys.executable} -m pip install aiohttp"
        ) from None
    asyncio.run(_run(plan, paths, output, tally, gate))


async def _run(plan: Plan, paths: Iterator[str], output: Output, tally: Tally, gate: Gate) -> None:
    loop = asyncio.get_running_loop()
    take = _reader(paths, loop) if plan.from_stdin else _direct(paths)

    async def work() -> None:
        client = Client(plan.settings)
        try:
            while gate.why is None and (path := await take()) is not None:
                launch = Launch(plan.launcher, time.time_ns(), plan.attempt, plan.slot, plan.seq)
                talk = Conversation(read_prompt(path, plan.settings.timeout_s))
                while True:
                    made = await client.perform(launch, talk.prompt, talk.place, gate)
                    think = talk.next(made, plan.settings.text)
                    tally.add(made)
                    output.put(made)
                    if think is None or gate.why is not None:
                        break
                    await asyncio.sleep(think)
                    launch = launch._replace(launched_ns=time.time_ns())
        finally:
            await client.session.close()

    crew = [asyncio.ensure_future(work()) for _ in range(plan.coroutines or 1)]

    def stop() -> None:
        for task in crew:
            task.cancel()

    gate.wake = lambda: loop.call_soon_threadsafe(stop)
    try:
        if gate.why is None:
            await asyncio.wait(crew, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        gate.wake = None
        if any(task.done() and not task.cancelled() and task.exception() for task in crew):
            stop()
        ended = await asyncio.gather(*crew, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


def _direct(paths: Iterator[str]) -> Take:
    async def take() -> str | None:
        return next(paths, None)

    return take


def _reader(paths: Iterator[str], loop: asyncio.AbstractEventLoop) -> Take:
    """Names from a stream that may keep us waiting: read in a thread, so that no coroutine waits with it."""
    names: asyncio.Queue[str | None] = asyncio.Queue()
    room = threading.Semaphore(AHEAD)

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: cancelled
            for path in paths:
                room.acquire()
                loop.call_soon_threadsafe(names.put_nowait, path)
            loop.call_soon_threadsafe(names.put_nowait, None)

    async def take() -> str | None:
        path = await names.get()
        room.release()
        if path is None:
            names.put_nowait(None)  # for the next one
        return path

    threading.Thread(target=read, daemon=True).start()
    return take
