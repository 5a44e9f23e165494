"""The scheduler against a slow one that follows vLLM's rules token by token, and against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from llmpar.simulate.batch import Batch, Limits
from llmpar.simulate.scheduler import ClosedLoop, OpenLoop, gamma_lengths, simulate


def step_time(batch: Batch) -> float:
    return (
        0.005 + 2e-7 * batch.kv_tokens + 3e-5 * batch.prompt_tokens + 1e-9 * batch.prompt_pairs + 1e-5 * batch.sequences
    )


def slow(prompts, outputs, sent, limits: Limits):  # type: ignore[no-untyped-def]
    """One server, given send times, one token a step: every sequence looked at in every step, blocks counted from
    lengths."""
    blocks = lambda tokens: -(-tokens // limits.block_tokens)  # noqa: E731
    capacity = limits.kv_tokens // limits.block_tokens
    todo = sorted(range(len(prompts)), key=lambda request: sent[request])
    waiting: list[int] = []
    running: list[int] = []
    made, computed, held = [0] * len(prompts), [0] * len(prompts), [0] * len(prompts)
    times: list[list[float]] = [[] for _ in prompts]
    now, preemptions = 0.0, 0
    generating: set[int] = set()
    while todo or waiting or running:
        if not waiting and not running:
            now = max(now, sent[todo[0]])
            waiting.append(todo.pop(0))
        while todo and sent[todo[0]] < now:
            waiting.append(todo.pop(0))
        budget, preempted, work = limits.token_budget, False, []
        # All that generate take their token first: a prompt that is part way is the last of `running` anyway.
        for request in list(running):
            if request not in running:
                continue
            whole = prompts[request] + made[request]
            chunk = min(whole - computed[request], budget)
            needed = blocks(computed[request] + chunk) - held[request]
            while needed > capacity - sum(held):
                victim = running.pop()
                held[victim] = computed[victim] = 0
                waiting.insert(0, victim)
                generating.discard(victim)
                preempted, preemptions = True, preemptions + 1
                work = [entry for entry in work if entry[0] != victim]
                if victim == request:
                    break
            else:
                held[request] += needed
                budget -= chunk
                work.append((request, chunk))
        while waiting and budget > 0 and not preempted and len(running) < limits.max_sequences:
            request = waiting[0]
            chunk = min(prompts[request] + made[request], budget)
            if blocks(chunk) > capacity - sum(held):
                break
            running.append(waiting.pop(0))
            held[request] = blocks(chunk)
            budget -= chunk
            work.append((request, chunk))
        prompt_tokens = pairs = sequences = kv_tokens = 0
        for request, chunk in work:
            if request in generating:
                sequences, kv_tokens = sequences + 1, kv_tokens + computed[request] + 1
            else:
                prompt_tokens += chunk
                pairs += chunk * (computed[request] + (chunk + 1) / 2)
        now += step_time(Batch(now, prompt_tokens, pairs, sequences, kv_tokens, 0, 0))
        for request, chunk in work:
            computed[request] += chunk
            if computed[request] == prompts[request] + made[request]:
                made[request] += 1
                times[request].append(now)
                generating.add(request)
                if made[request] == outputs[request]:
                    running.remove(request)
                    held[request] = 0
    return times, preemptions


@pytest.mark.parametrize(
    "kv_tokens, budget, most", [(6000, 512, 40), (1600, 256, 40), (1600, 64, 8), (100_000, 300, 16)]
)
def test_same_as_a_scheduler_that_looks_at_every_sequence_in_every_step(kv_tokens: int, budget: int, most: int) -> None:
    random = np.random.default_rng([kv_tokens, budget])
    prompts = random.integers(10, 400, 120)
    outputs = gamma_lengths(random, 120, 60, 1.5, most=400)
    sent = np.cumsum(random.exponential(0.02, 120))
    limits = Limits(token_budget=budget, max_sequences=most, kv_tokens=kv_tokens)
    run = simulate(prompts, outputs, OpenLoop(sent), step_time, limits)
    times, preemptions = slow(prompts.tolist(), outputs.tolist(), sent.tolist(), limits)
    assert run.preemptions == preemptions
    assert (preemptions > 0) == (kv_tokens == 1600 or kv_tokens == 6000)
    for request, expected in enumerate(times):
        assert run.token_times(request) == pytest.approx(expected, abs=1e-9), request
    assert run.first_token_s == pytest.approx([each[0] for each in times], abs=1e-9)
    assert run.end_s == pytest.approx([each[-1] for each in times], abs=1e-9)


def test_one_request_by_hand() -> None:
    seen: list[Batch] = []

    def record(batch: Batch) -> float:
        seen.append(batch)
        return 1.0

    run = simulate(
        [100], [3], ClosedLoop(1, send_delay_s=0.5, launches_per_s=10), record, Limits(token_budget=64, max_sequences=4)
    )
    assert [(b.start_s, b.prompt_tokens, b.prompt_pairs, b.sequences, b.kv_tokens, b.sampled) for b in seen] == [
        (0.5, 64, 64 * 32.5, 0, 0, 0),
        (1.5, 36, 36 * (64 + 18.5), 0, 0, 1),
        (2.5, 0, 0, 1, 101, 1),
        (3.5, 0, 0, 1, 102, 1),
    ]
    assert (run.launched_s[0], run.sent_s[0], run.first_token_s[0], run.end_s[0]) == (0.0, 0.5, 2.5, 4.5)
    assert run.token_times(0).tolist() == [2.5, 3.5, 4.5]


def test_clients_launch_one_after_another_and_again_when_an_answer_ends() -> None:
    run = simulate(
        [8] * 6, [4] * 6, ClosedLoop(2, launches_per_s=2, send_delay_s=[0.1] * 6, turnaround_s=0.25), lambda batch: 1.0
    )
    assert run.launched_s[:2].tolist() == [0.0, 0.5]
    assert run.sent_s == pytest.approx(run.launched_s + 0.1)
    ends = np.sort(run.end_s)
    assert run.launched_s[2] == ends[0] + 0.25
    assert (np.diff(run.launched_s) >= 0.5 - 1e-9).all()
    # Never more than two out.
    for at in run.sent_s:
        assert ((run.sent_s <= at) & (run.end_s > at)).sum() <= 2


def test_late_sends_of_an_open_loop() -> None:
    run = simulate([8, 8], [2, 2], OpenLoop([1.0, 5.0], send_delay_s=0.5), lambda batch: 0.1)
    assert run.scheduled_s is not None
    assert run.scheduled_s.tolist() == [1.0, 5.0] and run.sent_s.tolist() == [1.5, 5.5]
    assert run.first_token_s == pytest.approx([1.6, 5.6])


def test_replicas_share_the_load_and_on_one_device_take_turns() -> None:
    prompts, outputs = [16] * 40, [20] * 40
    alone = simulate(prompts, outputs, ClosedLoop(8), lambda batch: 0.01 * batch.sequences + 0.01)
    two = simulate(prompts, outputs, ClosedLoop(8), lambda batch: 0.01 * batch.sequences + 0.01, replicas=2)
    turns = simulate(
        prompts, outputs, ClosedLoop(8), lambda batch: 0.01 * batch.sequences + 0.01, replicas=2, one_device=True
    )
    assert np.bincount(two.server).tolist() == [20, 20]
    assert two.end_s.max() < alone.end_s.max() < turns.end_s.max()
    both = np.sort(np.concatenate(turns.steps))
    assert (np.diff(both) >= 0.01 - 1e-9).all(), "two steps at once on one device"


@pytest.mark.parametrize("draft, accepted", [(1, 1.5), (4, 2.7), (8, 9.0), (20, 1.0)])
def test_speculation_brings_all_tokens_in_fewer_steps(draft: int, accepted: float) -> None:
    random = np.random.default_rng(draft)
    prompts, outputs = random.integers(10, 300, 80), gamma_lengths(random, 80, 80, 2, most=400)
    limits = Limits(token_budget=2048, max_sequences=32, kv_tokens=3200, draft_tokens=draft, tokens_per_step=accepted)
    run = simulate(prompts, outputs, ClosedLoop(40), step_time, limits)
    for request, output in enumerate(outputs):
        tokens = run.event_tokens(request)
        assert sum(tokens) == output and min(tokens) >= 0 and max(tokens) <= draft + 1
        assert len(tokens) == len(run.token_times(request))
        if run.preemptions == 0:
            assert len(tokens) == 1 + int(np.ceil((output - 1) / accepted))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(prompt_tokens=[1], output_tokens=[1, 2]), "same length"),
        (dict(prompt_tokens=[0], output_tokens=[1]), "at least 1 token"),
        (
            dict(prompt_tokens=[90], output_tokens=[20], limits=Limits(kv_tokens=100)),
            "110 tokens does not fit the KV cache of 96",
        ),
        (dict(prompt_tokens=[9], output_tokens=[2], load=OpenLoop([-1.0])), "not negative"),
        (dict(prompt_tokens=[9], output_tokens=[2], load=ClosedLoop(0)), "at least one client"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        simulate(**{"load": ClosedLoop(1), "step_time": step_time, **arguments})


def test_limits_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="does not hold one step"):
        Limits(token_budget=100, max_sequences=64, draft_tokens=1, tokens_per_step=1.5)
    with pytest.raises(ValueError, match="acceptance length"):
        Limits(draft_tokens=2, tokens_per_step=3.5)
