"""The benchmark's own arithmetic: matching what clients say with a server's log, quantiles, concurrency; and truthd
itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import urllib.request
from pathlib import Path

import optional
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import tables  # noqa: E402
import truth  # noqa: E402
from truth import Served, Told  # noqa: E402

START = 1_700_000_000_000_000_000
MS = 1_000_000


def served(name: str, received_ms: int = 0, events: int = 2, gap_ms: int = 20) -> Served:
    """A request whose events are written when they are due, each write taking 10 microseconds."""
    received = START + received_ms * MS
    due = [received + (number + 1) * gap_ms * MS for number in range(events)]
    return Served(name, received, due, due, [at + 10_000 for at in due])


def test_an_exact_client_has_no_error():
    errors = truth.compare([Told("p1", START / 1e9, [0.020, 0.040])], [served("p1 the mill")])
    assert errors.unmatched == 0
    assert errors.ttft == pytest.approx([0.0], abs=1e-9) and errors.events == pytest.approx([0.0, 0.0], abs=1e-9)
    assert errors.sent == pytest.approx([0.0], abs=1e-6)


def test_errors_are_the_client_less_the_truth():
    errors = truth.compare([Told("p1", START / 1e9 - 0.001, [0.0213, 0.039])], [served("p1")])
    assert errors.ttft == pytest.approx([0.0013]) and errors.events == pytest.approx([0.0013, -0.001])
    assert errors.sent == pytest.approx([-0.001], abs=1e-6)


def test_of_one_prompt_asked_twice_the_nearest_receipt_is_taken_and_each_only_once():
    log = [served("p1", 0), served("p1", 500, gap_ms=30)]
    said = [Told("p1", START / 1e9 + 0.5, [0.030]), Told("p1", START / 1e9, [0.020])]
    errors = truth.compare(said, log)
    assert errors.unmatched == 0 and errors.ttft == pytest.approx([0.0, 0.0], abs=1e-9)


def test_what_matches_nothing_is_counted_and_given_no_error():
    errors = truth.compare([Told("p2", START / 1e9, [0.02]), Told("p1", START / 1e9, [])], [served("p1")])
    assert errors.unmatched == 2 and errors.ttft == [] and errors.events == []


def test_a_client_with_more_events_than_were_written_is_no_match():
    assert truth.compare([Told("p1", START / 1e9, [0.02, 0.04, 0.06])], [served("p1")]).unmatched == 1


def test_a_client_that_tells_only_the_first_token_has_no_event_errors():
    errors = truth.compare([Told("p1", None, [0.021])], [served("p1")])
    assert errors.ttft == pytest.approx([0.001]) and errors.events == [] and errors.sent == []


@pytest.mark.parametrize(("share", "rank"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_quantiles_are_nearest_rank(share, rank):
    assert truth.quantile(range(1, 101), share) == rank


def test_sizes_forget_the_sign_and_nothing_has_none():
    assert truth.size([-3.0, 1.0, 2.0], 1.0) == 3.0
    assert math.isnan(truth.quantile([], 0.5))


def test_held_is_the_time_weighted_mean_and_most_the_peak():
    # Two of 40 ms, 20 ms apart: from 0 to 20 ms one is there, and there the second comes.
    log = [served("a", 0), served("b", 20)]
    assert truth.held(log) == pytest.approx(1.0) and truth.most(log) == 2
    assert math.isnan(truth.held(log[:1]))


def test_held_may_leave_the_ends_out():
    # 40 ms each, every 20 ms: one at first, then two.
    log = [served(str(number), 20 * number) for number in range(5)]
    assert truth.held(log) == pytest.approx(7 / 4, abs=0.01) and truth.held(log, 0.25) == pytest.approx(2.0, abs=0.01)


def test_a_cut_log_line_is_refused():
    with pytest.raises(ValueError, match="'p1' is cut"):
        list(truth.read_log(["p1\t1\t2\t3\n"]))


def test_spread_of_one_and_of_many():
    assert tables.spread([1.0]) == "1.00" and tables.spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0 to 3.0)"
    assert tables.spread([math.nan]) == "-"


@optional.needs("gcc")
@pytest.mark.parametrize(
    ("path", "options", "key"),
    [("/v1/completions", [], "text"), ("/v1/completions", ["-c"], "text"), ("/v1/chat/completions", [], "delta")],
)
def test_truthd_streams_and_logs_what_it_did(tmp_path, path, options, key):
    truth.build(tmp_path / "truthd")
    server = truth.Server(tmp_path / "truthd", tmp_path / "log", ["-n", "3", "-g", "2000", "-b", "2", *options])
    ask = {"prompt": "p7 hello"} if key == "text" else {"messages": [{"role": "user", "content": "p7 hello"}]}
    request = urllib.request.Request(server.url + path, json.dumps(ask).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        body = answer.read().decode()
    (one,) = server.stop()
    data = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    assert data[-1] == "[DONE]"
    choices = [json.loads(line)["choices"][0] for line in data[:-1]]
    texts = [choice["text"] if key == "text" else choice["delta"]["content"] for choice in choices]
    assert texts == [" tok0 tok1", " tok2 tok3", " tok4 tok5"] and choices[-1]["finish_reason"] == "length"
    assert one.id == "p7 hello"
    gap = 2 * MS
    assert one.due == [one.received + gap * number for number in (1, 2, 3)]
    assert all(due <= before <= after for due, before, after in zip(one.due, one.before, one.after, strict=True))


def test_the_metre_counts_a_process_that_detached_itself(tmp_path):
    # It outlives the command in a session of its own, and burns 0.3 s of CPU there.
    burn = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nwhile time.process_time() < 0.3: pass"
    subprocess.run(
        [sys.executable, str(BENCH / "metre.py"), str(tmp_path / "m.json"), sys.executable, "-S", "-c", burn],
        check=True,
    )
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["code"] == 0 and found["user_s"] + found["system_s"] >= 0.3 and found["gone_s"] >= found["wall_s"]
