"""How far another host's clock is from this one's, asked over any pipe, with bounds on both sides.

A question is sent at `before`, answered with the other clock's `there`, and read at `after`, all by this clock but the
second. Whatever the way there and back took, the other clock's offset lies from `there - after` to `there - before`; of
many questions the tightest bounds on each side count. Half of the round trip is no estimate of either way, so a slow
way in one direction is not taken for an offset (Mills, RFC 5905, section 8, has the estimate; these are its bounds).
"""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmpar import clock, hostname

QUESTIONS = 20
RESOLUTION_NS = 1000  # the far end prints microseconds
# For `perl`, on its standard input: nothing is installed over there, and no shell has anything to unquote.
FAR_END = b"""use Time::HiRes qw(time); use Sys::Hostname; $| = 1;
printf "llmpar-clock %s\\n", length($ENV{LLMPAR_HOST} // "") ? $ENV{LLMPAR_HOST} : hostname();
while (<STDIN>) { printf "%.6f\\n", time }
__END__
"""


class NoAnswer(Exception):
    """The far end did not do its part; the text says what came instead."""


@dataclass
class Reading:
    """One host's clock against this one's, in nanoseconds: its offset lies from `low` to `high`."""

    host: str
    at_ns: int
    low: int
    high: int
    round_trip: int

    def record(self) -> dict[str, Any]:
        """The `clock` record of docs/records.md."""
        return {
            "kind": "clock",
            "v": 1,
            "at": clock.instant(self.at_ns),
            "host": self.host,
            "against": hostname.name(),
            "offset_s": round((self.low + self.high) / 2e9, 9),
            "error_s": round((self.high - self.low) / 2e9, 9),
            "rtt_s": round(self.round_trip / 1e9, 9),
        }


def bounds(host: str, asked: Sequence[tuple[int, int, int]]) -> Reading:
    """Of (before, there, after) in nanoseconds, the tightest bounds. Raises NoAnswer where a clock was set."""
    low = max(there - after for _, there, after in asked) - RESOLUTION_NS
    high = min(there - before for before, there, _ in asked) + RESOLUTION_NS
    if low > high:
        raise NoAnswer(f"one of the clocks was set while that of '{host}' was asked: {(low - high) / 1e9:.6f} s apart")
    return Reading(host, asked[-1][2], low, high, min(after - before for before, _, after in asked))


def ask(command: Sequence[str], questions: int = QUESTIONS, patience_s: float = 15.0) -> Reading:
    """The clock at the other end of a command that runs the words given to it there (`ssh HOST`, `srun -w NODE`,
    `kubectl exec -i POD --`). Raises NoAnswer, OSError."""
    process = subprocess.Popen(
        [*command, "perl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    try:
        assert process.stdin and process.stdout
        _write(process, FAR_END)
        kind, _, host = _line(process, patience_s).partition(" ")
        if kind != "llmpar-clock" or not host:
            raise NoAnswer(f"'{' '.join(command)}' answered {(kind + ' ' + host)[:80]!r}: is there a perl?")
        asked = []
        for _ in range(questions):
            before = time.time_ns()
            _write(process, b"\n")
            text = _line(process, patience_s)
            after = time.time_ns()
            try:
                seconds, _, digits = text.partition(".")
                asked.append((before, int(seconds) * 1_000_000_000 + int(digits.ljust(9, "0")), after))
            except ValueError:
                raise NoAnswer(f"'{host}' answered {text[:80]!r}, not an instant") from None
        return bounds(host, asked)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin
    try:
        process.stdin.write(data)
    except BrokenPipeError:
        raise NoAnswer(_why(process)) from None


def _line(process: subprocess.Popen[bytes], patience_s: float) -> str:
    """One line of the far end's. Raises NoAnswer where it ends, or takes too long."""
    assert process.stdout
    data, limit = b"", time.monotonic() + patience_s
    while not data.endswith(b"\n"):
        left = limit - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise NoAnswer(f"no answer within {patience_s:g} s")
        piece = process.stdout.read(4096)
        if not piece:
            raise NoAnswer(_why(process))
        data += piece
    return data.decode("utf-8", "replace").rstrip("\n")


def _why(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr
    ended = process.wait()
    said = process.stderr.read(2000).decode("utf-8", "replace").strip().splitlines()
    return said[-1] if said else f"the command ended with {ended}"
