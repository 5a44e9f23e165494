"""The front door: `llmpar JOB` from any directory, of a checkout and of an installed package."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import tomllib
from pathlib import Path

import optional
import pytest
from contract.test_layers import COMMANDS
from fake import Fake, fake_engine
from ready import venv
from unit.made import summary

from llmpar import cli, records


@pytest.fixture
def server():
    with fake_engine(engine="vllm", gap_ms=2, tokens=4) as engine:
        yield engine


@pytest.fixture
def installed(root: Path, tmp_path: Path) -> Path:
    """The package as a wheel holds it, in a site-packages of its own."""
    site = tmp_path / "site"
    shutil.copytree(root / "llmpar", site / "llmpar", ignore=shutil.ignore_patterns("__pycache__"))
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in wheel["force-include"].items():
        if (root / source).is_dir():
            shutil.copytree(root / source, site / target)
        else:
            (site / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / source, site / target)
    return site


def llmpar(*words: str, site: Path | None = None, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", "-m", "llmpar.commands.front"] if site else ["llmpar"]
    environment = os.environ | ({"PYTHONPATH": str(site)} if site else {}) | {"LLMPAR_SAMPLE": "no"}
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=100, env=environment, **options)


def test_the_list_of_jobs_is_one_screen_and_names_every_command() -> None:
    done = llmpar()
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) <= 24 and max(map(len, lines)) <= 80
    words = set(done.stdout.split())
    assert {name.removeprefix("llmpar-") for name in COMMANDS} <= words


def test_a_slip_names_the_nearest() -> None:
    for words, meant in ((("swep",), "sweep"), (("llmpar-tabel",), "table"), (("sweep", "client"), "clients")):
        done = llmpar(*words)
        assert done.returncode == 2 and f"did you mean {meant}" in done.stderr and not done.stdout


def test_a_word_that_is_no_setting_is_refused() -> None:
    done = llmpar("sweep", "quick", "repeats")
    assert done.returncode == 2 and "'repeats' is not NAME=VALUE" in done.stderr


def sweep_here(server: Fake, tmp_path: Path, site: Path | None, *words: str) -> Path:
    """A table of the directory at hand, with packaged prompts, against a server that runs."""
    place = tmp_path / "empty"
    place.mkdir()
    (place / "mine.tsv").write_text("clients\tprompts\tmax_tokens\tcount\twarmup\n1,2\tprompts-short\t4\t4\t0\n")
    done = llmpar(
        *("sweep", "mine", "--base-url", server.url, "--engine", "vllm", "--model", "fake", "--launcher", "threads"),
        *words,
        site=site,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in place.iterdir()) == ["mine.tsv", "runs"]
    run = next((place / "runs").glob("mine@*"))
    cells = [json.loads(path.read_text()) for path in sorted(run.glob("c*/cell.json"))]
    assert [(cell["load"]["clients"], cell["load"]["launcher"]) for cell in cells] == [(1, "threads"), (2, "threads")]
    assert "clients" in done.stdout and (run / "sweep.png").exists()
    return place


def test_a_sweep_in_an_empty_directory_from_a_checkout(server: Fake, tmp_path: Path) -> None:
    sweep_here(server, tmp_path, None, f"VENV={venv(tmp_path)}")


def test_a_sweep_in_an_empty_directory_from_an_installed_package(server: Fake, tmp_path: Path, installed: Path) -> None:
    optional.need("parallel")
    place = sweep_here(server, tmp_path, installed)
    # Results are read without naming them, and by folder.
    too_few = 6  # requests for an interval of TTFT p50
    for code, *words in ((0, "table"), (0, "table", "runs"), (too_few, "pick", "--ttft-p50", "60s")):
        done = llmpar(*words, site=installed, cwd=place, stdin=subprocess.DEVNULL)
        assert done.returncode == code and ("c001" in done.stdout or "clients" in done.stdout), done.stderr
    done = llmpar("report", site=installed, cwd=place, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, "runs/report.html\n"), done.stderr
    assert (place / "runs" / "report.html").stat().st_size > 10_000


def test_init_copies_what_is_there_to_edit_and_keeps_what_was_edited(installed: Path, tmp_path: Path) -> None:
    place = tmp_path / "bench"
    done = llmpar("init", str(place), site=installed)
    assert done.returncode == 0 and (place / "sweeps" / "quick.tsv").exists() and (place / "study/claims.tsv").exists()
    (place / "sweeps" / "quick.tsv").write_text("clients\n1\n")
    again = llmpar("init", str(place), site=installed)
    assert "are kept" in again.stderr and (place / "sweeps" / "quick.tsv").read_text() == "clients\n1\n"
    # Its Makefile runs the packaged one on these tables.
    front = tmp_path / "bin" / "llmpar"
    front.parent.mkdir()
    front.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m llmpar.commands.front "$@"\n')
    front.chmod(0o755)
    environment = os.environ | {"PATH": f"{front.parent}:{os.environ['PATH']}", "PYTHONPATH": str(installed)}
    done = subprocess.run(["make", "-n", "sweep"], cwd=place, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "run-session runs/quick only" in done.stdout, done.stderr


def test_a_folder_means_its_summaries(tmp_path: Path) -> None:
    for name in ("quick/c1", "quick/c10", "quick/c2", "quick/removed/c003"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        made = summary(20, sweep="quick", load={"clients": int(name.rpartition("c")[2])}, requests=200)
        (folder / "summary.json").write_bytes(records.encode(made))
    for folder in ("runs", "runs/quick", "runs/quick/"):
        done = subprocess.run(["llmpar-table", folder], capture_output=True, text=True)
        assert re.findall(r"^ +(\d+) .*\d+/\d+$", done.stdout, re.M) == ["1", "2", "10"], done.stdout + done.stderr
    assert [Path(name).parent.name for name in cli.summaries_in(("runs",))] == ["c1", "c2", "c10"]
    (tmp_path / "nothing").mkdir()
    done = subprocess.run(["llmpar-table", "nothing"], capture_output=True, text=True)
    assert done.returncode == 6 and "no summary.json in 'nothing'" in done.stderr


def test_the_doctor_runs_before_anything_is_installed(root: Path, tmp_path: Path) -> None:
    """A Python without site-packages has none of ours."""
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} -S "$@"\n')
    bare.chmod(0o755)
    environment = os.environ | {"LLMPAR_PYTHON": str(bare), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([root / "bin" / "llmpar-doctor"], capture_output=True, text=True, env=environment)
    assert done.returncode == 4, done.stderr
    assert "missing: click, requests, orjson" in done.stdout and "make -B setup" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_covers_every_command(shell: str) -> None:
    script = llmpar("completion", shell).stdout
    for name in ("llmpar", *COMMANDS):
        assert f"_{name.replace('-', '_').upper()}_COMPLETE" in script


def test_bash_completes_jobs_tables_and_options() -> None:
    def complete(*words: str) -> list[str]:
        variable = f"_{words[0].replace('-', '_').upper()}_COMPLETE"
        environment = os.environ | {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        done = subprocess.run([words[0]], capture_output=True, text=True, env=environment | {variable: "bash_complete"})
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("llmpar", "sw") == ["sweep"]
    assert complete("llmpar", "sweep", "qu") == ["quantise", "quick"]
    assert complete("llmpar-pick", "--ttft-p9") and complete("llmpar-request", "--max-t") == ["--max-tokens"]


def test_man_pages_are_written_for_every_command(tmp_path: Path) -> None:
    pytest.importorskip("click_man")
    assert llmpar("man", str(tmp_path / "man1")).returncode == 0
    pages = {path.stem for path in (tmp_path / "man1").glob("*.1")}
    assert {"llmpar", "llmpar-sweep", *COMMANDS} <= pages


@pytest.mark.parametrize("launcher", ["parallel", "queue", "threads", "asyncio", "open"])
def test_a_terminal_has_one_line_of_progress_and_a_row_as_each_cell_ends(
    launcher: str, tmp_path: Path, root: Path
) -> None:
    optional.need("parallel")
    rate = "\trate" if launcher == "open" else ""
    (tmp_path / "mine.tsv").write_text(
        f"clients\tlauncher\tprompts\tmax_tokens\tcount\twarmup{rate}\n2,4\t{launcher}\tprompts-short\t40\t12\t0"
        + ("\t8\n" if rate else "\n")
    )
    with fake_engine(engine="vllm", gap_ms=20, tokens=40) as engine:
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [root / "bin" / "llmpar", "sweep", "mine", f"VENV={venv(tmp_path)}"]
        process = subprocess.Popen(
            [*command, "--base-url", engine.url, "--engine", "vllm", "--model", "fake"],
            stdout=side,
            stderr=side,
            env=os.environ | {"LLMPAR_SAMPLE": "no", "TERM": "xterm"},
        )
        os.close(side)
        shown = b""
        with contextlib.suppress(OSError):  # the other side is closed
            while data := os.read(main, 65536):
                shown += data
        assert process.wait(60) == 0, shown[-3000:]
    erased = shown.decode().replace("\x1b[2K", "\n")  # where the line of progress was wiped, a new one begins
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", erased)
    drawn = [part for line in text.split("\n") for part in line.split("\r") if "tok/s" in part]
    assert any(re.match(r"cell 1 of 2, \d+%, [\d.]+ tok/s, TTFT p50 [\d.]+ m?s, 0 failed", line) for line in drawn), (
        text
    )
    assert max(map(len, drawn)) <= 80
    rows = re.findall(r"^(c00\d) +([\d.]+) m?s +[\d.]+ .* 12/12\r?$", text, re.M)
    assert [name for name, _ in rows] == ["c002", "c004"], text
    assert "Traceback" not in text and "%!" not in text


def test_a_log_has_plain_lines(server: Fake, tmp_path: Path, root: Path) -> None:
    optional.need("parallel")
    (tmp_path / "mine.tsv").write_text("clients\tprompts\tmax_tokens\tcount\twarmup\n1,2\tprompts-short\t4\t4\t0\n")
    named = ("--base-url", server.url, "--engine", "vllm", "--model", "fake", "--repeats", "2")
    done = llmpar("sweep", "mine", f"VENV={venv(tmp_path)}", *named)
    assert done.returncode == 0 and "\x1b" not in done.stderr and "\r" not in done.stderr
    assert "[1/2] c001: 4 requests, 1 clients, parallel, server session 1 of 2" in done.stderr
    assert "[2/2] c002-r2: 4 requests, 2 clients, parallel, server session 2 of 2" in done.stderr
    assert len(re.findall(r"^c00\d(?:-r2)? .* 4/4$", done.stderr, re.M)) == 4
