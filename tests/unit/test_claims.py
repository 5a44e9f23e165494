"""Claims: selectors, expected ranges, the four answers, and the table that is shipped."""

from __future__ import annotations

import json
import math
import subprocess

import called
import made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpar import records
from llmpar.results import rows
from llmpar.results.rows import group
from llmpar.verdicts import claim_table, claims, sentences

HEADER = "\t".join(claim_table.COLUMNS) + "\n"


def table(a: str, b: str, expect: str = "A<B", metric: str = "wall_s") -> list[claim_table.Claim]:
    return claim_table.parse(
        HEADER + "\t".join(("one", "clients", "A sentence", metric, a, b, expect, "-", "")) + "\n", "t.tsv"
    )


def verdict(summaries, a: str, b: str, expect: str = "A<B", metric: str = "wall_s") -> dict:
    return claims.evaluate(table(a, b, expect, metric)[0], rows.group(summaries))


def two(walls_a: list[float], walls_b: list[float], **options) -> list[dict]:
    """Summaries of two cells, clients 8 and 1, one session for each wall time."""
    found = []
    for clients, walls in ((8, walls_a), (1, walls_b)):
        for repeat, wall in enumerate(walls, 1):
            found.append(made.summary(wall, load={"clients": clients}, repeat=repeat, **options))
    return found


def test_supported_contradicted_cannot_tell_not_run():
    quick, slow = [10.0, 10.1, 9.9], [20.0, 20.3, 19.8]
    assert verdict(two(quick, slow), "clients=8", "clients=1")["verdict"] == "supported"
    assert verdict(two(slow, quick), "clients=8", "clients=1")["verdict"] == "contradicted"
    noisy = verdict(two([10.0, 14.0, 8.0], [11.0, 9.0, 13.0]), "clients=8", "clients=1")
    assert noisy["verdict"] == "cannot tell"
    assert "both sides" in noisy["comparisons"][0]["reasons"][0]
    assert verdict(two(quick, slow), "clients=8", "clients=99")["verdict"] == "not run"


def test_one_session_cannot_tell_whatever_the_difference():
    said = verdict(two([10.0], [90.0]), "clients=8", "clients=1")
    assert said["verdict"] == "cannot tell"
    one = said["comparisons"][0]
    assert (one["ratio"], one["low"]) == (pytest.approx(10 / 90), None)
    assert "server sessions" in one["reasons"][0]


def test_a_difference_without_practical_meaning_contradicts_a_direction():
    said = verdict(two([10.0, 10.0, 10.01], [10.1, 10.1, 10.11]), "clients=8", "clients=1")
    assert said["comparisons"][0]["high"] < 1
    assert said["verdict"] == "contradicted"
    assert "no difference beyond 3%" in said["comparisons"][0]["reasons"]


def test_every_pair_must_support_and_one_may_contradict():
    summaries = []
    for clients, wall in ((1, 30.0), (2, 20.0), (8, 10.0), (16, 25.0)):
        summaries += [
            made.summary(wall * noise, load={"clients": clients}, repeat=repeat)
            for repeat, noise in enumerate((1.0, 1.01, 0.99), 1)
        ]
    assert verdict(summaries, "clients=8", "clients=1,2")["verdict"] == "supported"
    said = verdict(summaries, "clients=8,16", "clients=1,2")
    assert said["verdict"] == "contradicted"  # 16 takes 25 s, 2 take 20 s
    assert said["counts"] == {"supported": 3, "contradicted": 1, "cannot tell": 0}


def test_pairs_agree_in_everything_else():
    summaries = []
    for engine in ("vllm", "tgi"):
        for clients in (1, 8):
            summaries.append(
                made.summary(10, server={"engine": engine}, load={"clients": clients}, varies=("engine", "clients"))
            )
    summaries.append(made.summary(10, sweep="other", server={"engine": "vllm"}, load={"clients": 1}))
    summaries.append(made.summary(10, server={"engine": "vllm"}, load={"clients": 1}, host="elsewhere"))
    said = verdict(summaries, "clients=8", "clients=1")
    assert [(one["at"]["engine"], one["a"]["host"], one["b"]["sweep"]) for one in said["comparisons"]] == [
        ("vllm", "box", "clients"),
        ("tgi", "box", "clients"),
    ]


