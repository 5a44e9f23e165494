"""One wish, spelt by every dialect, is one workload; another wish is another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmpar.dialects import DIALECTS
from llmpar.dialects.base import Sampling
from llmpar.results import workload

# API, the engine behind it, and whether it streams.
SPELLINGS = [
    ("tgi", "tgi"),
    ("llamacpp", "llamacpp"),
    ("llamacpp", "powerinfer"),
    ("openai-completions", "vllm"),
    ("openai-completions", "llamacpp"),
    ("openai-completions", "trtllm"),
    ("openai-completions", "transformers"),
    ("openai-chat", "vllm"),
    ("mii", "mii"),
]
STUDY = Sampling(max_tokens=400, temperature=0.1, top_k=100, top_p=0.3)


def summary(api: str, engine: str, wish: Sampling) -> dict[str, Any]:
    sent = DIALECTS[api].request("p", "m", wish, api != "mii", engine).sampling
    return {"workload": {"sampling": sent, "sampling_sha256": api + engine, "prompts": {"sha256": "p"}}}


@pytest.mark.parametrize(
    "wish",
    [
        STUDY,
        replace(STUDY, temperature=0.0),
        Sampling(max_tokens=9, temperature=0.7, top_k=0, top_p=1.0),
        Sampling(max_tokens=9, temperature=1.0),
        replace(STUDY, stop=["x"]),
        Sampling(max_tokens=9),
    ],
)
def test_all_dialects_spell_one_wish(wish: Sampling) -> None:
    assert {api: workload.of(summary(api, engine, wish)) for api, engine in SPELLINGS} == {
        api: workload.of(summary("tgi", "tgi", wish)) for api, _ in SPELLINGS
    }


def test_going_on_past_the_end_of_text_is_one_wish_too() -> None:
    wish = Sampling(max_tokens=64, temperature=0.0, ignore_eos=True, seed=3)
    found = [
        workload.sampling(summary("openai-completions", engine, wish))
        for engine in ("vllm", "transformers", "llamacpp")
    ]
    assert found == [{"max_tokens": 64, "temperature": 0, "ignore_eos": True}] * 3


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 401},
        {"temperature": 0.2},
        {"temperature": 0.0},
        {"top_k": 0},
        {"top_p": 0.4},
        {"seed": 1},
        {"stop": ["x"]},
    ],
)
def test_another_wish_is_told_apart(other: dict[str, Any]) -> None:
    assert workload.of(summary("tgi", "tgi", STUDY)) != workload.of(summary("tgi", "tgi", replace(STUDY, **other)))


def test_a_seed_of_0_is_a_seed() -> None:
    assert workload.sampling(summary("tgi", "tgi", replace(STUDY, seed=0)))["seed"] == 0


def test_what_other_tools_wrote_is_taken_as_it_is() -> None:
    sent = {"workload": {"sampling": {"top_k": "50", "top_p": "1", "temperature": "0", "generation_config": "{"}}}
    assert workload.sampling(sent) == {"temperature": "0", "top_k": "50", "top_p": "1"}
    assert workload.of({"workload": None}) == ("None", "mixed None")


def test_requests_that_differ_among_themselves_equal_only_their_like() -> None:
    mixed = {"workload": {"sampling": None, "sampling_sha256": "a", "prompts": {"sha256": "p"}}}
    assert workload.of(mixed) == ("p", "mixed a")
    assert workload.of(mixed) != workload.of(
        {"workload": {"sampling": None, "sampling_sha256": "b", "prompts": {"sha256": "p"}}}
    )
