"""Reading engines' metrics over HTTP: one scraper a server, all at once, never longer than a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO
from urllib.parse import urlsplit, urlunsplit

import orjson
import requests

from llmpar import clock, hostname, http_session, outside, records
from llmpar.sampling import engine_metrics
from llmpar.sampling.other_cpu import OtherCpu
from llmpar.sampling.processes import Processes
from llmpar.sampling.ticks import Ticks

DOCUMENT_LIMIT = 64 << 20  # bytes


class Server:
    """One server's metrics. `read` returns canonical fields and `error`, None or why there are none."""

    def __init__(self, url: str, key: str | None, timeout_s: float, verify: bool | str = True):
        self.url, self._timeout_s = url, timeout_s
        self._session = http_session.Session(key, verify)
        parts = urlsplit(url)
        self._base = urlunsplit((parts.scheme, parts.netloc, parts.path.removesuffix("/metrics").rstrip("/"), "", ""))
        self._slots = self._info = True
        self._prometheus = not parts.path.startswith("/prometheus")  # TensorRT-LLM's other page, not yet found missing
        self._capacity: int | None = None

    def read(self) -> dict[str, Any]:
        try:
            figures = engine_metrics.parse(self._get(self.url))
            if self._prometheus and not any(value is not None for value in figures.values()):
                figures = self._tensorrt(figures)
        except Exception as error:  # whatever a server says costs this sample alone
            return {"url": self.url, "error": _why(error), **dict.fromkeys(engine_metrics.FIELDS)}
        used = figures.pop("kv_used_tokens", None)
        if used is not None:
            figures["kv_capacity_tokens"] = self._tgi_capacity()
        elif figures["counters_at_end"] and figures["kv_usage_ratio"] is None and self._slots:
            used, figures["kv_capacity_tokens"] = self._llamacpp_slots()
        if used is not None and figures["kv_capacity_tokens"]:
            figures["kv_usage_ratio"] = used / figures["kv_capacity_tokens"]
        return {"url": self.url, "error": None, **figures}

    def _get(self, url: str) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        with self._session.get(url, timeout=self._timeout_s, stream=True) as answer:
            answer.raise_for_status()
            parts, size = [], 0
            for part in answer.iter_content(1 << 16):
                parts.append(part)
                size += len(part)
                if size > DOCUMENT_LIMIT:
                    raise ValueError(f"more than {DOCUMENT_LIMIT} bytes of metrics")
                if time.monotonic() > deadline:
                    raise requests.Timeout
        return b"".join(parts)

    def _tensorrt(self, found: dict[str, Any]) -> dict[str, Any]:
        """TensorRT-LLM's /metrics is an empty list where nothing new was iterated; its Prometheus page is never."""
        try:
            return engine_metrics.parse(self._get(self._base + "/prometheus/metrics"))
        except (requests.RequestException, ValueError) as error:
            self._prometheus = isinstance(error, requests.Timeout)
            return found

    def _tgi_capacity(self) -> int | None:
        """TGI counts the tokens that its batch has reserved; 1.4 tells in /info of how many, 3.x does not."""
        if self._info:
            try:
                value = orjson.loads(self._get(self._base + "/info")).get("max_batch_total_tokens")
                self._capacity = outside.count(value) or None
                self._info = False
            except (requests.RequestException, ValueError, AttributeError):
                self._info = False
        return self._capacity

    def _llamacpp_slots(self) -> tuple[int | None, int | None]:
        try:
            return engine_metrics.slots(self._get(self._base + "/slots"))
        except Exception:
            self._slots = False  # switched off with --no-slots, or another llama.cpp
            return None, None


BEFORE_S = 0.5


def _why(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"http {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.RequestException) and (known := http_session.why(error)):
        return outside.printable(known[:200])
    if isinstance(error, requests.ConnectionError):
        return "cannot connect"
    return outside.printable(str(error)[:200]) or type(error).__name__


class Sampler:
    """Samples of servers and processes as `engine` records."""

    def __init__(
        self,
        urls: Sequence[str],
        pids: Sequence[int],
        interval_s: float,
        key: str | None = None,
        verify: bool | str = True,
    ):
        timeout_s = min(max(0.8 * interval_s, 0.2), 5.0)
        self._servers = [Server(url, key, timeout_s, verify) for url in urls]
        self._processes = Processes(pids, interval_s) if pids else None
        self._others = OtherCpu()
        self._threads = ThreadPoolExecutor(len(urls)) if len(urls) > 1 else None

    def before(self) -> None:
        """Look at the processors once, for half a second, before there is load: the first sample says who else was
        busy."""
        if self._processes is not None:
            self._others.ratio(self._processes.sample()["cpu_s"])
            time.sleep(BEFORE_S)

    def sample(self, missed: int) -> dict[str, Any]:
        """One record; `missed`: ticks that went by since the last one."""
        at = clock.now()
        began = time.perf_counter()
        if self._threads is None:
            replicas = [server.read() for server in self._servers]
        else:
            replicas = list(self._threads.map(Server.read, self._servers))
        took = time.perf_counter() - began
        silent = [f"'{replica['url']}': {replica['error']}" for replica in replicas if replica["error"]]
        processes = (
            self._processes.sample()
            if self._processes
            else dict.fromkeys(("processes", "cpu_s", "rss_bytes", "pss_bytes", "threads"))
        )
        return {
            "kind": "engine",
            "v": records.VERSIONS["engine"][-1],
            "at": at,
            "host": hostname.name(),
            "scrape_s": round(took, 6) if replicas else None,
            "missed": missed,
            "error": "; ".join(silent) or None,
            **engine_metrics.combine(replicas),
            **processes,
            "other_cpu_ratio": self._others.ratio(processes["cpu_s"]),
            "replicas": replicas if len(replicas) > 1 else [],
        }

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def run(sampler: Sampler, ticks: Ticks, stop: threading.Event, stream: BinaryIO, say: Callable[[str], None]) -> None:
    """Sample until told to stop, and once more at the end, so that counters have their last value.

    What is wrong with a server is said when it changes, and at the end how often. Raises OSError when the stream fails.
    """
    count = failed = 0
    last: str | None = None

    def take(missed: int) -> None:
        nonlocal count, failed, last
        sample = sampler.sample(missed)
        if sample["error"] and sample["error"] != last:
            say(f"no metrics from {sample['error']}")
        last = sample["error"]
        count, failed = count + 1, failed + bool(sample["error"])
        stream.write(records.encode(sample))
        stream.flush()

    for missed in ticks.run(stop):
        take(missed)
    take(0)
    if failed:
        say(f"in {failed} of {count} samples a server's metrics are missing")
