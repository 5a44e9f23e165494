"""One request from a prompt file to a record: settings, the prompt, the exchange, what the dialect reads, the
record."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from llmpar import apikey, clock, hostname, records
from llmpar.client import body, exchange, gate, http1, receive, target
from llmpar.client.coding import BadCoding, decode
from llmpar.client.conversation import Launch, Place
from llmpar.client.gate import Cancelled
from llmpar.client.prompt_file import Own, Prompt
from llmpar.dialects import DIALECTS, Reply, Sampling, Unsupported

AGENT = "llmpar"
STEP_WARNING_NS = 1_000_000  # a wall clock that moved by more than this under a request spoils its times


@dataclass(slots=True)
class Settings:
    """What all requests of one command line share. `api_key` goes into a header and nowhere else."""

    base_url: str
    api: str
    model: str | None = None
    engine: str | None = None
    stream: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    timeout_s: float = 600.0
    max_bytes: int = 64 << 20
    text: bool = True
    kernel: bool = True
    keep_alive: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    api_key: str | None = None
    concurrency: int | None = None
    ca: str | None = None
    insecure: bool = False
    body: dict[str, Any] | None = None  # a JSON Merge Patch over what the dialect asks
    target: target.Target = field(init=False)

    def __post_init__(self) -> None:
        self.target = target.Target.of(self.base_url, self.ca, self.insecure)


class Asked(NamedTuple):
    """A prepared request: the bytes to send and the route and body in them, or why there are none."""

    message: bytes
    sampling: dict[str, Any]
    fault: tuple[str, str] | None
    path: str = ""
    body: bytes = b""


def ask(settings: Settings, prompt: Prompt, place: Place | None = None) -> Asked:
    """The request's bytes for a prompt, or for one turn of a conversation."""
    if prompt.fault is not None:
        return Asked(b"", {}, prompt.fault)
    own = prompt.own or NOTHING
    turn = own.turns[place.turn - 1] if place else None
    sampling, asked = settings.sampling, (turn.max_tokens if turn else None) or own.max_tokens
    if asked is not None:
        sampling = replace(sampling, max_tokens=asked)
    try:
        call = DIALECTS[settings.api].request(
            turn.content if turn else prompt.text,
            own.model or settings.model,
            sampling,
            settings.stream,
            settings.engine,
        )
        before = [{"role": "system", "content": own.system}] if own.system is not None else []
        before += place.history if place else []
        if before or own.turns:
            if "messages" not in call.body:
                raise Unsupported(f"--api {settings.api} takes no system prompt and no turns; ask --api openai-chat")
            call.body["messages"] = before + call.body["messages"]
        for patch in (settings.body, own.body):
            if patch is not None:
                call = call._replace(body=body.merged(call.body, patch), sampling=body.merged(call.sampling, patch))
        headers = request_headers(settings)
        data = orjson.dumps(call.body)
        path = settings.target.path(call.path)
        message = http1.post(path, settings.target.authority, headers, data, settings.keep_alive)
    except Unsupported as error:
        return Asked(b"", {}, ("unsupported", str(error)))
    except (ValueError, TypeError) as error:  # orjson: text or a number that JSON cannot hold
        return Asked(b"", {}, ("cannot_ask", f"the request cannot be written: {error}"))
    return Asked(message, call.sampling, None, path, data)


def request_headers(settings: Settings) -> list[tuple[str, str]]:
    """All headers but those of the connection itself."""
    headers = [
        ("User-Agent", AGENT),
        ("Accept", "text/event-stream" if settings.stream else "application/json"),
        ("Accept-Encoding", "identity"),
        ("Content-Type", "application/json"),
    ]
    if settings.api_key:
        headers.append(("Authorization", f"Bearer {settings.api_key}"))
    headers.extend(settings.headers)
    return headers


def perform(
    settings: Settings,
    launch: Launch,
    prompt: Prompt,
    place: Place | None,
    connections: exchange.Connections,
    gate: gate.Gate,
) -> dict[str, Any]:
    """One request, one record; waits for the due time if there is one. Cancelled through the gate, it still has its
    record."""
    asked = ask(settings, prompt, place)
    if asked.fault is not None:
        return record(settings, launch, prompt, asked, receive.Raw(error=asked.fault), place)
    raw = receive.Raw(settings.kernel)
    try:
        gate.arm()
        if launch.scheduled_ns is not None:
            wait_until(launch.scheduled_ns)
        exchange.exchange(
            raw,
            connections,
            settings.target,
            asked.message,
            settings.timeout_s,
            settings.max_bytes,
            settings.keep_alive,
        )
        gate.armed = False
    except Cancelled as cancelled:
        raw.error = ("cancelled", str(cancelled))
    finally:
        gate.armed = False
    connections.done(raw, settings.target, settings.keep_alive)
    return record(settings, launch, prompt, asked, raw, place)


def wait_until(due_ns: int) -> None:
    """Sleep until an instant, in epoch nanoseconds."""
    while (left := due_ns - time.time_ns()) > 0:
        time.sleep(left / 1e9)


