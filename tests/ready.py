"""This test run's environment under another name, marked ready, so that make does not set it up again."""

from __future__ import annotations

import sys
from pathlib import Path


def venv(folder: Path) -> Path:
    """FOLDER/venv, for VENV=…"""
    made = folder / "venv"
    made.mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (made / part).symlink_to(Path(sys.executable).parent.parent / part)
    (made / ".ready-run").touch()
    return made
