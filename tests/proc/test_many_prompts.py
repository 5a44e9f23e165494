"""More names than a command line holds, through every form of client: each prompt is asked once, and has one record.
`make soak PART=many` asks 60,000."""

from __future__ import annotations

import sys
from pathlib import Path

import optional
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.soak import many

COUNT, DEEP = 450, 3  # 277 kB of names
# KiB; a quarter of it is what one command line and the environment may hold. find and xargs take 128 KiB by themselves,
# which has to leave room for a long environment.
STACK = "1024"


@pytest.fixture(scope="module")
def server():
    with many.server() as found:
        yield found


@pytest.mark.parametrize("form", many.FORMS)
def test_each_prompt_is_asked_once(form, server, tmp_path):
    optional.need("parallel")
    if "asyncio" in form:
        optional.need("aiohttp")
    names = many.prompts(tmp_path, COUNT, DEEP)
    assert sum(map(len, names)) > 1 << 18
    found = many.ask(form, tmp_path, names, *server, STACK)
    assert found.unlike == 0 and found.asked == (COUNT // many.COLD_SHARE if form == "cold" else COUNT)
