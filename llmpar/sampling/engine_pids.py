"""Which processes belong to the engine: the roots that llmpar-serve names, and all that descend from them."""

from __future__ import annotations

from collections.abc import Iterable

from llmpar.procfs import parent_of


class Family:
    """Answers for a pid are kept: asking again costs nothing. A process whose parents are gone counts as a stranger."""

    def __init__(self, roots: Iterable[int]):
        self._known: dict[int, bool] = dict.fromkeys(roots, True)
        self._empty = not self._known

    def owns(self, pid: int) -> bool | None:
        """Whether the process descends from a root; None where there are no roots to tell by."""
        if self._empty:
            return None
        if pid not in self._known:
            parent = parent_of(pid)
            self._known[pid] = bool(parent and parent != 1 and self.owns(parent))
        return self._known[pid]


def from_environment(text: str | None) -> Family:
    """Roots from LLMPAR_SERVER_PIDS: pids with spaces between; anything else in it is passed over."""
    return Family(int(word) for word in (text or "").split() if word.isdigit())