def test_unset_settings_mean_their_defaults():
    plain = made.summary(10, load={"clients": 1})
    spelled = made.summary(9, load={"clients": 1}, server={"speculate": 2, "replicas": 1})
    said = verdict([plain, spelled], "speculate=2", "speculate=0")
    assert len(said["comparisons"]) == 1


def test_half_of_the_others_memory_and_gpus_across_hosts():
    def memory(size, wall, **more):
        return [
            made.summary(wall * noise, server={"kv_bytes": size}, varies=("kv_bytes",), repeat=repeat, **more)
            for repeat, noise in enumerate((1.0, 1.01, 0.99), 1)
        ]

    summaries = memory("8GiB", 10.0) + memory("16GiB", 8.0) + memory("24GiB", 7.0)
    said = verdict(summaries, "kv_bytes=*", "kv_bytes=0.5x", "A/B in 0.5..1")
    assert [(one["a"]["settings"]["kv_bytes"], one["b"]["settings"]["kv_bytes"]) for one in said["comparisons"]] == [
        ("16GiB", "8GiB")
    ]
    assert said["verdict"] == "supported"
    assert (
        verdict(memory("8GiB", 10.0) + memory("16GiB", 4.0), "kv_bytes=*", "kv_bytes=0.5x", "A/B in 0.5..1")["verdict"]
        == "contradicted"
    )
    cards = memory("8GiB", 5.0, host="one", gpus=("NVIDIA RTX 4090",)) + memory(
        "8GiB", 9.0, host="two", gpus=("NVIDIA RTX A6000",)
    )
    assert verdict(cards, "gpu~4090", "gpu~A6000")["verdict"] == "supported"


@pytest.mark.parametrize(
    ("options", "reason"), [({"limited": ("wall_s",)}, "limited by the client"), ({"failed": 20}, "requests failed")]
)
def test_what_cannot_be_ranked_is_not(options, reason):
    said = verdict(two([10.0, 10.1, 9.9], [20.0, 20.3, 19.8], **options), "clients=8", "clients=1")
    assert said["verdict"] == "cannot tell"
    assert any(reason in text for text in said["comparisons"][0]["reasons"])


@pytest.mark.parametrize(
    "extra, wanted",
    [("--load-format dummy", "cannot tell"), ("--load-format=dummy", "cannot tell"), ("--max-num-seqs 9", "supported")],
)
def test_speculation_on_random_weights_decides_nothing(extra, wanted):
    """Such an engine repeats itself, so all that is guessed is accepted (99.998% of it, measured on an H100)."""
    summaries = [
        made.summary(wall * noise, server={"speculate": tokens, "engine_args": extra}, repeat=repeat)
        for tokens, wall in ((2, 10.0), (0, 20.0))
        for repeat, noise in enumerate((1.0, 1.01, 0.99), 1)
    ]
    said = verdict(summaries, "speculate=2", "speculate=0")
    assert said["verdict"] == wanted
    assert said["comparisons"][0]["ratio"] == pytest.approx(0.5, rel=0.01), "what was measured is said all the same"


def test_a_reason_that_all_comparisons_share_is_said_of_them_together():
    summaries = [
        made.summary(wall, server={"speculate": tokens, "engine_args": "--load-format dummy"}, repeat=repeat)
        for tokens, wall in ((8, 10.0), (2, 20.0), (0, 30.0))
        for repeat in (1, 2)
    ]
    said = sentences.claim(verdict(summaries, "speculate=8", "speculate=0,2", "A>B"))
    assert said.startswith("2 comparisons: 2 cannot tell;") and "random weights" in said


