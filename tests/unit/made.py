"""Summaries made by hand in the shape of docs/records.md, for tests of what reads them."""

from __future__ import annotations

from typing import Any


def estimate(value: float | None, spread: float = 0.02, needed: int | None = None) -> dict[str, Any]:
    if value is None:
        return {"value": None, "needed": needed}
    return {"value": value, "low": value * (1 - spread), "high": value * (1 + spread)}


def distribution(value: float, n: int = 200, tails: bool = True) -> dict[str, Any]:
    p99 = estimate(value * 1.9) if tails else estimate(None, needed=1000)
    p95 = estimate(value * 1.6) if tails else estimate(None, needed=100)
    return {
        "n": n,
        "min": value * 0.5,
        "max": value * 2.5,
        "mean": estimate(value * 1.05),
        "p50": estimate(value),
        "p90": estimate(value * 1.4),
        "p95": p95,
        "p99": p99,
    }


def summary(
    wall: float = 20.0,
    *,
    sweep: str = "clients",
    repeat: int = 1,
    server: dict[str, Any] | None = None,
    load: dict[str, Any] | None = None,
    varies: tuple[str, ...] = ("clients",),
    ttft: float = 0.2,
    tpot: float = 0.02,
    tokens: int = 10_000,
    requests: int = 200,
    host: str = "box",
    gpus: tuple[str, ...] = (),
    tails: bool = True,
    limited: tuple[str, ...] = (),
    failed: int = 0,
    memory: float | None = None,
    warnings: tuple[str, ...] = (),
    prompts: str = "p" * 64,
) -> dict[str, Any]:
    server = {"engine": "llamacpp"} | (server or {})
    load = {"clients": 8, "launcher": "parallel", "prompts": "prompts", "max_tokens": 64} | (load or {})
    merged = server | load
    name = "-".join(f"{key}-{merged.get(key)}" for key in varies).replace("_", "-") or "only"
    session = "-".join([server["engine"], *[f"{key}-{server[key]}" for key in varies if key in server], f"r{repeat}"])
    flight = [min(load["clients"], index + 1) for index in range(40)] + [load["clients"] // 2, 1, 0]
    step = wall / len(flight)
    flat = {"value": None, "low": None, "high": None}
    return {
        "kind": "summary",
        "v": 1,
        "label": name,
        "session": f"{sweep}/{session}",
        "cell": {
            "kind": "cell",
            "v": 1,
            "id": f"{name}-r{repeat}",
            "sweep": sweep,
            "session": session,
            "repeat": repeat,
            "varies": {key: merged.get(key) for key in varies},
            "server": server,
            "load": load,
        },
        "n": {
            "requests": requests,
            "ok": requests - failed,
            "error": failed,
            "timeout": 0,
            "cancelled": 0,
            "retried": 0,
            "torn_lines": 0,
        },
        "failures": {"http": failed} if failed else {},
        "finish": {"length": requests - failed},
        "started_at": 1790000000.0,
        "ended_at": 1790000000.0 + wall,
        "wall_s": {"value": wall, "low": None, "high": None},
        "window": {
            "steady": True,
            "reason": None,
            "start_at": 1790000001.0,
            "end_at": 1790000000.0 + wall - 1,
            "duration_s": wall - 2,
            "ramp_s": 1.0,
            "drain_s": 1.0,
            "requests": requests - 10,
            "method": "mser-5",
        },
        "latency": {
            "ttft_s": distribution(ttft, requests, tails),
            "itl_s": distribution(tpot, tokens, tails),
            "event_latency_s": distribution(tpot, tokens, tails),
            "tpot_s": distribution(tpot, requests, tails),
            "e2e_s": distribution(ttft + 63 * tpot, requests, tails),
            "effective_ttft_s": None,
            "effective_e2e_s": None,
        },
        "throughput": {
            "output_tokens_per_s": {"wall": estimate(tokens / wall), "steady": estimate(tokens / wall * 1.05)},
            "total_tokens_per_s": {"wall": estimate(3 * tokens / wall), "steady": flat},
            "requests_per_s": {"wall": estimate(requests / wall), "steady": flat},
            "goodput_per_s": None,
        },
        "goodput": None,
        "concurrency": {
            "asked": load["clients"],
            "achieved": load["clients"] * 0.99,
            "ratio": 0.99,
            "steady": load["clients"] * 0.99,
            "wall": load["clients"] * 0.95,
            "peak": load["clients"],
        },
        "tokens": {"prompt": 2 * tokens, "output": tokens, "cached": 0, "output_asked": tokens},
        "client": {"limited": list(limited), "clock": {"kernel": requests}},
        "workload": {
            "prompts": {"distinct": requests, "sha256": prompts},
            "sampling": {"max_tokens": 64, "temperature": 0.0},
            "sampling_sha256": "s" * 64,
            "api": "openai-completions",
            "model": "gemma3-270m",
            "stream": True,
            "engine": server["engine"],
            "base_urls": "http://127.0.0.1:8080",
        },
        "series": {
            "start_at": 1790000000.0,
            "step_s": step,
            "in_flight": flight,
            "output_tokens_per_s": [tokens / wall for _ in flight],
        },
        "server": {"engine": server["engine"], "version": "1.0", "command": ["server", "--port", "8080"]},
        "host": {"hostname": host, "gpus": [{"name": name, "memory_bytes": 48 << 30} for name in gpus]},
        "gpu": None if memory is None else {"memory_used_bytes": {"max": memory}},
        "engine": None,
        "joined": None,
        "warnings": [{"code": code, "message": f"{code} happened", "try": "something else"} for code in warnings],
        "provenance": {"llmpar": "0.1.0", "confidence": 0.95, "options": {}, "records_sha256": "r" * 64},
    }


WALLS = {24: 39.1, 64: 22.7, 128: 17.8, 256: 18.0, 512: 19.5}


def study(repeats: int = 3) -> list[dict[str, Any]]:
    """A clients sweep of two engines and a speculation sweep, with the given repeats and a small, fixed noise."""
    made = []
    for repeat in range(1, repeats + 1):
        noise = 1 + 0.01 * ((repeat * 7) % 5 - 2)
        for engine, factor in (("vllm", 1.0), ("tgi", 1.15)):
            for clients, wall in WALLS.items():
                made.append(
                    summary(
                        wall * noise * factor,
                        server={"engine": engine},
                        load={"clients": clients},
                        repeat=repeat,
                        varies=("engine", "clients"),
                        ttft=0.05 + clients / 200,
                        tpot=0.008 + clients / 9000,
                        tokens=102_400,
                        requests=512,
                        gpus=("NVIDIA H100",),
                    )
                )
        for speculate, wall in ((0, 17.8), (1, 16.9), (2, 16.1), (8, 24.0)):
            made.append(
                summary(
                    wall * noise,
                    sweep="speculate",
                    server={"engine": "vllm", "speculate": speculate},
                    repeat=repeat,
                    load={"clients": 128},
                    varies=("speculate",),
                    tokens=102_400,
                    requests=512,
                    gpus=("NVIDIA H100",),
                )
            )
    return made
