"""A batch server in simulated time: vLLM's scheduler, with clients before it, as a pure function of a step's duration.

One step serves all sequences of the batch: one token for each sequence that generates (its KV cache read once), and as
much of the waiting prompts as the token budget leaves (chunked prefill). The rules are those of vLLM 0.23
(vllm/v1/core/sched/scheduler.py): running sequences first, in the order of admission; a sequence that finds no free KV
block preempts the one admitted last, which starts again from its prompt and what it had generated; new sequences are
admitted only in a step that preempted none. Not modelled: priorities, sharding's own traffic, KV blocks that requests
share (a cached prefix saves its computation, not its blocks).

    import numpy as np
    from llmpar.simulate.scheduler import ClosedLoop, Limits, OpenLoop, gamma_lengths, simulate

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
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """What one step computes."""

    start_s: float
    prompt_tokens: int  # of prompts, in this step
    prompt_pairs: float  # query-key pairs of those: each prompt token times the tokens it attends to
    sequences: int  # that generate
    kv_tokens: float  # cached tokens that these attend to, over all of them
    sampled: int  # rows of logits: sequences that generate, with their drafts, and prompts that end in this step
    draft_tokens: int  # guessed tokens verified for each sequence that generates


StepTime = Callable[[Batch], float]


@dataclass(frozen=True)
class Limits:
    """Of one server. `kv_tokens` None: unlimited.

    `draft_tokens` are guessed and verified in each step, of which `tokens_per_step` (the acceptance length, 1 to
    1 + draft_tokens) come out.
    """

    token_budget: int = 8192
    max_sequences: int = 256
    kv_tokens: int | None = None
    block_tokens: int = 16
    draft_tokens: int = 0
    tokens_per_step: float = 1.0

    def __post_init__(self) -> None:
        if min(self.token_budget, self.max_sequences, self.block_tokens) < 1:
            raise ValueError("token_budget, max_sequences and block_tokens must be at least 1")
        if self.token_budget < self.max_sequences * (1 + self.draft_tokens):
            raise ValueError(
                f"a token budget of {self.token_budget} does not hold one step of {self.max_sequences} sequences "
                f"with {1 + self.draft_tokens} tokens each"
            )
        if not 1 <= self.tokens_per_step <= 1 + self.draft_tokens:
            raise ValueError(
                f"acceptance length {self.tokens_per_step}: at least 1, at most 1 + {self.draft_tokens} draft tokens"
            )


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


class _Sequence:
    __slots__ = (
        "request",
        "prompt",
        "output",
        "generated",
        "cached",
        "computed",
        "blocks",
        "joined",
        "epoch",
        "order",
        "spans",
    )

    def __init__(self, request: int, prompt: int, output: int, cached: int) -> None:
        self.request, self.prompt, self.output, self.cached = request, prompt, output, cached
        self.generated = 0  # before the present span; after a preemption these are part of what is computed again
        self.computed = cached  # prompt tokens in the KV cache
        self.blocks = 0
        self.joined = -1  # step that computed the end of the prompt; -1: still in its prompt, or waiting
        self.epoch = 0  # entries of the calendar made before a preemption are void
        self.order = 0
        self.spans: list[tuple[int, int]] = []


class _Server:
    """One engine: its queue, its batch, and a calendar of which step needs a block for whom and ends whom."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[_Sequence] = deque()
        self.running: dict[_Sequence, None] = {}  # in order of admission
        self.prompt: _Sequence | None = None  # the one that is part way through its prompt
        self.free = limits.kv_tokens // limits.block_tokens if limits.kv_tokens is not None else 1 << 60
        self.generating = 0
        self.kv_tokens = 0.0
        self.due: dict[int, list[tuple[_Sequence, int]]] = {}
        self.ending: dict[int, list[tuple[_Sequence, int]]] = {}
        self.prompts_done: list[_Sequence] = []
        self.ends: list[float] = []
        self.admitted = self.preemptions = self.most_running = 0
        self.in_flight = 0
        self.busy = False

    def _context(self, sequence: _Sequence, steps: int) -> float:
        """Cached tokens of a sequence `steps` after the end of its prompt, the step's own token included."""
        return sequence.prompt + sequence.generated + 1 + (steps - 1) * self.limits.tokens_per_step

    def _preempt(self, step: int) -> _Sequence:
        victim, _ = self.running.popitem()
        if victim.joined >= 0:
            steps = step - victim.joined
            self.generating -= 1
            self.kv_tokens -= self._context(victim, steps)
            victim.spans.append((victim.joined, steps))
            victim.generated += 1 + int((steps - 1) * self.limits.tokens_per_step)
        if victim is self.prompt:
            self.prompt = None
        self.free += victim.blocks
        victim.blocks, victim.computed = 0, victim.cached
        victim.joined = -1
        victim.epoch += 1
        self.waiting.appendleft(victim)
        self.preemptions += 1
        return victim

    def _plan(self, sequence: _Sequence, after: int) -> None:
        """Notes the step, later than `after`, for which a sequence needs its next block."""
        limits = self.limits
        room = sequence.blocks * limits.block_tokens - sequence.prompt - sequence.generated - limits.draft_tokens - 1
        step = max(after + 1, sequence.joined + int(room // limits.tokens_per_step) + 2)
        self.due.setdefault(step, []).append((sequence, sequence.epoch))

    def begin(self, now: float) -> Batch | None:
        """Chooses what the next step computes; None: there is nothing to do."""
        limits, step = self.limits, len(self.ends)
        preempted = False
        due = self.due.pop(step, None)
        if due:
            due.sort(key=lambda entry: entry[0].order)
            for sequence, epoch in due:
                if sequence.epoch != epoch:
                    continue
                tokens = self._context(sequence, step - sequence.joined) + limits.draft_tokens
                needed = int(-(-tokens // limits.block_tokens)) - sequence.blocks
                while needed > self.free:
                    preempted = True
                    if self._preempt(step) is sequence:
                        break
                else:
                    self.free -= needed
                    sequence.blocks += needed
                    self._plan(sequence, step)
        budget = limits.token_budget - self.generating * (1 + limits.draft_tokens)
        prompt_tokens, pairs = 0, 0.0
        self.prompts_done = []
        while budget > 0:
            sequence = self.prompt  # type: ignore[assignment]
            if sequence is None:
                if preempted or not self.waiting or len(self.running) >= limits.max_sequences:
                    break
                sequence = self.waiting[0]
            chunk = min(sequence.prompt + sequence.generated - sequence.computed, budget)
            needed = -(-(sequence.computed + chunk) // limits.block_tokens) - sequence.blocks
            if needed > self.free:
                if sequence is not self.prompt:
                    break
                # Part of its prompt is computed: it is the one admitted last, so it goes itself.
                preempted = True
                self._preempt(step)
                continue
            if sequence is not self.prompt:
                self.waiting.popleft()
                self.admitted += 1
                sequence.order = self.admitted
                self.running[sequence] = None
                self.most_running = max(self.most_running, len(self.running))
            self.free -= needed
            sequence.blocks += needed
            pairs += chunk * (sequence.computed + (chunk + 1) / 2)
            sequence.computed += chunk
            prompt_tokens += chunk
            budget -= chunk
            if sequence.computed == sequence.prompt + sequence.generated:
                self.prompts_done.append(sequence)
                self.prompt = None
            else:
                self.prompt = sequence
        if not prompt_tokens and not self.generating:
            return None
        sampled = self.generating * (1 + limits.draft_tokens) + len(self.prompts_done)
        return Batch(now, prompt_tokens, pairs, self.generating, self.kv_tokens, sampled, limits.draft_tokens)

    def finish(self, now: float) -> tuple[list[_Sequence], list[_Sequence]]:
        """Ends the step: the sequences whose prompt is done, and those that ended."""
        limits, step = self.limits, len(self.ends)
        self.ends.append(now)
        ended: list[_Sequence] = []
        self.kv_tokens += self.generating * limits.tokens_per_step
        for sequence, epoch in self.ending.pop(step, ()):
            if sequence.epoch == epoch:
                steps = step - sequence.joined
                self.generating -= 1
                self.kv_tokens -= self._context(sequence, steps + 1)
                sequence.spans.append((sequence.joined, steps + 1))
                ended.append(sequence)
        for sequence in self.prompts_done:
            left = sequence.output - sequence.generated - 1
            sequence.joined = step
            if left <= 0:
                sequence.spans.append((step, 1))
                ended.append(sequence)
                continue
            self.generating += 1
            self.kv_tokens += self._context(sequence, 1)
            steps = int(-(-left // limits.tokens_per_step))
            self.ending.setdefault(step + steps, []).append((sequence, sequence.epoch))
            self._plan(sequence, step)
        for sequence in ended:
            del self.running[sequence]
            self.free += sequence.blocks
            sequence.epoch += 1
        return self.prompts_done, ended


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
    servers = [_Server(limits) for _ in range(replicas)]
    cached = np.broadcast_to(np.asarray(cached_tokens, dtype=np.int64), (count,))
    if (cached < 0).any() or (cached >= prompts).any():
        raise ValueError("cached tokens must not be negative and must be fewer than the prompt's")
    lengths = zip(prompts.tolist(), outputs.tolist(), cached.tolist(), strict=True)
    sequences = [_Sequence(request, *sizes) for request, sizes in enumerate(lengths)]
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
