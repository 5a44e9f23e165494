"""SciPy's special functions, imported when one is first called: the import is half of what a small command costs."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    import scipy.special

    return getattr(scipy.special, name)
