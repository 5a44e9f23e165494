"""A fake inference engine: a real HTTP server that speaks every dialect of tests/wire and says afterwards what it did.

    python tests/fake_engine.py --engine vllm --port 0 --tokens 16 --gap-ms 20 --truth truth.jsonl

prints its URL, serves until TERM or INT. With --truth it appends one JSON line a request: when it had the request, when
it wrote each event, what was in it, how it ended. A request can ask for trouble with a line in its prompt that starts
with `fake:`, or in the query string, as words `key=value`:

    tokens=N gap_ms=F ttft_ms=F   length and pace of this answer          per_event=K burst=K   K tokens an event, K
    events a write eos=N        end of text after N tokens, unless ignore_eos            endless               go on
    until the client leaves status=N     this status and the engine's error body                  message=TEXT
    (underscores for spaces) error=N      after N events an error event, then [DONE]               cut=N end=N
    after N events:
    drop the connection; end the body properly utf8=N json=N   event N is not UTF-8; is not JSON
    empty=N
             every Nth token comes without text, as inside a character stall=S [at=N]  S seconds of silence before event
             N (default 1)       hang close
    reset      no answer at all; close; reset the connection keepalive=N  N comments first      crlf  CR LF line ends
              nodone                no [DONE] split=N      write the body in segments of N bytes
              plain                 no chunks, the
    end is the connection's end big=N        N more letters in each event                             cached=N
       N cached prompt tokens replay=PATH  a file of tests/wire, byte by byte
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import sys
import time
import urllib.parse
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fake_shapes as shapes
from fake_shapes import Counters, Job

WIRE = Path(__file__).resolve().parent / "wire"
WORDS = [
    " the",
    " mill",
    " was",
    " a",
    " small",
    " one",
    " café",
    ",",
    " 東京",
    " of",
    " 🙂",
    " and",
    " wind",
    ".",
    "\n",
    " it",
]
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    422: "Unprocessable Entity",
    424: "Failed Dependency",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
ROUTES = {
    "/v1/completions": "completions",
    "/v1/chat/completions": "chat",
    "/completion": "completion",
    "/api/generate": "api_generate",
    "/generate": "generate",
    "/generate_stream": "generate_stream",
}
TRANSFORMERS = {
    "model",
    "prompt",
    "messages",
    "max_tokens",
    "temperature",
    "top_p",
    "frequency_penalty",
    "seed",
    "stop",
    "suffix",
    "stream",
    "generation_config",
}


class Gone(Exception):
    """The client closed its connection."""


def knobs(text: str) -> dict[str, str]:
    """The words of a `fake:` line or a query string; a word without a value means 1."""
    found = {}
    for word in text.replace("&", " ").replace(";", " ").split():
        key, _, value = word.partition("=")
        found[key] = urllib.parse.unquote(value) or "1"
    return found


class Engine:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.counters = Counters(slots=options.slots or 1)
        self.queue: list[asyncio.Future[None]] = []
        self.number = 0
        self.started = time.monotonic()
        self.stalled_until = 0.0
        self.truth = os.open(options.truth, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if options.truth else -1

    def log(self, record: dict) -> None:
        if self.truth >= 0:
            os.write(self.truth, json.dumps(record).encode() + b"\n")

    async def admit(self) -> None:
        """Wait for a slot, first come first served."""
        if self.options.slots and self.counters.running >= self.options.slots:
            turn = asyncio.get_running_loop().create_future()
            self.queue.append(turn)
            self.counters.waiting += 1
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.release()  # the slot was handed over in the same moment
                raise
            finally:
                self.counters.waiting -= 1
                if turn in self.queue:
                    self.queue.remove(turn)
        else:
            self.counters.running += 1

    def release(self) -> None:
        while self.queue:
            turn = self.queue.pop(0)
            if not turn.done():
                turn.set_result(None)  # the slot passes on: running stays
                return
        self.counters.running -= 1

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await Exchange(self, reader, writer).serve():
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            with contextlib.suppress(Exception):
                writer.close()


class Exchange:
    """One request and its answer."""

    def __init__(self, engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.engine, self.reader, self.writer, self.options = engine, reader, writer, engine.options
        self.chunked = self.keep = True
        self.split = 0
        self.record: dict = {}

    async def serve(self) -> bool:
        """Answer one request; whether the connection can carry another."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        began = time.time()
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        raw = await self.reader.readexactly(int(headers.get("content-length", 0)))
        received = time.time()
        self.keep = headers.get("connection", "").lower() != "close" and not self.options.close
        url = urllib.parse.urlsplit(target)
        path = "/" + url.path.strip("/")
        if method == "GET" or path in ("/tokenize", "/fake/stall"):
            return self.look(path, url.query, raw)
        route = ROUTES.get(path) or ("mii" if path.startswith("/mii/") else "")
        self.record = {
            "id": self.engine.number,
            "path": path,
            "received_at": round(received, 6),
            "head_at": round(began, 6),
            "connection": self.writer.get_extra_info("peername")[1],
            "write_at": [],
            "write_tokens": [],
            "text": "",
            "tokens": 0,
            "outcome": "error",
        }
        self.engine.number += 1
        if self.options.exit_after and self.engine.number > self.options.exit_after:
            os._exit(9)
        # Ending early when the client leaves, also while waiting for a slot.
        work = asyncio.ensure_future(self.answer(route, url.query, headers, raw))
        leave = asyncio.ensure_future(self.reader.read(1))
        try:
            await asyncio.wait({work, leave}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
                self.record["outcome"] = "client_left"
                return False
            return work.result() and self.keep
        except asyncio.CancelledError:
            work.cancel()
            self.record["outcome"] = "killed"
            raise
        except ConnectionError:
            self.record["outcome"] = "client_left"
            return False
        finally:
            leave.cancel()
            try:
                # Not `await leave`: whoever suppresses its end there suppresses this task's own as well.
                await asyncio.wait({leave})
                if not leave.cancelled():
                    leave.exception()
            finally:
                self.record["ended_at"] = round(time.time(), 6)
                self.engine.log(self.record)

    # What is not generation.

    def look(self, path: str, query: str, raw: bytes) -> bool:
        engine, now = self.options.engine, self.engine.counters
        loading = time.monotonic() - self.engine.started < self.options.load_s
        if path in ("/health", "/healthz", "/ready", "/ping"):
            if loading:
                return self.whole(503, *shapes.error(engine, "", 503, "Loading model"))
            return self.whole(200, b'{"status":"ok"}', "application/json")
        if path == "/v1/models":
            return self.whole(
                200,
                shapes.dump({"object": "list", "data": [{"id": self.options.model, "object": "model"}]}),
                "application/json",
            )
        if path == "/info" and engine in ("tgi", "tgi-3"):
            facts = (
                {"version": "1.4.4", "max_batch_total_tokens": shapes.ROOM} if engine == "tgi" else {"version": "3.3.7"}
            )
            return self.whole(200, shapes.dump({"model_id": self.options.model, **facts}), "application/json")
        if engine == "ollama" and path in ("/", "/api/version"):
            body = b"Ollama is running" if path == "/" else shapes.dump({"version": "0.0.0-fake"})
            return self.whole(200, body, "text/plain; charset=utf-8" if path == "/" else "application/json")
        if path == "/slots" and engine == "llamacpp":
            return self.whole(200, shapes.dump(shapes.slots(now)), "application/json")
        if path == "/metrics" and not self.options.no_metrics:
            try:
                return self.whole(200, *shapes.metrics(engine, now))
            except ValueError:
                pass
        if path == "/tokenize":
            body = json.loads(raw or b"{}")
            count = len(str(body.get("prompt", body.get("content", ""))).split())
            return self.whole(200, shapes.dump({"count": count, "tokens": list(range(count))}), "application/json")
        if path == "/fake/stall":
            self.engine.stalled_until = asyncio.get_running_loop().time() + float(knobs(query).get("s", "1"))
            return self.whole(200, b"{}", "application/json")
        if path == "/fake/counters":
            return self.whole(200, shapes.dump(vars(now)), "application/json")
        if path in ROUTES and engine == "vllm":
            return self.whole(405, *shapes.error(engine, "", 405, "Method Not Allowed"))
        return self.whole(404, *shapes.error(engine, "", 404, "Not Found"))

    def whole(self, status: int, body: bytes, kind: str, extra: list[tuple[str, str]] | None = None) -> bool:
        lines = [
            f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}",
            f"content-type: {kind}",
            f"content-length: {len(body)}",
            *(f"{name}: {value}" for name, value in extra or []),
        ]
        if not self.keep:
            lines.append("connection: close")
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return self.keep

    # Generation.

    def understand(self, route: str, query: str, raw: bytes) -> Job:
        """The request as a job. Raises ValueError(status, message) for what this engine refuses."""
        engine = self.options.engine
        try:
            body = json.loads(raw)
        except ValueError:
            raise ValueError(400, "JSON decode error") from None
        inner = body.get("parameters") or {} if route.startswith("generate") else body
        if route == "api_generate":
            inner = body.get("options") or {}
        if route == "chat":
            prompt = "\n".join(str(message.get("content")) for message in body.get("messages") or [])
        elif route == "mii":
            prompt = (body.get("prompts") or [""])[0]
        else:
            prompt = body.get("inputs" if route.startswith("generate") else "prompt")
        if not isinstance(prompt, str):
            raise ValueError(400, "key 'prompt' not found")
        wanted = knobs(query)
        for line in prompt.splitlines():
            if line.startswith("fake:"):
                wanted |= knobs(line[5:])
        limit = inner.get(
            "max_new_tokens",
            inner.get(
                "n_predict", inner.get("num_predict", inner.get("max_tokens", inner.get("max_completion_tokens")))
            ),
        )
        stream = route == "generate_stream" or bool(body.get("stream", route == "api_generate")) and route != "mii"
        count = len(prompt.split())
        self.record["prompt"] = prompt[:80]
        self.record["body"] = {
            key: value for key, value in body.items() if key not in ("prompt", "inputs", "messages", "prompts")
        }
        job = Job(
            engine,
            route,
            body,
            prompt,
            count,
            limit if isinstance(limit, int) and limit >= 0 else self.options.tokens,
            stream,
            self.options.model,
            int(wanted.get("cached", 0)),
            wanted,
        )
        if "status" in wanted:
            raise ValueError(int(wanted["status"]), wanted.get("message", "asked for").replace("_", " "))
        if engine in ("tgi", "tgi-3") and route.startswith("generate"):
            for name, bad in (
                ("temperature", lambda v: v <= 0),
                ("top_p", lambda v: not 0 < v < 1),
                ("top_k", lambda v: v <= 0),
            ):
                if inner.get(name) is not None and bad(inner[name]):
                    raise ValueError(422, f"Input validation error: `{name}` is out of range")
        if engine == "transformers" and body.keys() - TRANSFORMERS:
            raise ValueError(422, f"Unexpected fields in the request: {body.keys() - TRANSFORMERS}")
        if engine in ("vllm", "vllm-0.4", "aphrodite", "ollama") and body.get("model") not in (
            None,
            self.options.model,
        ):
            raise ValueError(404, f"The model `{body['model']}` does not exist.")
        if self.options.context and count + 1 > self.options.context:
            raise ValueError(
                422 if engine.startswith("tgi") else 400,
                f"request ({count} tokens) exceeds the available context size ({self.options.context} tokens)",
            )
        return job

    async def answer(self, route: str, query: str, headers: dict[str, str], raw: bytes) -> bool:
        engine = self.engine
        if self.options.api_key and headers.get("authorization") != f"Bearer {self.options.api_key}":
            return self.refuse(route, 401, "Invalid API Key")
        if not route:
            return self.refuse("", 404, "Not Found")
        try:
            job = self.understand(route, query, raw)
        except ValueError as error:
            return self.refuse(route, *error.args)
        if time.monotonic() - engine.started < self.options.load_s:
            return self.refuse(route, 503, "Loading model")
        if self.options.max_queue and engine.counters.waiting >= self.options.max_queue:
            return self.refuse(route, 429 if job.engine.startswith("tgi") else 503, "The request queue is full.")
        if "hang" in job.knobs:
            await asyncio.Event().wait()
        if "close" in job.knobs or "reset" in job.knobs:
            self.record["outcome"] = "dropped"
            return self.drop("reset" in job.knobs)
        if "replay" in job.knobs:
            return await self.replay(job)
        self.split = int(job.knobs.get("split", self.options.split))
        late = job.engine in ("llamacpp", "powerinfer")
        if job.engine == "powerinfer" and self.options.slots and engine.counters.running >= self.options.slots:
            # It does not queue: a stream without a word, or the text of its handler for unknown paths.
            if not job.stream:
                return self.refuse(route, 404, "File Not Found")
            self.record["outcome"] = "no slot"
            self.begin(job)
            return self.finish()
        if job.stream and not late:
            self.begin(job)
        await engine.admit()
        try:
            if job.stream and late:
                self.begin(job)
            return await self.generate(job)
        finally:
            engine.release()
            engine.counters.ended += 1
            engine.counters.prompt_ended += job.prompt_tokens - job.cached_tokens
            engine.counters.generated_ended += self.record["tokens"]

    def refuse(self, route: str, status: int, message: str) -> bool:
        self.record["outcome"] = f"status {status}"
        streamed = (
            self.options.engine in ("tgi", "tgi-3") and route == "generate_stream" and status < 500 and status != 401
        )
        if streamed:  # TGI's errors come inside a 200
            body, _ = shapes.error(self.options.engine, route, status, message)
            return self.whole(200, b"data:" + body + b"\n\n", "text/event-stream")
        return self.whole(status, *shapes.error(self.options.engine, route, status, message))

    def drop(self, reset: bool = False) -> bool:
        if reset:
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.keep = False
        self.writer.transport.abort()
        return False

    def begin(self, job: Job) -> None:
        kind = "application/x-ndjson" if job.route == "api_generate" else "text/event-stream; charset=utf-8"
        lines = ["HTTP/1.1 200 OK", f"content-type: {kind}"]
        self.chunked = "plain" not in job.knobs
        if self.chunked:
            lines.append("transfer-encoding: chunked")
        else:
            self.keep = False
        if not self.keep:
            lines.append("connection: close")
        self.record["headers_at"] = round(time.time(), 6)
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def send(self, data: bytes) -> float:
        """Write one piece of the body, in one segment or several; the time just before its last write."""
        if self.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self.split:
            for start in range(0, len(data) - self.split, self.split):
                self.writer.write(data[start : start + self.split])
                await asyncio.sleep(0)
            data = data[(len(data) - 1) // self.split * self.split :]
        at = time.time()
        self.writer.write(data)
        if self.writer.transport.get_write_buffer_size() > 1 << 16:
            await self.writer.drain()
        return at

    def finish(self) -> bool:
        if self.chunked:
            self.writer.write(b"0\r\n\r\n")
        return self.keep

    async def replay(self, job: Job) -> bool:
        raw = (WIRE / job.knobs["replay"]).read_bytes()
        if not raw.startswith(b"HTTP/"):
            raw = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + raw
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
        if b"transfer-encoding: chunked" in head.lower():
            pieces = [piece + b"\n\n" for piece in body.removesuffix(b"\n\n").split(b"\n\n")]
        else:
            self.chunked, pieces = False, [body]
            lines.append(b"content-length: %d" % len(body))
        self.split = int(job.knobs.get("split", 0))
        self.writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
        for piece in pieces:
            self.record["write_at"].append(round(await self.send(piece), 6))
            await asyncio.sleep(float(job.knobs.get("gap_ms", 0)) / 1000)
        self.record["outcome"] = "replayed"
        return self.finish()

    async def generate(self, job: Job) -> bool:
        option, wanted, record, counters = self.options, job.knobs, self.record, self.engine.counters
        gap = float(wanted.get("gap_ms", option.gap_ms)) / 1000
        limit = int(wanted.get("tokens", min(job.max_tokens, option.tokens)))
        reason = "length"
        if "eos" in wanted and not job.body.get("ignore_eos") and int(wanted["eos"]) < limit:
            limit, reason = int(wanted["eos"]), "stop"
        if "endless" in wanted:
            limit = 1 << 60
        if "error" in wanted and not job.stream:
            return self.refuse(job.route, 500, "the engine stopped in the middle")
        each, burst = int(wanted.get("per_event", option.per_event)), int(wanted.get("burst", option.burst))
        number: dict[str, int] = {
            key: int(wanted[key]) for key in ("cut", "end", "error", "utf8", "json", "at") if key in wanted
        }
        empty, big = int(wanted.get("empty", 0)), int(wanted.get("big", 0))
        loop = asyncio.get_running_loop()
        due = loop.time() + float(wanted.get("ttft_ms", option.ttft_ms)) / 1000
        counters.prompt_live += job.prompt_tokens
        counters.prefix_queries += job.prompt_tokens
        counters.prefix_hits += job.cached_tokens
        if job.stream:
            for _ in range(int(wanted.get("keepalive", 0)) if job.route != "api_generate" else 0):
                await self.send(b":\n\n")
            for event in shapes.first(job):
                await self.send(self.frame(job, event))
        text, count, events = "", 0, 0
        seed = sum(job.prompt.encode())
        while count < limit:
            if "stall" in wanted and events + 1 == number.get("at", 1):
                due += float(wanted["stall"])
            due = max(due, self.engine.stalled_until)
            pause = due - loop.time()
            await asyncio.sleep(max(pause, 0))
            payload, tokens, pieces = b"", 0, 0
            while pieces < burst and count < limit:
                made = min(each, limit - count)
                words = "".join([WORDS[(seed + count + k) % len(WORDS)] for k in range(made)]) + "x" * big
                if empty and (count + made) % empty == 0 and count + made < limit:
                    words = ""
                count += made
                tokens += made
                pieces += 1
                text += words
                events += 1
                event = shapes.token(job, words, count, count >= limit, reason, text)
                payload += self.spoil(self.frame(job, event), events, number)
                if events in (number.get("cut"), number.get("end"), number.get("error")):
                    break
            counters.generated_live += tokens
            if each > 1:
                counters.drafts += pieces
                counters.draft_tokens += pieces * (each - 1)
                counters.accepted += tokens - pieces
            record["tokens"], record["text"] = count, text
            if job.stream:
                record["write_at"].append(round(await self.send(payload), 6))
                record["write_tokens"].append(tokens)
            if events == number.get("cut"):
                record["outcome"] = "cut"
                await self.writer.drain()
                self.keep = False
                return False  # the connection is closed without the last chunk
            if events == number.get("end"):
                record["outcome"] = "ended early"
                return self.finish()
            if events == number.get("error"):
                record["outcome"] = "error event"
                await self.send(self.frame(job, shapes.error_event(job, "the engine stopped in the middle")))
                return await self.close(job)
            due += gap
        if "error" in wanted and number["error"] == 0 and job.stream:
            await self.send(self.frame(job, shapes.error_event(job, "the engine refused")))
            return await self.close(job)
        record["outcome"], record["finish_reason"] = "done", reason
        if not job.stream:
            body, extra = shapes.document(job, text, count, reason)
            return self.whole(200, shapes.dump(body), "application/json", extra)
        for event in shapes.last(job, text, count, reason):
            await self.send(self.frame(job, event))
        return await self.close(job)

    async def close(self, job: Job) -> bool:
        # Native streams have no end mark, nor have TGI 1.4 and transformers.
        if job.route in ("completions", "chat") and job.engine in shapes.DONE and "nodone" not in job.knobs:
            end = b"\r\n\r\n" if "crlf" in job.knobs else b"\n\n"
            await self.send(b"data: [DONE]" + end)
        return self.finish()

    @staticmethod
    def frame(job: Job, event: dict) -> bytes:
        if job.route == "api_generate":
            return shapes.dump(event) + (b"\r\n" if "crlf" in job.knobs else b"\n")
        start = b"data:" if job.engine == "tgi" else b"data: "
        return start + shapes.dump(event) + (b"\r\n\r\n" if "crlf" in job.knobs else b"\n\n")

    @staticmethod
    def spoil(data: bytes, number: int, wanted: dict[str, int]) -> bytes:
        if number == wanted.get("utf8"):
            for key in (b'"text":"', b'"content":"'):
                data = data.replace(key, key + b"\xff\xfe", 1)
            return data
        if number == wanted.get("json"):
            return data.replace(b'"}', b'"', 1).replace(b"{", b"{{", 1)
        return data


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=shapes.ENGINES, default="vllm")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="fake")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--tokens", type=int, default=16, help="most tokens of an answer")
    parser.add_argument("--ttft-ms", type=float, default=0)
    parser.add_argument("--gap-ms", type=float, default=0)
    parser.add_argument("--per-event", type=int, default=1)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--split", type=int, default=0)
    parser.add_argument("--slots", type=int, default=0, help="requests that run at once; 0: no limit")
    parser.add_argument("--max-queue", type=int, default=0, help="refuse when so many wait; 0: never")
    parser.add_argument("--context", type=int, default=0, help="refuse prompts of more words; 0: never")
    parser.add_argument("--load-s", type=float, default=0, help="answer 503 for so long after the start")
    parser.add_argument("--exit-after", type=int, default=0, help="die without a word at the request after this many")
    parser.add_argument("--close", action="store_true", help="close the connection after each answer")
    parser.add_argument("--no-metrics", action="store_true")
    parser.add_argument("--truth", default="")
    parser.add_argument("--uvloop", action="store_true")
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    engine = Engine(options)
    server = await asyncio.start_server(engine.connection, options.host, options.port, limit=1 << 24, backlog=4096)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await stop.wait()
    server.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    options = arguments()
    if options.uvloop:
        import uvloop

        uvloop.run(serve(options))
    else:
        asyncio.run(serve(options))


if __name__ == "__main__":
    main()
