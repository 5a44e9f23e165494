"""The JSON that each engine sends, as in tests/wire: events, documents, errors and metrics for tests/fake_engine.py."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

# Engines whose streams end with [DONE].
DONE = {"vllm", "vllm-0.4", "aphrodite", "tgi-3", "llamacpp", "sglang", "lmdeploy", "trtllm", "mii"}
ENGINES = (
    "vllm",
    "vllm-0.4",
    "aphrodite",
    "tgi",
    "tgi-3",
    "llamacpp",
    "transformers",
    "sglang",
    "lmdeploy",
    "trtllm",
    "mii",
    "powerinfer",
    "ollama",
)
CREATED = 1712000000
RESERVED = 100  # tokens of KV cache that a running request holds in the fake's TGI and llama.cpp
ROOM = 1000  # tokens that TGI's batch may reserve, and that each slot of llama.cpp holds


@dataclass
class Job:
    """One request as the fake understood it."""

    engine: str
    route: str  # completions, chat, completion, generate, generate_stream, mii, api_generate
    body: dict[str, Any]
    prompt: str
    prompt_tokens: int
    max_tokens: int
    stream: bool
    model: str
    cached_tokens: int = 0
    knobs: dict[str, str] = field(default_factory=dict)

    @property
    def native_tgi(self) -> bool:
        return self.route in ("generate", "generate_stream")

    @property
    def wants_usage(self) -> bool:
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    @property
    def wants_running(self) -> bool:
        return bool((self.body.get("stream_options") or {}).get("continuous_usage_stats"))


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def usage(job: Job, count: int) -> dict[str, Any]:
    block: dict[str, Any] = {
        "prompt_tokens": job.prompt_tokens,
        "total_tokens": job.prompt_tokens + count,
        "completion_tokens": count,
    }
    if job.engine == "llamacpp":
        block["prompt_tokens_details"] = {"cached_tokens": job.cached_tokens}
    return block


def timings(job: Job, count: int) -> dict[str, Any]:
    return {
        "cache_n": job.cached_tokens,
        "prompt_n": job.prompt_tokens - job.cached_tokens,
        "prompt_ms": 10.0,
        "predicted_n": count,
        "predicted_ms": 20.0 * count,
    }


def _head(job: Job, chat: bool) -> dict[str, Any]:
    if job.engine == "tgi":
        return {
            "id": "",
            "object": "text_completion",
            "created": CREATED,
            "model": job.model,
            "system_fingerprint": "1.4.4-sha-6c4496a",
        }
    if job.engine == "tgi-3":
        return {
            "object": "chat.completion.chunk" if chat else "text_completion",
            "id": "",
            "created": CREATED,
            "model": job.model,
            "system_fingerprint": "3.3.7-native",
        }
    return {
        "id": "cmpl-1",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": CREATED,
        "model": job.model,
    }


def first(job: Job) -> list[dict[str, Any]]:
    """Events before the first token: a chat's role, llama.cpp's progress where it was asked for."""
    if job.route == "chat" and job.engine not in ("tgi", "tgi-3"):
        delta: dict[str, Any] = {"role": "assistant"}
        if job.engine == "llamacpp":
            delta["content"] = None
        elif job.engine != "transformers":
            delta["content"] = ""
        return [{**_head(job, True), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
    if job.route == "completion" and job.body.get("return_progress"):
        return [
            {
                "index": 0,
                "content": "",
                "tokens": [0],
                "stop": False,
                "id_slot": -1,
                "tokens_predicted": 0,
                "tokens_evaluated": job.prompt_tokens,
                "prompt_progress": {"total": job.prompt_tokens, "cache": 0, "processed": n, "time_ms": n},
            }
            for n in (0, job.prompt_tokens)
        ]
    return []


def _details(job: Job, count: int, reason: str) -> dict[str, Any] | None:
    if not (job.body.get("parameters") or {}).get("details"):
        return None
    details = {"finish_reason": "eos_token" if reason == "stop" else reason, "generated_tokens": count, "seed": 1}
    if job.engine == "tgi-3":
        details["input_length"] = job.prompt_tokens
    return details


def token(job: Job, text: str, sofar: int, last: bool, reason: str, whole: str) -> dict[str, Any]:
    """One event with text; `sofar` counts tokens with this event's, `last`: generation ends with it, having made
    `whole`."""
    if job.route == "api_generate":
        return {"model": job.model, "created_at": "2024-04-01T00:00:00Z", "response": text, "done": False}
    if job.native_tgi:
        value: dict[str, Any] = {
            "index": sofar,
            "token": {"id": 100 + sofar, "text": text, "logprob": -0.5, "special": False},
            "generated_text": None,
            "details": None,
        }
        if last and reason == "length":
            value |= {"generated_text": whole, "details": _details(job, sofar, reason)}
        return value
    if job.route == "completion":
        if job.engine == "powerinfer":
            return {"content": text, "multimodal": False, "slot_id": 0, "stop": False}
        return {
            "index": 0,
            "content": text,
            "tokens": [100 + sofar],
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": sofar,
            "tokens_evaluated": job.prompt_tokens,
        }
    chat = job.route == "chat"
    # These engines put the reason beside the last text; llama.cpp and transformers send one more event for it.
    told = reason if last and job.engine not in ("llamacpp", "transformers") else None
    if chat:
        delta = {"content": text}
        if job.engine in ("tgi", "tgi-3"):
            delta = {"role": "assistant", "content": text}
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": told}
    else:
        if job.engine == "tgi" or (job.engine == "tgi-3" and told is None):
            told = ""
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": told}
    if job.engine == "transformers":
        choice.pop("finish_reason")
        choice.pop("logprobs", None)
    value = {**_head(job, chat), "choices": [choice]}
    if job.engine == "aphrodite":
        value["usage"] = None
    if job.wants_running and job.engine in ("vllm", "sglang", "trtllm", "aphrodite"):
        value["usage"] = usage(job, sofar)
    if last and (job.engine == "vllm-0.4" or (job.engine == "tgi-3" and not chat)):
        value["usage"] = usage(job, sofar)
    return value


def last(job: Job, text: str, count: int, reason: str) -> list[dict[str, Any]]:
    """Events after the last text."""
    if job.route == "api_generate":
        ended = {"done": True, "done_reason": reason, "total_duration": 10**9, "load_duration": 0}
        counts = {
            "prompt_eval_count": job.prompt_tokens,
            "prompt_eval_duration": 10**7,
            "eval_count": count,
            "eval_duration": 10**8,
        }
        return [{"model": job.model, "created_at": "2024-04-01T00:00:00Z", "response": "", **ended, **counts}]
    if job.native_tgi:
        if reason == "length":
            return []
        # The end-of-text token, special and counted, carries the whole text and the details.
        return [
            {
                "index": count + 1,
                "token": {"id": 2, "text": "</s>", "logprob": -0.1, "special": True},
                "generated_text": text,
                "details": _details(job, count + 1, reason),
            }
        ]
    if job.route == "completion":
        ending: dict[str, Any] = {
            "index": 0,
            "content": "",
            "tokens": [],
            "stop": True,
            "tokens_predicted": count,
            "tokens_evaluated": job.prompt_tokens,
            "truncated": False,
            "timings": timings(job, count),
        }
        if job.engine == "powerinfer":
            ending |= {"stopped_eos": reason == "stop", "stopped_limit": reason == "length", "stopped_word": False}
        else:
            ending |= {"stop_type": "eos" if reason == "stop" else "limit", "stopping_word": ""}
        return [ending]
    chat = job.route == "chat"
    closing: dict[str, Any] = {
        **_head(job, chat),
        "choices": [{"index": 0, "delta" if chat else "text": {} if chat else "", "finish_reason": reason}],
    }
    counts = {**_head(job, chat), "choices": [], "usage": usage(job, count)}
    if job.engine == "transformers":
        return [{**closing, "usage": usage(job, count)}]
    if job.engine == "llamacpp":
        if chat and job.wants_usage:
            return [closing, {**counts, "timings": timings(job, count)}]
        return [{**closing, **({} if chat else {"usage": usage(job, count)}), "timings": timings(job, count)}]
    if job.engine == "aphrodite":
        return [{**closing, "usage": usage(job, count)}]
    if job.engine in ("vllm", "sglang", "lmdeploy", "trtllm") and job.wants_usage:
        return [counts]
    if job.engine == "tgi-3" and chat and job.wants_usage:
        return [counts]
    return []


def document(job: Job, text: str, count: int, reason: str) -> tuple[Any, list[tuple[str, str]]]:
    """The answer that is not streamed, and its extra headers."""
    headers = []
    if job.engine in ("tgi", "tgi-3"):
        headers = [("x-prompt-tokens", str(job.prompt_tokens)), ("x-generated-tokens", str(count))]
        if reason == "stop":
            reason = "eos_token"
    if job.native_tgi:
        value: dict[str, Any] = {"generated_text": text}
        if (job.body.get("parameters") or {}).get("details"):
            value["details"] = {
                "finish_reason": reason,
                "generated_tokens": count,
                "seed": 1,
                "prefill": [],
                "tokens": [],
            }
        return value, headers
    if job.route == "api_generate":
        (ended,) = last(job, text, count, reason)
        return {**ended, "response": text}, headers
    if job.route == "mii":
        return [
            {
                "generated_text": text,
                "prompt_length": job.prompt_tokens,
                "generated_length": count,
                "finish_reason": reason,
            }
        ], headers
    if job.route == "completion":
        (ending,) = last(job, text, count, reason)
        return {**ending, "content": text}, headers
    chat = job.route == "chat"
    choice = {"index": 0, "finish_reason": reason}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text, "logprobs": None}
    value = {**_head(job, chat), "choices": [choice], "usage": usage(job, count)}
    if job.engine == "llamacpp":
        value["timings"] = timings(job, count)
    return value, headers


def error(engine: str, route: str, status: int, message: str) -> tuple[bytes, str]:
    """An error body in the engine's own envelope, and its content type."""
    if engine == "ollama" and route == "api_generate":
        return dump({"error": message}), "application/json"
    if engine == "powerinfer":
        return message.encode(), "text/plain"
    if engine in ("tgi", "tgi-3"):
        kind = {422: "validation", 424: "generation", 429: "overloaded", 503: "healthcheck"}.get(
            status, "incomplete_generation"
        )
        return dump({"error": message, "error_type": kind}), "application/json"
    if engine == "transformers":
        return dump({"detail": message}), "application/json"
    if engine == "llamacpp":
        kind = {
            400: "invalid_request_error",
            401: "authentication_error",
            404: "not_found_error",
            503: "unavailable_error",
        }.get(status, "server_error")
        return dump({"error": {"code": status, "message": message, "type": kind}}), "application/json; charset=utf-8"
    if engine in ("vllm-0.4", "aphrodite", "sglang", "lmdeploy", "trtllm"):
        return dump(
            {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": status}
        ), "application/json"
    if engine == "vllm" and status == 401:
        return dump({"error": "Unauthorized"}), "application/json"
    if engine == "vllm" and status in (404, 405) and not route:
        return dump({"detail": message}), "application/json"
    return dump(
        {
            "error": {
                "message": message,
                "type": "InternalServerError" if status >= 500 else "BadRequestError",
                "param": None,
                "code": status,
            }
        }
    ), "application/json"


def error_event(job: Job, message: str) -> dict[str, Any]:
    if job.native_tgi:
        return {"error": message, "error_type": "generation"}
    if job.engine == "tgi-3":
        return {"error": {"message": message, "http_status_code": 424}}
    return {"error": {"message": message, "type": "InternalServerError", "param": None, "code": 500}}


@dataclass
class Counters:
    """What the fake counts; `live` counters rise with each token, the others when a request ends."""

    running: int = 0
    waiting: int = 0
    slots: int = 1
    prompt_live: int = 0
    generated_live: int = 0
    prompt_ended: int = 0
    generated_ended: int = 0
    drafts: int = 0
    draft_tokens: int = 0
    accepted: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    ended: int = 0


def slots(now: Counters) -> list[dict[str, Any]]:
    """llama.cpp's /slots."""
    return [
        {
            "id": number,
            "n_ctx": ROOM,
            "is_processing": number < now.running,
            "n_prompt_tokens": RESERVED if number < now.running else 7,
        }
        for number in range(now.slots)
    ]


def metrics(engine: str, now: Counters) -> tuple[bytes, str]:
    """The engine's metrics document and its content type; ValueError for engines that have none."""
    usage_ratio = min(now.running / max(now.slots, 1), 1.0)
    lines: list[tuple[str, str, float]] = []
    if engine in ("vllm", "vllm-0.4", "aphrodite", "lmdeploy"):
        prefix = {"vllm-0.4": "vllm"}.get(engine, engine)
        label = '{model_name="fake"}'
        cache = "kv_cache_usage_perc" if engine == "vllm" else "gpu_cache_usage_perc"
        lines = [
            (f"{prefix}:num_requests_running{label}", "gauge", now.running),
            (f"{prefix}:num_requests_waiting{label}", "gauge", now.waiting),
            (f"{prefix}:{cache}{label}", "gauge", usage_ratio),
            (f"{prefix}:prompt_tokens_total{label}", "counter", now.prompt_live),
            (f"{prefix}:generation_tokens_total{label}", "counter", now.generated_live),
        ]
        if engine == "vllm":
            lines += [
                (f"vllm:num_preemptions_total{label}", "counter", now.preemptions),
                (f"vllm:prefix_cache_queries_total{label}", "counter", now.prefix_queries),
                (f"vllm:prefix_cache_hits_total{label}", "counter", now.prefix_hits),
                (f"vllm:spec_decode_num_drafts_total{label}", "counter", now.drafts),
                (f"vllm:spec_decode_num_draft_tokens_total{label}", "counter", now.draft_tokens),
                (f"vllm:spec_decode_num_accepted_tokens_total{label}", "counter", now.accepted),
            ]
    elif engine == "sglang":
        lines = [
            ("sglang:num_running_reqs", "gauge", now.running),
            ("sglang:num_queue_reqs", "gauge", now.waiting),
            ("sglang:token_usage", "gauge", usage_ratio),
            ("sglang:prompt_tokens_total", "counter", now.prompt_ended),
            ("sglang:generation_tokens_total", "counter", now.generated_ended),
        ]
    elif engine == "llamacpp":
        lines = [
            ("llamacpp:prompt_tokens_total", "counter", now.prompt_ended),
            ("llamacpp:prompt_tokens_cached_total", "counter", now.prefix_hits),
            ("llamacpp:tokens_predicted_total", "counter", now.generated_ended),
            ("llamacpp:requests_processing", "gauge", now.running),
            ("llamacpp:requests_deferred", "gauge", now.waiting),
            ("llamacpp:spec_decode_num_drafts_total", "counter", now.drafts),
            ("llamacpp:spec_decode_num_draft_tokens_total", "counter", now.draft_tokens),
            ("llamacpp:spec_decode_num_accepted_tokens_total", "counter", now.accepted),
        ]
    elif engine in ("tgi", "tgi-3"):
        lines = [("tgi_queue_size", "gauge", now.waiting), ("tgi_batch_current_size", "gauge", now.running)]
        lines.append(("tgi_batch_current_max_tokens", "gauge", RESERVED * now.running))
        text = "".join(f"# TYPE {name} {kind}\n{name} {value:g}\n\n" for name, kind, value in lines)
        for name, total in (
            ("tgi_request_generated_tokens", now.generated_ended),
            ("tgi_request_input_length", now.prompt_ended),
        ):
            text += (
                f'# TYPE {name} histogram\n{name}_bucket{{le="+Inf"}} {now.ended}\n{name}_sum {total}\n'
                f"{name}_count {now.ended}\n\n"
            )
        return text.encode(), "text/plain; charset=utf-8"
    elif engine == "trtllm":
        return dump(
            [
                {
                    "iter": now.generated_live,
                    "iterLatencyMS": 7.0,
                    "numActiveRequests": now.running,
                    "numQueuedRequests": now.waiting,
                    "kvCacheStats": {"maxNumBlocks": 1000, "usedNumBlocks": int(1000 * usage_ratio)},
                }
            ]
        ), "application/json"
    else:
        raise ValueError(f"{engine} has no metrics")
    out = ""
    for name, kind, value in lines:
        out += f"# TYPE {name.partition('{')[0]} {kind}\n{name} {float(value)}\n"
    return out.encode(), "text/plain; version=0.0.4"
