"""llmpar-request against the fake engine: the record says what the truth log says, for every engine and dialect."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import wire_samples as wire
from fake import Fake, fake_engine

CLOCK_STEP_S = (
    0.002  # kernel stamps and the fake's clock are the same clock; a slew between two readings stays below this
)

PAIRS = [
    ("vllm", "openai-completions"),
    ("vllm", "openai-chat"),
    ("vllm-0.4", "openai-completions"),
    ("aphrodite", "openai-completions"),
    ("tgi", "tgi"),
    ("tgi-3", "tgi"),
    ("tgi-3", "openai-chat"),
    ("llamacpp", "llamacpp"),
    ("llamacpp", "openai-completions"),
    ("powerinfer", "llamacpp"),
    ("transformers", "openai-completions"),
    ("sglang", "openai-chat"),
    ("lmdeploy", "openai-completions"),
]


def ask(server: Fake, api: str, engine: str | None, prompts: dict[str, str], *options: str) -> dict[str, dict]:
    """Records by prompt name, of one process that takes the prompts in turn."""
    folder = Path("prompts")
    folder.mkdir(exist_ok=True)
    for name, text in prompts.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [
            "llmpar-request",
            "--base-url",
            server.url,
            "--api",
            api,
            "--model",
            "fake",
            "--max-tokens",
            "8",
            *(["--engine", engine] if engine else []),
            *options,
            *(f"prompts/{name}" for name in prompts),
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode in (0, 7), done.stderr
    return {record["prompt"]: record for record in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("engine,api", PAIRS)
def test_records_agree_with_the_truth(engine: str, api: str, tmp_path: Path) -> None:
    prompts = {
        "plain": "tell me more",
        "eos": "tell\nfake: eos=3",
        "burst": "x\nfake: burst=3 gap_ms=5",
        "empty": "x\nfake: empty=3",
        "odd": "x\nfake: crlf split=5 keepalive=2",
        "paced": "one two\nfake: gap_ms=10 ttft_ms=20",
    }
    with fake_engine(engine=engine, tokens=8) as server:
        found = ask(server, api, engine.partition("-")[0], prompts, "--temperature", "0.1", "--top-p", "0.3")
        truth = dict(zip(prompts, server.truth(len(prompts)), strict=True))
    for name, record in found.items():
        was = truth[name]
        assert record["status"] == "ok" and record["error"] is None, record["error"]
        assert record["text"] == was["text"]
        assert record["finish_reason"] == ("stop" if name == "eos" else "length")
        assert (
            was["body"].get("parameters", {key: value for key, value in was["body"].items() if key != "model"})
            == record["sampling"]
        )
        special = api == "tgi" and name == "eos"  # the end-of-text token is counted
        assert record["output_tokens"] == was["tokens"] + special
        # Cause before effect: nothing is received before it was written, nothing sent after it was received.
        assert record["sent_at"] <= was["received_at"] + CLOCK_STEP_S
        arrivals = [record["sent_at"] + seconds for seconds in record["event_s"]]
        assert arrivals == sorted(arrivals)
        if name == "burst":
            continue
        with_text = [
            at
            for at, index in zip(was["write_at"], range(1, 99), strict=False)
            if not (name == "empty" and index % 3 == 0)
        ]
        assert len(arrivals) == len(with_text)
        assert all(seen >= written - CLOCK_STEP_S for seen, written in zip(arrivals, with_text, strict=True))
        if record["event_tokens"] is not None:
            assert sum(record["event_tokens"]) == was["tokens"]


@pytest.mark.parametrize("api", ["openai-completions", "openai-chat", "tgi", "llamacpp"])
def test_every_sample_over_a_real_socket_a_byte_a_segment(api: str, tmp_path: Path) -> None:
    wanted = [want for want in wire.SAMPLES if want.api == api and wire.load(want.file)[3]]
    whole = [want for want in wire.SAMPLES if want.api == api and want.error and not wire.load(want.file)[3]]
    with fake_engine() as server:
        found = ask(
            server,
            api,
            None,
            {
                want.file.replace("/", "--"): f"fake: replay={want.file} split={split}"
                for split, wants in ((1, wanted), (13, whole))
                for want in wants
            },
        )
    assert len(found) == len(wanted) + len(whole) > 5
    for want in wanted + whole:
        record = found[want.file.replace("/", "--")]
        reply = wire.parse(want)
        assert (record["error"] or {}).get("type") == want.error and record["status"] == (
            "error" if want.error else "ok"
        ), want.file
        assert record["text"] == reply.text and len(record["event_s"]) == want.events
        assert record["event_tokens"] == (want.tokens if want.events else None)
        assert (record["prompt_tokens"], record["cached_tokens"], record["output_tokens"]) == (
            want.prompt,
            want.cached,
            want.output,
        )
        assert (record["token_source"], record["finish_reason"]) == (want.source, want.finish)


def test_what_an_engine_cannot_do_is_a_record_that_says_so_and_nothing_is_sent(tmp_path: Path) -> None:
    with fake_engine(engine="tgi") as server:
        for api, option, word in (
            ("tgi", ["--ignore-eos"], "end of text"),
            ("openai-completions", ["--top-k", "40"], "--api tgi"),
        ):
            (record,) = ask(server, api, "tgi", {"p": "x"}, *option).values()
            assert (
                record["status"] == "error"
                and record["error"]["type"] == "unsupported"
                and word in record["error"]["message"]
            )
            assert record["sent_at"] is None
        assert server.truth() == []
