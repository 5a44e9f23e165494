"""The pool behind `parallel … llmpar-request`: one process that keeps workers forked ahead, and goes when its parallel
goes. The first launcher starts it, through llmpar.commands.request; docs/request.md tells its life and death.

Workers accept launchers from a shared listener themselves. The parent only forks, counts, and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import mmap
import os
import re
import resource
import select
import signal
import socket
import stat
import time

from llmpar import procfs, runtime_directory
from llmpar.client import request
from llmpar.pool.parser import Parser, Read
from llmpar.pool.protocol import MAGIC, Call, RunCold
from llmpar.pool.worker import BUSY, IDLE, SPAN, Worker

SPARE = 4  # workers kept idle, so that a launcher never waits for a fork
WORKERS = 8192  # at most
ATTEMPTS = 1 << 20  # jobs of GNU parallel whose attempts are counted
TICK_S = 0.5
ORPHANS_S = 30.0  # for a reader of parallel's output to take the records of killed launchers
IDLE_S = 60.0  # a pool without work ends after this; LLMPAR_POOL_IDLE_S
ENOUGH = 0.97  # achieved concurrency below this share of what was asked is worth a word


class Pool:
    """The parent's state. `pid` is GNU parallel's process; it may live on another host, then only idleness ends the
    pool."""

    def __init__(self, pid: int, read: Read, arguments: list[str]):
        self.pid = pid
        self.folder = runtime_directory.directory()
        self.path = f"{self.folder}/{pid}.sock"
        self.watch = _watch(pid)
        self.concurrency = jobs(pid) if self.watch is not None else None
        self.streams = {number: _stream_of(pid, number) for number in (1, 2)} if self.watch is not None else {}
        self.idle_s = float(os.environ.get("LLMPAR_POOL_IDLE_S") or IDLE_S)
        # Of another host's GNU parallel nothing can be told but that this pool serves it.
        self.fan_out = procfs.fan_out_key(pid if self.watch is not None else os.getpid())
        self.alive_read, self.alive_write = os.pipe()
        self.need_read, self.need_write = _pipe()
        self.spans_read, self.spans_write = _pipe()
        self.woken_read, self.woken_write = _pipe()
        self.orphans = os.memfd_create("llmpar-orphans")
        fcntl.fcntl(self.orphans, fcntl.F_SETFL, os.O_APPEND)
        self.states = mmap.mmap(-1, WORKERS)
        self.attempts = mmap.mmap(-1, ATTEMPTS)
        self.workers: dict[int, int] = {}  # pid -> place in states
        self.free = list(range(WORKERS - 1, -1, -1))
        self.spans: list[tuple[int, int]] = []
        self.asked = self.concurrency
        self.ending = self.parallel_gone = False
        self.parser = Parser(read, self.concurrency)
        self._prime(arguments)
        self.listener = self._listen()

    def _prime(self, arguments: list[str]) -> None:
        """Parse the first launcher's command line, and make a request of it, once for all workers."""
        variables = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("LLMPAR_")]
        fields = [
            MAGIC,
            b"1",
            os.getcwdb(),
            b"%d" % len(variables),
            *map(os.fsencode, variables),
            *map(os.fsencode, arguments),
        ]
        with contextlib.suppress(RunCold, Exception):  # a wrong command line is the launcher's to hear of
            plan = self.parser.parse(Call(b"\0".join(fields)))
            self.asked = plan.settings.concurrency
            # What a first request imports is imported before the workers are forked, not in each of them.
            request.ask(plan.settings, request.Prompt("", "x", "", None))

    def _listen(self) -> socket.socket:
        """Bind beside and rename, so that a socket found by name is one that listens."""
        runtime_directory.sweep(self.folder)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # By way of the descriptor the name stays within the 107 bytes of a socket address, however deep the folder.
            new = f"{self.pid}.sock.{os.getpid()}"
            listener.bind(f"/proc/self/fd/{folder}/{new}")
            listener.listen(4096)
            os.rename(new, f"{self.pid}.sock", src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(folder)
        listener.setblocking(False)
        self.inode = os.stat(self.path).st_ino
        return listener

    def fork(self) -> None:
        """One more worker. Where the system refuses, the next tick tries again."""
        if not self.free:
            return
        number = self.free.pop()
        self.states[number] = IDLE  # counted at once, or the next look forks another in its place
        try:
            pid = os.fork()
        except OSError:
            self.free.append(number)
            self.states[number] = 0
            return
        if pid:
            self.workers[pid] = number
            return
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A descriptor of its own, because the owner of its signals belongs to the open file, not to the number.
            alive = os.open(f"/proc/self/fd/{self.alive_read}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            for fd in (
                self.alive_read,
                self.alive_write,
                self.need_read,
                self.spans_read,
                self.woken_read,
                self.woken_write,
                self.watch,
                *self.streams.values(),
            ):
                if fd is not None:
                    os.close(fd)
            Worker(
                self.listener,
                alive,
                self.need_write,
                self.spans_write,
                self.orphans,
                self.states,
                number,
                SPARE,
                self.parser,
                self.fan_out,
                self.attempts if self.watch is not None else None,
            ).run()
            code = 0
        finally:
            os._exit(code)

    def run(self) -> None:
        """Until parallel has gone, or nothing was asked for `idle_s`, or SIGTERM."""
        ready = select.poll()
        for fd in (self.watch, self.need_read, self.woken_read):
            if fd is not None:
                ready.register(fd, select.POLLIN)
        active = time.monotonic()
        while not self.ending:
            events = {fd for fd, _ in ready.poll(TICK_S * 1000)}
            if self.watch in events:
                self.parallel_gone = True
                return
            for fd in (self.need_read, self.woken_read):
                if fd in events:
                    with contextlib.suppress(BlockingIOError):
                        os.read(fd, 65536)
            self.reap()
            busy = self.states[:].count(BUSY)
            idle = self.states[:].count(IDLE)
            for _ in range(SPARE - idle):
                self.fork()
            if not self.workers:
                return  # not one worker could be forked: launchers had better run by themselves
            now = time.monotonic()
            if busy or self.drain():
                active = now
            elif now - active > self.idle_s:
                return

    def reap(self) -> None:
        """Workers that have ended, killed or not, make room."""
        while self.workers:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self.workers.pop(pid, None)
            if number is not None:
                self.states[number] = 0
                self.free.append(number)

    def drain(self) -> bool:
        """Take over what workers reported of their requests; whether there was anything."""
        found = False
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.spans_read, SPAN.size * 2048):
                found = True
                self.spans.extend(SPAN.iter_unpack(data))
        return found

    def end(self) -> None:
        """Take no more launchers, cancel what is out, leave nothing behind."""
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_ino == self.inode:
                os.unlink(self.path)
        self.listener.close()
        os.close(self.alive_write)
        for pid, number in self.workers.items():
            if self.states[number] == BUSY:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        patience = time.monotonic() + 5
        while self.workers and time.monotonic() < patience:
            self.reap()
            if self.workers:
                select.select([self.woken_read], [], [], 0.05)
                with contextlib.suppress(BlockingIOError):
                    os.read(self.woken_read, 65536)
        for pid in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.drain()
        self._orphans()
        self._tell()
        for name in os.listdir(self.folder):
            # Positions in shared queues outlive a pool that was idle or ended by hand: its successor goes by them.
            with contextlib.suppress(OSError):
                if (
                    (self.parallel_gone or self.watch is None)
                    and name.startswith(f"{self.fan_out}.")
                    or name == f"{self.pid}.lock"
                    and runtime_directory.unlocked(f"{self.folder}/{name}")
                ):
                    os.unlink(f"{self.folder}/{name}")

    def _orphans(self) -> None:
        """Records whose launchers were killed: to where parallel wrote, now that nobody else writes there."""
        data = os.pread(self.orphans, os.fstat(self.orphans).st_size, 0)
        fd = self.streams.get(1)
        if not data or fd is None:
            return
        ready = select.poll()
        ready.register(fd, select.POLLOUT)
        patience = time.monotonic() + ORPHANS_S
        with contextlib.suppress(OSError):
            while data and (left := patience - time.monotonic()) > 0 and ready.poll(left * 1000):
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(fd, data[:4096]) :]

    def _tell(self) -> None:
        """The closing line: the achieved concurrency, and what to do where it is low."""
        held = achieved(self.spans)
        fd = self.streams.get(2)
        if self.asked is None or held is None or fd is None or len(self.spans) < 2 * self.asked:
            return
        text = f"llmpar-request: {held:.1f} requests were in flight on average, of {self.asked} asked for\n"
        if held < ENOUGH * self.asked:
            form = f"parallel -j{self.asked} -N0 llmpar-request --queue LIST ::: {{1..{self.asked}}}"
            text += f"  to keep them in flight: {form}\n"
        with contextlib.suppress(OSError):
            os.write(fd, text.encode())