def read_reply(settings: Settings, raw: receive.Raw, http_status: int, path: str) -> Reply:
    """What the dialect reads in the answer. An answer that no code of ours was made for costs its own request alone."""
    framer = raw.framer
    body = bytes(framer.body)
    try:
        coding = framer.headers.get("content-encoding")
        if coding is not None:
            body, raw.marks = decode(coding, body, raw.marks, settings.max_bytes)
        if path and "location" in framer.headers:
            framer.headers["location"] = settings.target.pointed(path, framer.headers["location"])
        return DIALECTS[settings.api].parse(http_status, framer.headers, body, settings.stream)
    except BadCoding as error:
        return Reply(error={"type": "content_coding", "message": str(error), "http_status": http_status})
    except Exception as error:
        what = f"the answer cannot be read ({type(error).__name__}: {str(error)[:200]})"
        return Reply(error={"type": "bad_answer", "message": what, "http_status": http_status})


def scrubbed(reply: Reply, error: dict[str, Any] | None, key: str) -> tuple[Reply, dict[str, Any] | None]:
    """The same without the API key, wherever a server says it back."""
    reply.text = apikey.scrub(reply.text, key)
    reply.finish_reason = apikey.scrub(reply.finish_reason, key)
    if error is not None:
        error = error | {"type": apikey.scrub(error["type"], key), "message": apikey.scrub(error["message"], key)}
    return reply, error


def record(
    settings: Settings, launch: Launch, prompt: Prompt, asked: Asked, raw: receive.Raw, place: Place | None = None
) -> dict[str, Any]:
    """The request record of docs/records.md."""
    http_status = raw.framer.status
    reply = Reply() if http_status is None else read_reply(settings, raw, http_status, asked.path)
    sent, due = raw.sent_ns, launch.scheduled_ns
    error = reply.error
    status = "ok" if error is None else "error"
    if raw.error is not None and (error is None or raw.error[0] != "cut_body"):
        # The transport's fault goes before what a dialect makes of the part that came, but a body cut after an error
        # event failed for the reason in the event.
        error = {"type": raw.error[0], "message": raw.error[1], "http_status": http_status}
        status = raw.error[0] if raw.error[0] in ("timeout", "cancelled") else "error"
    elif error is not None and http_status in (404, 405) and asked.path:
        error["message"] += f" (asked for: {asked.path})"
    if settings.api_key:
        reply, error = scrubbed(reply, error, settings.api_key)
    seconds = clock.duration
    times = []
    if sent is not None:
        marks, stamps, last = raw.marks, raw.stamps, len(raw.marks) - 1
        times = [round((stamps[min(bisect_left(marks, event.offset), last)] - sent) / 1e9, 6) for event in reply.events]
    tokens: list[int] | None = [event.tokens for event in reply.events]  # type: ignore[misc]
    if not tokens or None in tokens:
        tokens = None
    ttft = times[0] if times else None
    e2e = None if sent is None or raw.end_ns is None else seconds(raw.end_ns - sent)
    late = None if due is None or sent is None else seconds(sent - due)
    made: dict[str, Any] = {
        "kind": "request",
        "v": records.VERSIONS["request"][-1],
        "id": os.urandom(8).hex(),
        "prompt": prompt.name,
        "prompt_sha256": prompt.sha256,
        "attempt": launch.attempt,
        "engine": settings.engine,
        "api": settings.api,
        "model": (prompt.own or NOTHING).model or settings.model,
        "base_url": settings.base_url,
        "stream": settings.stream,
        "status": status,
        "error": error,
        "host": HOST,
        "pid": os.getpid(),
        "slot": launch.slot,
        "seq": launch.seq,
        "launcher": launch.launcher,
        "concurrency": settings.concurrency,
        "scheduled_at": None if due is None else clock.instant(due),
        "launched_at": None if launch.launched_ns is None else clock.instant(launch.launched_ns),
        "sent_at": None if sent is None else clock.instant(sent),
        "lateness_s": late,
        "connect_s": None if raw.connect_ns is None else seconds(raw.connect_ns),
        "headers_s": None if sent is None or raw.headers_ns is None else seconds(raw.headers_ns - sent),
        "ttft_s": ttft,
        "e2e_s": e2e,
        "effective_ttft_s": None if late is None or ttft is None else round(ttft + late, 6),
        "effective_e2e_s": None if late is None or e2e is None else round(e2e + late, 6),
        "event_s": times,
        "event_tokens": tokens,
        "clock": "kernel" if raw.kernel else "user",
        "cpu_wait_s": None if raw.cpu_wait_ns is None else seconds(raw.cpu_wait_ns),
        "prompt_tokens": reply.prompt_tokens,
        "cached_tokens": reply.cached_tokens,
        "output_tokens": reply.output_tokens,
        "token_source": reply.token_source,
        "finish_reason": reply.finish_reason,
        "text": reply.text if settings.text or place else None,
        "sampling": asked.sampling,
        "bytes_sent": raw.bytes_sent,
        "bytes_received": raw.bytes_received,
    }
    if settings.body is not None:
        made["body"] = settings.body
    if place is not None:
        made |= {"conversation": place.conversation, "turn": place.turn, "turns": place.turns, "think_s": place.think_s}
    if abs(raw.clock_step_ns) > STEP_WARNING_NS:
        made["clock_step_s"] = seconds(raw.clock_step_ns)
    return made


HOST = hostname.name()
NOTHING = Own()
