"""The power limit is set while servers run and put back, or refused with what to do."""

from __future__ import annotations

import sys
import types

import pytest

from llmpar import exit_codes
from llmpar.engines import ENGINES, check
from llmpar.engines.base import Settings
from llmpar.failure import Failure
from llmpar.serving import power_limit


class Driver(types.ModuleType):
    """As much of pynvml as is used, with two GPUs of 200 to 700 W."""

    class NVMLError(Exception):
        pass

    def __init__(self, refused=()):
        super().__init__("pynvml")
        self.limits, self.refused, self.open = {0: 700_000, 1: 650_000}, set(refused), 0

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetCount(self):
        return len(self.limits)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle):
        return [200_000, 700_000]

    def nvmlDeviceGetPowerManagementLimit(self, handle):
        return self.limits[handle]

    def nvmlDeviceSetPowerManagementLimit(self, handle, milliwatts):
        if handle in self.refused:
            raise self.NVMLError("Insufficient Permissions")
        self.limits[handle] = milliwatts


@pytest.fixture
def driver(monkeypatch):
    def use(**options):
        made = Driver(**options)
        monkeypatch.setitem(sys.modules, "pynvml", made)
        return made

    return use


def never(*words):
    raise AssertionError(words)


@pytest.mark.parametrize(
    ("indices", "meanwhile"), [({1}, {0: 700_000, 1: 400_000}), (None, {0: 400_000, 1: 400_000}), (set(), None)]
)
def test_set_for_the_servers_gpus_and_put_back_whatever_happens(driver, indices, meanwhile):
    gpus = driver()
    with pytest.raises(RuntimeError), power_limit.capped(400.0, indices, never):
        assert gpus.limits == (meanwhile or {0: 700_000, 1: 650_000})
        raise RuntimeError
    assert gpus.limits == {0: 700_000, 1: 650_000} and gpus.open == 0


def test_no_limit_asks_no_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with power_limit.capped(None, None, never):
        pass
    with pytest.raises(Failure, match="cannot run here: no GPU"), power_limit.capped(300.0, None, never):
        pass


def test_what_the_driver_refuses_is_said_and_nothing_stays_changed(driver):
    gpus = driver(refused={1})
    with pytest.raises(Failure, match="power limit of GPU 1: Insufficient Permissions") as refused:
        with power_limit.capped(300.0, None, never):
            never()
    assert refused.value.code == exit_codes.UNAVAILABLE and "nvidia-smi -pl" in str(refused.value.hint)
    assert gpus.limits == {0: 700_000, 1: 650_000} and gpus.open == 0


def test_a_limit_that_no_card_takes_is_refused(driver):
    driver()
    with pytest.raises(Failure, match="GPU 0 takes 200 to 700 W"), power_limit.capped(100.0, None, never):
        never()


def test_a_limit_that_cannot_be_put_back_is_said_with_how(driver):
    gpus, said = driver(), []
    with power_limit.capped(300.0, {0}, lambda *words: said.append(words)):
        gpus.refused.add(0)
    assert "could not be put back" in said[0][0] and said[0][1].endswith("nvidia-smi -i 0 -pl 700")


def test_it_is_a_setting_of_every_engine():
    for engine in ENGINES.values():
        check(engine, Settings(model="m", power_limit_w=300.0))
