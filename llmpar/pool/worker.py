"""A pool's worker: takes launchers from the shared listener, carries out what they ask, one after the other."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from fcntl import F_SETFL, F_SETOWN, fcntl
from typing import Any

from llmpar import exit_codes, records
from llmpar.client import exchange, gate, prompt_queue, run
from llmpar.client.output import Output, Tally
from llmpar.client.plan import Unread, Wrong, over_hosts
from llmpar.outside import printable
from llmpar.pool.parser import Parser
from llmpar.pool.protocol import (
    COLD,
    FRAME,
    STDERR,
    STDOUT,
    Call,
    RunCold,
    dead,
    exit_frame,
    frame,
    gone,
    peer,
    receive,
)

SPAN = struct.Struct("=qq")  # sent, ended: epoch nanoseconds
IDLE, BUSY = 1, 2


class Worker:
    """One worker process. `spans` takes the time of each request, `orphans` records whose launcher is gone.

    `attempts` counts those of each job of GNU parallel; None for one of another host: it may send a job's next attempt
    elsewhere, and its number may have been another's a moment ago.
    """

    def __init__(
        self,
        listener: socket.socket,
        alive: int,
        need: int,
        spans: int,
        orphans: int,
        states: Any,
        number: int,
        spare: int,
        parser: Parser,
        fan_out: str,
        attempts: Any,
    ):
        self.listener, self.alive, self.need, self.spans, self.orphans = listener, alive, need, spans, orphans
        self.states, self.number, self.spare, self.parser, self.fan_out = states, number, spare, parser, fan_out
        self.attempts = attempts
        self.gate = gate.Gate()
        self.connections = exchange.Connections()
        self.launcher: socket.socket | None = None
        self.directory: bytes | None = None
        self.open = True

    def run(self) -> None:
        """Serve until the pool is gone."""
        signal.signal(signal.SIGIO, self._hung_up)
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the launchers
        for fd in (self.alive,):
            fcntl(fd, F_SETOWN, os.getpid())
            fcntl(fd, F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        waiting = select.epoll()
        waiting.register(self.listener.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        waiting.register(self.alive, select.EPOLLIN)
        self._check_pool()
        while self.open:
            self.states[self.number] = IDLE
            waiting.poll()
            if not self.open:
                return
            try:
                launcher, _ = self.listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                continue
            except OSError:
                self._check_pool()
                continue
            self.states[self.number] = BUSY
            if self.states[:].count(IDLE) < self.spare:
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    os.write(self.need, b"+")
            with launcher:
                self._serve(launcher)

    def _check_pool(self) -> None:
        """Where the pool's parent is gone its socket must close at once, here as well: new launchers shall not wait
        behind requests that are still out."""
        ready = select.poll()
        ready.register(self.alive, select.POLLIN)
        if ready.poll(0):
            self.open = False
            self.listener.close()

    def _hung_up(self, number: int, frame: Any) -> None:
        """SIGIO: the pool's parent or the launcher went."""
        if self.open:
            self._check_pool()
        if self.launcher is not None and gone(self.launcher):
            self.gate.cancel("its launcher was killed")

    def _terminated(self, number: int, frame: Any) -> None:
        self.open = False
        self.gate.cancel("the pool was ended")

    def _serve(self, launcher: socket.socket) -> None:
        self.gate.why = None
        try:
            pid, uid = peer(launcher)
            if uid != os.getuid():
                launcher.sendall(
                    frame(STDERR, b"llmpar-request: this pool is another user's\n") + exit_frame(exit_codes.UNEXPECTED)
                )
                return
            if not pid:
                launcher.sendall(FRAME.pack(COLD, 0))  # its names of files and processes may be others than ours
                return
            launcher.settimeout(10)
            data = receive(launcher)
            launcher.settimeout(None)
            call = Call(data)
        except (OSError, ValueError):
            return  # nobody who keeps the protocol
        self.launcher = launcher
        try:
            # From here on the launcher's end interrupts what waits for the engine.
            fcntl(launcher, F_SETOWN, os.getpid())
            fcntl(launcher, F_SETFL, os.O_ASYNC)
            if gone(launcher):
                self.gate.why = "its launcher was killed"
            self._answer(launcher, call)
        except OSError:
            pass
        finally:
            self.launcher = None

    def _answer(self, launcher: socket.socket, call: Call) -> None:
        held = b""
        lines: list[bytes] = []  # not yet with the launcher
        output: Output | None = None
        many = False

        def put(record: dict[str, Any]) -> None:
            nonlocal held
            self._span(record)
            line = records.encode(record)
            if output is not None:
                output.write(line)
                line = b""  # the launcher counts frames
            elif self.gate.why is not None and dead(launcher):
                os.write(self.orphans, line)
                return
            lines.append(line)
            held += frame(STDOUT, line)
            if many:
                launcher.sendall(held)
                held = b""
                lines.clear()

        try:
            if call.directory != self.directory:
                try:
                    os.chdir(call.directory)
                except OSError:
                    raise RunCold from None  # deleted, or unreadable from above: its own process is inside
                self.directory = call.directory
            plan = self.parser.parse(call)
            many = len(plan.prompts) != 1
            if plan.queue and self.attempts is None:
                raise over_hosts(plan.queue)
            if plan.seq is not None and plan.attempt == 1 and self.attempts is not None:
                plan.attempt = self._attempt(plan.seq)
            output = Output(plan.output) if plan.output else None
            tally = Tally()
            said: list[str] = []
            tally.say = said.append  # type: ignore[method-assign, assignment]
            paths = (
                prompt_queue.Queue(plan.queue, self.fan_out).take(peer(launcher)[0])
                if plan.queue
                else iter(plan.prompts)
            )
            if plan.duration_s is not None:
                paths = run.within(plan.duration_s, paths)
            run.in_turn(plan, paths, put, tally, self.connections, self.gate)
            code = tally.status
            if said:
                held += frame(STDERR, "".join(f"llmpar-request: {printable(text)}\n" for text in said).encode())
        except RunCold:
            launcher.sendall(FRAME.pack(COLD, 0))
            return
        except Wrong as error:
            hint = f"  {error.hint}\n" if error.hint else ""
            held += frame(STDERR, f"llmpar-request: {error}\n{hint}".encode())
            code = exit_codes.USAGE
        except Unread as error:
            held += frame(STDERR, str(error).encode())
            code = exit_codes.USAGE
        except OSError as error:
            what = f"'{error.filename}': {error.strerror}" if error.filename else str(error)
            held += frame(STDERR, f"llmpar-request: {what}\n".encode())
            code = exit_codes.UNEXPECTED
        try:
            # A single record leaves together with the exit code: one write, one wake-up.
            launcher.sendall(held + exit_frame(code))
            if lines and not self._taken(launcher):
                raise OSError
        except OSError:
            os.write(self.orphans, b"".join(lines))

    def _taken(self, launcher: socket.socket) -> bool:
        """Wait until the launcher has ended: whether it read all that it was sent. Linux tells one that did not by a
        reset."""
        ready = select.poll()
        ready.register(launcher, select.POLLIN)
        while self.open:
            if ready.poll(1000):
                try:
                    return not launcher.recv(1)
                except (BlockingIOError, InterruptedError):
                    continue
                except ConnectionResetError:
                    return False
        return True

    def _attempt(self, seq: int) -> int:
        """How often this job of GNU parallel has been tried: its --retries leaves no other trace."""
        if not 0 <= seq < len(self.attempts):
            return 1
        self.attempts[seq] = min(self.attempts[seq] + 1, 255)
        return int(self.attempts[seq])

    def _span(self, record: dict[str, Any]) -> None:
        """Tell the parent when the request was out, for the achieved concurrency."""
        sent = record["sent_at"]
        if sent is not None and not record.get("clock_step_s"):
            began = int(sent * 1e9)
            ended = time.time_ns() if record["e2e_s"] is None else began + int(record["e2e_s"] * 1e9)
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self.spans, SPAN.pack(began, max(began, ended)))
