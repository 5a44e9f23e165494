"""`make soak`: fuzz answers and files for some minutes. python -m tests.soak [CASES] [SEED] [PART]"""

from __future__ import annotations

import sys
import time

from tests.soak import answers, files, readers
from tests.soak.all_readers import everything

cases = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
only = sys.argv[3] if len(sys.argv) > 3 else ""

if only in ("", "answers"):
    print(f"answers, {cases} of each API: {dict(answers.fuzz(cases, seed))}")
    print(f"files of records, {cases}: {dict(readers.fuzz(cases, seed))}", flush=True)
if only in ("", "files"):
    print("reader, files changed, seconds, exit codes or refusals")
    for reader in everything():
        began, count = time.monotonic(), max(1, cases // (50 if reader.slow else 5) * 2)
        found = dict(sorted(files.fuzz(reader, count, seed).items()))
        print(f"{reader.name:24} {count:5} {time.monotonic() - began:6.0f} s  {found}", flush=True)
