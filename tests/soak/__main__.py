"""`make soak`: fuzz answers and files for some minutes. python -m tests.soak [CASES] [SEED]"""

from __future__ import annotations

import sys

from tests.soak import answers, readers

cases = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
print(f"answers, {cases} of each API: {dict(answers.fuzz(cases, seed))}")
print(f"files of records, {cases}: {dict(readers.fuzz(cases, seed))}")
