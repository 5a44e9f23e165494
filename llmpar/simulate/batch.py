"""One engine's scheduler, step by step: its queue, its batch and the blocks of its KV cache.

The rules are those of vLLM 0.23 (vllm/v1/core/sched/scheduler.py); scheduler.py has the clients before it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple


class Batch(NamedTuple):
    """What one step computes."""

    start_s: float
    prompt_tokens: int  # of prompts, in this step
    prompt_pairs: float  # query-key pairs of those: each prompt token times the tokens it attends to
    sequences: int  # that generate
    kv_tokens: float  # cached tokens that these attend to, over all of them
    sampled: int  # rows of logits: sequences that generate, with their drafts, and prompts that end in this step
    draft_tokens: int  # guessed tokens verified for each sequence that generates


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


class BatchSequence:
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


class Server:
    """One engine: its queue, its batch, and a calendar of which step needs a block for whom and ends whom."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[BatchSequence] = deque()
        self.running: dict[BatchSequence, None] = {}  # in order of admission
        self.prompt: BatchSequence | None = None  # the one that is part way through its prompt
        self.free = limits.kv_tokens // limits.block_tokens if limits.kv_tokens is not None else 1 << 60
        self.generating = 0
        self.kv_tokens = 0.0
        self.due: dict[int, list[tuple[BatchSequence, int]]] = {}
        self.ending: dict[int, list[tuple[BatchSequence, int]]] = {}
        self.prompts_done: list[BatchSequence] = []
        self.ends: list[float] = []
        self.admitted = self.preemptions = self.most_running = 0
        self.in_flight = 0
        self.busy = False

    def _context(self, sequence: BatchSequence, steps: int) -> float:
        """Cached tokens of a sequence `steps` after the end of its prompt, the step's own token included."""
        return sequence.prompt + sequence.generated + 1 + (steps - 1) * self.limits.tokens_per_step

    def _preempt(self, step: int) -> BatchSequence:
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

    def _plan(self, sequence: BatchSequence, after: int) -> None:
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

    def finish(self, now: float) -> tuple[list[BatchSequence], list[BatchSequence]]:
        """Ends the step: the sequences whose prompt is done, and those that ended."""
        limits, step = self.limits, len(self.ends)
        self.ends.append(now)
        ended: list[BatchSequence] = []
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
