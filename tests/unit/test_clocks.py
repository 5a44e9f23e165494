"""Clocks of several hosts: bounds, corrections, and what a summary says of them."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
from made_requests import START, request

from llmpar import records
from llmpar.machine import clocks as asking
from llmpar.summary import read
from llmpar.summary.summariser import Summariser

S = 1_000_000_000


def clock(host: str, offset: float, error: float = 0.00005, at: float = START, against: str = "a") -> dict[str, Any]:
    return {
        "kind": "clock", "v": 1, "at": at, "host": host, "against": against,
        "offset_s": offset, "error_s": error, "rtt_s": 2 * error,
    }  # fmt: skip


def load(shift: float = 0.0, hosts: tuple[str, str] = ("a", "b"), clients: int = 4) -> list[dict[str, Any]]:
    """A closed loop of two hosts, one client after the other; the second host's instants `shift` seconds late."""
    made = []
    for number in range(400):
        host = hosts[number % 2]
        sent = number * 0.05 + (shift if number % 2 else 0.0)
        made.append(request(number, sent, (0.1, 0.13, 0.16, 0.19), host=host, concurrency=clients // 2))
    return made


def summary(given: list[dict[str, Any]], *clock_records: dict[str, Any], **options: Any) -> dict[str, Any]:
    made = Summariser(clock_records)
    read.feed_records(made, given)
    return made.summary(**options)


def codes(found: dict[str, Any]) -> set[str]:
    return {each["code"] for each in found["warnings"]}


@pytest.mark.parametrize("offset", [0.0, 0.25, -3.0])
@pytest.mark.parametrize("there, back", [(0.001, 0.001), (0.05, 0.0001), (0.0001, 0.05)])
def test_bounds_hold_however_unequal_the_ways_are(offset: float, there: float, back: float) -> None:
    random_ = random.Random(1)
    asked = []
    for number in range(20):
        before = START + number
        slow = [way * random_.uniform(1, 3) for way in (there, back)]
        asked.append(tuple(int(at * 1e6) * 1000 for at in (before, before + slow[0] + offset, before + sum(slow))))
    found = asking.bounds("x", asked).record()  # type: ignore[arg-type]
    assert abs(found["offset_s"] - offset) <= found["error_s"]
    assert found["error_s"] <= (there + back) * 1.5 + 0.001


def test_a_clock_that_is_set_while_it_is_asked_is_an_error() -> None:
    with pytest.raises(asking.NoAnswer, match="one of the clocks was set"):
        asking.bounds("x", [(0, 10 * S, 1000), (S, 10 * S, S + 1000)])


def test_a_far_end_that_is_none() -> None:
    with pytest.raises(asking.NoAnswer, match="no such host"):
        asking.ask(["sh", "-c", "echo no such host >&2; exit 255"])
    with pytest.raises(asking.NoAnswer, match="is there a perl"):
        asking.ask([sys.executable, "-c", "print('Welcome to fish')"])


def test_this_hosts_own_clock_is_its_own() -> None:
    found = asking.ask(["env", "LLMPAR_HOST=other"]).record()
    assert found["host"] == "other" and abs(found["offset_s"]) <= found["error_s"] < 1.0


def test_records_of_several_hosts_without_clocks_are_said_to_be_so() -> None:
    assert "clocks_unknown" in codes(summary(load()))
    assert "clocks_unknown" in codes(summary(load(), clock("c", 0.0)))
    assert not codes(summary(load(), clock("b", 0.0))) & {"clocks_unknown", "clocks_differ"}
    assert "clocks_unknown" not in codes(summary(load(hosts=("a", "a"))))


@pytest.mark.parametrize("shift", [0.05, 0.25, -5.0, 60.0])
def test_an_offset_is_taken_off_every_instant(shift: float) -> None:
    true, off = summary(load(), clock("b", 0.0)), summary(load(shift), clock("b", shift))
    assert "clocks_differ" in codes(off)
    off["warnings"] = [each for each in off["warnings"] if each["code"] != "clocks_differ"]
    off["client"]["clocks"] = true["client"]["clocks"]
    assert records.encode(off) == records.encode(true)
    assert summary(load(shift))["wall_s"] != true["wall_s"] or abs(shift) < 0.1


def test_two_hosts_records_are_as_good_as_one_hosts() -> None:
    one = summary(load(hosts=("a", "a"), clients=8))
    two = summary(load(0.05), clock("b", 0.05), clients=4)
    assert one["concurrency"]["asked"] == two["concurrency"]["asked"] == 4
    for found in (one, two):
        found["warnings"] = [each for each in found["warnings"] if each["code"] != "clocks_differ"]
        for name in ("hosts", "clocks", "crossing"):
            del found["client"][name]
        found["provenance"]["options"] = {}
    assert records.encode(one) == records.encode(two)


def test_a_clock_that_moves_is_followed_between_its_readings() -> None:
    # It gains 20 ms in 20 s.
    drifting = load()
    for record in drifting:
        if record["host"] == "b":
            gained = (record["sent_at"] - START) * 0.001
            for name in ("sent_at", "launched_at"):
                record[name] = round(record[name] + gained, 6)
    found = summary(drifting, clock("b", 0.0), clock("b", 0.02, at=START + 20))
    true = summary(load(), clock("b", 0.0))
    assert abs(found["wall_s"]["value"] - true["wall_s"]["value"]) < 0.0001
    assert found["client"]["clocks"][1]["moved_s"] == pytest.approx(0.02) and "clocks_differ" in codes(found)


def test_figures_that_cross_hosts_are_bounded() -> None:
    found = summary(load(), clock("b", 0.0, error=0.1))
    bounds, wall = found["client"]["crossing"], found["wall_s"]["value"]
    assert bounds["wall_s"]["low"] == pytest.approx(wall - 0.2, abs=1e-4)
    assert bounds["wall_s"]["high"] == pytest.approx(wall + 0.2, abs=1e-4)
    for shift in (-0.1, 0.1):
        moved = summary(load(shift), clock("b", 0.0))
        for name in ("output_tokens_per_s", "requests_per_s"):
            assert bounds[name]["low"] <= moved["throughput"][name]["wall"]["value"] <= bounds[name]["high"]
        assert bounds["concurrency"]["low"] <= moved["concurrency"]["achieved"] <= bounds["concurrency"]["high"]


def test_clocks_against_different_hosts_are_refused() -> None:
    with pytest.raises(records.BadRecord, match="say nothing of one another"):
        Summariser([clock("b", 0.0), clock("c", 0.0, against="d")])


def test_clients_are_added_over_hosts() -> None:
    assert summary(load(clients=128))["concurrency"]["asked"] == 128
    uneven = load()
    for record in uneven:
        record["concurrency"] = 64 if record["host"] == "a" else 32
    assert summary(uneven)["concurrency"]["asked"] == 96
    uneven[0]["concurrency"] = 4
    assert summary(uneven)["concurrency"]["asked"] is None and "mixed_clients" in codes(summary(uneven))
    unknown = load()
    for record in unknown:
        record["concurrency"] = 64 if record["host"] == "a" else None
    assert summary(unknown)["concurrency"]["asked"] is None
    assert "more_clients" in codes(summary(load(clients=2)))
