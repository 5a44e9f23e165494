"""Several models in one load, such as LoRA adapters mixed over the prompts: the figures of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmpar.summary.columns import NONE, Columns, name_code
from llmpar.summary.conversations import spread
from llmpar.summary.latencies import Latencies

MOST = 64  # models that a summary tells of, one by one


def describe(columns: Columns, measured: Latencies, wall_s: float | None) -> list[dict[str, Any]] | None:
    """The field `models` of a summary, over the whole run; None where the requests name one model, or none.

    A rate is of the model's own output tokens over the wall time (s) of the whole load, so the rates of all add up to
    that of the load.
    """
    requests = {name: count for name, count in columns.names["model"].items() if name is not None}
    if len(requests) < 2:
        return None
    of_model, output = columns.array("model")[measured.order], columns.array("output")[measured.order]
    made = []
    for name in sorted(requests)[:MOST]:
        chosen = of_model == name_code(name)
        tokens = output[chosen]
        total = int(tokens.sum()) if len(tokens) and not bool((tokens == NONE).any()) else None
        made.append(
            {
                "model": name,
                "n": requests[name],
                "ok": len(tokens),
                "output_tokens": total,
                "output_tokens_per_s": total / wall_s if total is not None and wall_s else None,
                **{figure: _spread(measured.seconds[figure][chosen]) for figure in ("ttft_s", "tpot_s", "e2e_s")},
            }
        )
    return made


def _spread(values: np.ndarray) -> dict[str, Any] | None:
    return spread(values[~np.isnan(values)].tolist())
