"""CUDA_VISIBLE_DEVICES as CUDA reads it, and what it does to memory, launches and the sampler."""

from __future__ import annotations

from collections.abc import Iterator

import fake_nvml
import pytest

from llmpar import visible_gpus
from llmpar.engines import ENGINES, Device, Settings, Unsupported
from llmpar.sampling import nvml
from llmpar.serving import gpu_memory, launches

GIB = 1 << 30


@pytest.fixture
def two_cards() -> Iterator[None]:
    cards = [
        fake_nvml.Gpu(uuid="GPU-large", memory_total=48 * GIB),
        fake_nvml.Gpu(uuid="GPU-small", memory_total=24 * GIB),
    ]
    fake_nvml.install(fake_nvml.Library(cards))
    yield
    fake_nvml.uninstall()


@pytest.mark.parametrize(
    "text, found",
    [
        ("0,1", ["0", "1"]),
        (" 1 ", ["1"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("GPU-8f,MIG-1", ["GPU-8f", "MIG-1"]),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert visible_gpus.words(text) == found


def test_gpu_0_of_a_job_is_the_jobs_first() -> None:
    assert visible_gpus.within("0,1", ["2", "3"]) == "2,3"
    assert visible_gpus.within("0,1", None) == "0,1"
    assert visible_gpus.within("GPU-x", ["2"]) == "GPU-x"
    with pytest.raises(ValueError, match=r"no GPU 1 among the 1 GPU of CUDA_VISIBLE_DEVICES \(2\)"):
        visible_gpus.within("1", ["2"])


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize(
    "told, gpus, size",
    [
        (None, None, 24),
        ("0", None, 48),
        ("1", None, 24),
        ("GPU-la", None, 48),
        ("1", "0", 24),
        (None, "0", 48),
        ("", None, None),
    ],
)
def test_memory_is_that_of_the_gpus_that_are_used(
    monkeypatch: pytest.MonkeyPatch, told: str | None, gpus: str | None, size: int | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert gpu_memory.gpu_memory(gpus) == (None if size is None else size * GIB)


def launched(gpus: str | None, runtime: str = "local") -> launches.Launch:
    (made,) = launches.launches(
        ENGINES["vllm"], Settings(model="m", gpus=gpus, version="0.10.0"), Device(), runtime, [8000]
    )
    return made


@pytest.mark.usefixtures("two_cards")
def test_a_launch_in_a_job_stays_on_the_jobs_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert launched("0").environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in launched(None).environment, "a local server inherits it"
    assert "device=1" in launched(None, "docker").words and "device=1" in launched("all", "docker").words
    with pytest.raises(Unsupported, match="no GPU 1 among"):
        launched("1")
    assert gpu_memory.own_gpus([launched("0")]) == gpu_memory.own_gpus([launched(None)]) == {1}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-small")
    assert gpu_memory.own_gpus([launched(None)]) == {1}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert launched("0").environment["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.usefixtures("two_cards")
def test_the_sampler_reads_the_jobs_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmpar.commands import sample_gpu

    for told, found in ((None, {0, 1}), ("1", {1}), ("GPU-la", {0})):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if told is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
        reader = nvml.Reader(wanted=sample_gpu._visible())
        assert {sample["gpu"] for sample in reader.read()} == found
        reader.close()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(nvml.Unavailable, match="leaves none"):
        sample_gpu._visible()


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize("told, share", [("0", 0.49), (None, 0.98)])
def test_the_cache_is_a_share_of_the_jobs_card(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: str | None, share: float
) -> None:
    from llmpar import cli
    from llmpar.commands import serve

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    words = "--engine vllm --engine-version 0.10.0 --runtime docker --model m --kv-bytes 8GiB --weight-bytes 14GiB"
    assert cli.run(serve.NAME, serve.main.command, [*words.split(), "--dry-run"]) == 0
    line = capsys.readouterr().out.split()
    assert float(line[line.index("--gpu-memory-utilization") + 1]) == pytest.approx(share, abs=0.01)
