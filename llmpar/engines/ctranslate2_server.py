"""A small OpenAI completions server over ctranslate2.Generator, which has no server of its own. llmpar's own work.

    python ctranslate2_server.py --model DIR --port 8010

DIR holds a converted model (model.bin) and its tokenizer.json. Requests that wait and ask for the same sampling are put
into one call of `generate_batch`, at most --max-batch-size of them: CTranslate2's batches start together, and a request
that comes later waits for the next one. Only the standard library, ctranslate2 and tokenizers are used, so that any
Python that has the two can run it. Answers name it in `server` and `system_fingerprint`.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Beside this file lie modules called like packages (ctranslate2.py): they must not be found first.
HERE = os.path.dirname(os.path.abspath(__file__))
if __name__ == "__main__":
    sys.path[:] = [each for each in sys.path if os.path.abspath(each or ".") != HERE]

VERSION = "1"
FINGERPRINT = f"llmpar-ctranslate2-server-{VERSION}"
DEFAULTS = {"max_tokens": 16, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


class Refused(Exception):
    """The request asks for something that cannot be done; the text is for the client, with HTTP status 400."""


class Job:
    """One request: its prompt as tokens, its sampling, and a queue of what was generated: token ids, then None."""

    def __init__(self, tokens: list[str], options: dict[str, Any], stop: list[str]):
        self.tokens, self.options, self.stop = tokens, options, stop
        self.out: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.cancelled = False

    def group(self) -> tuple[tuple[str, Any], ...]:
        """Jobs of equal groups can share a batch."""
        return tuple(sorted(self.options.items()))


def options_of(body: dict[str, Any], room: int) -> dict[str, Any]:
    """Canonical generation options of a request's body, at most `room` tokens of output. Raises Refused."""
    for name in ("best_of", "n"):
        if body.get(name, 1) != 1:
            raise Refused(f"{name} above 1 is not offered")
    for name in ("seed", "logprobs", "suffix", "logit_bias"):
        if body.get(name) is not None:
            raise Refused(
                f"{name} is not offered per request" + (": give --seed at the start" if name == "seed" else "")
            )
    values = {name: default if body.get(name) is None else body[name] for name, default in DEFAULTS.items()}
    for name, least, most in (("max_tokens", 1, None), ("temperature", 0, None), ("top_k", -1, None), ("top_p", 0, 1)):
        value = values[name]
        whole = name in ("max_tokens", "top_k")
        if (
            isinstance(value, bool)
            or not isinstance(value, int if whole else (int, float))
            or value < least
            or (most and value > most)
        ):
            raise Refused(
                f"{name} is {value!r}: a{' whole' if whole else ''} number from {least} is wanted"
                + (f" to {most}" if most else "")
            )
    if room < 1:
        raise Refused("the prompt fills the context: no token can be generated")
    greedy = values["temperature"] == 0
    return {
        "max_length": min(values["max_tokens"], room),
        "sampling_temperature": 1.0 if greedy else float(values["temperature"]),
        "sampling_topk": 1 if greedy else max(values["top_k"], 0),
        "sampling_topp": 1.0 if greedy else float(values["top_p"]) or 1.0,
        "ignore_eos": bool(body.get("ignore_eos")),
    }


class Batcher:
    """Puts waiting jobs of equal options together and runs them; `workers` batches at a time."""

    def __init__(self, generator: Any, size: int, workers: int):
        self.generator, self.size = generator, size
        self.waiting: list[Job] = []
        self.changed = threading.Condition()
        self.running = 0
        for _ in range(workers):
            threading.Thread(target=self._work, daemon=True).start()

    def add(self, job: Job) -> None:
        with self.changed:
            self.waiting.append(job)
            self.changed.notify()

    def _take(self) -> list[Job]:
        with self.changed:
            while not self.waiting:
                self.changed.wait()
            # The oldest leads, and those that ask for the same go with it.
            group = self.waiting[0].group()
            taken = [job for job in self.waiting if job.group() == group][: self.size]
            self.waiting = [job for job in self.waiting if job not in taken]
            self.running += len(taken)
            return taken

    def _work(self) -> None:
        while True:
            jobs = self._take()
            try:
                self._run(jobs)
            except Exception as error:  # whatever the engine threw belongs to these requests
                for job in jobs:
                    job.out.put(error)
            finally:
                with self.changed:
                    self.running -= len(jobs)
                for job in jobs:
                    job.out.put(None)

    def _run(self, jobs: list[Job]) -> None:
        options = dict(jobs[0].options)
        ignore = options.pop("ignore_eos")

        def step(result: Any) -> bool:
            job = jobs[result.batch_id]
            job.out.put((result.token_id, result.is_last))
            return job.cancelled

        more: dict[str, Any] = {"end_token": []} if ignore else {}
        self.generator.generate_batch(
            [job.tokens for job in jobs],
            include_prompt_in_result=False,
            beam_size=1,
            max_batch_size=0,
            callback=step,
            **options,
            **more,
        )


