"""`make soak`: fuzz answers and files, and kill, for some minutes. python -m tests.soak [CASES] [SEED] [PART] [KILLS]

PART is one of answers, files, kills, many; all of them where it is left out or empty. `many` asks 12 prompts a case.
"""

from __future__ import annotations

import sys
import time

from tests.soak import answers, files, kills, many, readers
from tests.soak.all_readers import everything

cases = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
only = sys.argv[3] if len(sys.argv) > 3 else ""
times = int(sys.argv[4]) if len(sys.argv) > 4 else 50

if only in ("", "answers"):
    print(f"answers, {cases} of each API: {dict(answers.fuzz(cases, seed))}")
    print(f"files of records, {cases}: {dict(readers.fuzz(cases, seed))}", flush=True)
if only in ("", "files"):
    print("reader, files changed, seconds, exit codes or refusals")
    for reader in everything():
        few = reader.slow and reader.name not in ("plot", "next best")
        began, count = time.monotonic(), max(1, cases // (50 if few else 5) * 2)
        found = dict(sorted(files.fuzz(reader, count, seed).items()))
        print(f"{reader.name:24} {count:5} {time.monotonic() - began:6.0f} s  {found}", flush=True)
if only in ("", "many"):
    print(many.HEADER)
    if many.run(cases * 12):
        sys.exit(5)
if only in ("", "kills"):
    print(kills.HEADER)
    tallies = kills.run(times, seed).values()
    if any(tally.lost + tally.doubled + tally.left + tally.again for tally in tallies):
        sys.exit(5)
