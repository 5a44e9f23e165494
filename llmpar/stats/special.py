"""SciPy's special functions, imported when one is first called: the import is half of what a small command costs."""

from __future__ import annotations

from typing import Any

from llmpar import blas


def __getattr__(name: str) -> Any:
    found = globals()[name] = getattr(blas.load("scipy.special"), name)  # asked once for each name
    return found
