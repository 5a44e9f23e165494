"""Lists of names in a sentence."""

from __future__ import annotations

from collections.abc import Sequence


def shortened(names: Sequence[str], most: int = 6, between: str = ", ") -> str:
    """At most `most` names; of more, the last place counts the rest: `a, b and 3 more`.

    "and 1 more" never appears, since it takes as much room as the name.
    """
    if len(names) <= most:
        return between.join(names)
    return f"{between.join(names[: most - 1])} and {len(names) - most + 1} more"
