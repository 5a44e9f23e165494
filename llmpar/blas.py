"""NumPy and SciPy with one thread each: their OpenBLAS would start one for each processor as it is loaded, which costs
more than the smaller commands do, and nothing here multiplies matrices."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

_THREADS = "OPENBLAS_NUM_THREADS"


def load(module: str) -> ModuleType:
    """Import a module. What the user says of threads is obeyed, and engines that are started later see no other."""
    if _THREADS in os.environ:
        return import_module(module)
    os.environ[_THREADS] = "1"
    try:
        return import_module(module)
    finally:
        del os.environ[_THREADS]
