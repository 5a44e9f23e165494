"""What one llmpar-request does with its prompts: its plan, and carrying it out in this process, one after the other,
from a shared queue, in threads or in coroutines."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from typing import Any

from llmpar import apikey, exchange, records, shared_queue, stamps, status
from llmpar.dialects import Sampling
from llmpar.request import Launch, Settings, ask, perform, read_prompt, record

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)\Z")


class Wrong(ValueError):
    """Options that do not go together; `hint` says what to type instead."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.hint = hint


class Unread(ValueError):
    """A command line that cannot be parsed; the text, lines with their ends, is for the user."""


class Missing(RuntimeError):
    """A package that this plan needs is not installed; `hint` is the command that installs it."""

    def __init__(self, message: str, hint: str):
        super().__init__(message)
        self.hint = hint


@dataclass(slots=True)
class Plan:
    """A parsed command line: what to ask, how, and where records go (None: standard output).

    `lost`: a pool's worker died on this command line after so many records.
    """

    settings: Settings
    prompts: tuple[str, ...] = ()
    from_stdin: bool = False
    queue: str | None = None
    threads: int | None = None
    coroutines: int | None = None
    output: str | None = None
    at_ns: int | None = None
    attempt: int = 1
    slot: int | None = None
    seq: int | None = None
    launched_ns: int | None = None
    launcher: str = "cold"
    lost: int | None = None


def plan(prompts: tuple[str, ...], options: dict[str, Any], environ: dict[str, str],
         launched_ns: int | None = None) -> Plan:
    """Check options against one another. Raises Wrong."""
    base_url = options["base_url"]
    if not base_url:
        raise Wrong("no server is named", "give --base-url http://HOST:PORT or set LLMPAR_BASE_URL")
    sources = bool(prompts) + bool(options["from_stdin"]) + bool(options["queue"])
    # `parallel -N0 … --queue FILE ::: {1..128}` passes nothing on, but without -N0 the numbers arrive as arguments.
    if options["queue"] and prompts and not options["from_stdin"]:
        raise Wrong("--queue takes no prompt files", "with parallel, give -N0 so that its arguments are not passed on")
    if sources == 0:
        raise Wrong("no prompt file is named", "name files, or give --stdin or --queue FILE")
    if sources > 1:
        raise Wrong("prompt files, --stdin and --queue exclude one another")
    if options["threads"] and options["coroutines"]:
        raise Wrong("--threads and --asyncio exclude one another")
    many = bool(options["threads"] or options["coroutines"])
    for name in ("temperature", "top_p", "timeout_s"):
        if not math.isfinite(options[name] or 0):
            raise Wrong(f"--{name.removesuffix('_s').replace('_', '-')} must be a finite number")
    check_at(options["at"], len(prompts) == 1 and not many)
    sampling = Sampling(max_tokens=options["max_tokens"], temperature=options["temperature"], top_k=options["top_k"],
                        top_p=options["top_p"], seed=options["seed"], ignore_eos=options["ignore_eos"],
                        stop=list(options["stop"]), cache_prompt=options["cache_prompt"])
    clients = options["concurrency"] or options["threads"] or options["coroutines"]
    try:
        settings = Settings(
            base_url=base_url, api=options["api"], model=options["model"], engine=options["engine"],
            stream=options["stream"], sampling=sampling, timeout_s=options["timeout_s"], max_bytes=options["max_bytes"],
            text=not options["no_text"], kernel=not options["user_stamps"],
            keep_alive=options["keep_alive"], headers=tuple(_header(text) for text in options["headers"]),
            api_key=_key(options["api_key_file"]), concurrency=clients)
    except ValueError as error:
        raise error if isinstance(error, Wrong) else Wrong(str(error)) from None
    launched = launched_ns or whole(environ.get("LLMPAR_LAUNCHED_NS")) or stamps.process_start()
    made = Plan(settings, prompts, options["from_stdin"], options["queue"], options["threads"], options["coroutines"],
                options["output"], due(options["at"]), whole(environ.get("LLMPAR_ATTEMPT")) or 1,
                whole(environ.get("PARALLEL_JOBSLOT")), whole(environ.get("PARALLEL_SEQ")), launched)
    made.lost = whole(environ.get("LLMPAR_LOST"))
    made.launcher = ("threads" if made.threads else "asyncio" if made.coroutines else "queue" if made.queue
                     else "cold" if len(prompts) == 1 else "turns")
    return made


def check_at(at: str | None, one: bool) -> None:
    """Raises Wrong for a due time of anything but one prompt."""
    if at is not None and not one:
        raise Wrong("--at is for one prompt file", "make a schedule: llmpar-arrivals … | parallel --colsep '\\t' … llmpar-request --at {1} {2}")


def whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None


def _header(text: str) -> tuple[str, str]:
    found = _HEADER.match(text)
    if found is None or not text.isascii():
        raise Wrong(f"'{text}' is not a header", "write it as --header 'Name: value'")
    if found[1].lower() == "authorization":
        raise Wrong("a key in --header would be seen in the list of processes", "give --api-key-file FILE")
    if found[1].lower() in ("host", "content-length", "transfer-encoding", "connection"):
        raise Wrong(f"the header '{found[1]}' is llmpar-request's own")
    return found[1], found[2]


def _key(path: str | None) -> str | None:
    if not path:
        return None
    try:
        return apikey.read(path)
    except ValueError as error:
        raise Wrong(str(error)) from None


def due(text: str | None) -> int | None:
    """Epoch nanoseconds of --at."""
    if text is None:
        return None
    try:
        seconds = float(text.removeprefix("+"))
        if not 0 <= seconds < 1e11:
            raise ValueError
    except ValueError:
        raise Wrong(f"'{text}' is not an instant", "give epoch seconds, or +SECONDS from now") from None
    return (time.time_ns() if text.startswith("+") else 0) + round(seconds * 1e9)


