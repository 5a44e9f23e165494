"""A worker's parser of one call: bytes from the launcher to a checked plan."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llmpar.client import plan
from llmpar.client.plan import check_at, due_ns, from_options, whole
from llmpar.pool.protocol import Call, RunCold

# Paths that mean something else in another process.
OWN_PATHS = ("/dev/std", "/dev/fd/", "/dev/tty", "/proc/self/", "/proc/thread-self/")
# Prompts and options of a command line. Raises client.plan.Unread.
Read = Callable[[list[str]], tuple[tuple[str, ...], dict[str, Any]]]


class Parser:
    """Makes plans of command lines, and remembers the last: GNU parallel's jobs differ in their last argument."""

    def __init__(self, read: Read, concurrency: int | None) -> None:
        self.read, self.concurrency = read, concurrency
        self._key: Any = None
        self._plan: plan.Plan | None = None

    def parse(self, call: Call) -> plan.Plan:
        """Raises RunCold, client.plan.Wrong, client.plan.Unread."""
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
        number = whole
        plan = replace(
            plan,
            slot=number(call.environ.get("PARALLEL_JOBSLOT")),
            seq=number(call.environ.get("PARALLEL_SEQ")),
            launched_ns=call.launched_ns,
        )
        if due is not None:
            check_at(due, len(plan.prompts) == 1)
            plan.at_ns = due_ns(due)
        return plan

    def _parse(self, arguments: list[str], environ: dict[str, str]) -> plan.Plan:
        if any(argument in ("-h", "--help", "--help-all", "--version") for argument in arguments):
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
        plan = from_options(prompts, options, environ, launched_ns=1)
        if plan.launcher == "cold":
            plan.launcher = "pool"
        return plan