def test_other_prompts_are_not_compared():
    summaries = [
        made.summary(10 * noise, load={"clients": 8}, repeat=repeat, prompts="a" * 64)
        for repeat, noise in ((1, 1), (2, 1.01))
    ]
    summaries += [
        made.summary(20 * noise, load={"clients": 1}, repeat=repeat, prompts="b" * 64)
        for repeat, noise in ((1, 1), (2, 1.01))
    ]
    assert "the prompt sets differ" in verdict(summaries, "clients=8", "clients=1")["comparisons"][0]["reasons"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no claims"),
        ("id\tsentence\n", "no column sweep"),
        (HEADER + "one\ttwo\n", "2 values under 9 columns"),
        (HEADER + "one\tclients\tS\twall_s\tclients\tclients=1\tA<B\t-\t\n", "'clients' is not KEY=VALUE"),
        (HEADER + "one\tclients\tS\twall_s\tclients=1\tclients=2\tA=B\t-\t\n", "expect is 'A=B'"),
        (HEADER + "one\tclients\tS\tspeed\tclients=1\tclients=2\tA<B\t-\t\n", "unknown metric 'speed'"),
        (HEADER + "one\tclients\tS\twall_s\tclients=1\tclients=2\tA<B\tsix\t\n", "stated is 'six'"),
        (
            HEADER + 2 * "one\tclients\tS\twall_s\tclients=1\tclients=2\tA<B\t-\t\n",
            "line 3: the claim 'one' appears twice",
        ),
    ],
)
def test_bad_tables_name_the_place(text, message):
    with pytest.raises(claim_table.BadClaims, match=message.replace("(", r"\(")):
        claim_table.parse(text, "t.tsv")


def test_shipped_table_states_each_finding_and_its_own_ratios(root):
    stated = {claim.id: claim for claim in claim_table.parse((root / "study" / "claims.tsv").read_text(), "claims.tsv")}
    assert {
        "parallel-beats-threads",
        "many-clients",
        "too-many-clients",
        "speculate-2-helps",
        "speculate-8-hurts",
        "eetq-helps-most",
        "memory-sublinear",
        "two-servers-in-turn",
        "balancer-beats-sharding",
        "4090-beats-a6000",
        "a6000-beats-half-a6000",
        "half-a6000-beats-3090",
    } <= set(stated)
    for claim in stated.values():
        assert (root / "sweeps" / f"{claim.sweep}.tsv").exists()
        assert (root / "sweeps" / "cpu" / f"{claim.sweep}.tsv").exists()
        if claim.stated is not None:
            assert claim.low < claim.stated < claim.high, claim.id
    assert stated["4090-beats-a6000"].stated == pytest.approx(481 / 596, abs=0.005)
    assert stated["memory-sublinear"].stated == pytest.approx(596 / 707, abs=0.005)


@given(
    st.lists(st.floats(1, 100), min_size=2, max_size=5),
    st.lists(st.floats(1, 100), min_size=2, max_size=5),
    st.floats(0.1, 10),
)
def test_a_claim_does_not_depend_on_the_unit_of_time(a, b, factor):
    said = [
        verdict(two([wall * scale for wall in a], [wall * scale for wall in b]), "clients=8", "clients=1")
        for scale in (1.0, factor)
    ]
    assert said[0]["comparisons"][0]["ratio"] == pytest.approx(said[1]["comparisons"][0]["ratio"])
    assert math.isclose(said[0]["comparisons"][0]["high"], said[1]["comparisons"][0]["high"], rel_tol=1e-6)


