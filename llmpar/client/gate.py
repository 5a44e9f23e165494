"""Cancellation: a gate that each blocking step of a request passes."""

from __future__ import annotations

from collections.abc import Callable


class Cancelled(BaseException):
    """The request is no longer wanted. Like KeyboardInterrupt no kind of fault."""


class Gate:
    """Lets a signal handler end what waits, and nothing else.

    A handler calls `cancel`. While `armed` that raises Cancelled out of whatever system call the request waits in;
    otherwise it is only noted, so that no record in the making is lost.
    """

    __slots__ = ("armed", "why", "wake")

    def __init__(self) -> None:
        self.armed = False
        self.why: str | None = None
        self.wake: Callable[[], object] | None = None  # for what waits in an event loop, where nothing may be raised

    def cancel(self, why: str) -> None:
        self.why = why
        if self.armed:
            self.armed = False
            raise Cancelled(why)
        if self.wake is not None:
            self.wake()

    def arm(self) -> None:
        self.armed = True
        if self.why is not None:
            self.armed = False
            raise Cancelled(self.why)
