"""Files of records with pieces cut, doubled and replaced, by the seed: readers refuse or read, and never break."""

from __future__ import annotations

import io
import json
import random
from collections import Counter

from llmpar import records
from llmpar.summary import read
from llmpar.summary.summariser import Summariser

ODD = [
    b"",
    b"\n",
    b"\0",
    b"-1",
    b"1e300",
    b"18446744073709551615",
    b'"5"',
    b"true",
    b"null",
    b"[[[",
    b"{}",
    b"\xff",
    b"\xef\xbb\xbf",
]
RECORD = {
    "kind": "request",
    "v": 1,
    "status": "ok",
    "sent_at": 100.0,
    "launched_at": 99.9,
    "scheduled_at": None,
    "ttft_s": 0.1,
    "e2e_s": 0.3,
    "event_s": [0.1, 0.2],
    "event_tokens": [1, 1],
    "output_tokens": 2,
    "prompt_tokens": 3,
    "error": {"type": "x", "message": "y"},
    "sampling": {"max_tokens": 2},
    "prompt_sha256": "ab" * 32,
    "stream": True,
    "clock": "kernel",
}


def mutated(chance: random.Random) -> bytes:
    data = bytearray(b"".join(json.dumps(RECORD, separators=(",", ":")).encode() + b"\n" for _ in range(4)))
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(data))
        to = at + chance.choice([0, 1, 3, 30, 300])
        how = chance.random()
        data[at:to] = chance.choice(ODD) if how < 0.6 else data[at:to] * 2 if how < 0.8 else b""
    return bytes(data)


def fuzz(cases: int, seed: int) -> Counter[str]:
    """So many files; how they were taken. Raises what a reader may not raise."""
    found: Counter[str] = Counter()
    for case in range(cases):
        summariser = Summariser()
        try:
            read.feed(summariser, io.BytesIO(mutated(random.Random(f"{seed} {case}"))), "f")
            output = summariser.columns.array("output")
            assert all(value < 0 or value <= 10**12 for value in output.tolist()), f"seed {seed}, case {case}"
            found["read"] += 1
        except records.BadRecord:
            found["refused"] += 1
    return found
