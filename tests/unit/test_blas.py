"""Libraries for arrays are loaded with one thread each, and nothing else hears of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SAID = """
import os
from llmpar.stats import special
special.ndtr(0.0)
print(len(os.listdir("/proc/self/task")), os.environ.get("OPENBLAS_NUM_THREADS"))
"""


# NumPy and SciPy have an OpenBLAS each, which starts no more threads than there are processors.
BOTH = 1 + 2 * (min(2, len(os.sched_getaffinity(0))) - 1)


@pytest.mark.parametrize(("threads", "wanted"), [(None, "1 None"), ("1", "1 1"), ("2", f"{BOTH} 2")])
def test_threads_are_one_unless_the_user_says_otherwise(threads: str | None, wanted: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    if threads is not None:
        environment["OPENBLAS_NUM_THREADS"] = threads
    assert subprocess.check_output([sys.executable, "-c", SAID], env=environment, text=True).strip() == wanted
