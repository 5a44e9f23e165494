"""What every dialect is made of: canonical sampling in, one call out; one body in, one reply out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from llmpar.dialects import sse

if TYPE_CHECKING:
    from llmpar.engines import Engine

MESSAGE_LIMIT = 2000  # characters of an engine's own error text that a record keeps


class Unsupported(ValueError):
    """This engine or route cannot do what was asked; the text says what to do instead."""


@dataclass(slots=True)
class Sampling:
    """Canonical sampling. None leaves a value to the engine's default; top_k 0 or -1 and top_p 1.0 mean off.

    `cache_prompt` is for llama.cpp, where the request may refuse reuse of a cached prefix; other engines decide that at
    their start.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    ignore_eos: bool = False
    stop: list[str] = field(default_factory=list)
    cache_prompt: bool = False


def engine_row(name: str | None) -> Engine | None:
    """What is known of the engine; None where none is named, or one that is not known."""
    if name is None:
        return None
    from llmpar.engines import ENGINES  # late: a request that names no engine does not pay for the table

    return ENGINES.get(name)


class Call(NamedTuple):
    """What to send: a path under the base URL, the JSON body, and the body's part that governs generation."""

    path: str
    body: dict[str, Any]
    sampling: dict[str, Any]


class Event(NamedTuple):
    """A streamed event that carries text. `offset`: body bytes after which it was complete. `tokens`: None if unknown."""

    offset: int
    text: str
    tokens: int | None


@dataclass(slots=True)
class Reply:
    """What came back. `complete`: the engine said that generation ended. `error`: None or type, message, http_status."""

    events: list[Event] = field(default_factory=list)
    text: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    token_source: str | None = None
    finish_reason: str | None = None
    error: dict[str, Any] | None = None
    complete: bool = False


# The engines' own words for the two ordinary ends.
_FINISH = {
    "eos_token": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "word": "stop",
    "stop_token": "stop",
    "limit": "length",
    "max_tokens": "length",
}


def finish(reason: Any) -> str | None:
    """A canonical finish reason; SGLang's native {"type": ...} too; None for none, null or an empty string."""
    if isinstance(reason, dict):
        reason = reason.get("type")
    if not isinstance(reason, str) or not reason:
        return None
    return _FINISH.get(reason, reason)


def whole(value: Any) -> int | None:
    """A count that the engine sent, as an int that is not negative; None for anything else."""
    if type(value) is int and value >= 0:
        return value
    return None


def header_count(headers: dict[str, str], name: str) -> int | None:
    value = headers.get(name, "").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None


def failure(kind: Any, message: Any, status: int) -> dict[str, Any]:
    """An error as records hold it."""
    kind = kind if isinstance(kind, str) and kind else f"http_{status}"
    if not isinstance(message, str):
        message = "" if message is None else orjson.dumps(message).decode()
    return {"type": kind, "message": message[:MESSAGE_LIMIT], "http_status": status}


def envelope(value: Any, status: int) -> dict[str, Any] | None:
    """The error in a decoded JSON object, in any of the envelopes that engines use; None where there is none.

    Known: {"error": {message, type}}, {"error": text, "error_type"}, flat {"object": "error", message, type}, and
    FastAPI's {"detail": text or list}.
    """
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if error:
        if isinstance(error, dict):
            kind = error.get("type") or error.get("error_type") or _coded(error, status)
            return failure(kind, error.get("message", error), status)
        return failure(value.get("error_type") or _coded(value, status), error, status)
    if value.get("object") == "error":
        return failure(value.get("type") or _coded(value, status), value.get("message"), status)
    detail = value.get("detail")
    if detail and "choices" not in value:
        if isinstance(detail, list):
            parts = [item for item in detail if isinstance(item, dict)]
            kinds = [item["type"] for item in parts if isinstance(item.get("type"), str)]
            texts = [
                ": ".join(filter(None, (".".join(map(str, _list(item.get("loc")))), str(item.get("msg", "")))))
                for item in parts
            ]
            return failure(kinds[0] if kinds else None, "; ".join(texts) or detail, status)
        return failure(None, detail, status)
    return None


