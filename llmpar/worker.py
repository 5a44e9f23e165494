"""A pool's worker: takes launchers from the shared listener, carries out what they ask, one after the other."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from fcntl import F_SETFL, F_SETOWN, fcntl
from typing import Any

from llmpar import exchange, records, shared_queue, status, turns

MAGIC = b"llmpar1"
FRAME = struct.Struct("!BI")  # kind, length
STDOUT, STDERR, EXIT, COLD = b"oexc"
SPAN = struct.Struct("=qq")  # sent, ended: epoch nanoseconds
MESSAGE_LIMIT = 4 << 20  # arguments are bounded by ARG_MAX, of which the kernel gives 2 MiB unless the stack is larger
# Paths that mean something else in another process.
OWN_PATHS = ("/dev/std", "/dev/fd/", "/dev/tty", "/proc/self/", "/proc/thread-self/")
IDLE, BUSY = 1, 2


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


# Prompts and options of a command line. Raises turns.Unread.
Read = Callable[[list[str]], tuple[tuple[str, ...], dict[str, Any]]]


class Parser:
    """Makes plans of command lines, and remembers the last: GNU parallel's jobs differ in their last argument."""

    def __init__(self, read: Read, concurrency: int | None) -> None:
        self.read, self.concurrency = read, concurrency
        self._key: Any = None
        self._plan: turns.Plan | None = None

    def parse(self, call: Call) -> turns.Plan:
        """Raises RunCold, turns.Wrong, turns.Unread."""
        due = None
        arguments, key = call.arguments, call.key
        if "--at" in arguments[:-2]:
            # Send times differ in every job of an open loop.
            at = arguments.index("--at")
            due = arguments[at + 1]
            arguments = arguments[:at] + arguments[at + 2 :]
            key = (call.directory, *key[1 : key.index(b"\0")], b"\0", *map(os.fsencode, arguments[:-1]))
        last = arguments[-1] if arguments else "-"
        if self._plan is not None and key == self._key and not last.startswith("-"):
            plan = replace(self._plan, prompts=(last,))
        else:
            plan = self._parse(arguments, call.environ)
            remember = plan.prompts == (last,) and not plan.queue
            self._key, self._plan = (key, plan) if remember else (None, None)
        if any(name == "-" or name.startswith(OWN_PATHS) for name in plan.prompts):
            raise RunCold
        number = turns.whole
        plan = replace(plan, slot=number(call.environ.get("PARALLEL_JOBSLOT")),
                       seq=number(call.environ.get("PARALLEL_SEQ")), launched_ns=call.launched_ns)
        if due is not None:
            turns.check_at(due, len(plan.prompts) == 1)
            plan.at_ns = turns.due(due)
        return plan

    def _parse(self, arguments: list[str], environ: dict[str, str]) -> turns.Plan:
        if any(argument in ("-h", "--help", "--version") for argument in arguments):
            raise RunCold
        # Defaults come from the environment; this process has the first launcher's.
        for name in [name for name in os.environ if name.startswith("LLMPAR_")]:
            del os.environ[name]
        os.environ.update({name: value for name, value in environ.items() if name.startswith("LLMPAR_")})
        prompts, options = self.read(arguments)
        if options["from_stdin"] or options["threads"] or options["coroutines"]:
            raise RunCold
        if options["concurrency"] is None:
            options["concurrency"] = self.concurrency
        plan = turns.plan(prompts, options, environ, launched_ns=1)
        if plan.launcher == "cold":
            plan.launcher = "pool"
        return plan


