"""How long one step takes on a card: its kernel table for the tokens of the step, the KV cache read, and what the host
adds.

step = dense matrices (table at the step's tokens, times the model's parameters over those of the table's model; what
the
       prompts' tokens add to it, times `prompt_factor`)
     + output matrix (table at the sampled rows, likewise)
     + elementwise kernels (bytes over the bandwidth reached)
     + the KV cache read (its bytes over the bandwidth reached)
     + attention of prompts (query-key pairs, at the arithmetic rate reached)
     + what the host adds to each step.

The constants of `FIT` come from docs/results/h100 alone: bench/fit_simulator.py finds them again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmpar.simulate.batch import Batch
from llmpar.simulate.cards import MEMORY_REACHED, Card
from llmpar.simulate.models import Model

MOST_TOKENS = 16_384  # of one step
ATTENTION_REACHED = (
    0.35  # share of the datasheet's arithmetic that attention of prompts reaches; small at these lengths
)


@dataclass(frozen=True)
class Fit:
    """What a card's table does not know."""

    host_s: float  # of each step: scheduling, sampling, launching
    kv_reached: float  # share of the datasheet's bandwidth at which attention reads the KV cache
    prompt_factor: float  # prompts are not padded to a graph, and the power limit lowers the clocks while they are read
    shared_factor: float  # a step's time, where several servers take turns on one card
    # of each sequence in each step under speculation: n-grams are guessed on the processor, between the steps
    draft_s: float
    front_s: float  # from the sending of a request until the scheduler sees it


# On docs/results/h100, 8 cells of vLLM 0.23: rate within 2%, TPOT within 3%, TTFT within 15%.
FIT = Fit(host_s=0.00083, kv_reached=0.948, prompt_factor=1.322, shared_factor=1.066, draft_s=6.14e-05, front_s=0.0273)


def _curve(tokens: tuple[int, ...], milliseconds: tuple[float, ...], ratio: float) -> np.ndarray:
    """Seconds for 0 … MOST_TOKENS tokens: linear between the table's points, in proportion beyond its last."""
    at = np.arange(MOST_TOKENS + 1)
    seconds = np.interp(at, tokens, milliseconds) / 1e3
    last = tokens[-1]
    seconds[last:] = milliseconds[-1] / 1e3 * at[last:] / last
    seconds[0] = 0.0
    return ratio * seconds


class StepTime:
    """Seconds of a step of `model` on `card`; called with a Batch. `scale`: a measured host's steps over these."""

    def __init__(self, card: Card, model: Model, fit: Fit = FIT, shared: bool = False, scale: float = 1.0) -> None:
        table = card.table_model
        factor = scale * (fit.shared_factor if shared else 1.0)
        elementwise_s = model.elementwise_bytes_per_token / (MEMORY_REACHED * card.bandwidth_bytes_per_s)
        dense = _curve(card.tokens, card.dense_ms, model.dense_parameters / table.dense_parameters)
        dense += elementwise_s * np.arange(MOST_TOKENS + 1)
        head = _curve(card.head_tokens, card.head_ms, model.head_parameters / table.head_parameters)
        self._dense = (factor * dense).tolist()
        self._head = (factor * head).tolist()
        self._host = factor * fit.host_s
        self._draft = factor * fit.draft_s
        self._prompt_factor = fit.prompt_factor
        self._kv = factor * model.kv_bytes_per_token / (fit.kv_reached * card.bandwidth_bytes_per_s)
        self._pair = factor * model.attention_flops_per_pair / (ATTENTION_REACHED * card.tensor_flops)

    def __call__(self, batch: Batch) -> float:
        generating = batch.sequences * (1 + batch.draft_tokens)
        # Whatever a step computes, it reads the weights once.
        base = self._dense[generating or 1]
        seconds = self._host + base + self._head[batch.sampled] + self._kv * batch.kv_tokens
        if batch.prompt_tokens:
            added = self._dense[generating + batch.prompt_tokens] - base
            seconds += self._prompt_factor * added + self._pair * batch.prompt_pairs
        if batch.draft_tokens:
            seconds += self._draft * batch.sequences
        return seconds
