"""Sweep cells to scenarios: which of a cell's settings a prediction follows, and which it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmpar import sizes
from llmpar.simulate import cards, models
from llmpar.simulate.models import Refused
from llmpar.simulate.predict import LAUNCHES_PER_S, MAX_SEQUENCES, Scenario, lengths
from llmpar.simulate.scheduler import ClosedLoop, OpenLoop

# Engines whose scheduler is vLLM's or works alike: continuous batching under a token budget, KV cache in blocks.
ENGINES = ("vllm", "aphrodite", "sglang", "tgi", "lmdeploy", "trtllm")
DTYPES = ("float16", "bfloat16", "fp16", "bf16", "half", "auto")
COUNT = 512  # requests, where the table does not say
MOST_REQUESTS, MOST_TOKENS = 1_000_000, 1_000_000  # of a cell, of a prompt or an answer: what a prediction ends with


def scenario(
    cell: dict[str, Any], card: cards.Card, prompts: np.ndarray, outputs: np.ndarray | None, seed: int = 1
) -> Scenario:
    """The cell on `card`. `outputs`: answers' lengths by prompt where the set has them, else all are max_tokens long.

    Raises Refused with the reason for what is not predicted.
    """
    server, load = cell["server"], cell["load"]
    refuse(server, load)
    random = np.random.default_rng(seed)
    count = int(load.get("count") or COUNT)
    if count > MOST_REQUESTS or int(load["max_tokens"]) > MOST_TOKENS or max(prompts, default=0) > MOST_TOKENS:
        raise Refused(f"over {MOST_REQUESTS} requests, or over {MOST_TOKENS} tokens in one, are not predicted")
    chosen = np.resize(np.arange(len(prompts)), count)
    random.shuffle(chosen)
    most = int(load["max_tokens"])
    answers = np.full(count, most) if outputs is None else np.minimum(outputs[chosen], most)
    replicas = int(server.get("replicas") or 1)
    try:
        memory = sizes.parse(server["memory"]) if server.get("memory") else None
        if memory is None and server.get("gpu_memory_utilization"):
            memory = int(float(server["gpu_memory_utilization"]) * card.memory_bytes)
        return Scenario(
            card=card,
            model=models.load(str(server.get("model") or "")),
            prompt_tokens=prompts[chosen],
            output_tokens=answers,
            load=_load(load, count, random),
            memory_bytes=memory,
            kv_bytes=sizes.parse(server["kv_bytes"]) if server.get("kv_bytes") else None,
            max_sequences=int(server.get("max_sequences") or MAX_SEQUENCES),
            replicas=replicas,
            # One GPU named for several servers: they take turns on it.
            one_device=replicas > 1 and server.get("gpus") is not None and "," not in str(server["gpus"]),
            draft_tokens=int(server.get("speculate") or 0),
            acceptance_length=server.get("acceptance_length"),
        )
    except Refused:
        raise
    except ValueError as error:
        raise Refused(str(error)) from None


def refuse(server: dict[str, Any], load: dict[str, Any]) -> None:
    """Raises Refused for settings that no table or rule covers."""
    engine = str(server.get("engine"))
    if engine not in ENGINES:
        raise Refused(f"engine '{engine}': only engines that batch as vLLM does are predicted ({', '.join(ENGINES)})")
    if str(server.get("quantize") or "none") != "none":
        raise Refused(f"quantize '{server['quantize']}': kernel times of quantised weights are not known")
    if str(server.get("dtype") or "auto") not in DTYPES:
        raise Refused(f"dtype '{server['dtype']}': there are tables of fp16 and bf16 only")
    if int(server.get("shards") or 1) > 1:
        raise Refused("sharding: what the cards send each other in a step is not modelled")
    if load.get("launcher") == "cold":
        raise Refused("launcher 'cold': the client's own start decides it, not the card")


def without_engine(cell: dict[str, Any]) -> str:
    """What a prediction of the cell depends on, and its engine does not change."""
    server = {
        key: value
        for key, value in cell["server"].items()
        if key not in ("engine", "engine_version", "version", "engine_args")
    }
    return json.dumps([server, cell["load"]], sort_keys=True)


def _load(load: dict[str, Any], count: int, random: np.random.Generator) -> ClosedLoop | OpenLoop:
    rate = load.get("rate")
    if not rate:
        return ClosedLoop(int(load["clients"]), LAUNCHES_PER_S if load.get("launcher") == "parallel" else None, 0.001)
    process = str(load.get("process") or "poisson")
    if process == "constant":
        return OpenLoop(np.arange(count) / rate)
    if process == "poisson":
        return OpenLoop(np.cumsum(random.exponential(1 / rate, count)))
    raise Refused(f"process '{process}': constant and poisson arrivals are predicted")


def of_summary(summary: dict[str, Any], model: str | None, calibrated: Sequence[cards.Card] = ()) -> Scenario:
    """The scenario of a measured summary: its card by the host's GPU, its lengths by their mean and range.

    A GPU that the package's table does not hold is looked for among the `calibrated` cards, by its title.
    """
    cell, host = summary.get("cell"), summary.get("host")
    gpus = [str(gpu.get("name")) for gpu in (host or {}).get("gpus") or []] if isinstance(host, dict) else []
    if not cell or not gpus:
        raise Refused("the measured summary has no cell or no host record with a GPU; both are needed")
    card = _card(gpus[0], calibrated)
    tokens = summary["tokens"]
    count = int(summary["n"]["ok"])
    server = dict(cell.get("server") or {}) | ({"model": model} if model else {})
    if not server.get("model") or not (cell.get("load") or {}).get("clients"):
        raise Refused("the measured summary does not state its model or its clients")
    prompts, outputs = (_spread(tokens.get(key), count) for key in ("prompt_per_request", "output_per_request"))
    load = dict(cell["load"]) | {"count": count, "max_tokens": int(outputs.max())}
    return scenario(cell | {"server": server, "load": load}, card, prompts, outputs)


def _card(gpu: str, calibrated: Sequence[cards.Card]) -> cards.Card:
    try:
        return cards.card(gpu)
    except Refused:
        for card in calibrated:
            if card.title == gpu:
                return card
        raise Refused(
            f"its GPU '{gpu}' is not known: add --card FILE, what llmpar-calibrate wrote on that host"
        ) from None


def _spread(described: dict[str, Any] | None, count: int) -> np.ndarray:
    """Lengths of the mean and range that a summary states, as if they were spread evenly over it."""
    if not described:
        raise Refused("the measured summary does not state how many tokens its prompts or answers had")
    least, most, mean = (described.get(name) for name in ("min", "max", "mean"))
    if (
        least is None
        or most is None
        or not mean
        or not 0 <= least <= mean <= most <= MOST_TOKENS
        or count > MOST_REQUESTS
    ):
        raise Refused("the measured summary has lengths that no requests can have, or more than are predicted")
    variation = (most - least) / math.sqrt(12) / mean
    return lengths(described["mean"], variation, count, np.random.default_rng(1))
