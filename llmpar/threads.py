"""N client threads in one process, each with its own connection, sharing one stream of prompts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from llmpar import exchange
from llmpar.request import Launch, perform
from llmpar.turns import Output, Plan, Tally


def run(plan: Plan, paths: Iterator[str], output: Output, tally: Tally) -> None:
    """Returns when every prompt has its record. An exception in one thread stops all after their current request."""
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        connections = exchange.Connections()
        try:
            while not failures:
                with lock:
                    path = next(paths, None)
                if path is None:
                    return
                launch = Launch(plan.launcher, time.time_ns(), plan.attempt, plan.slot, plan.seq)
                record = perform(plan.settings, launch, path, connections)
                with lock:
                    tally.add(record)
                    output.put(record)
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close()

    crew = [threading.Thread(target=work, daemon=True) for _ in range(plan.threads or 1)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    if failures:
        raise failures[0]
