"""scripts/nightly as cron runs it: silent when all is well, else a mail's body and a status; its lock, limit and nights
kept."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from fake import fake_engine
from ready import venv

HEADER = "engine\tclients\tprompts\tmax_tokens\tcount\twarmup\n"
ROOT = Path(__file__).resolve().parent.parent.parent
# The slow fake takes ten times as long for a token; a busy machine may double either.
GAP_MS, SLOW_GAP_MS = 40, 400
# One address for all nights, as a server has: results are kept by it.
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
URL = f"http://127.0.0.1:{PORT}"
# A factor of two is no news here: nights are told apart by the fake, not by the machine.
# Launching dominates so small a load: its rate is refused as the client's. The gaps between tokens are the fake's.
WORDS = ("MARGIN=1", "FIGURES=tpot_p50_s")


class Nightly:
    """Runs the script with nothing but what cron gives it."""

    def __init__(self, root: Path, folder: Path, prompts: Path):
        self.root, self.runs = root, folder / "runs"
        self.table = folder / "two.tsv"
        self.table.write_text(HEADER + f"vllm\t1,3\t{prompts}\t4\t6\t0\n")
        self.venv = venv(folder)
        self.environment = {"HOME": str(folder), "SHELL": "/bin/sh", "LOGNAME": "nobody", "LLMPAR_SAMPLE": "no"}
        self.environment["LLMPAR_LOCKS"] = str(folder / "locks")  # nights of other tests are measured meanwhile
        self.nights = self.runs / "nightly" / f"two@vllm-fake-127.0.0.1-{PORT}"

    def command(self, url: str, *words: str) -> list[str]:
        return [
            str(self.root / "scripts" / "nightly"),
            f"VENV={self.venv}",
            f"RUNS={self.runs}",
            f"SWEEP={self.table}",
            f"BASE_URL={url}",
            "ENGINE=vllm",
            "MODEL=fake",
            "API=openai-completions",
            *WORDS,
            *words,
        ]

    def __call__(self, url: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(url, *words), env=self.environment, cwd="/", capture_output=True, text=True, timeout=100
        )

    def all(self) -> list[str]:
        return sorted(path.name for path in self.nights.iterdir())

    def status(self, night: str) -> str:
        return (self.nights / night / "status").read_text().strip()

    def good_nights(self, count: int, first_day: int = 1) -> list[str]:
        """Copies of a good night as nights of January, each a little apart, as nights are."""
        template = self.nights / self.all()[0]
        names = []
        for number in range(count):
            name = f"2026-01-{first_day + number:02d}T021700Z"
            shutil.copytree(template, self.nights / name)
            for path in (self.nights / name).rglob("summary.json"):
                found = json.loads(path.read_text())
                found["started_at"] = 1767233820.0 + 86400 * (first_day + number)
                found["session"] = f"two/vllm@{found['started_at']}"
                found["latency"]["tpot_s"]["p50"]["value"] *= 1 + 0.01 * (-1) ** number
                path.write_text(json.dumps(found) + "\n")
            names.append(name)
        return names

    def scale_tpot(self, factor: float) -> None:
        for path in self.nights.rglob("summary.json"):
            found = json.loads(path.read_text())
            found["latency"]["tpot_s"]["p50"]["value"] *= factor
            path.write_text(json.dumps(found) + "\n")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"Prompt number {number}: say something.")
    return folder


@pytest.fixture
def nightly(root: Path, tmp_path: Path, prompts: Path) -> Nightly:
    return Nightly(root, tmp_path, prompts)


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory, prompts: Path
) -> tuple[Nightly, subprocess.CompletedProcess[str]]:
    """One good night, really measured, and what the script said."""
    made = Nightly(ROOT, tmp_path_factory.mktemp("nightly"), prompts)
    with fake_engine(engine="vllm", port=PORT, gap_ms=GAP_MS, tokens=4) as engine:
        return made, made(engine.url)


@pytest.fixture
def past(nightly: Nightly, template: tuple[Nightly, subprocess.CompletedProcess[str]]) -> Nightly:
    """A nightly with four good nights behind it."""
    shutil.copytree(template[0].nights, nightly.nights)
    first = nightly.all()
    nightly.good_nights(4)
    for name in first:
        shutil.rmtree(nightly.nights / name)
    return nightly


def released(nightly: Nightly) -> bool:
    """Whether nothing that a night started still holds its lock."""
    with open(nightly.runs / ".session.lock", "w") as lock:
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                time.sleep(0.05)
    return False


def test_a_first_night_is_silent_and_good(template):
    nightly, done = template
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (night,) = nightly.all()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}Z", night)
    assert nightly.status(night) == "good"
    assert len(list((nightly.nights / night).glob("two*/*/summary.json"))) == 2
    assert not (nightly.nights / night / "mail").exists()


def test_a_usual_night_is_silent(past):
    past.scale_tpot(5)  # whatever else this machine does meanwhile
    with fake_engine(engine="vllm", port=PORT, gap_ms=GAP_MS, tokens=4) as engine:
        done = past(engine.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    night = past.all()[-1]
    assert past.status(night) == "good"
    assert "the 4 nights before" in (past.nights / night / "verdicts.txt").read_text()


def test_a_slow_night_exits_5_with_a_mail(past):
    with fake_engine(engine="vllm", port=PORT, gap_ms=SLOW_GAP_MS, tokens=4) as engine:
        done = past(engine.url)
    night = past.all()[-1]
    assert (done.returncode, done.stderr) == (5, "")
    assert past.status(night) == "slower"
    assert done.stdout == (past.nights / night / "mail").read_text()
    lines = done.stdout.splitlines()
    assert lines[0] == f"nightly: '{past.nights.name}' is slower than the nights before it"
    for clients in ("1 client", "3 clients"):
        assert any(" slower than the 4 nights before " in line and f" at {clients}: " in line for line in lines)
    assert "last lines of its log" not in done.stdout
    assert f"Server    vllm, fake at {URL}" in done.stdout and " in TPOT p50 " in done.stdout
    assert os.uname().nodename in done.stdout and str(past.nights / night) in done.stdout


def test_nights_that_differ_in_what_was_asked_cannot_be_compared_and_say_so(past):
    for path in past.nights.rglob("summary.json"):
        found = json.loads(path.read_text())
        found["workload"]["prompts"] |= {"sha256": "0" * 64, "shares_sha256": "0" * 64}
        path.write_text(json.dumps(found) + "\n")
    with fake_engine(engine="vllm", port=PORT, gap_ms=GAP_MS, tokens=4) as engine:
        done = past(engine.url)
    assert done.returncode == 6 and "prompt sets differ" in done.stdout
    assert past.status(past.all()[-1]) == "incomparable"


def test_an_edited_cell_begins_anew(past):
    past.scale_tpot(0.1)  # beside these any night would be slow
    past.table.write_text(past.table.read_text().replace("\t4\t6\t0", "\t3\t6\t0"))
    with fake_engine(engine="vllm", port=PORT, gap_ms=GAP_MS, tokens=4) as engine:
        done = past(engine.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    told = (past.nights / past.all()[-1] / "verdicts.txt").read_text()
    assert told.count("fewer than 3 nights before it") == 2 == told.count("\n") - told.count("note: ")


def test_a_held_lock_is_said_and_nothing_is_measured(past):
    before = past.all()
    with open(past.runs / ".session.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = past(URL)
    assert done.returncode == 1
    assert "was not measured: another night or sweep holds" in done.stdout
    assert past.all() == before


def test_a_failing_cell_fails_the_night_and_the_others_are_measured(past, tmp_path):
    past.table.write_text(past.table.read_text() + f"vllm\t2\t{tmp_path}/nowhere\t4\t6\t0\n")
    with fake_engine(engine="vllm", port=PORT, gap_ms=GAP_MS, tokens=4) as engine:
        done = past(engine.url)
    night = past.all()[-1]
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith(f"nightly: '{past.nights.name}' failed: run-cell: no prompts '")
    assert first.endswith("; make ended with 2; 2 of 3 cells were measured")
    assert past.status(night) == "failed"


def test_the_time_limit_ends_a_night_and_all_that_it_started(past):
    with fake_engine(engine="vllm", port=PORT, ttft_ms=600_000) as engine:
        done = past(engine.url, "LIMIT=4s")
        assert released(past)
    assert done.returncode == 1
    assert "failed: the time limit of 4s ended it; 0 of 2 cells were measured" in done.stdout
    assert past.status(past.all()[-1]) == "failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_an_interrupted_night_says_so_and_the_next_starts_anew(past, number, code):
    before = past.all()
    with fake_engine(engine="vllm", port=PORT, ttft_ms=600_000) as engine:
        process = subprocess.Popen(past.command(engine.url), env=past.environment, stdout=subprocess.PIPE, text=True)
        limit = time.monotonic() + 60
        while not engine.counters()["running"]:  # the probe, or the first request
            assert time.monotonic() < limit and process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        told = process.communicate(timeout=90)[0]
        assert released(past)
    assert process.returncode == code
    assert "was interrupted" in told
    (night,) = set(past.all()) - set(before)
    assert past.status(night) == "interrupted"


def test_old_nights_go_but_good_ones_stay_however_many_bad_ones_follow(past):
    good = past.all()
    past.scale_tpot(5)
    for number in range(6):
        folder = past.nights / f"2026-02-{number + 1:02d}T021700Z"
        folder.mkdir()
        if number:  # the first has no status at all: the power went
            (folder / "status").write_text("failed\n")
    (past.nights / "notes").mkdir()
    assert past(URL, "KEEP=4").returncode == 1
    left = past.all()
    assert left[:4] == good and len(left) == 4 + 4 + 1 and "notes" in left
    first = past.nights / good[0]
    with fake_engine(engine="vllm", port=PORT, gap_ms=GAP_MS, tokens=4) as engine:
        assert past(engine.url, "KEEP=4").returncode == 0
    left = [name for name in past.all() if name != "notes"]
    assert [name for name in left if past.status(name) == "good"] == [*good, left[-1]]
    assert not list(first.rglob("requests.jsonl")) and len(list(first.rglob("summary.json"))) == 2


@pytest.mark.parametrize("word", ["KEEP=1", "AGAINST=x", "LIMIT=soon", "REPEATS=3", "quick"])
def test_bad_words_are_refused_before_anything_is_made(nightly, word):
    done = nightly(URL, word)
    assert done.returncode == 2
    assert done.stderr.startswith("nightly: ")
    assert not nightly.runs.exists()
