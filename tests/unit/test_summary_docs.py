"""docs/metrics.md and docs/records.md name what summaries and verdicts hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from made_requests import request

from llmpar.summary import read
from llmpar.summary.summariser import Summariser
from llmpar.verdicts import comparable, pairs, verdict

ROOT = Path(__file__).resolve().parent.parent.parent


def fields(kind: str) -> set[str]:
    """Field names in the first column of a kind's table in docs/records.md."""
    text = (ROOT / "docs/records.md").read_text()
    section = re.split(r"^## ", text, flags=re.M)
    body = next(part for part in section if part.startswith(f"{kind}, version"))
    return {
        name
        for line in body.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])
    }


def test_the_summary_has_the_documented_fields() -> None:
    summariser = Summariser()
    read.feed_records(summariser, [request(number, number * 0.1) for number in range(10)])
    assert set(summariser.summary()) == fields("summary")


def test_the_verdict_has_the_documented_fields() -> None:
    found: dict[str, Any] = {}
    summariser = Summariser()
    read.feed_records(summariser, [request(number, number * 0.1) for number in range(10)])
    made = summariser.summary()
    found = verdict.verdict_records(pairs.against([made], [made]), ("output_tokens_per_s",))[0]
    assert set(found) == fields("verdict")
    assert found["verdict"] in verdict.VERDICTS


@pytest.mark.parametrize("code", comparable.CHECKS)
def test_every_check_is_allowed_by_name(code: str) -> None:
    from llmpar.commands import compare as command

    allow = next(each for each in command.main.command.params if each.name == "allow")  # type: ignore[attr-defined]
    assert code in allow.type.choices
