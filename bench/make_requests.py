"""Write synthetic request records: COUNT requests of EVENTS events from CLIENTS clients in turn, seeded, to standard
output.

Usage: python bench/make_requests.py [--count 100000] [--events 64] [--clients 128] [--seed 1] > requests.jsonl
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import sys

import numpy as np
import orjson


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=64)
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    free = [1_700_000_000.0 + client * 0.001 for client in range(options.clients)]
    heapq.heapify(free)
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(512)]
    sampling = {"max_tokens": options.events, "temperature": 0.1, "top_k": 100, "top_p": 0.3, "ignore_eos": True}
    text = "The quick brown fox jumps over the lazy dog. " * (options.events * 4 // 45 + 1)
    done = 0
    while done < options.count:
        many = min(4096, options.count - done)
        gaps = np.round(random.gamma(4.0, 0.005, (many, options.events)), 6)
        gaps[:, 0] += 0.05
        times = np.round(np.cumsum(gaps, axis=1), 6)
        lines = []
        for index in range(many):
            launched = heapq.heappop(free)
            events = times[index].tolist()
            end = round(events[-1] + 0.0002, 6)
            heapq.heappush(free, launched + end + 0.004)
            number = done + index
            lines.append(
                orjson.dumps(
                    {
                        "kind": "request",
                        "v": 1,
                        "id": f"{number:032x}",
                        "prompt": f"{number % 512:04d}.txt",
                        "prompt_sha256": hashes[number % 512],
                        "attempt": 1,
                        "engine": "vllm",
                        "api": "openai-completions",
                        "model": "vicuna-7b",
                        "base_url": "http://127.0.0.1:8000",
                        "stream": True,
                        "status": "ok",
                        "error": None,
                        "host": "bench",
                        "pid": 1000 + number % options.clients,
                        "slot": number % options.clients + 1,
                        "seq": number + 1,
                        "launcher": "pool",
                        "concurrency": options.clients,
                        "scheduled_at": None,
                        "launched_at": round(launched, 6),
                        "sent_at": round(launched + 0.001, 6),
                        "lateness_s": None,
                        "connect_s": 0.0002,
                        "headers_s": 0.001,
                        "ttft_s": events[0],
                        "e2e_s": end,
                        "effective_ttft_s": None,
                        "effective_e2e_s": None,
                        "event_s": events,
                        "event_tokens": [1] * options.events,
                        "clock": "kernel",
                        "cpu_wait_s": 0.0003,
                        "prompt_tokens": 357,
                        "cached_tokens": 0,
                        "output_tokens": options.events,
                        "token_source": "engine",
                        "finish_reason": "length",
                        "text": text[: options.events * 4],
                        "sampling": sampling,
                        "bytes_sent": 1800,
                        "bytes_received": 300 * options.events,
                    },
                    option=orjson.OPT_APPEND_NEWLINE,
                )
            )
        sys.stdout.buffer.write(b"".join(lines))
        done += many


if __name__ == "__main__":
    main()
