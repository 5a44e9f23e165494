"""conftest.py: signals that the caller ignores or blocks do not reach what tests start; a failed test leaves
nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

INNER = """
import os, signal, subprocess, sys
import pytest

def test_default_dispositions_reach_children():
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
    masks = dict(line.split(":", 1) for line in status.splitlines())
    wanted = sum(1 << number - 1 for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM))
    assert int(masks["SigIgn"], 16) & wanted == 0 and int(masks["SigBlk"], 16) & wanted == 0

def test_this_process_still_ignores_what_its_caller_ignored():
    if "HUP" in os.environ["CALLER_IGNORES"]:
        os.kill(os.getpid(), signal.SIGHUP)

def test_fails_with_a_server_running():
    server = subprocess.Popen(["sleep", "300"], start_new_session=True)
    open(os.environ["PIDS"], "a").write(f"{server.pid}\\n")
    assert False

@pytest.mark.skipif(True, reason="jq is not installed: apt-get install jq")
def test_optional():
    pass
"""


@pytest.mark.parametrize("ignored", ["", "HUP", "HUP INT", "HUP INT QUIT TERM"])
@pytest.mark.parametrize("workers", ["no:xdist", "xdist"])
def test_how_pytest_was_started_does_not_reach_the_tests(
    tmp_path: Path, root: Path, ignored: str, workers: str
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "conftest.py").write_text((root / "tests" / "conftest.py").read_text())
    (inner / "test_inner.py").write_text(INNER)
    (inner / "pytest.ini").touch()
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    words += ["-p", workers] if workers == "no:xdist" else ["-n", "1"]
    # A directory of its own: the shared one is first cleaned of what earlier runs left.
    words += ["--basetemp", str(tmp_path / "base")]
    trap = f"trap '' {ignored}; " if ignored else ""

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    done = subprocess.run(
        ["bash", "-c", f'{trap}exec "$@"', "bash", *words],
        cwd=inner,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=block,
        env=os.environ | {"PIDS": str(tmp_path / "pids"), "CALLER_IGNORES": ignored},
    )
    assert done.returncode == 1 and "1 failed, 2 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    (pid,) = map(int, (tmp_path / "pids").read_text().split())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert "   1 skipped  jq is not installed: apt-get install jq" in done.stdout
