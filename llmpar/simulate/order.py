"""Which of two cards comes first, as far as predictions can say: the order must hold whatever is not known.

What is not known is how long the reader's texts are and how many sequences a card will hold of them. So a pair is
predicted three times: as given, with as many sequences on both as fit the smaller one, and with texts half as long.
Where the order turns, the answer is "cannot tell". Differences under 15% are less than what hosts of one card differ
by.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from llmpar.simulate.predict import Prediction, Scenario, predict
from llmpar.simulate.scheduler import ClosedLoop

RATE = "output_tokens_per_s"
# Two hosts with the same card: rows R and B of study/held-out.tsv.
HOSTS_DIFFER = 0.15


@dataclass(frozen=True)
class Order:
    """`verdict`: "above", "above, but within what hosts differ by," or "cannot tell". `ratio` of output rates, a over
    b, b not above a."""

    a: str
    b: str
    ratio: float
    verdict: str
    reason: str
    at: str = ""  # the load of both, where there are several

    @property
    def sentence(self) -> str:
        at = f"{self.at}: " if self.at else ""
        if self.verdict == "cannot tell":
            return f"{at}{self.a} or {self.b}: cannot tell: {self.reason}"
        return f"{at}{self.a} {self.verdict} {self.b}: {self.reason}"


def compare(first: tuple[str, Prediction], second: tuple[str, Prediction]) -> Order:
    """The order of two predictions of the same load."""
    (a, left), (b, right) = sorted((first, second), key=lambda one: -one[1].figures[RATE])
    ratio = left.figures[RATE] / right.figures[RATE]
    same = _ratio(
        _limited(left.scenario, min(left.fits, right.fits)), _limited(right.scenario, min(left.fits, right.fits))
    )
    fits = f"{left.fits} sequences fit {a}, {right.fits} fit {b}"
    if same < 1:
        return Order(
            a,
            b,
            ratio,
            "cannot tell",
            f"{fits}; with as many on both {b} would be ahead by {100 / same - 100:.0f}%, as they fit {a} is, by "
            f"{100 * ratio - 100:.0f}%",
        )
    shorter = _ratio(_shorter(left.scenario), _shorter(right.scenario))
    if shorter < 1:
        return Order(
            a,
            b,
            ratio,
            "cannot tell",
            f"{a} is ahead by {100 * ratio - 100:.0f}%, with texts half as long {b} is, by {100 / shorter - 100:.0f}%",
        )
    if ratio < 1 + HOSTS_DIFFER:
        return Order(
            a,
            b,
            ratio,
            "above, but within what hosts differ by,",
            f"{100 * ratio - 100:.0f}% is under the {100 * HOSTS_DIFFER:.0f}% by which hosts of one card differ "
            f"({fits})",
        )
    return Order(a, b, ratio, "above", f"by {100 * ratio - 100:.0f}% ({fits})")


def _ratio(a: Scenario, b: Scenario) -> float:
    return predict(a).figures[RATE] / predict(b).figures[RATE]


def _limited(scenario: Scenario, sequences: int) -> Scenario:
    """Both hold this many sequences, each as long as it may be."""
    return replace(scenario, max_sequences=max(1, sequences))


def _shorter(scenario: Scenario) -> Scenario:
    def half(tokens: np.ndarray) -> np.ndarray:
        return np.maximum(tokens // 2, 1)

    return replace(scenario, prompt_tokens=half(scenario.prompt_tokens), output_tokens=half(scenario.output_tokens))


def comparable(a: Scenario, b: Scenario) -> bool:
    """Whether two scenarios put the same load on a whole server: only card and memory may differ."""
    alike = (
        a.model == b.model,
        a.replicas == b.replicas,
        a.draft_tokens == b.draft_tokens,
        a.acceptance_length == b.acceptance_length,
    )
    if not all(alike) or not isinstance(a.load, ClosedLoop) or a.load != b.load:
        return False
    return np.array_equal(np.sort(a.prompt_tokens), np.sort(b.prompt_tokens)) and np.array_equal(
        np.sort(a.output_tokens), np.sort(b.output_tokens)
    )
