"""N client threads in one process, each with its own connection, sharing one stream of prompts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from llmpar.client.conversation import Launch, Place, in_turns
from llmpar.client.exchange import Connections
from llmpar.client.gate import Cancelled, Gate
from llmpar.client.output import Output, Tally
from llmpar.client.plan import Plan
from llmpar.client.prompt_file import Prompt, read_prompt
from llmpar.client.request import perform


def run(plan: Plan, paths: Iterator[str], output: Output, tally: Tally, gate: Gate) -> None:
    """Returns when every prompt has its record, or when the gate is shut and every request that was out has its."""
    # Two, because a name may be long in coming where a record is ready to leave.
    reading, writing = threading.Lock(), threading.Lock()
    busy: set[int] = set()
    failures: list[BaseException] = []
    gates = [Gate() for _ in range(plan.threads or 1)]
    out: dict[int, Connections] = {}

    def work(number: int) -> None:
        connections = out[number] = Connections()

        def send(launch: Launch, prompt: Prompt, place: Place | None) -> dict[str, Any]:
            return perform(plan.settings, launch, prompt, place, connections, gates[number])

        def pause(seconds: float) -> bool:
            busy.discard(number)  # nothing of it is out
            time.sleep(seconds)
            busy.add(number)
            return not failures and gate.why is None

        try:
            while not failures and gate.why is None:
                with reading:
                    path = next(paths, None)
                busy.add(number)  # before the look at the gate: whoever shuts it looks here afterwards
                if path is None or gate.why is not None:
                    return
                launch = Launch(plan.launcher, time.time_ns(), plan.attempt, plan.slot, plan.seq)
                for record in in_turns(
                    read_prompt(path, plan.settings.timeout_s), launch, plan.settings.text, send, pause
                ):
                    with writing:
                        tally.add(record)
                        output.put(record)
                busy.discard(number)
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close()
            busy.discard(number)

    crew = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(gates))]
    for thread in crew:
        thread.start()
    try:
        gate.arm()
        for thread in crew:
            thread.join()
        gate.armed = False
    except Cancelled:
        # No signal reaches another thread's system call: shut its connection down under it. A thread that waits for a
        # name has nothing out and is left behind.
        while busy:
            for number in list(busy):
                if number in out:
                    out[number].interrupt(gate.why or "cancelled")
            time.sleep(0.02)
    if failures:
        raise failures[0]