def achieved(spans: list[tuple[int, int]]) -> float | None:
    """Time-weighted mean number of requests out, from the first send to the last; None for fewer than two instants."""
    if not spans:
        return None
    first, last = min(span[0] for span in spans), max(span[0] for span in spans)
    if last <= first:
        return None
    return sum(min(ended, last) - began for began, ended in spans if began < last) / (last - first)


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write


def _watch(pid: int) -> int | None:
    """A descriptor that becomes readable when this GNU parallel ends; None where it is not one of this host."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    if not procfs.is_parallel(pid):
        os.close(fd)
        return None
    return fd


def _stream_of(pid: int, number: int) -> int | None:
    """GNU parallel's own standard output or error: the same open file where the kernel gives it, for what follows in
    that file must not be written over; else opened anew for appending. None where neither can be."""
    shared = _same_file(pid, number)
    if shared is not None:
        return shared
    try:
        return os.open(
            f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError:
        return None


def _same_file(pid: int, number: int) -> int | None:
    """A regular file that another process has open, as it has it: pidfd_getfd (Linux 5.6), with leave to trace it."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        fd = ctypes.CDLL(None, use_errno=True).syscall(438, process, number, 0)
    finally:
        os.close(process)
    if fd < 0:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.set_inheritable(fd, False)
        return int(fd)
    os.close(
        fd
    )  # a pipe's flags are shared with parallel: it needs an open file of its own to be written without waiting
    return None


