"""Who else takes the processors: by readings of /proc that are made up, and by one real process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from llmpar.sampling import other_cpu


def test_others_are_all_but_engine_and_client(monkeypatch: pytest.MonkeyPatch) -> None:
    # Four processors, ten seconds: 20 CPU seconds in all, 8 of the engine, 4 of the client.
    at = {"now": 100.0, "busy": 1000.0, "client": 50.0}
    monkeypatch.setattr(other_cpu.time, "monotonic", lambda: at["now"])
    monkeypatch.setattr(other_cpu, "busy_s", lambda: (at["busy"], 4))
    monkeypatch.setattr(other_cpu, "session_s", lambda session: at["client"])
    others = other_cpu.OtherCpu()
    assert others.ratio(5.0) is None
    at.update(now=110.0, busy=1020.0, client=54.0)
    assert others.ratio(13.0) == pytest.approx((20 - 8 - 4) / 10 / 4)
    # A client whose processes ended without being waited for does not make others of itself, nor a negative share.
    at.update(now=120.0, busy=1021.0, client=40.0)
    assert others.ratio(20.0) == 0.0
    assert others.ratio(None) is None


def test_a_process_of_another_session_is_another_and_one_of_this_is_the_client() -> None:
    spin = [sys.executable, "-c", "while True: pass"]
    own = os.getsid(0)
    for other in (False, True):
        before = other_cpu.session_s(own)
        child = subprocess.Popen(spin, start_new_session=other)
        try:
            deadline = time.monotonic() + 20
            session = child.pid if other else own
            while other_cpu.session_s(session) - (0 if other else before) < 0.2 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert other_cpu.session_s(session) - (0 if other else before) >= 0.2
        finally:
            child.kill()
            child.wait()
    total = other_cpu.busy_s()
    assert total is not None and total[0] > 0 and total[1] == os.cpu_count()
