"""From which acceptance length on speculation pays: the curve, its interval, what is said, drawn and decided of it."""

from __future__ import annotations

import made
import optional
import orjson
import pytest

from llmpar.engines import ENGINES, check
from llmpar.engines.base import Device, Settings, Unsupported
from llmpar.results import words
from llmpar.results.rows import group
from llmpar.summary import join, warnings
from llmpar.summary.columns import Columns
from llmpar.verdicts import break_even, claim_table, claims, sentences

DUMMY = "--load-format dummy"


def cell(wall, speculate=0, length=None, repeat=1, clients=128, **more):
    server = {"engine": "vllm", "speculate": speculate, "engine_args": DUMMY}
    if length is not None:
        server["acceptance_length"] = length
    return made.summary(
        wall,
        sweep="acceptance",
        server=server,
        load={"clients": clients},
        varies=("speculate", "acceptance_length", "clients"),
        repeat=repeat,
        tokens=100_000,
        gpus=("NVIDIA H100",),
        **more,
    )


def walls(length, prompts_s=2.0, steps_s=30.0):
    """Seconds of a server that reads prompts for some, and then takes steps that each yield `length` tokens."""
    return prompts_s + steps_s / length


def curve(summaries):
    (found,) = break_even.curves(group(summaries))
    return found


def test_the_length_at_which_both_take_as_long_is_found_exactly_on_the_line():
    # Without speculation 14 s: 2 + 30 / L is 14 at L = 2.5.
    found = break_even.find(curve([cell(14.0), *(cell(walls(length), 8, length) for length in (1.7, 2.2, 3.5, 5.0))]))
    assert found.length == pytest.approx(2.5)
    assert (found.low, found.high, found.sessions) == (None, None, 1)


@pytest.mark.parametrize(("base", "pays"), [(30.0, True), (5.0, False)])
def test_without_a_crossing_only_the_side_is_said(base, pays):
    found = break_even.find(curve([cell(base), cell(walls(2.0), 8, 2.0), cell(walls(4.0), 8, 4.0)]))
    assert (found.length, found.pays) == (None, pays)
    said = sentences.break_even(break_even.records([curve([cell(base), cell(walls(2.0), 8, 2.0)])])[0])
    assert said.endswith("at any measured acceptance length (2) at 128 clients")
    assert ("does not pay" in said) is not pays


def test_two_sessions_give_an_interval_that_grows_with_their_spread():
    def at(noise):
        sessions = [cell(14.0 * (1 + noise * sign), repeat=repeat) for repeat, sign in ((1, 1), (2, -1))]
        sessions += [
            cell(walls(length) * (1 + noise * sign), 8, length, repeat)
            for length in (2.0, 3.0)
            for repeat, sign in ((1, -1), (2, 1))
        ]
        return break_even.find(curve(sessions))

    narrow, wide = at(0.002), at(0.004)
    assert narrow.low < 2.5 < narrow.high and narrow.sessions == 2
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    # Known to be possible lengths, however wide.
    mad = at(0.4)
    assert (mad.low, mad.high) == (1.0, 9.0)


def test_only_rows_that_differ_in_nothing_else_make_a_curve():
    others = [cell(walls(2.0), 8, 2.0, clients=24), cell(walls(3.0), 8, None)]
    assert break_even.curves(group([cell(14.0), *others])) == []
    found = break_even.curves(group([cell(14.0), *others, cell(walls(3.0), 8, 3.0), cell(walls(3.0), 2, 3.0)]))
    assert [one.speculate for one in found] == [2, 8]


def test_a_claim_on_speculation_is_decided_as_a_curve():
    text = "\t".join(claim_table.COLUMNS) + "\n"
    text += "hurts\tspeculate\tEight hurt\twall_s\tdevice=gpu speculate=8\tdevice=gpu speculate=0,2\tA>B\t1.59\t-\n"
    (claim,) = claim_table.parse(text, "claims")
    summaries = [cell(14.0), cell(14.0, clients=24), *(cell(walls(each), 8, each) for each in (2.0, 3.0))]
    summaries += [cell(walls(each), 2, each) for each in (2.0, 3.0)]
    summaries += [cell(walls(each), 8, each, clients=24) for each in (2.0, 3.0)]
    said = claims.evaluate(claim, group(summaries))
    assert said["verdict"] == "depends" and said["comparisons"] == []
    assert [(one["speculate"], one["at"]) for one in said["break_even"]] == [
        (8, {"clients": 24}),
        (8, {"clients": 128}),
    ]
    assert "speculate 8 pays from an acceptance length of 2.50 at 128 clients, 1 server session" in sentences.claim(
        said
    )
    # What real acceptance decides is decided as before, and the curve is there as well.
    real = [
        cell(wall * noise, k, None, repeat)
        for k, wall in ((0, 10.0), (8, 20.0))
        for repeat, noise in ((1, 1), (2, 1.001))
    ]
    for each in real:
        del each["cell"]["server"]["engine_args"]
    said = claims.evaluate(claim, group([*real, *summaries]))
    assert said["verdict"] == "supported" and len(said["break_even"]) == 2


