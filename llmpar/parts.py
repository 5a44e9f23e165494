"""Names of files and folders that are being written: each says whose it is, so that what a killed writer left is known
for that and goes when the same thing is written again."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import shutil

from llmpar import hostname, procfs


def name(path: str) -> str:
    """Where this process writes what will be `path`: beside it, `PATH.PLACE-PID-STARTTICKS.part`."""
    return f"{path}.{_place()}-{procfs.process_key(os.getpid())}.part"


def clear(path: str) -> None:
    """Remove what writers of `path` left that were killed here; those of other hosts may still live."""
    for part in glob.glob(f"{glob.escape(path)}.{_place()}-*.part"):
        match = re.search(r"-(\d+)-(\d+)\.part$", part)
        if match is None or procfs.process_key(int(match[1])) == f"{match[1]}-{match[2]}":
            continue
        with contextlib.suppress(OSError):
            if os.path.isdir(part) and not os.path.islink(part):
                shutil.rmtree(part)
            else:
                os.unlink(part)


def _place() -> str:
    """The host and, where containers share its name, the process namespace."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(f"{hostname.name()} {os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:8]
    return hashlib.sha256(hostname.name().encode()).hexdigest()[:8]
