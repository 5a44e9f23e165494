"""A measured point of the reader's own host: how much longer its steps take than predicted, for the same card and
model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmpar.simulate import from_cells
from llmpar.simulate.cards import Card
from llmpar.simulate.models import Refused
from llmpar.simulate.predict import Scenario, predict, scale_of


@dataclass(frozen=True)
class Given:
    """The measured cell as a scenario, and the scale at which the prediction is what was measured."""

    scenario: Scenario
    scale: float
    figure: str
    measured: float

    def scale_for(self, scenario: Scenario) -> tuple[float, str]:
        """The scale, and the basis of the interval: narrowed for the same card and model only.

        A file of llmpar-calibrate is the same card by its title, with kernel times and so a scale of its own.
        """
        if scenario.card.title != self.scenario.card.title or scenario.model != self.scenario.model:
            return 1.0, scenario.card.basis
        if scenario.card == self.scenario.card:
            return self.scale, "given"
        return scale_of(replace(self.scenario, card=scenario.card), self.figure, self.measured), "given"

    @property
    def sentence(self) -> str:
        predicted = predict(self.scenario).figures[self.figure]
        return (
            f"given: {self.figure} of {self.measured:.4g} measured on {self.scenario.card.title} where "
            f"{predicted:.4g} is predicted: steps take "
            f"{self.scale:.2f} times as long there; used for the same card and model only, other rows stay as they are"
        )


def of_summary(summary: dict[str, Any], model: str | None, calibrated: Sequence[Card] = ()) -> Given:
    """The point of a measured summary on a card of the package's table or one of the `calibrated`.

    Raises Refused where the summary does not say enough, or its load decides the figure.
    """
    if summary.get("simulated"):
        raise Refused("the summary given is itself simulated; it must be measured")
    scenario = from_cells.of_summary(summary, model, calibrated)
    reasons = []
    for figure, measured in _points(summary):
        try:
            return Given(scenario, scale_of(scenario, figure, measured), figure, measured)
        except Refused as error:
            reasons.append(str(error))
    raise Refused("; ".join(reasons) or "the summary has neither an output rate nor a TPOT")


def _points(summary: dict[str, Any]) -> list[tuple[str, float]]:
    """The figures that tell how quick a host's steps are: the output rate of a closed loop, and TPOT."""
    rate = ((summary.get("throughput") or {}).get("output_tokens_per_s") or {}).get("wall") or {}
    tpot = ((summary.get("latency") or {}).get("tpot_s") or {}).get("mean") or {}
    known = [("output_tokens_per_s", rate.get("value")), ("tpot_mean_s", tpot.get("value"))]
    if ((summary.get("cell") or {}).get("load") or {}).get("rate"):
        known = known[1:]  # arrivals decide the rate of an open loop
    return [(name, float(value)) for name, value in known if value]