class Worker:
    """One worker process. `spans` takes the time of each request, `orphans` records whose launcher is gone."""

    def __init__(self, listener: socket.socket, alive: int, need: int, spans: int, orphans: int, states: Any, number: int,
                 spare: int, parser: Parser, family: str, attempts: Any):
        self.listener, self.alive, self.need, self.spans, self.orphans = listener, alive, need, spans, orphans
        self.states, self.number, self.spare, self.parser, self.family = states, number, spare, parser, family
        self.attempts = attempts
        self.gate = exchange.Gate()
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
        if self.launcher is not None and _gone(self.launcher):
            self.gate.cancel("its launcher was killed")

    def _terminated(self, number: int, frame: Any) -> None:
        self.open = False
        self.gate.cancel("the pool was ended")

    def _serve(self, launcher: socket.socket) -> None:
        self.gate.why = None
        try:
            pid, uid = _peer(launcher)
            if uid != os.getuid():
                launcher.sendall(_frame(STDERR, b"llmpar-request: this pool is another user's\n") + _exit(status.UNEXPECTED))
                return
            if not pid:
                launcher.sendall(FRAME.pack(COLD, 0))  # its names of files and processes may be others than ours
                return
            launcher.settimeout(10)
            data = _receive(launcher)
            launcher.settimeout(None)
            call = Call(data)
        except (OSError, ValueError):
            return  # nobody who keeps the protocol
        self.launcher = launcher
        try:
            # From here on the launcher's end interrupts what waits for the engine.
            fcntl(launcher, F_SETOWN, os.getpid())
            fcntl(launcher, F_SETFL, os.O_ASYNC)
            if _gone(launcher):
                self.gate.why = "its launcher was killed"
            self._answer(launcher, call)
        except OSError:
            pass
        finally:
            self.launcher = None

    def _answer(self, launcher: socket.socket, call: Call) -> None:
        held = b""
        lines: list[bytes] = []  # not yet with the launcher
        output: turns.Output | None = None
        many = False

        def put(record: dict[str, Any]) -> None:
            nonlocal held
            self._span(record)
            line = records.encode(record)
            if output is not None:
                output.write(line)
                line = b""  # the launcher counts frames
            elif self.gate.why is not None and _dead(launcher):
                os.write(self.orphans, line)
                return
            lines.append(line)
            held += _frame(STDOUT, line)
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
            if plan.seq is not None and plan.attempt == 1:
                plan.attempt = self._attempt(plan.seq)
            output = turns.Output(plan.output) if plan.output else None
            tally = turns.Tally()
            said: list[str] = []
            tally.say = said.append  # type: ignore[method-assign, assignment]
            paths = (shared_queue.Queue(plan.queue, self.family).take(_peer(launcher)[0]) if plan.queue
                     else iter(plan.prompts))
            turns.in_turn(plan, paths, put, tally, self.connections, self.gate)
            code = tally.status
            if said:
                held += _frame(STDERR, "".join(f"llmpar-request: {text}\n" for text in said).encode())
        except RunCold:
            launcher.sendall(FRAME.pack(COLD, 0))
            return
        except turns.Wrong as error:
            hint = f"  {error.hint}\n" if error.hint else ""
            held += _frame(STDERR, f"llmpar-request: {error}\n{hint}".encode())
            code = status.USAGE
        except turns.Unread as error:
            held += _frame(STDERR, str(error).encode())
            code = status.USAGE
        except OSError as error:
            what = f"'{error.filename}': {error.strerror}" if error.filename else str(error)
            held += _frame(STDERR, f"llmpar-request: {what}\n".encode())
            code = status.UNEXPECTED
        try:
            # A single record leaves together with the exit code: one write, one wake-up.
            launcher.sendall(held + _exit(code))
        except OSError:
            os.write(self.orphans, b"".join(lines))

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


def _gone(launcher: socket.socket) -> bool:
    """Whether a launcher has closed its side, or asked to stop by shutting down the sending half."""
    ready = select.poll()
    ready.register(launcher, select.POLLRDHUP)
    return bool(ready.poll(0))


def _dead(launcher: socket.socket) -> bool:
    """Whether nobody reads there any more."""
    ready = select.poll()
    ready.register(launcher, 0)
    return bool(ready.poll(0))


def _peer(launcher: socket.socket) -> tuple[int, int]:
    """Process and user at the other end; process 0 where it is in a namespace that we cannot see."""
    pid, uid, _ = struct.unpack("iII", launcher.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def _receive(launcher: socket.socket) -> bytes:
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


def _frame(kind: int, data: bytes) -> bytes:
    return FRAME.pack(kind, len(data)) + data


def _exit(code: int) -> bytes:
    return FRAME.pack(EXIT, 1) + bytes([code])


