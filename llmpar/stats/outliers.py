"""Which server session does not look like the others of its side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from llmpar.stats import special

CHANCE = 0.01  # of naming any session where all are alike


def outlying(sides: Sequence[Mapping[str, float]]) -> list[tuple[int, str, float]]:
    """(side, session, its value over the geometric mean of the side's others) of sessions that stand out; values above
    0.

    The externally studentised residual (Cook and Weisberg, Residuals and Influence in Regression, 1982): a session
    against the mean of the others of its side, with the spread of all sessions but that one around the means of their
    sides; Bonferroni over all sessions. A side needs three sessions.
    """
    logs = [np.log(np.array(list(side.values()), dtype=float)) for side in sides]
    count = sum(len(side) for side in logs)
    squares = [float(((side - side.mean()) ** 2).sum()) if len(side) else 0.0 for side in logs]
    unlike = []
    for place, (side, values) in enumerate(zip(sides, logs, strict=True)):
        if len(values) < 3:
            continue
        for number, session in enumerate(side):
            rest = np.delete(values, number)
            freedom = count - 1 - sum(len(other) > 0 for other in logs)
            left = sum(squares) - squares[place] + float(((rest - rest.mean()) ** 2).sum())
            error = math.sqrt(max(left, 0.0) / freedom * (1 + 1 / len(rest)))
            off = float(values[number] - rest.mean())
            if abs(off) > float(special.stdtrit(freedom, 1 - CHANCE / count / 2)) * error and abs(off) > 1e-9:
                unlike.append((place, session, math.exp(off)))
    return unlike
