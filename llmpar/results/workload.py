"""What cells were asked to do, in one set of names whichever the API calls them: engines may be compared on equal work
only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llmpar.results import rows

NAMES = ("max_tokens", "temperature", "top_k", "top_p", "seed", "ignore_eos", "stop")
SAME = {
    "max_new_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_length": "max_tokens",
    "random_seed": "seed",
}


def sampling(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling that a summary's requests asked for; empty where they asked for different ones.

    Dialects spell one wish differently (docs/wire.md): TGI's greedy is `do_sample` false, "off" is −1, 0, 1.0 or left
    out, and transformers has a `generation_config`. Greedy decoding leaves nothing for top_k, top_p and seed to decide.
    """
    sent = _work(summary).get("sampling") or {}
    flat = dict(sent)
    for inner in (sent.get("parameters"), _document(sent.get("generation_config"))):
        if isinstance(inner, dict):
            flat |= inner
    flat = {SAME.get(name, name): value for name, value in flat.items()}
    if flat.get("min_new_tokens") is not None and flat["min_new_tokens"] == flat.get("max_tokens"):
        flat["ignore_eos"] = True
    if isinstance(flat.get("stop"), str):  # DeepSpeed-MII takes one text, not a list
        flat["stop"] = [flat["stop"]]
    if flat.get("do_sample") is False:
        flat["temperature"] = 0
    canonical = {
        name: _plain(flat[name])
        for name in NAMES
        if flat.get(name) is not None and flat[name] is not False and flat[name] != []
    }
    greedy = canonical.get("temperature") == 0
    return {
        name: value
        for name, value in canonical.items()
        if not (greedy and name in ("top_k", "top_p", "seed") or _off(name, value))
    }


def prompts(summary: Mapping[str, Any]) -> str:
    """The hash of a cell's prompts with the shares in which they were sent; before version 2, of their set."""
    known = _work(summary).get("prompts") or {}
    return str(known.get("shares_sha256") or known.get("sha256"))


def asked(summary: Mapping[str, Any]) -> str:
    """The sampling as one text that is equal for equal wishes."""
    if _work(summary).get("sampling") is None:
        return f"mixed {_work(summary).get('sampling_sha256')}"
    return json.dumps(sampling(summary), sort_keys=True)


def of(summary: Mapping[str, Any]) -> tuple[str, str]:
    """The work of a cell: its prompts and its sampling."""
    return prompts(summary), asked(summary)


def kinds(rows: Iterable[rows.Row]) -> set[tuple[str, str]]:
    """The different kinds of work that rows were given."""
    return {of(summary) for row in rows for summary in row.summaries}


def _work(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    return summary.get("workload") or {}


def _off(name: str, value: Any) -> bool:
    return isinstance(value, int | float) and (name == "top_k" and value <= 0 or name == "top_p" and value >= 1)


def _plain(value: Any) -> Any:
    """1 for 1.0: what was sent as the one is the other."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _document(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return None
