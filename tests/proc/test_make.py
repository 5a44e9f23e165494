"""The Makefile with real processes: a sweep, interrupted and resumed, one row edited, one cell failing under -k."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from engines_on_path import llama_server
from fake import fake_engine

HEADER = "engine\tclients\tprompts\tmax_tokens\tcount\twarmup\n"


@pytest.fixture
def project(root: Path, tmp_path: Path):
    """A sweep of three cells against the fake engine; yields a function that runs make."""
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    for number in range(4):
        (prompts / f"p {number}'s.txt").write_text(f"Prompt number {number}: say something.")
    table = tmp_path / "three.tsv"
    table.write_text(HEADER + f"vllm\t1,2,4\t{prompts}\t6\t6\t1\n")
    venv = Path(sys.executable).parent.parent

    with fake_engine(engine="vllm", gap_ms=5, tokens=6) as engine:
        command = [
            "make",
            "-C",
            str(root),
            "-o",
            f"{venv}/.ready-run",
            f"VENV={venv}",
            f"RUNS={tmp_path}/runs",
            f"SWEEP={table}",
            f"BASE_URL={engine.url}",
            "ENGINE=vllm",
            "MODEL=fake",
            "API=openai-completions",
        ]
        environment = os.environ | {"LLMPAR_SAMPLE": "no"}

        def make(*arguments: str, **options) -> subprocess.CompletedProcess:
            return subprocess.run(
                [*command, *arguments], capture_output=True, text=True, timeout=100, env=environment, **options
            )

        make.command, make.environment = command, environment
        make.run = tmp_path / "runs" / f"three@vllm-fake-127.0.0.1-{engine.port}"
        make.table = table
        yield make


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_sweep_then_nothing_to_do_then_one_edited_row(project):
    done = project("sweep")
    assert done.returncode == 0, done.stderr[-3000:]
    run = project.run
    for clients in (1, 2, 4):
        made = records(run / f"c00{clients}" / "requests.jsonl")
        assert [record["status"] for record in made] == ["ok"] * 6
        assert {record["output_tokens"] for record in made} == {6}
        assert len(records(run / f"c00{clients}" / "warmup.jsonl")) == 1
        assert json.loads((run / f"c00{clients}" / "summary.json").read_text())["cell"]["load"]["clients"] == clients
    assert (run / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "picture" in done.stdout

    before = {path: path.stat().st_mtime_ns for path in run.glob("*/requests.jsonl")}
    assert project("-q", "sweep").returncode == 0 or "run-session" not in project("-n", "sweep").stdout
    assert project("sweep").returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in run.glob("*/requests.jsonl")}

    text = project.table.read_text()
    prompts = text.split("\t")[-4]
    project.table.write_text(HEADER + f"vllm\t1,4\t{prompts}\t6\t6\t1\nvllm\t2\t{prompts}\t6\t7\t1\n")
    listed = project("-n", "sweep").stdout
    assert listed.count("run-session") >= 1
    again = project("sweep")
    assert again.returncode == 0, again.stderr[-3000:]


def test_interrupted_and_run_again_measures_only_what_is_missing(project):
    process = subprocess.Popen(
        [*project.command, "sweep"],
        env=project.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(project.run.glob("c001/requests.jsonl")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) != 0
    run = project.run
    first = run / "c001" / "requests.jsonl"
    kept = first.stat().st_mtime_ns
    assert not (run / "c004" / "requests.jsonl").exists()
    done = project("sweep")
    assert done.returncode == 0, done.stderr[-3000:]
    assert first.stat().st_mtime_ns == kept
    assert len(records(run / "c004" / "requests.jsonl")) == 6


def test_a_failing_cell_fails_alone_under_k(project, tmp_path):
    text = project.table.read_text()
    prompts = text.split("\t")[-4]
    project.table.write_text(
        HEADER + f"vllm\t1\t{prompts}\t6\t3\t0\nvllm\t2\t{tmp_path}/nowhere\t6\t3\t0\nvllm\t4\t{prompts}\t6\t3\t0\n"
    )
    done = project("-k", "sweep")
    assert done.returncode != 0
    assert "no prompts" in done.stderr
    run = project.run
    assert len(list(run.glob("*/summary.json"))) == 2
    assert len(list(run.glob("*/requests.jsonl"))) == 2


NO_MEMORY = 'echo "cudaMalloc failed: out of memory"; exit 1'


def launching(project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str = "", before: str = ""):
    """The same sweep over an engine that llmpar-serve launches: a function that runs make."""
    monkeypatch.setenv("PATH", os.environ["PATH"])
    # The log has last words after the load began, as an engine's has.
    llama_server(tmp_path, options, before, how="")
    prompts = project.table.read_text().split("\t")[-4]
    project.table.write_text(
        HEADER.replace("engine", "engine\tmodel") + f"llamacpp\t{tmp_path}/m.gguf\t1,2,4\t{prompts}\t6\t6\t0\n"
    )
    project.run = project.run.with_name("three")
    command = [word for word in project.command if not word.startswith(("BASE_URL=", "ENGINE=", "MODEL=", "API="))]
    environment = project.environment | {"PATH": os.environ["PATH"]}
    return lambda *arguments: subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=100, env=environment
    )


def warned(summary: Path) -> set[str]:
    return {warning["code"] for warning in json.loads(summary.read_text())["warnings"]}


def test_an_engine_without_memory_is_the_result_of_its_cells(project, tmp_path, monkeypatch):
    make = launching(project, tmp_path, monkeypatch, before=NO_MEMORY)
    done = make("table")
    assert done.returncode == 0, done.stderr[-3000:]
    for clients in (1, 2, 4):
        summary = project.run / f"c00{clients}" / "summary.json"
        assert json.loads(summary.read_text())["n"]["requests"] == 0 and "out_of_memory" in warned(summary)
        assert f"c00{clients}: out of memory" in done.stderr
    assert "cudaMalloc failed: out of memory" in done.stdout, "the table says why there are no figures"
    assert "run-session" not in make("-n", "table").stdout, "a result is not measured again"


def test_an_engine_that_runs_out_of_memory_under_a_load_is_that_cells_result_alone(project, tmp_path, monkeypatch):
    # The request for readiness, six of c001, the first of c002; no client of c004 ever reaches it.
    make = launching(project, tmp_path, monkeypatch, f"--exit-after 8 || {{ {NO_MEMORY}; }}")
    done = make("-k", "sweep")
    assert done.returncode != 0
    assert warned(project.run / "c002/summary.json") >= {"out_of_memory", "failures"}
    assert "out_of_memory" not in warned(project.run / "c001/summary.json")
    assert not (project.run / "c004/requests.jsonl").exists()


def test_make_n_tells_what_would_be_measured_and_runs_nothing(project):
    done = project("-n", "sweep")
    assert done.returncode == 0
    assert sum("scripts/run-session " in line for line in done.stdout.splitlines()) == 3
    assert not list(project.run.glob("*/requests.jsonl*"))


def test_one_result_asked_for_by_name_is_measured_alone(project):
    done = project("-j4", str(project.run / "c002" / "summary.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.parent.name for path in project.run.glob("*/requests.jsonl")] == ["c002"]
    assert (project.run / "c002" / "summary.json").exists()
    assert "jobserver" not in done.stderr


def test_unknown_sweep_is_a_clear_error(project):
    done = project("sweep", "SWEEP=nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_bare_make_is_help_and_installs_nothing(root, tmp_path):
    done = subprocess.run(["make", "-C", str(root), f"VENV={tmp_path}/none"], capture_output=True, text=True)
    assert done.returncode == 0
    for target in ("sweep", "test", "help"):
        assert f"  {target} " in done.stdout
    assert not (tmp_path / "none").exists()


def test_a_start_up_file_that_ssh_makes_bash_read_stops_nothing(root, tmp_path):
    (tmp_path / ".bashrc").write_text('case $PS1 in "") ;; esac\n')
    environment = os.environ | {"HOME": str(tmp_path), "SSH_CLIENT": "127.0.0.1 1 22", "SHLVL": "0"}
    environment.pop("PS1", None)
    done = subprocess.run(["make", "-C", str(root), "help"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "") and "  sweep " in done.stdout


@pytest.mark.parametrize(
    "words,said",
    [
        (["RUNS=a b"], "RUNS is 'a b'"),
        (["RUNS=a'b"], "RUNS is"),
        (["RUNS=a;b"], "RUNS is"),
        (["RUNS="], "RUNS is empty"),
        (["RUNS=$(shell touch made)"], "RUNS is '$(shell touch made)'"),
        (["SWEEP=a b"], "SWEEP is 'a b'"),
        (["SWEEP="], "SWEEP is empty"),
        (["SWEEP=.."], "names no table"),
        (["VENV=x y"], "VENV is 'x y'"),
        (["SEED=1;touch made"], "SEED is"),
    ],
)
def test_paths_that_make_or_a_shell_would_split_are_refused(root, tmp_path, words, said):
    for name in ("a", "b", "a b"):
        (tmp_path / name / "quick").mkdir(parents=True)
    done = subprocess.run(["make", "-f", str(root / "Makefile"), "clean-run", *words], capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["a", "a b", "b"]
    assert all((tmp_path / name / "quick").is_dir() for name in ("a", "b", "a b"))


@pytest.mark.parametrize("name", ["MODEL", "ENGINE", "API", "BASE_URL", "LLMPAR_BASE_URL", "PICK", "EXTRAS"])
@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_setting_is_text_and_never_make_code(root, tmp_path, name, how):
    value = f"$(shell touch {tmp_path}/made)"
    words, more = ([f"{name}={value}"], {}) if how == "argument" else ([], {name: value})
    for target in (["where"], ["-n", "clean-run"], ["help"]):
        done = subprocess.run(
            ["make", "-C", str(root), *target, *words], capture_output=True, text=True, env=os.environ | more
        )
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "made").exists()


def test_words_of_a_table_reach_no_shell(project, tmp_path):
    text = project.table.read_text()
    prompts = text.split("\t")[-4]
    for word in (f"openai-chat; touch {tmp_path}/made", "{= `touch made` =}", "$(touch made)"):
        project.table.write_text(f"engine\tclients\tprompts\tapi\nvllm\t1\t{prompts}\t{word}\n")
        done = project("sweep")
        assert done.returncode == 2 and "api is" in done.stderr
    assert not (tmp_path / "made").exists()


def running(*words: str) -> list[psutil.Process]:
    """Processes whose command lines hold all the words."""
    return [
        found
        for found in psutil.process_iter(["cmdline"])
        if all(word in " ".join(found.info["cmdline"] or []) for word in words)
    ]


def test_what_the_end_of_make_or_the_server_cut_is_not_a_measurement(project, tmp_path, monkeypatch):
    """make is killed under a load: run-cell lives on, its server goes, and the failures are not the engine's."""
    make = launching(project, tmp_path, monkeypatch, "--gap-ms 60")
    project.table.write_text(project.table.read_text().replace("1,2,4", "1,2"))
    command = [word for word in project.command if not word.startswith(("BASE_URL=", "ENGINE=", "MODEL=", "API="))]
    environment = project.environment | {"PATH": os.environ["PATH"]}
    process = subprocess.Popen(
        [*command, "sweep"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    part = project.run / "c001" / "requests.jsonl.part"
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    mine = running("scripts/run-cell", str(tmp_path))
    mine = [found for found in mine if found.parent().name() == "make"]
    assert len(mine) == 1
    mine[0].parent().kill()
    process.wait(60)
    mine[0].wait(60)
    assert not (project.run / "c001" / "requests.jsonl").exists()
    done = make(str(project.run / "c001" / "requests.jsonl"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert {record["status"] for record in records(project.run / "c001" / "requests.jsonl")} == {"ok"}


def test_a_load_outlives_a_killed_session_with_its_lock(project):
    """The next sweep waits for it, instead of measuring beside it."""
    text = project.table.read_text()
    prompts = text.split("\t")[-4]
    project.table.write_text(HEADER + f"vllm\t1\t{prompts}\t6\t60\t0\n")
    process = subprocess.Popen([*project.command, "sweep"], env=project.environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(project.run.glob("*/requests.jsonl.part")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    for found in running("run-session", str(project.run)):
        found.kill()
    process.wait(60)
    lock = os.open(project.run.parent / ".session.lock", os.O_RDWR)
    loads = running("scripts/run-cell", str(project.run))
    assert loads, "the load was over before anything was killed"
    with pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for found in loads:
        found.wait(60)
    os.close(lock)
    done = project("sweep")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [len(records(path)) for path in project.run.glob("*/requests.jsonl")] == [60]


@pytest.mark.parametrize("launcher", ["parallel", "asyncio", "open"])
def test_more_names_than_a_command_line_holds(root, tmp_path, launcher):
    """run-cell hands names over by file: here with a limit far below what the names need."""
    prompts = tmp_path / ("p" * 200) / ("q" * 200) / ("r" * 200)
    prompts.mkdir(parents=True)
    for number in range(20):
        (prompts / f"a 'b' {number:02d}.txt").write_text(f"Prompt number {number}.")
    cell = tmp_path / "runs" / "c1"
    cell.mkdir(parents=True)
    load = {"clients": 4, "launcher": launcher, "prompts": str(prompts), "count": 250, "max_tokens": 2, "warmup": 0}
    load |= {"timeout_s": 20.0, "stream": True} | ({"rate": 250.0} if launcher == "open" else {})
    made = {
        "kind": "cell",
        "v": 1,
        "id": "c1",
        "session": "s",
        "sweep": "t",
        "server": {"engine": "vllm"},
        "load": load,
    }
    (cell / "cell.json").write_text(json.dumps(made))
    with fake_engine(engine="vllm", tokens=2) as engine:
        done = subprocess.run(
            # An eighth of the stack limit is what one command line may hold, and at least 128 KiB of it.
            ["bash", "-c", 'ulimit -s 512; exec "$@"', "-", str(root / "scripts/run-cell"), "runs", "c1"],
            cwd=tmp_path,
            env=os.environ | {"LLMPAR_BASE_URL": engine.url, "LLMPAR_MODEL": "fake", "LLMPAR_SAMPLE": "no"},
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (cell / "queue").stat().st_size > 1 << 17, "or an ordinary command line would do"
    made_records = records(cell / "requests.jsonl")
    assert [record["status"] for record in made_records] == ["ok"] * 250
    assert {record["prompt"] for record in made_records} == {f"a 'b' {number:02d}.txt" for number in range(20)}


def test_a_table_of_more_summaries_than_a_command_line_holds(root, tmp_path):
    """A recipe is one argument, of which Linux takes 128 KiB."""
    numbers = ",".join(map(str, range(1, 26)))
    (tmp_path / "t.tsv").write_text(f"engine\tclients\tmax_tokens\tprompts\nvllm\t{numbers}\t{numbers}\tprompts\n")
    venv, runs = Path(sys.executable).parent.parent, "r" * 240
    make = ["make", "-f", str(root / "Makefile"), "-o", f"{venv}/.ready-run", f"VENV={venv}", f"RUNS={runs}"]
    make += ["SWEEP=t.tsv"]
    subprocess.run([*make, f"{runs}/t/cells.mk"], cwd=tmp_path, check=True, timeout=100)
    cells = sorted((tmp_path / runs / "t").glob("*/cell.json"))
    assert len(cells) == 625 and sum(len(f"{runs}/t/{path.parent.name}/summary.json") for path in cells) > 1 << 17
    made = [sys.executable, str(root / "bench/make_requests.py"), "--count", "20", "--events", "4", "--clients", "2"]
    made_records = subprocess.run(made, capture_output=True, check=True, timeout=100).stdout
    summarised = subprocess.run(["llmpar-summarise"], input=made_records, capture_output=True, check=True, timeout=100)
    summary = json.loads(summarised.stdout)
    for path in cells:
        (path.parent / "requests.jsonl").touch()
        (path.parent / "summary.json").write_text(json.dumps(summary | {"cell": json.loads(path.read_text())}) + "\n")
    done = subprocess.run([*make, "table"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("20/20") == 625


def test_another_server_never_shows_the_first_ones_results(project):
    assert project("sweep").returncode == 0
    dead = project("sweep", "BASE_URL=http://127.0.0.1:9", "ENGINE=tgi", "MODEL=other")
    assert dead.returncode != 0 and "wall s" not in dead.stdout
    assert "nothing answers at http://127.0.0.1:9: connection refused" in dead.stderr
    assert "BASE_URL=http://HOST:PORT" in dead.stderr
    with fake_engine(engine="vllm", tokens=6) as second:
        done = project("sweep", f"BASE_URL={second.url}")
        assert done.returncode == 0, done.stderr[-3000:]
        assert len(second.truth(22)) == 22, "a probe, three warm-ups, eighteen requests"
    again = project("sweep")
    assert "3 of 3 cells measured" in again.stderr and "on vllm fake at http://127.0.0.1" in again.stderr
    assert len(list(project.run.parent.glob("three@*/c00*/summary.json"))) == 6


def test_a_model_that_the_server_has_not_is_named_before_anything_is_measured(project):
    with fake_engine(engine="vllm", tokens=6) as strict:
        done = project("sweep", f"BASE_URL={strict.url}", "MODEL=my-7b")
    assert done.returncode != 0
    assert "has no model 'my-7b'" in done.stderr and "give MODEL=fake" in done.stderr
    assert not list(project.run.parent.glob("*/c00*/requests.jsonl"))


def test_a_launched_servers_settings_are_not_varied_on_a_running_one(project):
    prompts = project.table.read_text().split("\t")[-4]
    project.table.write_text(HEADER.replace("engine", "engine\tspeculate") + f"vllm\t0,2\t1\t{prompts}\t6\t6\t1\n")
    done = project("sweep")
    assert done.returncode == 2 and "varies speculate" in done.stderr
    assert not project.run.exists()


def test_repeats_count_the_session_that_was_measured(project):
    assert project("table").returncode == 0
    kept = (project.run / "c001" / "requests.jsonl").stat().st_mtime_ns
    done = project("table", "REPEATS=2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (project.run / "c001" / "requests.jsonl").stat().st_mtime_ns == kept
    assert {path.parent.name for path in project.run.glob("*/summary.json")} == {
        f"c00{clients}{repeat}" for clients in (1, 2, 4) for repeat in ("", "-r2")
    }
    wrong = project("table", "REPEATS=two")
    assert wrong.returncode == 2 and "REPEATS is 'two', not a whole number from 1 on" in wrong.stderr
