"""One cell predicted: lengths and load in, figures, records and intervals out.

The server is taken to be vLLM with its defaults of 2026: the share of memory it uses, its token budget and number of
sequences by card. All answers are as long as they may be, unless the prompt set says how long the source's answers
were.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llmpar.simulate.batch import Limits
from llmpar.simulate.cards import Card
from llmpar.simulate.models import Model, Refused
from llmpar.simulate.scheduler import ClosedLoop, OpenLoop, Run, simulate
from llmpar.simulate.step_time import FIT, StepTime

# vLLM 0.23's share of the card's memory, and what it takes of that beside weights and KV cache: on docs/results/h100.
MEMORY_USED, RESERVED_BYTES = 0.92, 1_500_000_000
# vLLM's default token budget for servers (EngineArgs of 0.23): cards from 70 GiB on but for the A100, others.
BUDGET_LARGE, BUDGET = 8192, 2048
LARGE_BYTES = 70 << 30
MAX_SEQUENCES = 256
# GNU parallel handing jobs to a pool (docs/results/h100: 315 a second once the pool stands).
LAUNCHES_PER_S = 315.0


@dataclass(frozen=True)
class Scenario:
    """One cell: card, model, server settings, lengths of all requests, load. Unset settings are the engine's
    defaults."""

    card: Card
    model: Model
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    load: ClosedLoop | OpenLoop
    memory_bytes: int | None = None  # that one server may use, of the card's
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    token_budget: int | None = None
    max_sequences: int = MAX_SEQUENCES
    replicas: int = 1
    one_device: bool = False
    draft_tokens: int = 0
    acceptance_length: float | None = None
    cached_tokens: int = 0  # of each prompt, found in the prefix cache

    def capacity(self) -> int:
        """Tokens that one server's KV cache holds. Raises Refused where the weights do not fit."""
        if self.kv_tokens is not None:
            return self.kv_tokens
        servers = self.replicas if self.one_device else 1
        free = (
            self.memory_bytes if self.memory_bytes is not None else int(MEMORY_USED * self.card.memory_bytes / servers)
        )
        # Drivers keep a little of the memory that a card is sold with, so 24 GiB is half of 48.
        if free * servers > 1.01 * self.card.memory_bytes:
            raise Refused(
                f"{servers} x {gib(free)} is more memory than {self.card.title} has, {gib(self.card.memory_bytes)}"
            )
        free -= self.model.weight_bytes + RESERVED_BYTES
        if self.kv_bytes is not None:
            if self.kv_bytes > free:
                raise Refused(
                    f"a KV cache of {gib(self.kv_bytes)} does not fit: {gib(max(free, 0))} are left next to the weights"
                )
            free = self.kv_bytes
        tokens = free // self.model.kv_bytes_per_token // 16 * 16
        if tokens < 16:
            raise Refused(
                f"{self.model.name} does not fit {self.card.title}: weights of {gib(self.model.weight_bytes)} "
                f"and {gib(RESERVED_BYTES)} of other memory leave no room for a KV cache"
            )
        return tokens

    def limits(self) -> Limits:
        """What the scheduler keeps to. Raises Refused for what cannot be predicted."""
        if self.draft_tokens and self.acceptance_length is None:
            raise Refused(
                "speculation without an acceptance length: it depends on model and text; measure it, or give one"
            )
        large = self.card.memory_bytes >= LARGE_BYTES and "A100" not in self.card.title
        budget = self.token_budget or (BUDGET_LARGE if large else BUDGET)
        try:
            return Limits(
                token_budget=max(budget, self.max_sequences * (1 + self.draft_tokens)),
                max_sequences=self.max_sequences,
                kv_tokens=self.capacity(),
                draft_tokens=self.draft_tokens,
                tokens_per_step=self.acceptance_length or 1.0,
            )
        except ValueError as error:
            raise Refused(str(error)) from None


@dataclass(frozen=True)
class Prediction:
    """Figures of one simulated run; seconds, tokens a second."""

    scenario: Scenario
    run: Run
    scale: float = 1.0
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def fits(self) -> int:
        """Sequences of mean length that one server's KV cache holds at once, at most max_sequences."""
        mean = float((self.scenario.prompt_tokens + self.scenario.output_tokens).mean())
        return min(int(self.scenario.capacity() // mean), self.scenario.max_sequences)


def predict(scenario: Scenario, scale: float = 1.0) -> Prediction:
    """Runs the scheduler. `scale`: how much longer steps take on the host at hand. Raises Refused."""
    limits = scenario.limits()
    shared = scenario.one_device and scenario.replicas > 1
    step_time = StepTime(scenario.card, scenario.model, shared=shared, scale=scale)
    try:
        run = simulate(
            scenario.prompt_tokens,
            scenario.output_tokens,
            scenario.load,
            step_time,
            limits,
            scenario.replicas,
            scenario.one_device,
            front_s=FIT.front_s,
            cached_tokens=scenario.cached_tokens,
        )
    except ValueError as error:
        raise Refused(str(error)) from None
    return Prediction(scenario, run, scale, figures_of(run))


def figures_of(run: Run) -> dict[str, float]:
    """Figures named as in llmpar-compare, over the whole run."""
    wall = float(run.end_s.max() - run.launched_s.min())
    output = int(run.output_tokens.sum())
    ttft, e2e = run.first_token_s - run.sent_s, run.end_s - run.sent_s
    figures = {
        "wall_s": wall,
        "output_tokens_per_s": output / wall,
        "total_tokens_per_s": (output + int(run.prompt_tokens.sum())) / wall,
        "ttft_mean_s": float(ttft.mean()),
        "ttft_p50_s": float(np.median(ttft)),
        "e2e_mean_s": float(e2e.mean()),
    }
    several = run.output_tokens > 1
    if several.any():
        tpot = (e2e - ttft)[several] / (run.output_tokens[several] - 1)
        figures |= {"tpot_mean_s": float(tpot.mean()), "tpot_p50_s": float(np.median(tpot))}
    return figures


def scale_of(scenario: Scenario, figure: str, measured: float) -> float:
    """How much longer the steps of a measured host take: the scale at which the figure comes out as measured."""
    falls = figure.endswith("_per_s")  # rates fall as steps take longer, times grow
    low, high = 0.2, 5.0
    for _ in range(24):
        middle = (low * high) ** 0.5
        value = predict(scenario, middle).figures[figure]
        if (value > measured) == falls:
            low = middle
        else:
            high = middle
    scale = (low * high) ** 0.5
    if not 0.21 < scale < 4.8:
        raise Refused(
            f"the measured {figure} of {measured:g} is not near the predicted {predict(scenario).figures[figure]:g}: "
            "the load, not the card, decides it, or the settings differ"
        )
    return scale


def gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def lengths(
    mean: float, variation: float, count: int, random: np.random.Generator, most: int | None = None
) -> np.ndarray:
    """Token counts of `count` texts: all `mean`, or gamma with that coefficient of variation; `mean` holds after the
    cut at `most`."""
    if variation <= 0:
        return np.full(count, max(1, round(mean)))
    # Quantiles, not draws: the same lengths whatever the seed, in shuffled order.
    from scipy.special import gammaincinv  # takes half a second to import, and few predictions need it

    shape = 1 / variation**2
    quantiles = gammaincinv(shape, (np.arange(count) + 0.5) / count) / shape
    scale = mean
    for _ in range(20):
        values = np.maximum(np.rint(np.minimum(scale * quantiles, most or np.inf)), 1)
        scale *= mean / values.mean()
    random.shuffle(values)
    return values.astype(np.int64)
