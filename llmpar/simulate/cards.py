"""GPUs: published kernel tables, datasheets, and what llmpar-calibrate measured on a card at hand.

A table holds the time of the dense matrices of one step by tokens in the step, and of the output matrix by sampled
rows. `cards.json` has four, summed from profiles that LLMServingSim publishes (MIT; each names its file). A card
without one gets it from its datasheet: (memory time³ + arithmetic time³)^⅓, with the shares of bandwidth and of tensor
arithmetic that the published tables reach.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from llmpar import shapes
from llmpar.simulate import models
from llmpar.simulate.models import BYTES_PER_VALUE, Model, Refused

# Shares of the datasheet that kernels reach. Memory: mean of the four published tables (A6000 .91, 3090 .82, 4090 .93,
# H100 .76). Tensor arithmetic: of the two cards among them without GeForce's boost (A6000 .68, H100 .77).
MEMORY_REACHED, TENSOR_REACHED = 0.85, 0.72
SIZES = ("memory_bytes", "bandwidth_bytes_per_s", "tensor_flops")
POINTS = ("tokens", "dense_ms", "head_tokens", "head_ms")
BEND = 3.0  # how sharply memory time goes over into arithmetic time; of the published tables


@dataclass(frozen=True)
class Card:
    """A GPU. `basis` says where its table comes from: "kernel table", "microbenchmark" or "datasheet"."""

    name: str
    title: str
    memory_bytes: int
    bandwidth_bytes_per_s: float
    tensor_flops: float
    basis: str
    source: str
    table_model: Model
    tokens: tuple[int, ...]
    dense_ms: tuple[float, ...]
    head_tokens: tuple[int, ...]
    head_ms: tuple[float, ...]


def _data() -> dict[str, Any]:
    return json.loads(resources.files("llmpar.simulate").joinpath("cards.json").read_text())


def names() -> list[str]:
    """Cards by name, those with a published kernel table first."""
    cards = _data()["cards"]
    return [card["name"] for card in sorted(cards, key=lambda card: card["table"] is None)]


def card(name: str) -> Card:
    """A card of the package's table by its short name or its title, or from a file of llmpar-calibrate. Raises
    Refused."""
    if name.endswith(".json"):
        return _calibrated(name)
    data = _data()
    for entry in data["cards"]:
        if name.lower() in (entry["name"], entry["title"].lower(), entry["title"].removeprefix("NVIDIA ").lower()):
            break
    else:
        raise Refused(f"card '{name}' is not known: one of {', '.join(names())}, or a file of llmpar-calibrate")
    model = models.load(data["table_model"])
    sizes: dict[str, Any] = {key: entry[key] for key in ("name", "title", *SIZES)}
    if entry["table"] is None:
        return datasheet(**sizes, source=entry["source"], table_model=model)
    table = data["tables"][entry["table"]]
    points: dict[str, Any] = {key: tuple(table[key]) for key in POINTS}
    return Card(basis="kernel table", source=table["source"], table_model=model, **sizes, **points)


def _calibrated(path: str) -> Card:
    """A `card` record as llmpar-calibrate writes it."""
    try:
        record = json.loads(Path(path).read_text())
        if (record.get("kind"), record.get("v")) != ("card", 1):
            raise Refused(f"'{path}' is not a card record of llmpar-calibrate")
        if wrong := shapes.fault(record):
            raise Refused(f"cannot read '{path}': {wrong}")
        sizes: dict[str, Any] = {key: record[key] for key in ("name", "title", *SIZES)}
        points: dict[str, Any] = {key: tuple(record[key]) for key in POINTS}
        model = models.load(record["table_model"])
        if min(*(sizes[key] for key in SIZES), *(value for each in points.values() for value in each)) <= 0:
            raise Refused(f"'{path}' holds a size or time that is not above 0; llmpar-calibrate rewrites it")
        if any(len(points[key]) != len(points[times]) for key, times in (POINTS[:2], POINTS[2:])):
            raise Refused(f"'{path}' has not as many times as token counts; llmpar-calibrate rewrites it")
        for key in ("tokens", "head_tokens"):
            counts = tuple(int(value) for value in points[key])
            if counts != points[key] or list(counts) != sorted(set(counts)):
                raise Refused(f"'{path}' holds '{key}' that are not ascending counts; llmpar-calibrate rewrites it")
            points[key] = counts
    except OSError as error:
        raise Refused(f"cannot read '{path}': {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"'{path}' is not a card record of llmpar-calibrate: {error}") from None
    return Card(
        basis="microbenchmark", source=f"llmpar-calibrate, {record.get('torch')}", table_model=model, **sizes, **points
    )


def datasheet(
    name: str,
    title: str,
    memory_bytes: int,
    bandwidth_bytes_per_s: float,
    tensor_flops: float,
    source: str,
    table_model: Model,
) -> Card:
    """A card from the figures of its datasheet."""
    grid = np.unique(np.rint(2 ** np.arange(0, 14.25, 0.25))).astype(int)

    def milliseconds(parameters: int) -> tuple[float, ...]:
        memory = BYTES_PER_VALUE * parameters / (MEMORY_REACHED * bandwidth_bytes_per_s)
        arithmetic = 2 * parameters * grid / (TENSOR_REACHED * tensor_flops)
        return tuple((1e3 * (memory**BEND + arithmetic**BEND) ** (1 / BEND)).tolist())

    tokens = tuple(grid.tolist())
    return Card(
        name,
        title,
        memory_bytes,
        bandwidth_bytes_per_s,
        tensor_flops,
        "datasheet",
        source,
        table_model,
        tokens,
        milliseconds(table_model.dense_parameters),
        tokens,
        milliseconds(table_model.head_parameters),
    )
