"""Columns of names: fields that have a few values among all requests."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np


class Names:
    """One value of each request out of a few: `codes`, and which value each code stands for."""

    def __init__(self) -> None:
        self.values: dict[Any, int] = {}
        self._codes = array("q")

    def extend(self, column: tuple[Any, ...], value: Callable[[Any], Any] | None = None) -> None:
        """Append a column; `value` makes the values of what is in it, where that cannot be one."""
        alike = column.count(column[0]) == len(column)  # nearly always
        each = column[:1] if alike else column
        codes = [self.values.setdefault(name, len(self.values)) for name in (map(value, each) if value else each)]
        self._codes.extend(array("q", codes) * (len(column) if alike else 1))

    @property
    def codes(self) -> np.ndarray:
        return np.frombuffer(self._codes, dtype=np.int64)

    def are(self, *wanted: Any) -> np.ndarray:
        """Which requests have one of these values."""
        found = [self.values[each] for each in wanted if each in self.values]
        if len(found) == len(self.values) or not found:  # nearly always
            return np.full(len(self._codes), bool(found))
        return np.isin(self.codes, found)

    def counts(self, chosen: np.ndarray | None = None) -> dict[Any, int]:
        """How many requests (of the chosen ones) have each value that is there."""
        counts = np.bincount(self.codes if chosen is None else self.codes[chosen], minlength=len(self.values))
        return {value: int(counts[code]) for value, code in self.values.items() if counts[code]}
