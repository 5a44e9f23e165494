"""A batch server in simulated time: vLLM's scheduler, with clients before it, as a pure function of a step's duration.

One step serves all sequences of the batch: one token for each sequence that generates (its KV cache read once), and as
much of the waiting prompts as the token budget leaves (chunked prefill). The rules are those of vLLM 0.23
(vllm/v1/core/sched/scheduler.py): running sequences first, in the order of admission; a sequence that finds no free KV
block preempts the one admitted last, which starts again from its prompt and what it had generated; new sequences are
admitted only in a step that preempted none. Not modelled: priorities, sharding's own traffic, KV blocks that requests
share (a cached prefix saves its computation, not its blocks).

    import numpy as np
    from llmpar.simulate.batch import Limits
    from llmpar.simulate.scheduler import ClosedLoop, OpenLoop, gamma_lengths, simulate

    random = np.random.default_rng(1)
    prompts = random.integers(115, 587, 2000)
    outputs = gamma_lengths(random, 2000, mean=200, shape=2)
    run = simulate(prompts, outputs, ClosedLoop(clients=128, launches_per_s=140, send_delay_s=0.002),
                   step_time=lambda batch: 0.006 + 1.6e-7 * batch.kv_tokens + 4e-5 * batch.prompt_tokens,
                   limits=Limits(token_budget=8192, max_sequences=256, kv_tokens=121_424))
    ttft_s = run.first_token_s - run.sent_s       # arrays, one value a request, in the order of `prompts`
    run.token_times(7)                            # receipt of each streamed event of request 7, seconds since the start
    run.output_tokens / (run.end_s - run.sent_s)

    simulate(prompts, outputs, OpenLoop(arrivals_s=np.cumsum(random.exponential(1 / 30, 2000))), step_time)

`step_time` gets a `Batch` and returns seconds; it may draw noise and may look at `batch.start_s` for a pace that
wanders.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llmpar.simulate.batch import Batch, BatchSequence, Limits, Server

StepTime = Callable[[Batch], float]


@dataclass(frozen=True)
class ClosedLoop:
    """`clients` slots, each of which launches the next request when its last one ended.

    `launches_per_s`: of all slots together (GNU parallel starts one job at a time); None: at once. `send_delay_s`: from
    the launch to the first byte sent; one value, or one for each request. `turnaround_s`: from an answer's end until
    its slot is free.
    """

    clients: int
    launches_per_s: float | None = None
    send_delay_s: float | Sequence[float] | np.ndarray = 0.0
    turnaround_s: float = 0.0


@dataclass(frozen=True)
class OpenLoop:
    """Requests due at given times, whatever became of those before; sent `send_delay_s` after."""

    arrivals_s: Sequence[float] | np.ndarray
    send_delay_s: float | Sequence[float] | np.ndarray = 0.0


@dataclass
class Run:
    """Arrays hold one value a request, in the order given; seconds since the start of the run."""

    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    scheduled_s: np.ndarray | None  # open loop only
    launched_s: np.ndarray
    sent_s: np.ndarray
    first_token_s: np.ndarray
    end_s: np.ndarray
    server: np.ndarray  # which replica answered
    preemptions: int
    steps: list[np.ndarray]  # of each replica: when each of its steps ended
    most_running: list[int]  # of each replica: sequences in the batch at most
    limits: Limits
    _spans: list[list[tuple[int, int]]]  # of each request: first step and number of steps, once more after a preemption

    def token_times(self, request: int) -> np.ndarray:
        """Receipt of each streamed event (one token, without speculation), seconds since the start of the run."""
        ends = self.steps[self.server[request]]
        return np.concatenate([ends[first : first + count] for first, count in self._spans[request]])

    def event_tokens(self, request: int) -> list[int]:
        """Tokens in each event."""
        tokens: list[int] = []
        left = int(self.output_tokens[request])
        rate = self.limits.tokens_per_step
        for _, count in self._spans[request]:
            tokens.append(1)
            left -= 1
            for step in range(1, count):
                brought = min(int(step * rate) - int((step - 1) * rate), left)
                tokens.append(brought)
                left -= brought
        # A length that the acceptance length does not divide: the last event brings the rest.
        tokens[-1] += left
        return tokens


def gamma_lengths(
    random: np.random.Generator, count: int, mean: float, shape: float, most: int | None = None
) -> np.ndarray:
    """Whole lengths of at least 1 from a gamma distribution; before the cut at `most` their mean is `mean`."""
    lengths = np.maximum(np.rint(random.gamma(shape, mean / shape, count)), 1).astype(np.int64)
    return lengths if most is None else np.minimum(lengths, most)


def _values(given: float | Sequence[float] | np.ndarray, count: int) -> list[float]:
    values = np.broadcast_to(np.asarray(given, dtype=float), (count,))
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("delays and arrival times must be finite and not negative")
    return values.tolist()


def _check(prompts: np.ndarray, outputs: np.ndarray, limits: Limits) -> None:
    if prompts.shape != outputs.shape or prompts.ndim != 1 or not len(prompts):
        raise ValueError("prompt and output lengths must be two non-empty lists of the same length")
    if min(prompts.min(), outputs.min()) < 1:
        raise ValueError("prompt and output lengths must be at least 1 token")
    if limits.kv_tokens is not None:
        longest = int((prompts + outputs).max()) + limits.draft_tokens
        capacity = limits.kv_tokens // limits.block_tokens * limits.block_tokens
        if longest > capacity:
            raise ValueError(f"a request of {longest} tokens does not fit the KV cache of {capacity} tokens")


def simulate(
    prompt_tokens: Sequence[int] | np.ndarray,
    output_tokens: Sequence[int] | np.ndarray,
    load: ClosedLoop | OpenLoop,
    step_time: StepTime,
    limits: Limits | None = None,
    replicas: int = 1,
    one_device: bool = False,
    front_s: float = 0.0,
    cached_tokens: int | Sequence[int] | np.ndarray = 0,
) -> Run:
    """Runs all requests to their end.

    `replicas` servers stand behind a balancer that chooses the one with the fewest requests out, as nginx's least_conn
    does; each has its own device, or with `one_device` they take turns on one, a step at a time. `front_s`: from the
    sending of a request until the scheduler sees it (HTTP, tokeniser, queue between processes). `cached_tokens`: of
    each prompt, found in the prefix cache and not computed; one value, or one for each request; less than its prompt.
    Raises ValueError for lengths, limits and times that cannot be.
    """
    limits = limits or Limits()
    prompts, outputs = np.asarray(prompt_tokens, dtype=np.int64), np.asarray(output_tokens, dtype=np.int64)
    _check(prompts, outputs, limits)
    count = len(prompts)
    delays = _values(load.send_delay_s, count)
    servers = [Server(limits) for _ in range(replicas)]
    cached = np.broadcast_to(np.asarray(cached_tokens, dtype=np.int64), (count,))
    if (cached < 0).any() or (cached >= prompts).any():
        raise ValueError("cached tokens must not be negative and must be fewer than the prompt's")
    lengths = zip(prompts.tolist(), outputs.tolist(), cached.tolist(), strict=True)
    sequences = [BatchSequence(request, *sizes) for request, sizes in enumerate(lengths)]
    launched, first, end = [0.0] * count, [0.0] * count, [0.0] * count
    chosen = [0] * count
    calendar: list[tuple[float, int, int]] = []  # when, request or -1, server
    next_request, launcher_free, last = 0, 0.0, replicas - 1
    gap = 1 / load.launches_per_s if isinstance(load, ClosedLoop) and load.launches_per_s else 0.0

    def launch(at: float) -> None:
        nonlocal next_request, launcher_free
        at = max(at, launcher_free)
        launcher_free = at + gap
        launched[next_request] = at
        heapq.heappush(calendar, (at + delays[next_request] + front_s, next_request, 0))
        next_request += 1

    if isinstance(load, ClosedLoop):
        if load.clients < 1:
            raise ValueError("at least one client")
        for _ in range(min(load.clients, count)):
            launch(0.0)
    else:
        launched = _values(load.arrivals_s, count)
        calendar = [
            (at + delay + front_s, request, 0) for request, (at, delay) in enumerate(zip(launched, delays, strict=True))
        ]
        heapq.heapify(calendar)
    queue: deque[int] = deque()  # of servers that wait for the one device
    device_busy = False

    def begin(number: int, now: float) -> None:
        nonlocal device_busy
        server = servers[number]
        if one_device and device_busy:
            server.busy = True
            queue.append(number)
            return
        batch = server.begin(now)
        server.busy = batch is not None
        if batch is not None:
            device_busy = True
            heapq.heappush(calendar, (now + step_time(batch), -1, number))

    while calendar:
        now, request, number = heapq.heappop(calendar)
        if request >= 0:
            if replicas > 1:
                number = last = min(
                    range(replicas), key=lambda lengths: (servers[lengths].in_flight, (lengths - last - 1) % replicas)
                )
            chosen[request] = number
            servers[number].in_flight += 1
            servers[number].waiting.append(sequences[request])
            if not servers[number].busy:
                begin(number, now)
            continue
        server = servers[number]
        device_busy = False
        begun, ended = server.finish(now)
        for sequence in begun:
            if not sequence.generated:
                first[sequence.request] = now
        for sequence in ended:
            end[sequence.request] = now
            server.in_flight -= 1
            if isinstance(load, ClosedLoop) and next_request < count:
                launch(now + load.turnaround_s)
        queue.append(number)
        while queue:
            begin(queue.popleft(), now)
            if one_device and device_busy:
                break
    return Run(
        prompts,
        outputs,
        None if isinstance(load, ClosedLoop) else np.asarray(launched),
        np.asarray(launched),
        np.asarray(launched) + np.asarray(delays),
        np.asarray(first),
        np.asarray(end),
        np.asarray(chosen),
        sum(server.preemptions for server in servers),
        [np.asarray(server.ends) for server in servers],
        [server.most_running for server in servers],
        limits,
        [sequence.spans for sequence in sequences],
    )