def _coded(error: dict[str, Any], status: int) -> str | None:
    """A type for an error that names none: its own code where there is one; inside a 200 never `http_200`."""
    code = error.get("http_status_code") or error.get("code")
    if isinstance(code, int):
        return f"http_{code}"
    return "engine_error" if status < 300 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def refused(status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The error of a response whose status is not 2xx, whatever its body."""
    value, _ = load(body)
    found = envelope(value, status)
    if found is not None:
        return found
    if isinstance(value, dict) and value.get("message"):
        return failure(value.get("type"), value["message"], status)
    text = body[: 4 * MESSAGE_LIMIT].decode("utf-8", "replace").strip()
    return failure(None, text or "empty body", status)


def load(data: bytes) -> tuple[Any, str | None]:
    """JSON as (value, None); (value, "invalid_utf8") where bytes had to be replaced; (None, "bad_json") where it is none."""
    try:
        return orjson.loads(data), None
    except orjson.JSONDecodeError:
        pass
    try:
        data.decode()
    except UnicodeDecodeError:
        try:
            return orjson.loads(data.decode("utf-8", "replace")), "invalid_utf8"
        except orjson.JSONDecodeError:
            pass
    return None, "bad_json"


def document(body: bytes, reply: Reply, status: int, unwrap: bool = False) -> dict[str, Any] | None:
    """The JSON object of an answer that is not streamed; what is wrong with it goes into `reply`, None where there is none.

    `unwrap`: the object may stand alone in a list.
    """
    value, bad = load(body)
    if unwrap and isinstance(value, list) and len(value) == 1:
        value = value[0]
    if bad:
        reply.error = failure(bad, "the answer is not " + ("UTF-8" if value else "JSON"), status)
    if not isinstance(value, dict):
        reply.error = reply.error or failure("bad_json", "the answer is not a JSON object", status)
        return None
    reply.error = envelope(value, status) or reply.error
    return value


def objects(body: bytes, reply: Reply, status: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a stream with the offset of each; the first event that cannot be read goes into `reply`.

    A torn last event is none: it is the mark of a cut stream, for which `cut` has the words.
    """
    for number, (offset, data) in enumerate(_events(body), 1):
        try:
            value = orjson.loads(data)
        except ValueError:
            value, bad = load(data)
            if bad and offset < len(body) or value is not None:
                what = "is not UTF-8" if bad == "invalid_utf8" else "is not JSON"
                reply.error = reply.error or failure(bad, f"event {number} of the stream {what}", status)
        if isinstance(value, dict):
            yield offset, value


def _events(body: bytes) -> list[tuple[int, bytes]]:
    return [event for event in sse.events(body) if event[1] != b"[DONE]"]


def cut(reply: Reply, body: bytes, status: int) -> None:
    """Mark a stream that ended before the engine said so. An error already found keeps its place."""
    if reply.complete or reply.error is not None:
        return
    seen = len(_events(body))
    where = f"after {seen} event{'s' if seen > 1 else ''}" if seen else "before any event"
    reply.error = failure("cut_stream", f"the stream ended {where}, without a finish reason", status)


def spread(reply: Reply) -> None:
    """Fill in tokens per event where the engine's total leaves one possibility: as many tokens as events with text."""
    if reply.token_source == "engine" and reply.output_tokens == len(reply.events):
        reply.events = [Event(event.offset, event.text, 1) for event in reply.events]


def ended(reply: Reply, status: int) -> None:
    """An engine that says abort or error as its finish reason did not answer the request."""
    if reply.error is None and reply.finish_reason in ("abort", "error"):
        reply.error = failure(
            "aborted", f"the engine ended the request with finish reason '{reply.finish_reason}'", status
        )


def is_json(headers: dict[str, str], body: bytes) -> bool:
    """Whether a 2xx answer to a streaming request is one JSON document after all: the engine did not stream."""
    kind = headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        return False
    return kind.startswith("application/json") or body[:1] in (b"{", b"[")


def keep(body: dict[str, Any], *content: str) -> dict[str, Any]:
    """The part of a body that a record keeps as `sampling`: all but what was asked."""
    return {key: value for key, value in body.items() if key not in content}
