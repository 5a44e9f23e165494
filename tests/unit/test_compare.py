"""Verdicts: the arithmetic, what is comparable, matching of cells, sentences, history."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from llmpar import records
from llmpar.render import verdicts as rendered
from llmpar.stats import control, effects, power
from llmpar.verdicts import history, pairs
from llmpar.verdicts.pairs import by
from llmpar.verdicts.verdict import decide, verdict_records


def made(value: float, session: str | None, engine: str = "vllm", clients: int = 128, **changes: Any) -> dict[str, Any]:
    """A summary with a throughput of `value`, as llmpar-summarise writes it, cut to what compare reads."""
    estimate = {"value": value, "low": value * 0.99, "high": value * 1.01}
    summary: dict[str, Any] = {
        "kind": "summary",
        "v": 1,
        "label": f"{engine}-{clients}",
        "session": session,
        "cell": {
            "id": f"{engine}-{clients}",
            "sweep": "s",
            "session": session,
            "server": {"engine": engine, "model": "m"},
            "load": {"clients": clients, "prompts": "prompts"},
        },
        "n": {"requests": 512, "ok": 512, "error": 0, "timeout": 0, "cancelled": 0, "retried": 0, "torn_lines": 0},
        "started_at": 1.7e9,
        "wall_s": {"value": 1000 / value, "low": None, "high": None},
        "latency": {
            "ttft_s": {
                "n": 512,
                "p95": {"value": 10 / value, "low": 9 / value, "high": 11 / value},
                "p99": {"value": None, "needed": 900},
            }
        },
        "throughput": {
            "output_tokens_per_s": {"wall": {"value": value, "low": None, "high": None}, "steady": estimate}
        },
        "concurrency": {"asked": clients, "ratio": 1.0},
        "tokens": {"output": 51200},
        "client": {"limited": [], "hosts": ["h"]},
        "workload": {
            "prompts": {"distinct": 64, "sha256": "a" * 64},
            "sampling": {"max_tokens": 100, "temperature": 0.0},
            "sampling_sha256": "b",
            "api": "openai-completions",
            "model": "m",
            "engine": engine,
        },
        "server": {"engine": engine, "version": "1.0"},
        "host": None,
        "warnings": [],
    }
    for path, change in changes.items():
        place = summary
        *inner, last = path.split("__")
        for name in inner:
            place = place[name]
        place[last] = change
    return summary


def sessions(values: list[float], **fields: Any) -> list[dict[str, Any]]:
    return [made(value, f"{fields.get('engine', 'vllm')}-{number}", **fields) for number, value in enumerate(values)]


def verdict(a: list[dict[str, Any]], b: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    found = verdict_records(pairs.against(a, b), options.pop("figures", ("output_tokens_per_s",)), **options)
    assert len(found) == 1
    records.encode(found[0])
    return found[0]


VLLM, TGI = [112.0, 111.0, 113.0], [100.0, 101.0, 99.0]


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(st.lists(st.floats(1, 1000), min_size=2, max_size=6), st.lists(st.floats(1, 1000), min_size=2, max_size=6))
def test_welch_agrees_with_scipy_on_logarithms(a: list[float], b: list[float]) -> None:
    found = effects.welch(a, b)
    if found.error is None or found.error < 1e-4:
        return
    wanted = scipy_stats.ttest_ind(np.log(a), np.log(b), equal_var=False)
    interval = wanted.confidence_interval(0.95)
    if len(a) != len(b):  # on the safe side of Welch's
        assert found.p_value is not None and found.p_value >= wanted.pvalue * (1 - 1e-6) and found.freedom is not None
        assert found.freedom <= min(len(a), len(b)) - 1
        assert found.low is not None and math.log(found.low) <= interval.low + 1e-9
        return
    assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
    assert found.low is not None and math.log(found.low) == pytest.approx(interval.low, rel=1e-6, abs=1e-9)
    assert found.high is not None and math.log(found.high) == pytest.approx(interval.high, rel=1e-6, abs=1e-9)


def test_permutation_is_exact_over_all_deals() -> None:
    a, b = [1.2, 1.3, 1.25, 1.4], [1.0, 1.1, 1.05, 1.22]
    pooled = np.log([*a, *b])

    def statistic(chosen: tuple[int, ...]) -> float:
        left, right = pooled[list(chosen)], pooled[[each for each in range(8) if each not in chosen]]
        return abs(left.mean() - right.mean()) / math.sqrt(left.var(ddof=1) / 4 + right.var(ddof=1) / 4)

    mine = statistic((0, 1, 2, 3))
    wanted = np.mean([statistic(chosen) >= mine * (1 - 1e-9) for chosen in itertools.combinations(range(8), 4)])
    found = effects.permutation(a, b)
    assert found.p_value == pytest.approx(wanted) and found.method == "permutation"
    assert effects.permutation([2.0, 2.1, 2.2], [1.0, 1.1, 1.2]).p_value == pytest.approx(0.1)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_corrections_are_monotone_and_never_smaller_than_the_raw_value(p_values: list[float | None]) -> None:
    for correction in effects.CORRECTIONS:
        adjusted = effects.adjust(p_values, correction)
        pairs = sorted(
            (raw, new) for raw, new in zip(p_values, adjusted, strict=True) if raw is not None and new is not None
        )
        assert [raw is None for raw in p_values] == [new is None for new in adjusted]
        assert all(raw <= new + 1e-12 <= 1 + 1e-9 for raw, new in pairs)
        assert all(before[1] <= after[1] + 1e-12 for before, after in itertools.pairwise(pairs))


def test_corrections_by_hand() -> None:
    assert effects.adjust([0.01, 0.04, None, 0.03], "holm") == pytest.approx([0.03, 0.06, None, 0.06])
    assert effects.adjust([0.01, 0.04, None, 0.03], "benjamini-hochberg") == pytest.approx([0.03, 0.04, None, 0.04])


def test_faster_says_so_in_the_sentence() -> None:
    found = verdict(sessions(VLLM), sessions(TGI, engine="tgi"))
    assert found["verdict"] == "faster" and found["at"] == {"clients": 128}
    assert (
        found["sentence"]
        == "vllm is 12% faster than tgi at 128 clients: 112 against 100 output tokens/s (9.6 to 14%, 3 server "
        "sessions each)"
    )
    assert found["a"]["values"] == VLLM and found["effect"]["ratio"] == pytest.approx(1.12, abs=0.001)


def test_lower_is_better_for_latencies_and_wall_time() -> None:
    for figure in ("wall_s", "ttft_p95_s"):
        found = verdict(sessions(VLLM), sessions(TGI, engine="tgi"), figures=(figure,))
        assert found["verdict"] == "faster" and found["better"] == "lower"
        assert found["effect"]["ratio"] < 1 < found["effect"]["speedup_low"] < found["effect"]["speedup_high"]
    assert verdict(sessions(TGI), sessions(VLLM, engine="tgi"), figures=("wall_s",))["verdict"] == "slower"
    assert "in TTFT p95" in found["sentence"]


def test_same_needs_evidence_not_absence_of_it() -> None:
    close = verdict(sessions([100, 100.4, 99.7, 100.1]), sessions([100.2, 100, 99.9, 100.3], engine="tgi"))
    assert close["verdict"] == "same" and "within 3%" in close["sentence"]
    noisy = verdict(sessions([100, 130, 80]), sessions([105, 90, 120], engine="tgi"))
    assert noisy["verdict"] == "cannot tell" and noisy["needed"]["sessions"] > 3
    assert "would decide it" in noisy["sentence"]


def test_one_session_each_cannot_tell_however_many_requests() -> None:
    found = verdict(sessions([200.0]), sessions([100.0], engine="tgi"))
    assert found["verdict"] == "cannot tell" and found["p_value"] is None
    assert "one server session" in found["sentence"] and "200 against 100 output tokens/s, +100%" in found["sentence"]
    # Summaries that name no session are one session.
    unnamed = verdict([made(200.0, None), made(201.0, None)], [made(100.0, None, "tgi"), made(101.0, None, "tgi")])
    assert unnamed["a"]["sessions"] == 1 and "--session" in unnamed["sentence"]


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"workload__prompts": {"distinct": 9, "sha256": "c" * 64}}, "prompts", "prompt sets differ"),
        ({"workload__sampling": {"max_tokens": 200, "temperature": 0.0}}, "sampling", "max_tokens"),
        ({"workload__model": "other"}, "model", "models differ"),
        ({"server__version": "2.0"}, "versions", "2.0 against 1.0"),
        ({"client__hosts": ["other"]}, "host", "hosts differ"),
        ({"n__ok": 480}, "failures", "96 of 1536"),
        ({"client__limited": ["output_tokens_per_s"]}, "client_limited", "client limits"),
    ],
)
def test_what_differs_is_named_and_not_ranked_unless_allowed(changes: dict[str, Any], code: str, words: str) -> None:
    a, b = sessions(VLLM, **changes), sessions(TGI)
    found = verdict(a, b)
    assert found["verdict"] == "not comparable" and code in [each["code"] for each in found["reasons"]]
    assert words in found["sentence"] and found["p_adjusted"] is None
    assert verdict(a, b, allow=(code,))["verdict"] == "faster"


def test_engines_have_versions_and_field_names_of_their_own() -> None:
    changes = {
        "server__version": "9",
        "workload__sampling": {"parameters": {"max_new_tokens": 100, "temperature": 0.0}},
    }
    assert verdict(sessions(VLLM), sessions(TGI, engine="tgi", **changes))["verdict"] == "faster"


def test_wall_time_of_outputs_of_different_length_is_not_comparable() -> None:
    a, b = sessions(VLLM, tokens__output=40000), sessions(TGI, engine="tgi")
    assert verdict(a, b, figures=("wall_s",))["verdict"] == "not comparable"
    assert verdict(a, b)["verdict"] == "faster"


def test_a_refused_percentile_says_how_many_requests_it_needs() -> None:
    found = verdict(sessions(VLLM), sessions(TGI, engine="tgi"), figures=("ttft_p99_s",))
    assert found["verdict"] == "cannot tell" and "needs 900 requests" in found["sentence"]


def test_cells_of_one_session_are_paired() -> None:
    # Sessions differ by 20%, the effect of the client count within each does not.
    found = [
        made(value * factor, f"s{number}", clients=clients)
        for number, value in enumerate([100.0, 120.0, 90.0])
        for clients, factor in ((24, 1.0), (128, 1.3 + number / 1000))
    ]
    paired = verdict_records(pairs.by(found, ("clients",), "24"), ("output_tokens_per_s",))
    assert [each["verdict"] for each in paired] == ["faster"] and paired[0]["method"] == "paired-log"
    welch = verdict_records(pairs.by(found, ("clients",), "24"), ("output_tokens_per_s",), method="welch")
    assert welch[0]["verdict"] == "cannot tell"


def test_many_cells_are_matched_and_corrected() -> None:
    found = [
        each
        for clients in (24, 64, 128)
        for engine, base in (("vllm", VLLM), ("tgi", TGI))
        for each in sessions(base, engine=engine, clients=clients)
    ]
    pairs = by(found, ("engine",), "tgi")
    assert [(pair.a.label, pair.b.label, pair.at) for pair in pairs] == [
        ("vllm", "tgi", {"clients": count}) for count in (24, 64, 128)
    ]
    verdicts = verdict_records(pairs, ("output_tokens_per_s",))
    assert all(each["p_adjusted"] == pytest.approx(3 * each["p_value"]) for each in verdicts)
    with pytest.raises(ValueError, match="there are vllm, tgi"):
        by(found, ("engine",), "mii")


def own(engine: str, values: list[float], clients: int, **server: Any) -> list[dict[str, Any]]:
    """Sessions of an engine with its own server settings."""
    return sessions(values, engine=engine, clients=clients, cell__server={"engine": engine, "model": "m", **server})


def test_an_engine_brings_its_version_model_and_flags() -> None:
    found = [
        each
        for clients in (24, 128)
        for each in (
            *own("vllm", VLLM, clients, version="0.23.0"),
            *own("llamacpp", TGI, clients, version="b1", model="m.gguf", engine_args="-fa"),
        )
    ]
    verdicts = verdict_records(pairs.by(found, ("engine",), "vllm"), ("output_tokens_per_s",))
    assert [(each["verdict"], each["at"]) for each in verdicts] == [
        ("slower", {"clients": 24}),
        ("slower", {"clients": 128}),
    ]
    assert (verdicts[0]["a"]["label"], verdicts[0]["b"]["label"]) == ("llamacpp, version b1", "vllm, version 0.23.0")
    (told,) = [reason["message"] for reason in verdicts[0]["reasons"] if reason["code"] == "own_settings"]
    assert told == (
        "llamacpp, version b1 and vllm, version 0.23.0 differ also in engine args -fa against default, model m.gguf "
        "against m: "
        "it compares the engines only if the weights are the same"
    )
    assert told in rendered.text(verdicts) and rendered.markdown(verdicts).count(told) == 1


def test_an_engine_in_two_versions_is_not_taken_for_one() -> None:
    found = [
        *own("vllm", VLLM, 128, version="0.23.0"),
        *own("vllm", VLLM, 128, version="0.24.0"),
        *own("tgi", TGI, 128, version="3"),
    ]
    verdicts = verdict_records(pairs.by(found, ("engine",), "tgi"), ("output_tokens_per_s",))
    assert {each["verdict"] for each in verdicts} == {"cannot tell"}
    both = pairs.by(found, ("engine", "version"), "tgi")
    assert [(pair.a.label, pair.b.label) for pair in both] == [
        ("vllm, version 0.23.0", "tgi, version 3"),
        ("vllm, version 0.24.0", "tgi, version 3"),
    ]


def test_a_load_that_differs_with_the_engine_is_no_part_of_it() -> None:
    found = [*own("vllm", VLLM, 128), *own("tgi", TGI, 64)]
    (made_of,) = verdict_records(pairs.by(found, ("engine",), "tgi"), ("output_tokens_per_s",))
    assert (
        made_of["verdict"] == "cannot tell"
        and "what differs besides: clients (--by engine --by clients)" in made_of["sentence"]
    )


def test_settings_that_differ_together_can_be_named_together() -> None:
    found = [*own("vllm", VLLM, 128, replicas=2, shards=1), *own("vllm", TGI, 128, replicas=1, shards=2)]
    (lost,) = verdict_records(pairs.by(found, ("replicas",), "1"), ("output_tokens_per_s",))
    assert lost["verdict"] == "cannot tell" and "--by replicas --by shards" in lost["sentence"]
    (both,) = verdict_records(pairs.by(found, ("replicas", "shards"), "replicas 1, shards 2"), ("output_tokens_per_s",))
    assert both["verdict"] == "faster" and both["a"]["label"] == "replicas 2, shards 1"


def test_a_cell_that_one_side_lacks_is_not_forgotten() -> None:
    a = [*sessions(VLLM), *sessions(VLLM, clients=64)]
    found = verdict_records(pairs.against(a, sessions(TGI, engine="tgi")), ("output_tokens_per_s",))
    assert sorted(each["verdict"] for each in found) == ["cannot tell", "faster"]
    assert any(reason["code"] == "missing" for each in found for reason in each["reasons"])


def test_a_weakness_is_noted_beside_the_verdict() -> None:
    warned = sessions(VLLM, warnings=[{"code": "low_concurrency", "message": "m", "try": "t"}])
    found = verdict(warned, sessions(TGI, engine="tgi"))
    assert found["verdict"] == "faster" and "note: vllm: warning low_concurrency" in rendered.text([found])


def test_an_interval_that_holds_no_difference_shows_its_signs() -> None:
    found = verdict(sessions([110, 111, 112, 300]), sessions([100, 101, 102, 103], engine="tgi"), method="permutation")
    assert found["verdict"] == "faster" and found["effect"]["speedup_low"] < 1
    assert "(−" in found["sentence"] and " to +" in found["sentence"]


def test_markdown_escapes_and_counts() -> None:
    found = [
        verdict(sessions(VLLM), sessions(TGI, engine="t|g")),
        verdict(sessions([1.0]), sessions([2.0], engine="tgi")),
    ]
    text = rendered.markdown(found)
    assert text.startswith("**1 faster, 1 cannot tell**") and "t\\|g" in text and "▲ faster" in text


@pytest.mark.parametrize(
    ("sigma", "difference", "count"),
    [
        (0.01, 0.05, 2),
        (0.005, 0.0, 2),
        (0.01, 0.05, 3),
        (0.03, 0.05, 5),
        (0.03, 0.05, 20),
        (0.03, 0.2, 3),
        (0.02, 0.0, 5),
        (0.01, 0.02, 4),
        (0.01, 0.03, 5),
    ],
)
def test_power_agrees_with_simulated_verdicts(sigma: float, difference: float, count: int) -> None:
    random = np.random.default_rng([1, count])
    said = [
        decide(
            effects.welch(
                np.exp(sigma * random.standard_normal(count) + math.log1p(difference)).tolist(),
                np.exp(sigma * random.standard_normal(count)).tolist(),
            ),
            True,
        )
        for _ in range(2000)
    ]
    slack = 0.035  # three standard errors of a share of 2000
    assert said.count("faster") / 2000 == pytest.approx(power.power_different(sigma, difference, count), abs=slack)
    assert said.count("same") / 2000 == pytest.approx(power.power_same(sigma, difference, count), abs=slack)


def test_sessions_needed_are_the_fewest_that_suffice() -> None:
    for sigma, difference, found in (
        (0.03, 0.05, power.power_different),
        (0.01, 0.0, power.power_same),
        (0.05, 0.3, power.power_different),
    ):
        count = power.sessions_needed(sigma, difference)
        assert count is not None and found(sigma, difference, count) >= 0.9
        assert count == 2 or found(sigma, difference, count - 1) < 0.9
    # At the margin itself nobody can be sure of either verdict, and just beyond it hardly.
    assert power.sessions_needed(0.02, 0.03) is None and power.sessions_needed(0.02, 0.031) is None
    assert power.sessions_needed(0.02, 0.03, margin=0.01) is not None
    assert power.sessions_needed(1.0, 0.05, most=50) is None


def nights(values: list[float]) -> list[dict[str, Any]]:
    return [
        made(value, f"night-{number:02d}", started_at=1.7e9 + 86400.0 * number) for number, value in enumerate(values)
    ]


def test_a_slow_night_is_told_from_the_nights_before() -> None:
    steady = [100.0, 101.0, 99.5, 100.4, 99.8, 100.9, 100.1]
    found = history.verdicts(nights([*steady, 90.0]), ("output_tokens_per_s",), 14)
    assert [each["verdict"] for each in found] == ["slower"] and found[0]["method"] == "prediction-t"
    assert "the newest night is 10% slower than the 7 nights before at 128 clients" in found[0]["sentence"]
    usual = history.verdicts(nights([*steady, 100.2]), ("output_tokens_per_s",), 14)
    assert usual[0]["verdict"] == "same" and not usual[0]["history"]["change_points"]


def test_a_step_is_spoken_of_from_its_first_nights_and_slow_nights_stay() -> None:
    before = [100.0, 101.0, 99.5, 100.4, 99.8, 100.9, 100.1, 99.9]
    after = [80.0, 80.5, 79.6]
    found = history.verdicts(nights([*before, *after]), ("output_tokens_per_s",), 30)[0]
    assert [each["index"] for each in found["history"]["change_points"]][0] in (7, 8)
    assert len(found["history"]["nights"]) == 11


def test_a_slow_loss_is_spoken_of_against_the_pinned_nights() -> None:
    random = np.random.default_rng(5)
    values = 100 * 0.9 ** (np.arange(120) / 365) * np.exp(0.01 * random.standard_normal(120))
    spoken = []
    for night in range(40, 120):
        found = history.verdicts(nights(values[:night].tolist()), ("output_tokens_per_s",), 30, margin=0.005)[0]
        if found["verdict"] == "slower":
            spoken.append(night)
            alone = f"night {night} of {night} is the first"  # a night that speaks alone is where the level changed
            assert "the 30 pinned nights" in found["sentence"]
            assert "worse since night" in found["sentence"] or found["sentence"].endswith(alone)
    assert spoken and 1 - 0.9 ** (spoken[0] / 365) < 0.025


def test_an_unchanged_server_is_quiet() -> None:
    random = np.random.default_rng(7)
    spoken = 0
    for _ in range(10):
        rates = (100 * np.exp(0.02 * random.standard_normal(120))).tolist()
        spoken += len(control.chart(rates, False, 0.005).alarms)
    assert spoken <= 8  # 2 a year would be 6.6


def mood(random: np.random.Generator, nights: int, rho: float) -> np.ndarray:
    """An autoregressive series of unit variance."""
    values = random.standard_normal(nights) * np.sqrt(1 - rho**2)
    values[0] = random.standard_normal()
    for night in range(1, nights):
        values[night] += rho * values[night - 1]
    return values


def test_a_server_whose_nights_follow_one_another_alike_is_quiet() -> None:
    random = np.random.default_rng(11)
    spoken = 0
    for _ in range(20):
        rates = 100 * np.exp(0.02 * mood(random, 395, 0.7))
        spoken += len(control.chart(rates.tolist(), False, 0.005, rho=control.correlation([rates.tolist()])).alarms)
    assert spoken <= 3 * 20


def test_the_correlation_of_few_nights_is_not_biased() -> None:
    random = np.random.default_rng(12)
    for rho in (0.5, 0.8):
        found = control.correlation([np.exp(0.01 * mood(random, 30, rho)).tolist() for _ in range(400)])
        assert abs(found - rho) < 0.04


def test_a_loss_that_lasts_is_told_once_and_a_further_one_again() -> None:
    random = np.random.default_rng(13)
    noise = np.exp(0.01 * random.standard_normal(140))
    level = np.where(np.arange(140) < 40, 100.0, np.where(np.arange(140) < 90, 93.0, 86.0))
    found = control.chart((level * noise).tolist(), False, 0.005)
    assert [round(each.since, -1) for each in found.alarms] == [40, 90] and found.standing == found.alarms[-1]
    records = history.verdicts(nights((level * noise)[:60].tolist()), ("output_tokens_per_s",), 30, margin=0.005)
    assert records[0]["verdict"] != "slower"
    assert records[0]["reasons"][0]["message"].endswith(
        "% worse since night-40, which was reported; no worse since then"
    )


def test_a_lasting_loss_is_told_once_at_most_years() -> None:
    random = np.random.default_rng(15)
    after = 0
    for _ in range(20):
        level = np.where(np.arange(150) < 60, 100.0, 95.0)
        found = control.chart((level * np.exp(0.02 * random.standard_normal(150))).tolist(), False, 0.005)
        after += sum(each.index >= 60 for each in found.alarms)
    assert 20 <= after <= 32  # once each, and the false alarms of 90 nights


def test_alarms_of_one_change_are_mailed_together() -> None:
    alarms = [
        [control.Alarm(60, 60, 1.05)],
        [control.Alarm(63, 59, 1.04), control.Alarm(66, 64, 1.04)],
        [control.Alarm(64, 60, 1.05)],
        [control.Alarm(90, 70, 1.02)],
    ]
    sent = control.mails(alarms)
    # Figure 1's later loss began after the first mail, so it does not wait, and takes those along that do.
    assert {night: [number for number, _ in each] for night, each in sent.items()} == {60: [0], 66: [1, 1, 2], 90: [3]}
    assert [night for night in control.mails([alarms[0], alarms[2]])] == [60, 70]
    assert control.mails([[], []]) == {}
    # A figure that was not measured on the night of the mail waits for one on which it is.
    every = range(60, 100)
    measured = [every, every, [*range(60, 70), 73], every]
    assert list(control.mails([alarms[0], [], alarms[2]], measured)) == [60, 73]


def test_figures_that_one_change_moves_are_told_with_it_or_with_the_next_mail() -> None:
    random = np.random.default_rng(16)
    level = np.where(np.arange(80) < 60, 1.0, 0.95)
    rates = [100 * level * np.exp(0.015 * random.standard_normal(80)) for _ in range(4)]
    spoken: dict[int, int] = {}
    waiting = []
    for night in range(60, 80):
        cells = [
            {**each, "cell": {**each["cell"], "load": {**each["cell"]["load"], "clients": 2 + number}}}
            for number, values in enumerate(rates)
            for each in nights(values[: night + 1].tolist())
        ]
        for record in history.verdicts(cells, ("output_tokens_per_s",), 30, margin=0.005):
            spoken[night] = spoken.get(night, 0) + (record["verdict"] == "slower")
            waiting += [
                each["message"] for each in record["reasons"] if "reported then with other figures" in each["message"]
            ]
    mails = {night: count for night, count in spoken.items() if count}
    assert len(mails) == 2 and sum(mails.values()) == 4 and max(mails) - min(mails) == control.FOLLOWS
    assert waiting


def test_a_loss_that_is_over_can_be_told_again() -> None:
    random = np.random.default_rng(14)
    level = np.full(160, 100.0)
    level[40:50] = level[120:] = 94.0
    found = control.chart((level * np.exp(0.01 * random.standard_normal(160))).tolist(), False, 0.005)
    assert [round(each.since, -1) for each in found.alarms] == [40, 120]


def test_one_bad_night_of_many_figures_is_no_change_of_level_but_is_kept() -> None:
    values = [100.0, 103.0, 97.5, 101.4, 99.8, 102.9, 98.1, 101.0, 94.0]
    found = history.verdicts(nights(values), ("output_tokens_per_s",), 30)[0]
    assert found["verdict"] != "slower" and found["history"]["pinned"] == 8


def test_what_a_night_changed_is_named() -> None:
    found = nights([100.0, 101.0, 99.5, 100.4, 80.0])
    for each in found:
        each["host"] = {"driver": "550.54", "kernel": "6.1"}
    found[-1]["host"] = {"driver": "560.28", "kernel": "6.1"}
    reasons = history.verdicts(found, ("output_tokens_per_s",), 30, allow=("host",))[0]["reasons"]
    assert {"code": "changed", "message": "changed since the night before: driver 550.54 to 560.28"} in reasons


def test_few_nights_are_too_few() -> None:
    found = history.verdicts(nights([100.0, 101.0, 80.0]), ("output_tokens_per_s",), 14)[0]
    assert found["verdict"] == "cannot tell" and found["reasons"][0]["code"] == "few_nights"


def test_the_command_reads_files_and_fails_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from llmpar import cli
    from llmpar.commands import compare as command

    for name, group in (("a", sessions(TGI)), ("b", sessions(VLLM))):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(records.encode, group)))
    run = lambda *arguments: cli.run("llmpar-compare", command.main.command, list(arguments))  # type: ignore[attr-defined]  # noqa: E731
    assert run("a.jsonl", "--baseline", "b.jsonl") == 0
    assert "candidate is 11% slower than baseline at 128 clients" in capsys.readouterr().out
    assert run("a.jsonl", "--baseline", "b*.jsonl", "--fail-on", "slower") == 5
    capsys.readouterr()
    assert run("a.jsonl", "--baseline", "b.jsonl", "--format", "json", "-o", "v.jsonl") == 0
    assert json.loads(Path("v.jsonl").read_bytes())["verdict"] == "slower"
    assert run("a.jsonl") == 2
    assert run("a.jsonl", "--baseline", "b.jsonl", "--figure", "nonsense") == 2
    assert run("a.jsonl", "--by", "engine") == 6


def test_latencies_of_the_steady_window_are_not_compared_with_those_of_whole_runs():
    def latencies(value: float, session: str, over: str, engine: str) -> dict[str, Any]:
        summary = made(value, session, engine) | {"v": 2, "latency_over": over}
        return summary | {"latency_run": summary["latency"]}

    tgi = [latencies(100 + n, f"tgi-{n}", "steady", "tgi") for n in range(3)]
    vllm = [latencies(150 + n, f"vllm-{n}", "run" if n else "steady", "vllm") for n in range(3)]
    (one,) = verdict_records(by(tgi + vllm, ("engine",), "tgi"), ("ttft_p95_s",))
    assert one["verdict"] == "not comparable"
    assert "TTFT p95 is of the steady window in 4 of 6 summaries" in one["sentence"]
    assert "compare ttft_p95_s_run" in one["sentence"]
    (whole,) = verdict_records(by(tgi + vllm, ("engine",), "tgi"), ("ttft_p95_s_run",))
    (allowed,) = verdict_records(by(tgi + vllm, ("engine",), "tgi"), ("ttft_p95_s",), allow=("latency_over",))
    (rate,) = verdict_records(by(tgi + vllm, ("engine",), "tgi"), ("output_tokens_per_s",))
    assert whole["verdict"] == allowed["verdict"] == rate["verdict"] == "faster"
    assert "latency_over" in [each["code"] for each in allowed["reasons"]]
    (old,) = verdict_records(
        by([made(100 + n, f"t{n}", "tgi") for n in range(3)] + vllm[1:], ("engine",), "tgi"), ("ttft_p95_s",)
    )
    assert old["verdict"] == "faster", "version 1 and a run without a window are of whole runs both"