def test_forced_or_observed_is_in_every_label():
    rows = group([cell(14.0), cell(10.0, 8, 2.5), cell(9.0, 8, None)])
    assert [words.label(row) for row in rows] == [
        "speculate 0",
        "speculate 8, acceptance 2.5 forced",
        "speculate 8, acceptance not forced",
    ]
    (alone,) = group([cell(10.0, 8, 2.5) | {}])
    alone.varies.pop("acceptance_length")
    assert words.label(alone) == "speculate 8, acceptance 2.5 forced", "also where the whole sweep has one length"


def test_the_summary_holds_what_was_forced_and_what_was_seen():
    summary = {
        "cell": {"server": {"speculate": 8, "acceptance_length": 3.0}},
        "server": None,
        "window": {"steady": True, "start_at": 0.0, "end_at": 10.0},
        "started_at": 0.0,
        "ended_at": 10.0,
        "warnings": [],
    }
    engine = [
        {
            "kind": "engine",
            "v": 1,
            "at": at,
            "error": None,
            "running": 4,
            "waiting": 0,
            "replicas": [],
            "spec_drafts_total": drafts,
            "spec_draft_tokens_total": drafts * 8,
            "spec_accepted_tokens_total": accepted,
        }
        for at, drafts, accepted in ((0.0, 0, 0), (10.0, 100, 150))
    ]
    join.join(summary, [], engine, lambda start, end: 100)
    assert summary["joined"]["acceptance_length"] == {"forced": 3.0, "observed": 2.5}
    evidence = warnings.Evidence(summary, Columns(), None, None)
    assert warnings.TABLE["acceptance_missed"].condition(evidence) == {"forced": 3.0, "observed": 2.5}
    summary["joined"]["acceptance_length"]["forced"] = 2.6
    assert warnings.TABLE["acceptance_missed"].condition(evidence) is None, "within 5%"


FORCE = {
    "vllm": ("0.23.0", '"rejection_sample_method":"synthetic","synthetic_acceptance_length":3.0'),
    "sglang": ("0.5.23", "SGLANG_SIMULATE_ACC_LEN=3"),
    "trtllm": ("1.2.1", "TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS=2"),
}


@pytest.mark.parametrize("name", FORCE)
def test_every_engine_that_can_is_asked_in_its_own_way(name):
    version, wanted = FORCE[name]
    settings = Settings(model="m", version=version, speculate=8, acceptance_length=3.0)
    check(ENGINES[name], settings)
    assert wanted in " ".join(ENGINES[name].command(settings, Device(), "docker").argv)
    plain = ENGINES[name].command(Settings(model="m", version=version, speculate=8), Device(), "docker")
    assert wanted.split("=")[0].split(":")[0] not in " ".join(plain.argv)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vllm", {"acceptance_length": 2.0}, "give --speculate N as well"),
        ("vllm", {"speculate": 2, "acceptance_length": 3.5}, "from 1 to 3 tokens"),
        ("vllm", {"speculate": 2, "acceptance_length": 2.0, "version": "0.22.1"}, "0.23 can"),
        ("trtllm", {"speculate": 8, "acceptance_length": 2.5}, "whole number"),
        ("trtllm", {"speculate": 8, "acceptance_length": 1.0}, "at least 1"),
        ("tgi", {"speculate": 8, "acceptance_length": 3.0}, "tgi has no acceptance_length"),
    ],
)
def test_what_cannot_be_forced_is_refused(name, settings, message):
    wanted = Settings(model="m", **settings)
    with pytest.raises(Unsupported, match=message):
        check(ENGINES[name], wanted)
        ENGINES[name].command(wanted, Device(), "docker")


def test_the_chart_has_a_line_for_each_k_and_the_level_without():
    optional.need("matplotlib")
    from llmpar.render import charts, plot

    summaries = [cell(14.0), *(cell(walls(each), k, each) for k in (2, 8) for each in (2.0, 3.0))]
    summaries += [cell(14.0, clients=24), cell(walls(2.0), 8, 2.0, clients=24)]
    rows = group(summaries)
    (chart,) = charts.of_sweep("acceptance", rows, rows)
    assert "speculate 8 pays from an acceptance length of 2.50 at 128 clients" in chart.note
    assert [panel.title.split(":")[0] for panel in chart.panels] == ["24 clients", "128 clients"]
    assert "2.50" in [cross[2] for cross in chart.panels[1].crosses]
    figure = plot.acceptance(break_even.curves(rows))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert [title.split(":")[0] for title in titles] == ["24 clients", "128 clients"]
    names = figure.axes[1].get_legend_handles_labels()[1]
    assert sorted(names) == ["2 draft tokens", "8 draft tokens", "no speculation"]
    assert "2.50" in [text.get_text() for text in figure.axes[1].texts]
    with pytest.raises(ValueError, match="forced acceptance length"):
        plot.acceptance([])


def test_break_even_lengths_that_lie_close_do_not_cover_one_another(root):
    optional.need("matplotlib")
    from llmpar.render import plot

    path = root / "docs" / "results" / "h100" / "speculation-by-length.jsonl"
    rows = group(map(orjson.loads, path.read_bytes().splitlines()))
    figure = plot.acceptance(break_even.curves(rows))
    figure.canvas.draw()
    close = 0
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in axis.texts]
        close += sum(abs(one.x0 - other.x0) < 25 for one in boxes for other in boxes if one is not other)
        assert not [one for one in boxes for other in boxes if one is not other and one.overlaps(other)]
    assert close, "no two lengths lie close: the data shows nothing"
