"""What every dialect is made of: canonical sampling in, one call out; one body in, one reply out."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from llmpar import outside
from llmpar.dialects import sse

if TYPE_CHECKING:
    from llmpar.engines import Engine

EVENTS_LIMIT = 1 << 20  # events of one stream; no engine generates so many tokens
WORD_LIMIT = 200  # characters of an error's type or a finish reason
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
    """A streamed event that carries text. `offset`: body bytes after which it was complete. `tokens`: None if
    unknown."""

    offset: int
    text: str
    tokens: int | None


@dataclass(slots=True)
class Reply:
    """What came back. `complete`: the engine said that generation ended. `error`: None or type, message,
    http_status."""

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
    return _FINISH.get(reason, reason[:WORD_LIMIT])


whole = outside.count  # what an engine sent as a count


def header_count(headers: dict[str, str], name: str) -> int | None:
    value = headers.get(name, "").strip()
    return whole(int(value)) if value.isascii() and value.isdigit() and len(value) < 16 else None


def failure(kind: Any, message: Any, status: int) -> dict[str, Any]:
    """An error as records hold it."""
    kind = kind[:WORD_LIMIT] if isinstance(kind, str) and kind else f"http_{status}"
    return {"type": kind, "message": words(message), "http_status": status}


def words(value: Any) -> str:
    """Any decoded JSON as text for a message."""
    if isinstance(value, str):
        return value[:MESSAGE_LIMIT]
    try:
        return "" if value is None else orjson.dumps(value).decode()[:MESSAGE_LIMIT]
    except (TypeError, RecursionError):  # orjson reads deeper than it writes
        return "it is nested too deeply to be shown"


# Fields of an answer: an object with one of them is no error, whatever else it holds.
ANSWERS = {"choices", "content", "token", "generated_text", "usage"}


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
            kind = error.get("type") or error.get("error_type") or _tgi_type(error) or _coded(error, status)
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
                ": ".join(filter(None, (".".join(map(words, _list(item.get("loc")))), words(item.get("msg")))))
                for item in parts
            ]
            return failure(kinds[0] if kinds else None, "; ".join(texts) or detail, status)
        return failure(None, detail, status)
    # Words on the way out that stand in no envelope: {"message", "code"}.
    message = value.get("message")
    if (
        isinstance(message, str)
        and message
        and value.keys() & {"code", "type", "status"}
        and not value.keys() & ANSWERS
    ):
        return failure(value.get("type") or _coded(value, status), message, status)
    return None


# TGI 3 says 422 for whatever goes wrong on a stream of its OpenAI routes, with no type: the words are those of its
# other routes, which name it.
TGI_TYPES = {
    "Model is overloaded": "overloaded",
    "Input validation error": "validation",
    "Request failed during generation": "generation",
    "Incomplete generation stream": "incomplete_generation_stream",
    "Incomplete generation": "incomplete_generation",
    "Template error": "template_error",
    "Missing template": "missing_template_variable",
    "Tool error": "tool_error",
}


def _tgi_type(error: dict[str, Any]) -> str | None:
    message = error.get("message")
    if "http_status_code" not in error or not isinstance(message, str):
        return None
    return next((kind for begins, kind in TGI_TYPES.items() if message.startswith(begins)), None)


def _coded(error: dict[str, Any], status: int) -> str | None:
    """A type for an error that names none: its own code where there is one; inside a 200 never `http_200`."""
    code = error.get("http_status_code") or error.get("code")
    if type(code) is int and 100 <= code < 600:
        return f"http_{code}"
    return "engine_error" if status < 300 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def refused(status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The error of a response whose status is not 2xx, whatever its body."""
    value, _ = load(body)
    error = envelope(value, status)
    if error is not None:
        return error
    if isinstance(value, dict) and value.get("message"):
        return failure(value.get("type"), value["message"], status)
    text = body[: 4 * MESSAGE_LIMIT].decode("utf-8", "replace").strip()
    if 300 <= status < 400 and headers.get("location"):
        return failure(None, f"redirected to {headers['location'][:500]}: give that as the base URL", status)
    return failure(None, text or "empty body", status)


def load(data: bytes) -> tuple[Any, str | None]:
    """JSON as (value, None); (value, "invalid_utf8") where bytes had to be replaced; (None, "bad_json") where it is
    none. A byte order mark at its start is no part of it."""
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return orjson.loads(data), None
    except orjson.JSONDecodeError:
        pass
    if b"\\u" in data:
        try:
            return orjson.loads(outside.whole_letters(data)), None
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
    """The JSON object of an answer that is not streamed; what is wrong with it goes into `reply`, None where there is
    none.

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
    names: dict[int, bytes] = {}
    events = _events(body, names)
    if len(events) > EVENTS_LIMIT:
        reply.error = failure("too_many_events", f"more than {EVENTS_LIMIT} events came", status)
        return
    for number, (offset, data) in enumerate(events, 1):
        name = names.get(offset)
        try:
            value = orjson.loads(data)
        except ValueError:
            value, bad = load(data)
            # What stands under a name of its own is no part of the answer: pings come so.
            if name in (None, b"message") and (bad and offset < len(body) or value is not None and bad):
                what = "is not UTF-8" if bad == "invalid_utf8" else "is not JSON"
                reply.error = reply.error or failure(bad, f"event {number} of the stream {what}", status)
        if name == b"error":
            error = envelope(value, status)
            if error is None:
                said = data.decode("utf-8", "replace") if value is None else value
                flat = value if isinstance(value, dict) else {}
                error = failure(flat.get("type") or _coded(flat, status), flat.get("message") or said, status)
            reply.error = reply.error or error
        elif isinstance(value, dict):
            yield offset, value


def _events(body: bytes, names: dict[int, bytes] | None = None) -> list[tuple[int, bytes]]:
    """The events that are more than a ping or the end mark."""
    return [
        event for event in sse.events(body, names) if event[1] != b"[DONE]" and event[1].strip() not in (b"", b"[DONE]")
    ]


def cut(reply: Reply, body: bytes, status: int) -> None:
    """Mark a stream that ended before the engine said so. An error already found keeps its place."""
    if reply.complete or reply.error is not None:
        return
    seen = len(_events(body))
    where = f"after {seen} event{'s' if seen > 1 else ''}" if seen else "before any event"
    last = body[-4 * WORD_LIMIT :].rpartition(b"\n\n")[2].strip()[-WORD_LIMIT:]
    said = "" if not last or last.startswith(b"data:") else f"; its last words: {last.decode('utf-8', 'replace')}"
    reply.error = failure("cut_stream", f"the stream ended {where}, without a finish reason{said}", status)


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


_FIELD_NAMES = (b"data:", b"event:", b"error:", b"id:", b"retry:", b":")


def is_json(headers: dict[str, str], body: bytes) -> bool:
    """Whether a 2xx answer to a streaming request is one JSON document after all: the engine did not stream.

    The body says so before its label does: proxies label streams as documents, and documents as streams.
    """
    start = body[:64].removeprefix(codecs.BOM_UTF8).lstrip()
    if start[:1] in (b"{", b"["):
        return True
    if start.startswith(_FIELD_NAMES):
        return False
    return headers.get("content-type", "").startswith("application/json")


def keep(body: dict[str, Any], *content: str) -> dict[str, Any]:
    """The part of a body that a record keeps as `sampling`: all but what was asked."""
    return {key: value for key, value in body.items() if key not in content}
