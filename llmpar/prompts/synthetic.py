"""Synthetic prompts of given token lengths, the same for the same seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from llmpar.prompts.prompt import BadPrompts, Prompt
from llmpar.prompts.vocabulary import WORDS


def synthetic(
    index: int,
    tokens: int,
    seed: int,
    shared: int = 0,
    count: Callable[[str], int] | None = None,
    blocks: Sequence[int] = (),
    block: int = 1,
) -> Prompt:
    """Prompt number `index` of a synthetic set: random common words and full stops, `tokens` tokens long.

    The text depends on seed and index alone, so a longer set begins with the shorter one. The first `shared` tokens
    depend on the seed alone: a prefix that all prompts have in common. `blocks` of `block` tokens each depend on the
    seed and their number, so that prompts that begin with the same blocks share a prefix. With `count`, a tokenizer,
    words are added or taken away until it agrees; raises BadPrompts where it never does.
    """
    if tokens < 1:
        raise BadPrompts("a prompt has at least one token")
    head = _pieces(random.Random(f"{seed}:prefix"))
    if blocks:
        shared = len(blocks) * block
        head = itertools.chain.from_iterable(
            itertools.islice(_pieces(random.Random(f"{seed}:block:{each}")), block) for each in blocks
        )
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


def own(
    made: Sequence[Prompt], mean: float | None, deviation: float | None, models: Sequence[str], seed: int
) -> list[Prompt]:
    """The prompts, each with an answer's length of its own and one of `models`, at random.

    Lengths are normal about `mean`, with a deviation of a quarter of it unless another is given.
    """
    found = list(made)
    if mean is not None:
        drawn = lengths(len(found), mean, mean / 4 if deviation is None else deviation, seed + 1, 1)
        found = [replace(each, max_tokens=length) for each, length in zip(found, drawn, strict=True)]
    if models:
        found = [
            replace(each, model=random.Random(f"{seed}:model:{number}").choice(list(models)))
            for number, each in enumerate(found)
        ]
    return found


def lengths(number: int, mean: float, deviation: float, seed: int, least: int = 4) -> list[int]:
    """Token lengths: all round(mean), or normal with that mean and standard deviation, never below `least`."""
    found = []
    for index in range(number):
        value = mean if not deviation else random.Random(f"{seed}:length:{index}").gauss(mean, deviation)
        found.append(max(round(value), least if deviation else 1))
    return found
