"""Wait until a server truly answers."""

from __future__ import annotations

import os
import time
from typing import Any

import requests

from llmpar import apikey, exit_codes, http_session
from llmpar.dialects import DIALECTS, Sampling
from llmpar.engines.base import Engine
from llmpar.failure import Failure
from llmpar.serving import causes, startup
from llmpar.serving.servers import Started


class NotReady(Failure):
    """The engine did not come up; `outcome` is for the server record."""

    def __init__(self, outcome: str, message: str, hint: str):
        super().__init__(message, exit_codes.UNAVAILABLE, hint)
        self.outcome = outcome


def wait_ready(
    engine: Engine, started: Started, timeout_s: float, api: str, deadline_from: float, sampling: Sampling | None = None
) -> dict[str, Any]:
    """Ask for two tokens, greedily or by `sampling`, until one comes: {"status", "text", "output_tokens", "waited_s",
    "sampling"}.

    Raises NotReady where the process ends, the engine keeps refusing the question, or the time is over.
    """
    dialect = DIALECTS[api]
    call = dialect.request(
        "Hello, how are",
        started.launch.model or None,
        sampling or Sampling(max_tokens=2, temperature=0.0),
        False,
        engine.name,
    )
    last, refused_since = "nothing listens yet", None
    watch = startup.Watch(engine, started.log, deadline_from)
    with asking() as session:
        while True:
            watch.look()
            asked_at = time.monotonic()
            code = started.process.poll()
            if code is not None:
                outcome, why = causes.explain(engine, started.log, started.ended())
                raise NotReady(outcome, f"{engine.title} ended before it was ready: {why}", f"its log: {started.log}")
            try:
                answer = session.post(started.url + call.path, json=call.body, timeout=(2, 60))
                reply = dialect.parse(
                    answer.status_code,
                    {key.lower(): value for key, value in answer.headers.items()},
                    answer.content,
                    False,
                )
                if answer.status_code == 200 and reply.error is None and (reply.output_tokens or reply.text):
                    now = time.monotonic()
                    started.startup = watch.phases(now - deadline_from, now - asked_at)
                    return {
                        "status": answer.status_code,
                        "text": reply.text,
                        "output_tokens": reply.output_tokens,
                        "waited_s": round(time.monotonic() - deadline_from, 3),
                        "sampling": call.sampling,
                    }
                last = str(reply.error["message"] if reply.error else f"HTTP {answer.status_code}")[:300]
                refused = 400 <= answer.status_code < 500 and answer.status_code not in (408, 425, 429)
                refused_since = (refused_since or time.monotonic()) if refused else None
            except requests.RequestException as error:
                last = f"{type(error).__name__}"
            now = time.monotonic()
            if refused_since is not None and now - refused_since > 10:
                raise NotReady(
                    "refused", f"{engine.title} runs but refuses to generate: {last}", f"its log: {started.log}"
                )
            if now - deadline_from > timeout_s:
                raise NotReady(
                    "timeout",
                    f"{engine.title} was not ready after {timeout_s:.0f} s: {last}",
                    f"its log: {started.log}; --ready-timeout gives it longer",
                )
            time.sleep(0.1)


def asking(verify: bool | str = True) -> http_session.Session:
    """For servers with the user's API key. Raises Failure where the file with it cannot be read."""
    name, key = os.environ.get("LLMPAR_API_KEY_FILE"), None
    if name:
        try:
            key = apikey.read(name)
        except ValueError as error:
            raise Failure(str(error), exit_codes.USAGE, "LLMPAR_API_KEY_FILE names it") from None
    session = http_session.Session(key, verify)
    session.headers["connection"] = "close"  # nothing stays open that the engine could wait for at its end
    return session


def look(url: str, verify: bool | str = True) -> Any:
    """What a server says at a URL, as JSON; None where it says nothing of the kind."""
    try:
        with asking(verify) as session:
            answer = session.get(url, timeout=5)
            return answer.json() if answer.status_code == 200 else None
    except (requests.RequestException, ValueError):
        return None
