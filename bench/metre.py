"""Run a command and count the processor seconds of everything it leaves behind, too.

Usage: python bench/metre.py RESULT.json COMMAND...

A pool of workers detaches itself from its launcher, so that the command's own rusage does not hold it. This process
declares itself the reaper of orphaned descendants (PR_SET_CHILD_SUBREAPER, prctl(2)), waits until the last one is gone,
and RUSAGE_CHILDREN then holds them all: each process has been waited for by its parent or by this one, and a wait adds
up what the child itself had waited for. A process that ignores its children (SIGCHLD ignored) would be left out;
nothing measured here does so.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    result, command = sys.argv[1], sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the reaper of orphans")
    started, clock = time.time(), time.monotonic()
    code = subprocess.run(command, check=False).returncode
    wall = time.monotonic() - clock
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    gone = time.monotonic() - clock
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(result, "w") as stream:
        json.dump(
            {
                "started": started,
                "wall_s": wall,
                "gone_s": gone,
                "user_s": used.ru_utime,
                "system_s": used.ru_stime,
                "code": code,
            },
            stream,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
