"""Start and stop tests/fake_engine.py from a test.

from fake import fake_engine
with fake_engine(engine="tgi", tokens=8, gap_ms=5) as server:
    ... server.url ...
    truth = server.truth()      # one dict a finished request, in the order in which they ended
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parent / "fake_engine.py"


class Fake:
    def __init__(self, process: subprocess.Popen[str], url: str, truth: Path):
        self.process, self.url, self._truth = process, url, truth
        self.pid = process.pid

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def truth(self, count: int | None = None, timeout: float = 10) -> list[dict[str, Any]]:
        """The truth log; with `count`, wait until so many requests have ended (fails after `timeout` seconds)."""
        limit = time.monotonic() + timeout
        while True:
            text = self._truth.read_text() if self._truth.exists() else ""
            found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
            if count is None or len(found) >= count:
                return found
            assert time.monotonic() < limit, f"only {len(found)} of {count} requests ended within {timeout} s"
            time.sleep(0.01)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return answer.read()

    def counters(self) -> dict[str, int]:
        return json.loads(self.get("/fake/counters"))

    def stop(self) -> int:
        """End it; its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def fake_engine(folder: Path | str | None = None, **options: Any) -> Iterator[Fake]:
    """A running fake; options are those of the script with `_` for `-`, True for a flag."""
    with tempfile.TemporaryDirectory() as temporary:
        truth = Path(folder or temporary) / "truth.jsonl"
        command = [sys.executable, str(SCRIPT)]
        for name, value in {"truth": truth, **options}.items():
            command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http"), "the fake engine did not start"
            fake = Fake(process, url, truth)
            yield fake
        finally:
            if process.poll() is None:
                Fake(process, "", truth).stop()
            if process.stdout is not None:
                process.stdout.close()