class Output:
    """Where records go: each with one write, to the end of a file or to standard output."""

    def __init__(self, path: str | None):
        self.path = path

    def put(self, record: dict[str, Any]) -> None:
        """Raises OSError (disk full, closed pipe)."""
        self.write(records.encode(record))

    def write(self, line: bytes) -> None:
        try:
            if self.path is not None:
                records.append(self.path, line)
                return
            view = memoryview(line)
            while view:
                view = view[os.write(1, view) :]
        except OSError as error:
            raise OSError(error.errno, f"cannot write a record: {error.strerror}", self.path or "standard output") from None


class Tally:
    """What the records said, for the exit code."""

    def __init__(self) -> None:
        self.done = self.failed = 0

    def add(self, record: dict[str, Any]) -> None:
        self.done += 1
        if record["status"] != "ok":
            self.failed += 1
            self.say(f"'{record['prompt']}': {record['error']['message']}")

    def say(self, text: str) -> None:
        warn(text)

    @property
    def status(self) -> int:
        return status.REQUEST_FAILED if self.failed else status.OK


def run(plan: Plan, stdin: RawIOBase | None = None) -> int:
    """Carry a plan out in this process; its exit code. The first INT or TERM cancels what is out and starts nothing new;
    every request that was started has its record before the process ends. The second ends it at once."""
    output, tally, gate = Output(plan.output), Tally(), exchange.Gate()
    ends: list[int] = []

    def end(number: int, frame: Any) -> None:
        if ends:
            os._exit(128 + number)
        ends.append(number)
        gate.cancel(f"{signal.Signals(number).name} arrived")

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        paths = source(plan, stdin)
        if stdin is not None and not plan.threads and not plan.coroutines:
            paths = until(gate, paths)
        if plan.lost is not None:
            lose(plan, paths, output.put, tally)
        if plan.coroutines:
            from llmpar import coroutines

            coroutines.run(plan, paths, output, tally, gate)
        elif plan.threads:
            from llmpar import threads

            threads.run(plan, paths, output, tally, gate)
        else:
            in_turn(plan, paths, output.put, tally, exchange.Connections(), gate)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if plan.queue is not None and not tally.done and "PARALLEL_PID" not in os.environ:
        warn(f"nothing is left of '{plan.queue}': the processes of one shell take each name once; "
             "start them from a shell of their own, or copy the list")
    return 128 + ends[0] if ends else tally.status


def lose(plan: Plan, paths: Iterator[str], put: Callable[[dict[str, Any]], None], tally: Tally) -> None:
    """The record of the prompt on which a worker died. Whether it had been sent nobody knows, so it is not sent again;
    what stands before it in `paths` has its record and is passed over."""
    done, path = plan.lost or 0, None
    if plan.queue is not None:
        taken = _queue(plan.queue, plan.lost).taken(os.getpid())
        path = taken[done] if done < len(taken) else None
    else:
        for _ in range(done + 1):
            path = next(paths, None)
    if path is None:
        return
    launcher = "pool" if plan.launcher == "cold" else plan.launcher
    launch = Launch(launcher, plan.launched_ns, plan.attempt, plan.slot, plan.seq, plan.at_ns)
    raw = exchange.Raw(error=("worker_died", "the worker that had the request died"))
    prompt = read_prompt(path)
    made = record(plan.settings, launch, prompt, ask(plan.settings, prompt), raw)
    tally.add(made)
    put(made)


def in_turn(plan: Plan, paths: Iterator[str], put: Callable[[dict[str, Any]], None], tally: Tally,
            connections: exchange.Connections, gate: exchange.Gate) -> None:
    """One request after the other, until the prompts end or the gate is shut."""
    launched = plan.launched_ns
    for path in paths:
        launch = Launch(plan.launcher, launched, plan.attempt, plan.slot, plan.seq, plan.at_ns)
        made = perform(plan.settings, launch, path, connections, gate)
        tally.add(made)
        put(made)
        if gate.why is not None:
            return
        launched = time.time_ns()


def source(plan: Plan, stdin: RawIOBase | None) -> Iterator[str]:
    """Paths of prompt files, one by one as they are wanted."""
    if plan.queue is not None:
        return _queue(plan.queue, plan.lost).take(os.getpid())
    if stdin is not None:
        return names(stdin)
    return iter(plan.prompts)


def _queue(path: str, lost: int | None) -> shared_queue.Queue:
    """The list; after a worker's death the one in which it took names for this process."""
    queue = shared_queue.Queue(path)
    return queue if lost is None else queue.resume(os.getpid())


def until(gate: exchange.Gate, paths: Iterator[str]) -> Iterator[str]:
    """The same names as long as the gate is open: a signal ends the wait for the next one."""
    while True:
        try:
            gate.arm()
            path = next(paths, None)
        except exchange.Cancelled:
            return
        finally:
            gate.armed = False
        if path is None:
            return
        yield path


def names(stream: RawIOBase) -> Iterator[str]:
    """File names from an unbuffered stream, separated by newlines; by NULs where its first piece holds one.

    Unbuffered, because a thread that waits inside a buffered reader cannot be left behind at the end of the process.
    """
    mark, rest = b"", b""
    while piece := stream.read(1 << 16):
        mark = mark or (b"\0" if b"\0" in piece else b"\n")
        *whole, rest = (rest + piece).split(mark)
        yield from (os.fsdecode(name) for name in whole if name)
    if rest.strip(b"\n"):
        yield os.fsdecode(rest)


def warn(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"llmpar-request: {text}\n")
