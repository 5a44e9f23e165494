"""A server that already runs, which llmpar did not start: whether it answers, and what it says that it is."""

from __future__ import annotations

import re
import time
from typing import Any

import requests

from llmpar import exit_codes, http_session
from llmpar.client.target import Target
from llmpar.dialects import DIALECTS, Reply, Sampling
from llmpar.dialects.base import Unsupported
from llmpar.engines import ENGINES
from llmpar.failure import Failure
from llmpar.serving import readiness
from llmpar.wording import shortened

MOST_NAMES = 8


def record(
    base_url: str, engine: str, model: str, api: str, timeout_s: float = 60.0, verify: bool | str = True
) -> dict[str, Any]:
    """A server record of what answers at `base_url`, after one request for one token of `model`. `verify`: a file of
    certificates, True for the system's, False for any server.

    Raises Failure, which says what to do, where nothing answers, the model is unknown, or the server says that it is
    another engine.
    """
    try:
        where = Target.of(base_url)
        root = where.url("")
    except ValueError as error:
        raise Failure(str(error), exit_codes.USAGE, "give its address with BASE_URL=http://HOST:PORT") from None
    began = time.monotonic()
    reply = _ask(where, base_url, engine, model, api, timeout_s, verify)
    models = readiness.look(where.url("/v1/models"), verify)
    listed = [each for each in (models or {}).get("data") or [] if isinstance(each, dict)] if _is_object(models) else []
    names = [str(each.get("id")) for each in listed]
    if isinstance(reply, str) or reply.error is not None:
        message = reply if isinstance(reply, str) else str((reply.error or {}).get("message"))[:300]
        if names and model not in names:
            raise Failure(
                f"the server at {base_url} has no model '{model}'; it says: {message}",
                exit_codes.UNAVAILABLE,
                f"it has {shortened(names, MOST_NAMES)}: give MODEL={names[0]}",
            )
        raise Failure(
            f"the server at {base_url} does not answer a request for one token of '{model}' by {api}: {message}",
            exit_codes.UNAVAILABLE,
            f"check MODEL and API ({', '.join(sorted(DIALECTS))}), and the server's own log",
        )
    owners = {str(each.get("owned_by")).lower() for each in listed}
    for owner in sorted(owners):
        speaking = [row.name for row in ENGINES.values() if owner in row.owned_by]
        if speaking and engine in ENGINES and engine not in speaking:
            raise Failure(
                f"the server at {base_url} says that it is {owner}, not {engine}",
                exit_codes.UNAVAILABLE,
                f"give ENGINE={owner if owner in ENGINES else sorted(speaking)[0]}, or the address of the "
                f"{engine} server",
            )
    known = ENGINES.get(engine)
    path, key = (known and known.version_at) or ("", "")
    facts = readiness.look(where.url(path), verify) if path else None
    version = facts.get(key) if isinstance(facts, dict) else None
    return {
        "kind": "server",
        "v": 1,
        "engine": engine,
        "title": known.title if known else engine,
        "version": version if isinstance(version, str) and version else None,
        "runtime": None,
        "api": api,
        "model": model,
        "settings": {},
        "defaults": {},
        "commands": [],
        "notes": ["it was not started by llmpar, so its settings are not known"],
        "base_url": base_url,
        "urls": [root],
        "metrics_urls": [root + known.metrics.path] if known and known.metrics else [],
        "pids": [],
        "started_at": None,
        "ready_s": None,
        "startup": None,
        "probe": {
            "status": 200,
            "text": reply.text,
            "output_tokens": reply.output_tokens,
            "waited_s": round(time.monotonic() - began, 3),
        },
        "ended_at": None,
        "outcome": "running",
        "message": f"it lists {shortened(names, MOST_NAMES)}, not {model}" if names and model not in names else None,
        "logs": [],
        "model_file": None,
    }


def _ask(
    where: Target, base_url: str, engine: str, model: str, api: str, timeout_s: float, verify: bool | str
) -> Reply | str:
    """The reply to a request for one token, or why there is none. Raises Failure where no server is reached."""
    dialect = DIALECTS[api]
    try:
        call = dialect.request("Hello, how are", model, Sampling(max_tokens=1), False, engine)
    except Unsupported as error:
        raise Failure(str(error), exit_codes.USAGE, "give another API=") from None
    try:
        with readiness.asking(verify) as session:
            answer = session.post(where.url(call.path), json=call.body, timeout=(5, timeout_s))
    except requests.exceptions.InvalidURL as error:
        raise Failure(f"'{base_url}' is not a URL: {error}", exit_codes.USAGE) from None
    except requests.exceptions.ReadTimeout:
        return f"no answer within {timeout_s:.0f} s"
    except requests.RequestException as error:
        raise Failure(
            f"nothing answers at {base_url}: {http_session.why(error) or _reason(error)}",
            exit_codes.UNAVAILABLE,
            "start the server, or give its address with BASE_URL=http://HOST:PORT",
        ) from None
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return dialect.parse(answer.status_code, headers, answer.content, False)


def _reason(error: Exception) -> str:
    """The system's own words out of the layers of urllib3's."""
    text = str(error)
    known = re.search(
        r"Connection refused|Name or service not known|Network is unreachable|No route to host|timed out|certificate "
        r"verify failed[^)]*|Connection reset by peer",
        text,
    )
    return known[0].lower() if known else text[:200]


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)
