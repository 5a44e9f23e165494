"""docs/records.md names exactly the fields that GPU samples and host records have."""

from __future__ import annotations

import re
from pathlib import Path

import fake_nvml
import pytest

from llmpar.machine import host
from llmpar.sampling import gpu_figures, nvml
from llmpar.summary import causes


def fields(root: Path, kind: str) -> set[str]:
    section = (root / "docs" / "records.md").read_text().split(f"## {kind}, version 1\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (`[^|]*?) \|", section, re.M)
    return {name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row)}


@pytest.fixture
def sample() -> dict[str, object]:
    fake_nvml.install(fake_nvml.Library([fake_nvml.Gpu()]))
    try:
        return nvml.Reader().read()[0]
    finally:
        fake_nvml.uninstall()


def test_gpu_samples(root: Path, sample: dict[str, object]) -> None:
    assert fields(root, "gpu") == set(sample)


def test_gpu_in_a_summary(root: Path, sample: dict[str, object]) -> None:
    text = (root / "docs" / "records.md").read_text().split("In a summary `gpu` holds", 1)[1].split("\n## ", 1)[0]
    reduced = gpu_figures.reduce([sample], 0, 1)
    own = {name for name in reduced if name not in gpu_figures.ADDED + gpu_figures.AVERAGED}
    assert own <= set(re.findall(r"`([a-z0-9_]+)`", text))
    assert set(gpu_figures.ADDED + gpu_figures.AVERAGED) <= set(sample)


def test_hosts(root: Path) -> None:
    assert fields(root, "host") == set(host.record())


def test_causes(root: Path) -> None:
    row = next(
        line for line in (root / "docs" / "records.md").read_text().splitlines() if line.startswith("| `joined` |")
    )
    assert set(causes.TITLES) == set(re.findall(r"`([a-z_]+)`", row.split("`causes`")[1]))