def run(root, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess:
    return called.run(["llmpar-claims", *arguments], given)


def test_command_says_all_claims_in_each_format(root):
    given = b"".join(records.encode(summary) for summary in made.study())
    said = run(root, "--details", given=given)
    assert said.returncode == 0, said.stderr
    assert "supported     Speculation with 2 tokens helps" in said.stdout.decode()
    assert "wall seconds 0.90 (0.87 to 0.94) times those of speculate 0" in said.stdout.decode()
    assert "not run       EETQ helps most" in said.stdout.decode()
    lines = [json.loads(line) for line in run(root, "--format", "json", given=given).stdout.splitlines()]
    assert all(line["kind"] == "claim" and line["v"] == 1 for line in lines)
    assert len(lines) == len(claim_table.parse((root / "study" / "claims.tsv").read_text(), "c"))
    assert run(root, "--format", "markdown", given=given).stdout.startswith(b"| Finding of the study |")


def test_command_exit_codes(root, tmp_path):
    worse = b"".join(records.encode(summary) for summary in two([20.0, 20.1, 19.9], [10.0, 10.1, 9.9]))
    own = tmp_path / "own.tsv"
    own.write_text(
        HEADER + "more-is-quicker\tclients\tMore clients are quicker\twall_s\tclients=8\tclients=1\tA<B\t-\t\n"
    )
    assert run(root, "--claims", str(own), "--fail-on", "contradicted", given=worse).returncode == 5
    assert run(root, "--claims", str(own), given=worse).returncode == 0
    assert run(root, given=b"").returncode == 6
    assert run(root, "--only", "no-such", given=worse).returncode == 2
    own.write_text("nothing\n")
    bad = run(root, "--claims", str(own), given=worse)
    assert (bad.returncode, b"no column id" in bad.stderr) == (2, True)


def test_results_of_a_cpu_are_no_evidence_on_gpus():
    stated = {claim.id: claim for claim in claim_table.parse((claim_table.default_table()).read_text(), "claims.tsv")}
    small = [claim for name, claim in stated.items() if name.endswith("-small")]
    for claim in stated.values():
        wanted = "cpu" if claim in small else "gpu"
        for side in (claim.a, claim.b):
            assert any(
                term.key == "device" and term.values == (wanted,) or wanted == "gpu" and term.key == "gpu"
                for term in side
            ), claim.id

    def sweep(**options):
        return [
            made.summary(
                wall * noise,
                sweep=f"{options.get('prefix', '')}speculate",
                server={"speculate": speculate},
                varies=("speculate",),
                repeat=repeat,
                gpus=options.get("gpus", ()),
            )
            for speculate, wall in ((0, 20.0), (2, 10.0))
            for repeat, noise in enumerate((1.0, 1.01, 0.99), 1)
        ]

    def said(summaries):
        rows = group(summaries)
        return [
            claims.evaluate(stated[name], rows)["verdict"] for name in ("speculate-2-helps", "speculate-2-helps-small")
        ]

    assert said(sweep()) == ["not run", "supported"]
    assert said(sweep(gpus=("NVIDIA H100",))) == ["supported", "not run"]
    # The small tables run on the CPU whatever else the host has.
    assert said(sweep(gpus=("NVIDIA H100",), prefix="cpu-")) == ["not run", "supported"]


def test_eetq_is_compared_with_quantised_checkpoints_of_other_names():
    claim = next(
        claim
        for claim in claim_table.parse((claim_table.default_table()).read_text(), "claims.tsv")
        if claim.id == "eetq-helps-most"
    )
    summaries = []
    for quantize, model, wall in (("eetq", "vicuna", 10.0), (None, "vicuna", 20.0), ("awq", "vicuna-AWQ", 15.0)):
        summaries += [
            made.summary(
                wall * noise,
                sweep="quantise",
                server={"quantize": quantize, "model": model},
                varies=("quantize", "model"),
                repeat=repeat,
                gpus=("NVIDIA H100",),
            )
            for repeat, noise in enumerate((1.0, 1.01, 0.99), 1)
        ]
    record = claims.evaluate(claim, rows.group(summaries))
    assert record["verdict"] == "supported" and len(record["comparisons"]) == 2
    assert record["comparisons"][0]["a"]["device"] == "NVIDIA H100"
