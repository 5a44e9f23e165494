"""Every test runs in its own directory, in UTC and the C locale, without LLMPAR_* or a surrounding GNU parallel.

How pytest itself was started does not reach the tests: what they start has the default signal dispositions. What a
failed test leaves running is ended, and at the end of the run all that is left.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
RESET = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
IGNORED = "PYTEST_IGNORED_SIGNALS"  # in the environment: numbers, for the workers of pytest-xdist
FAILED = pytest.StashKey[bool]()


# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-rewrite", action="store_true", help="rewrite the expected outputs in tests/cases")


def pytest_configure(config: pytest.Config) -> None:
    """`nohup make test &` has HUP and INT ignored, and all children inherit that.

    A handler that does nothing keeps this process as it was started, while what it executes gets the default.
    """
    ignored = {number for number in RESET if signal.getsignal(number) is signal.SIG_IGN}
    ignored |= {signal.Signals(int(number)) for number in os.environ.get(IGNORED, "").split()}
    for number in ignored:
        signal.signal(number, lambda *_: None)
    os.environ[IGNORED] = " ".join(str(int(number)) for number in ignored)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, RESET)


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("LLMPAR_", "PARALLEL_", "MAKE", "MFLAGS")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("LLMPAR_PYTHON", sys.executable)
    monkeypatch.setenv("PATH", f"{ROOT / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    # The pool's sockets go into the test's own directory, so that tests see only their own.
    runtime = tmp_path / ".runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("LLMPAR_LOCKS", str(runtime / "locks"))  # tests measure side by side
    monkeypatch.chdir(tmp_path)
    yield
    if request.node.stash.get(FAILED, False):
        end_processes_of(tmp_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed  # type: ignore[attr-defined]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    factory = getattr(session.config, "_tmp_path_factory", None)
    if factory is not None:
        end_processes_of(factory.getbasetemp())


def end_processes_of(folder: Path) -> None:
    """Kill what runs in the folder of a test, or was started with its runtime directory there."""
    for process in psutil.process_iter():
        try:
            places = (process.cwd(), process.environ().get("XDG_RUNTIME_DIR", ""))
            if process.pid != os.getpid() and any(Path(place).is_relative_to(folder) for place in places):
                process.kill()
        except psutil.Error:
            continue  # it ended meanwhile, or is another user's


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which optional parts were not tested, and what installs them."""
    reports = terminalreporter.getreports("skipped")
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section("optional parts not tested")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count:4} skipped  {reason}")


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--golden-rewrite"))