_JOBS = re.compile(r"(?:-j|-P|--jobs=|--max-procs=)(\d+)\Z")


def jobs(pid: int) -> int | None:
    """The -j of a GNU parallel, where it is a plain number on its command line."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = [os.fsdecode(word) for word in stream.read().split(b"\0")]
    except OSError:
        return None
    for index, word in enumerate(words):
        if os.path.basename(word) == "llmpar-request" or word.startswith(":::"):
            return None
        if word in ("-j", "-P", "--jobs", "--max-procs") and index + 1 < len(words) and words[index + 1].isdigit():
            return int(words[index + 1]) or None
        found = _JOBS.match(word)
        if found:
            return int(found[1]) or None
    return None


def serve(pid: int, ready: int, read: Read, arguments: list[str]) -> None:
    """Detach from the launcher whose command line is `arguments`, serve the jobs of GNU parallel `pid`, and return.

    A byte on the descriptor `ready` says that launchers may connect; its closing without one, that they have to run by
    themselves. `read` parses a command line.
    """
    os.set_inheritable(ready, False)
    # A process group of its own, so that a terminal's signals and a job's end do not reach it, but the same session:
    # Linux shares processors among sessions first (sched(7), autogroup), and alone in one all workers together would
    # get no more of a busy machine than GNU parallel does. They then read late enough for segments to be joined.
    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    complaints = null if os.environ.get("LLMPAR_LOG") != "debug" else 2
    for fd, to in ((0, null), (1, null), (2, complaints)):
        os.dup2(to, fd)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    pool = Pool(pid, read, arguments)

    def stop(number: int, frame: object) -> None:
        pool.ending = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(
        signal.SIGTTOU, signal.SIG_IGN
    )  # its last line may go to a terminal that stops what writes from the background
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(pool.woken_write, warn_on_full_buffer=False)
    gc.collect()
    gc.freeze()  # what is here stays; a collection in a worker would copy every page of it
    for _ in range(SPARE):
        pool.fork()
    os.write(ready, b"+")
    os.close(ready)
    try:
        pool.run()
    finally:
        pool.end()
