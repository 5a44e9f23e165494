"""Exit codes of every llmpar command.

They are few, and they mean the same everywhere; scripts may rely on them.
"""

from __future__ import annotations

OK = 0  # did its job
UNEXPECTED = 1  # a bug, or a fault nobody planned for
USAGE = 2  # wrong options or arguments
BAD_INPUT = 3  # input is not records of a known version
UNAVAILABLE = 4  # an engine, GPU or tool is not there
CHECK_FAILED = 5  # a check that was asked for failed
TOO_LITTLE = 6  # too little data to answer
REQUEST_FAILED = 7  # the request failed; its record is written
INTERRUPTED = 130  # SIGINT
TERMINATED = 143  # SIGTERM