class Text:
    """Token ids to text as they come. Text that may still change (half a character) is held back."""

    def __init__(self, tokenizer: Any, stop: list[str]):
        self.tokenizer, self.stop = tokenizer, stop
        self.ids: list[int] = []
        self.sent, self.ended = "", False

    def add(self, token: int) -> str:
        """The text that this token makes certain."""
        self.ids.append(token)
        return self._piece(False)

    def finish(self) -> str:
        """What was held back."""
        return self._piece(True)

    def _piece(self, last: bool) -> str:
        if self.ended:
            return ""
        whole = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        for stop in self.stop:
            place = whole.find(stop)
            if place >= 0:
                self.ended, whole, last = True, whole[:place], True
        if not last:
            whole = whole.rstrip("\ufffd")
            # What may be the beginning of a stop string waits until it is known.
            keep = max((n for stop in self.stop for n in range(1, len(stop)) if whole.endswith(stop[:n])), default=0)
            whole = whole[: len(whole) - keep]
        piece = whole[len(self.sent) :] if whole.startswith(self.sent) else ""
        self.sent += piece
        return piece


class Handler(BaseHTTPRequestHandler):
    """The routes: /health, /v1/models, /metrics and POST /v1/completions."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = FINGERPRINT
    service: Service  # set by main()

    def version_string(self) -> str:
        return f"{FINGERPRINT} (llmpar's own server over ctranslate2 {self.service.engine_version})"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        service = self.service
        if self.path == "/health":
            self._json(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": service.name, "object": "model", "owned_by": "llmpar"}]})
        elif self.path == "/metrics":
            batcher = service.batcher
            text = (
                "# llmpar's own server over ctranslate2\n"
                f"ctranslate2:num_requests_running {batcher.running}\nctranslate2:num_requests_waiting "
                f"{len(batcher.waiting)}\n"
                f"ctranslate2:prompt_tokens_total {service.prompt_tokens}\n"
                f"ctranslate2:generation_tokens_total {service.output_tokens}\n"
            )
            self._send(200, text.encode(), "text/plain; version=0.0.4")
        else:
            self._error(404, "not_found", f"there is no {self.path}")

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        body = self.rfile.read(int(length)) if length.isdigit() else b""
        if self.path != "/v1/completions":
            return self._error(404, "not_found", f"there is no {self.path}")
        try:
            body = json.loads(body)
            if not isinstance(body, dict) or not isinstance(body.get("prompt"), str):
                raise Refused("a JSON object with a prompt, one string, is wanted")
            stop = body.get("stop") or []
            stop = [stop] if isinstance(stop, str) else stop
            if not isinstance(stop, list) or not all(isinstance(each, str) and each for each in stop):
                raise Refused("stop is a string or a list of strings")
            tokens = self.service.tokenizer.encode(body["prompt"]).tokens
            if not tokens:
                raise Refused("the prompt has no tokens")
            job = Job(tokens, options_of(body, self.service.max_length - len(tokens)), stop)
        except Refused as error:
            return self._error(400, "invalid_request_error", str(error))
        except ValueError as error:
            return self._error(400, "invalid_request_error", f"the body is not JSON: {error}")
        self.service.batcher.add(job)
        try:
            (self._stream if body.get("stream") else self._whole)(body, job)
        except OSError:  # the client went away
            job.cancelled = True
            self.close_connection = True

    def _whole(self, body: dict[str, Any], job: Job) -> None:
        text = Text(self.service.tokenizer, job.stop)
        parts = list(self._pieces(job, text))
        reason, error = parts[-1][1:]
        if error is not None:
            return self._error(500, "engine_error", str(error))
        whole = "".join([part[0] for part in parts])
        self._json(200, {**self._head(), "choices": [self._choice(whole, reason)], "usage": self._usage(job, text)})

    def _stream(self, body: dict[str, Any], job: Job) -> None:
        asked = body.get("stream_options") or {}
        usage, running = bool(asked.get("include_usage")), bool(asked.get("continuous_usage_stats"))
        head, text = self._head(), Text(self.service.tokenizer, job.stop)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece, reason, error in self._pieces(job, text):
            if error is not None:
                self._event({"error": {"type": "engine_error", "message": str(error)}})
                break
            if piece or reason:
                event = {**head, "choices": [self._choice(piece, reason)]}
                if running:
                    event["usage"] = self._usage(job, text)
                self._event(event)
        else:
            if usage:
                self._event({**head, "choices": [], "usage": self._usage(job, text)})
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _pieces(self, job: Job, text: Text) -> Iterator[tuple[str, str | None, Exception | None]]:
        """(text, finish reason or None, error or None) for each token; the last has the reason."""
        held, reason = None, "length"
        while (item := job.out.get()) is not None:
            if isinstance(item, Exception):
                yield "", None, item
                return
            token, last = item
            if text.ended:
                continue  # the batch goes on for others
            if token in self.service.ends and not job.options["ignore_eos"]:
                reason = "stop"
                continue
            piece = text.add(token)
            self.service.count(output=1)
            if text.ended:
                job.cancelled, reason = True, "stop"
            # One token behind, so that the last text and the reason go out together.
            if held:
                yield held, None, None
            held = piece
            if not last and not text.ended and held:
                yield held, None, None
                held = None
        self.service.count(prompt=len(job.tokens))
        yield (held or "") + text.finish(), reason, None

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.service.name,
            "system_fingerprint": FINGERPRINT,
        }

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}

    def _usage(self, job: Job, text: Text) -> dict[str, int]:
        return {
            "prompt_tokens": len(job.tokens),
            "completion_tokens": len(text.ids),
            "total_tokens": len(job.tokens) + len(text.ids),
        }

    def _event(self, value: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _json(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _error(self, status: int, kind: str, message: str) -> None:
        self._json(status, {"error": {"message": message, "type": kind, "code": status}})

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Service:
    """What the handlers share."""

    def __init__(self, given: argparse.Namespace):
        import ctranslate2
        from tokenizers import Tokenizer

        if given.seed is not None:
            ctranslate2.set_random_seed(given.seed)
        path = os.path.join(given.model, "tokenizer.json")
        if not os.path.exists(path):
            sys.exit(f"error: no tokenizer.json in '{given.model}': convert with --copy_files tokenizer.json")
        self.tokenizer = Tokenizer.from_file(path)
        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        generator = ctranslate2.Generator(
            given.model,
            device=device,
            compute_type=given.compute_type,
            inter_threads=given.workers,
            intra_threads=given.threads,
        )
        self.engine_version, self.name, self.max_length = ctranslate2.__version__, given.name, given.max_length
        self.ends = self._end_tokens(given.model)
        self.batcher = Batcher(generator, given.max_batch_size, given.workers)
        self.prompt_tokens = self.output_tokens = 0
        self._lock = threading.Lock()

    def _end_tokens(self, model: str) -> set[int]:
        with open(os.path.join(model, "config.json"), encoding="utf-8") as stream:
            word = json.load(stream).get("eos_token")
        words = word if isinstance(word, list) else [word]
        return {found for each in words if each and (found := self.tokenizer.token_to_id(each)) is not None}

    def count(self, prompt: int = 0, output: int = 0) -> None:
        """Add to what /metrics tells."""
        with self._lock:
            self.prompt_tokens += prompt
            self.output_tokens += output


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--name", help="what clients call it; default: the directory's name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8010)
    parser.add_argument("--compute-type", default="default")
    parser.add_argument("--max-length", type=int, default=2048, help="prompt and output of one request, in tokens")
    parser.add_argument("--max-batch-size", type=int, default=16, help="requests in one batch")
    parser.add_argument("--workers", type=int, default=1, help="batches at a time")
    parser.add_argument("--threads", type=int, default=0, help="of one worker on a CPU; 0 is CTranslate2's default")
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    given.name = given.name or os.path.basename(os.path.abspath(given.model))
    Handler.service = Service(given)
    Server.address_family = socket.AF_INET6 if ":" in given.host else socket.AF_INET
    server = Server((given.host, given.port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"ready on http://{given.host}:{server.server_port}", flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
