"""make find, decide and best with real processes against the fake engine: answers, kill -9 at any moment, resuming."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from engines_on_path import llama_server
from fake import fake_engine
from hosts import wait_for
from ready import venv


class Make:
    """Runs make with results under `runs`, and remembers what was measured when."""

    def __init__(self, root: Path, folder: Path, *settings: str):
        self.runs = folder / "runs"
        prompts = folder / "prompts"
        prompts.mkdir()
        for number in range(9):
            (prompts / f"p{number}.txt").write_text(f"Prompt number {number}: say something.")
        self.table = folder / "load.tsv"
        self.table.write_text(
            f"engine\tmodel\tprompts\tmax_tokens\twarmup\nllamacpp\t{folder}/m.gguf\t{prompts}\t3\t0\n"
        )
        self.space = folder / "space.tsv"
        self.space.write_text(
            f"engine\tmodel\tmax_sequences\tquantize\tkv_bytes\tprompts\tmax_tokens\twarmup\n"
            f"llamacpp\t{folder}/m.gguf\t1,2\t-\t-\t{prompts}\t3\t0\n"
            f"llamacpp\t{folder}/m.gguf\t1\tfp8\t-\t{prompts}\t3\t0\n"
        )
        self.command = [
            *("make", "-s", "-C", str(root), f"VENV={venv(folder)}", f"RUNS={self.runs}", f"SWEEP={self.table}"),
            *settings,
        ]
        self.environment = os.environ | {"LLMPAR_SAMPLE": "no", "XDG_RUNTIME_DIR": str(folder)}

    def run(self, *goals: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *goals], capture_output=True, text=True, timeout=200, env=self.environment
        )

    def killed_after(self, seconds: float, *goals: str) -> bool:
        """Whether it was killed, with all that it had started, before it was done."""
        process = subprocess.Popen(
            [*self.command, *goals],
            env=self.environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return False
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True

    def measured(self) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in self.runs.glob("*/*/requests.jsonl")}

    def answer(self) -> dict[str, Any]:
        (found,) = self.runs.glob("*/answer.json")
        return json.loads(found.read_text())


@pytest.fixture
def running(root: Path, tmp_path: Path):
    """make for a server that already runs and answers two requests at a time."""
    with fake_engine(engine="vllm", ttft_ms=40, gap_ms=20, tokens=3, slots=2) as engine:
        yield Make(root, tmp_path, f"BASE_URL={engine.url}", "ENGINE=vllm", "MODEL=fake", "API=openai-completions")


FIND = ("find", "SLO=ttft-p95<80ms", "MOST=4")


def test_find_ends_each_measurement_early_and_answers_from_the_same_data(root: Path, running: Make) -> None:
    done = running.run(*FIND)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = running.answer()
    # Of three clients one waits for a slot, 80 ms; of four two.
    assert answer["best"] in (2, 3, 4) and f"up to {answer['best']:g} clients" in done.stdout
    summaries = [json.loads(path.read_text()) for path in running.runs.glob("*/*/summary.json")]
    ended = [each for each in summaries if "ended_early" in each]
    assert ended and "parallel: " not in done.stderr
    for each in ended:
        assert each["n"]["requests"] < each["cell"]["load"]["count"] and each["n"]["ok"] == each["n"]["requests"]
        assert each["ended_early"]["objectives"] == {"ttft_p95_s": 0.08}
    (path, *_) = running.runs.glob("*/c0004/requests.jsonl")
    closing = json.loads(path.read_text().splitlines()[-1])
    section = (root / "docs" / "records.md").read_text().split("## ended, version 1\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*?) \|", section, re.M)
    assert set(closing) == {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    before = running.measured()
    again = running.run(*FIND)
    assert again.stdout == done.stdout and running.measured() == before
    # Another objective reuses what was measured.
    assert running.run("find", "SLO=ttft-p95<10s", "MOST=2").returncode == 0
    assert before.items() <= running.measured().items()


def test_find_killed_at_a_random_moment_measures_only_what_is_missing(running: Make) -> None:
    moments = random.Random(time.time_ns())
    seconds = moments.uniform(1, 10)
    running.killed_after(seconds, *FIND)
    known = running.measured()
    done = running.run(*FIND)
    assert done.returncode == 0, done.stderr[-3000:]
    assert known.items() <= running.measured().items(), f"measured again after a kill at {seconds:.2f} s"
    assert running.answer()["best"] in (2, 3, 4)


@pytest.mark.timeout(400)
def test_a_candidate_that_crashes_at_the_start_or_under_its_load_is_a_result(root: Path, tmp_path: Path) -> None:
    llama_server(
        tmp_path,
        before='if [ "$slots" = 3 ]; then echo "error: no such kernel" >&2; exit 1; fi',
        options="--ttft-ms 20 --slots $slots --exit-after $((slots == 4 ? 9 : 0)) --context $((slots == 5 ? 4 : 0))",
    )
    make = Make(root, tmp_path)
    make.space.write_text(make.space.read_text().splitlines()[0] + "\n" + make.space.read_text().splitlines()[1] + "\n")
    make.space.write_text(make.space.read_text().replace("\t1,2\t", "\t2,3,4,5\t"))
    done = make.run("best", f"SPACE={make.space}", "MOST=2", "SLO=ttft-p95<9s")
    assert done.returncode == 0, done.stderr[-3000:]
    answer = make.answer()
    assert answer["best"]["settings"]["max_sequences"] == 2
    (failed,) = answer["failed"]
    assert failed["settings"]["max_sequences"] == 3 and "no such kernel" in failed["why"]
    missed = {each["settings"]["max_sequences"] for each in answer["missed"]}
    assert missed == {4, 5}, done.stdout
    summaries = [json.loads(path.read_text()) for path in make.runs.glob("*/*/summary.json")]
    said = [warning["code"] for each in summaries for warning in each["warnings"]]
    assert said.count("server_ended") >= 2


def test_a_killed_llmpar_serve_is_no_result_of_its_candidate(root: Path, tmp_path: Path) -> None:
    llama_server(tmp_path, options="--gap-ms 400 --slots $slots")
    make = Make(root, tmp_path)
    process = subprocess.Popen(
        [*make.command, "best", f"SPACE={make.space}", "MOST=2"], env=make.environment, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: list(make.runs.glob("*/*/requests.jsonl.part")), "no load", 60)
        for each in psutil.Process(process.pid).children(recursive=True):
            if "llmpar.commands.serve" in each.cmdline():
                each.kill()
        assert process.wait(60) != 0
    finally:
        for each in psutil.process_iter(["cmdline"]):
            if any(str(tmp_path) in word for word in each.info["cmdline"] or ()):
                with contextlib.suppress(psutil.Error):
                    each.kill()
    assert not [path for path in make.measured() if not Path(path).stat().st_size]


@pytest.mark.timeout(400)  # up to fourteen server sessions
def test_best_killed_at_a_random_moment_starts_no_server_for_what_is_there(root: Path, tmp_path: Path) -> None:
    llama_server(tmp_path, options="--ttft-ms 40 --gap-ms 10 --slots $slots")
    make = Make(root, tmp_path)
    goals = ("best", f"SPACE={make.space}", "MOST=2", "PRICE=2")
    moments = random.Random(time.time_ns())
    make.killed_after(moments.uniform(2, 15), *goals)
    known = make.measured()
    done = make.run(*goals)
    assert done.returncode == 0, done.stderr[-3000:]
    assert known.items() <= make.measured().items()
    answer = make.answer()
    assert answer["best"]["server_sessions"] >= 2 and answer["best"]["price_per_million_tokens"] > 0
    assert answer["best"]["settings"]["max_sequences"] == 2 and len(answer["worse"]) == 1
    (refused,) = answer["refused"]
    assert "quantize" in refused["why"] and "this one was not started: fp8" in done.stdout.replace(
        "max_sequences=1 ", ""
    )
    cells = [json.loads(path.read_text()) for path in make.runs.glob("*/*/cell.json")]
    taken = {cell["id"][0]: (cell["load"]["skip"], cell["load"]["take"]) for cell in cells}
    assert taken == {"r": (0, 6), "f": (6, 3)}, "the final's prompts are those that no round used"
    before = make.measured()
    assert make.run(*goals).stdout == done.stdout and make.measured() == before
