"""What one llmpar-request does with its prompts: its plan, and carrying it out in this process, one after the other,
from a shared queue, in threads or in coroutines."""

from __future__ import annotations

import codecs
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from io import RawIOBase
from typing import Any

from llmpar.client import exchange, gate, prompt_queue, receive
from llmpar.client.conversation import Conversation, Launch, Place, in_turns
from llmpar.client.gate import Cancelled, Gate
from llmpar.client.output import Output, Tally, warn
from llmpar.client.plan import Plan
from llmpar.client.prompt_file import Prompt, read_prompt
from llmpar.client.request import ask, perform, record


def run(plan: Plan, stdin: RawIOBase | None = None) -> int:
    """Carry a plan out in this process; its exit code. The first INT or TERM cancels what is out and starts nothing
    new; every request that was started has its record before the process ends. The second ends it at once."""
    output, tally, gate = Output(plan.output), Tally(), Gate()
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
            from llmpar.client import coroutines

            coroutines.run(plan, paths, output, tally, gate)
        elif plan.threads:
            from llmpar.client import threads

            threads.run(plan, paths, output, tally, gate)
        else:
            in_turn(plan, paths, output.put, tally, exchange.Connections(), gate)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if plan.queue is not None and not tally.done and "PARALLEL_PID" not in os.environ:
        warn(
            f"nothing is left of '{plan.queue}': the processes of one shell take each name once; "
            "start them from a shell of their own, or copy the list"
        )
    return 128 + ends[0] if ends else tally.status


def lose(plan: Plan, paths: Iterator[str], put: Callable[[dict[str, Any]], None], tally: Tally) -> None:
    """The record of the prompt on which a worker died. Whether it had been sent nobody knows, so it is not sent again;
    what stands before it in `paths` has its record and is passed over."""
    done = plan.lost or 0
    candidates = prompt_queue.Queue(plan.queue).taken(os.getpid()) if plan.queue is not None else paths
    for path in candidates:
        talk = Conversation(prompt := read_prompt(path))
        records = talk.place.turns if talk.place else 1
        if done < records:
            break
        done -= records
    else:
        return
    launcher = "pool" if plan.launcher == "cold" else plan.launcher
    launch = Launch(launcher, plan.launched_ns, plan.attempt, plan.slot, plan.seq, plan.at_ns)
    raw = receive.Raw(error=("worker_died", "the worker that had the request died"))
    place = talk.place._replace(turn=done + 1) if talk.place else None
    made = record(plan.settings, launch, prompt, ask(plan.settings, prompt, place), raw, place)
    tally.add(made)
    put(made)


def in_turn(
    plan: Plan,
    paths: Iterator[str],
    put: Callable[[dict[str, Any]], None],
    tally: Tally,
    connections: exchange.Connections,
    gate: gate.Gate,
) -> None:
    """One request after the other, until the prompts end or the gate is shut."""
    launched = plan.launched_ns

    def send(launch: Launch, prompt: Prompt, place: Place | None) -> dict[str, Any]:
        return perform(plan.settings, launch, prompt, place, connections, gate)

    def pause(seconds: float) -> bool:
        try:
            gate.arm()
            time.sleep(seconds)
        except Cancelled:
            return False
        finally:
            gate.armed = False
        return True

    for path in paths:
        launch = Launch(plan.launcher, launched, plan.attempt, plan.slot, plan.seq, plan.at_ns)
        prompt = read_prompt(path, plan.settings.timeout_s)
        for made in in_turns(prompt, launch, plan.settings.text, send, pause):
            tally.add(made)
            put(made)
        if gate.why is not None:
            return
        launched = time.time_ns()


def source(plan: Plan, stdin: RawIOBase | None) -> Iterator[str]:
    """Paths of prompt files, one by one as they are wanted, for as long as the plan says."""
    paths = _paths(plan, stdin)
    return paths if plan.duration_s is None else within(plan.duration_s, paths)


def _paths(plan: Plan, stdin: RawIOBase | None) -> Iterator[str]:
    if plan.queue is not None:
        return prompt_queue.Queue(plan.queue).take(os.getpid())
    if stdin is not None:
        return names(stdin)
    return iter(plan.prompts)


def within(seconds: float, paths: Iterator[str]) -> Iterator[str]:
    """The same names for so many seconds from now; the one that comes after is not asked."""
    over = time.monotonic() + seconds
    return itertools.takewhile(lambda _: time.monotonic() < over, paths)


def until(gate: gate.Gate, paths: Iterator[str]) -> Iterator[str]:
    """The same names as long as the gate is open: a signal ends the wait for the next one."""
    while True:
        try:
            gate.arm()
            path = next(paths, None)
        except Cancelled:
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
        if not mark:
            piece = piece.removeprefix(codecs.BOM_UTF8)
        mark = mark or (b"\0" if b"\0" in piece else b"\n")
        *whole, rest = (rest + piece).split(mark)
        yield from map(os.fsdecode, prompt_queue.plain_names(whole, mark))
    yield from map(os.fsdecode, prompt_queue.plain_names([rest.strip(b"\n")], mark))
