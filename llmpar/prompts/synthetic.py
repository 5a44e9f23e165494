"""Synthetic prompts of given token lengths, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from llmpar.prompts.prompt import BadPrompts, Prompt
from llmpar.prompts.vocabulary import WORDS


def synthetic(index: int, tokens: int, seed: int, shared: int = 0, count: Callable[[str], int] | None = None) -> Prompt:
    """Prompt number `index` of a synthetic set: random common words and full stops, `tokens` tokens long.

    The text depends on seed and index alone, so a longer set begins with the shorter one. The first `shared` tokens
    depend on the seed alone: a prefix that all prompts have in common. With `count`, a tokenizer, words are added or
    taken away until it agrees; raises BadPrompts where it never does.
    """
    if tokens < 1:
        raise BadPrompts("a prompt has at least one token")
    head = _pieces(random.Random(f"{seed}:prefix"))
    tail = _pieces(random.Random(f"{seed}:{index}"))
    pieces = [" the"]  # one token at the start of a text too, which not every word is

    def text(length: int) -> str:
        while len(pieces) < length:
            pieces.append(next(head if len(pieces) < shared else tail))
        return "".join(pieces[:length]).lstrip()

    length = tokens
    if count is None:
        return Prompt(text(length), tokens, "rule", "synthetic")
    for _ in range(32):
        made = text(length)
        got = count(made)
        if got == tokens:
            return Prompt(made, tokens, "tokenizer", "synthetic")
        length = max(length + tokens - got, 1)
    raise BadPrompts(f"no text of exactly {tokens} tokens found with this tokenizer")


def _pieces(generator: random.Random) -> Iterator[str]:
    while True:
        for _ in range(generator.randint(7, 15)):
            yield " " + generator.choice(WORDS)
        yield "."


def lengths(number: int, mean: float, deviation: float, seed: int, least: int = 4) -> list[int]:
    """Token lengths: all round(mean), or normal with that mean and standard deviation, never below `least`."""
    found = []
    for index in range(number):
        value = mean if not deviation else random.Random(f"{seed}:length:{index}").gauss(mean, deviation)
        found.append(max(round(value), least if deviation else 1))
    return found
