"""Pictures from summaries: what is drawn, in which form, and what the drawing says in its SVG."""

from __future__ import annotations

import os
import re
import subprocess
import xml.etree.ElementTree as ET

import called
import made
import optional
import pytest

from llmpar import records
from llmpar.report import provenance
from llmpar.results import rows
from llmpar.results.rows import across, group

optional.need("matplotlib")
from llmpar.render import layout, plot, trade_off  # noqa: E402


def run(root, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess:
    return called.run(["llmpar-plot", *arguments], given)


def lines(summaries) -> bytes:
    return b"".join(records.encode(summary) for summary in summaries)


def test_curves_have_every_point_of_every_series():
    rows = [row for row in group(made.study()) if row.sweep == "clients"]
    figure = plot.against(rows)
    axis = figure.axes[0]
    assert axis.get_legend_handles_labels()[1] == ["vllm", "tgi"]
    drawn = [container.lines[0].get_xydata() for container in axis.containers]
    for place, x in enumerate((24, 64, 128, 256, 512)):  # a little beside one another
        assert drawn[0][place, 0] < x < drawn[1][place, 0]
        assert drawn[0][place, 0] == pytest.approx(x, rel=0.03)
    assert drawn[0][2, 1] == pytest.approx(
        across([102_400 / (17.8 * noise) for noise in (1.0, 1.02, 0.99)]).value, rel=0.02
    )
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "output tokens per second",
        "time to first token, p95, s",
        "time per output token, p95, ms",
    ]
    assert all(axis.get_ylim()[0] == 0 for axis in figure.axes)


@pytest.mark.parametrize("draw", [plot.against, trade_off.draw])
@pytest.mark.parametrize("series", [1, 24])
def test_panels_keep_their_height_under_a_long_legend(draw, series):
    named = [{"engine_args": f"--a-rather-long-option-of-an-engine {number}"} for number in range(series)]
    given = [
        made.summary(20.0, server=server, load={"clients": clients}, varies=("engine_args", "clients"))
        for server in named
        for clients in (8, 16)
    ]
    figure = draw(group(given))
    figure.draw_without_rendering()
    height = figure.axes[0].get_position().height * figure.get_figheight()
    assert 1.7 < height < 3.2


def test_bars_are_the_interval_over_sessions():
    rows = [row for row in group(made.study()) if row.sweep == "speculate"]
    figure = plot.dots(rows, ("wall_s",))
    container = figure.axes[0].containers[2]
    segment = container.lines[2][0].get_segments()[0]
    one = rows[2].figure("wall_s")
    assert (segment[0][0], segment[1][0]) == (pytest.approx(one.low), pytest.approx(one.high))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [f"speculate {n}" for n in (0, 1, 2, 8)]


def test_a_tail_that_few_values_cannot_give_falls_back_for_all():
    old = made.summary(load={"clients": 2}, tails=False)
    assert rows.shown(group([made.summary(load={"clients": 1}), old]), "ttft") == "ttft_p90_s"
    failed = made.summary(load={"clients": 2})
    failed["latency"]["ttft_s"]["p95"] = {"value": None, "failed": True}
    assert rows.shown(group([made.summary(load={"clients": 1}), failed]), "ttft") == "ttft_p95_s"


def test_open_loads_are_drawn_as_latency_against_rate():
    given = group([made.summary(load={"launcher": "open", "rate": rate}, varies=("rate",)) for rate in (1.0, 2.0)])
    assert layout.axis_of(given) == "rate"
    figure = plot.against(given, "rate")
    assert [axis.get_title(loc="left").split(",")[0] for axis in figure.axes] == [
        "time to first token",
        "time per output token",
    ]
    assert figure.axes[0].get_xlabel() == "rate, requests per second"


def test_goodput_is_a_panel_where_there_is_an_slo():
    summaries = [made.summary(load={"clients": clients}) for clients in (1, 2)]
    for summary, ratio in zip(summaries, (1.0, 0.6), strict=True):
        summary["goodput"] = {"objectives": {"ttft_s": 0.5, "tpot_s": 0.05}, "met": 1, "ratio": ratio, "steady": None}
    given = group(summaries)
    axis = plot.against(given).axes[3]
    assert axis.get_title(loc="left") == "share of requests within the SLO" and axis.get_ylim() == (0, 1.05)
    assert rows.objectives(given) == {"ttft_p95_s": 0.5, "tpot_p95_s": 0.05}
    summaries[0]["goodput"] = None
    assert rows.objectives(given) == {}


def test_trade_off_has_every_point_with_its_title_and_the_objectives():
    given = group([made.summary(20 - c, load={"clients": c}, ttft=0.1 * c, tpot=0.01 * c) for c in (1, 2, 4)])
    figure = trade_off.draw(given, {"ttft_p95_s": 0.5, "tpot_p95_s": 0.02})
    first, second = figure.axes
    assert first.get_xlabel() == "time to first token, p95, ms"
    assert second.get_xlabel() == "tokens per second and user, 1 / TPOT p95"
    limits = [[line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"] for axis in figure.axes]
    assert limits == [[0.5], [50.0]]
    text = plot.svg(figure, "t")
    assert len(re.findall('<g class="point" data-row="[0-9a-f]{12}"><title>clients ', text)) == 6
    assert "clients 4: 625 output tokens/s, TTFT p95 640 ms" in text and "SLO 500 ms" in text
    with pytest.raises(ValueError):
        trade_off.draw(group([made.summary() | {"latency": {}}]))


def test_an_interval_of_two_sessions_does_not_flatten_the_curve():
    summaries = [made.summary(wall, load={"clients": 1}, repeat=n) for n, wall in enumerate((10.0, 30.0), 1)]
    axis = plot.against(group([*summaries, made.summary(12.0, load={"clients": 2})])).axes[0]
    assert axis.get_ylim()[1] == pytest.approx(1.6 * 10_000 / 12)


def test_a_picture_says_what_it_is_of():
    given = group([made.summary(load={"clients": clients}, gpus=("NVIDIA H100",)) for clients in (1, 2)])
    line = provenance.caption(given)
    assert line == "llamacpp 1.0 · gemma3-270m · box, NVIDIA H100 · 2026-09-21"
    assert "box, NVIDIA H100" in plot.svg(plot.captioned(plot.against(given), line), "c")


def test_limited_points_are_ringed():
    rows = group([made.summary(load={"clients": 1}), made.summary(load={"clients": 2}, limited=("ttft_s",))])
    axis = plot.against(rows).axes[0]
    assert [line.get_xydata().tolist()[0][0] for line in axis.lines if line.get_markersize() == 10] == [2.0]


def test_svg_is_well_formed_with_ids_of_its_own_and_no_addresses():
    figure = plot.against([row for row in rows.group(made.study()) if row.sweep == "clients"])
    text = plot.svg(figure, "one")
    root = ET.fromstring(text)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) and all(name.startswith("one-") for name in ids)
    assert "clients" in "".join(element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text"))
    assert not re.search(r"purl\.org|matplotlib\.org", text)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert used and used <= set(ids)


def test_the_same_rows_give_the_same_svg():
    rows = group(made.study())
    assert plot.svg(plot.dots(rows), "x") == plot.svg(plot.dots(rows), "x")


def test_every_series_differs_in_more_than_colour():
    summaries = [
        made.summary(
            10 + index, server={"engine": f"e{index}"}, load={"clients": clients}, varies=("engine", "clients")
        )
        for index in range(12)
        for clients in (1, 8)
    ]
    axis = plot.against(rows.group(summaries)).axes[0]
    looks = [
        (str(line.get_marker()), str(line.get_linestyle()), line.get_color())
        for line in axis.get_legend_handles_labels()[0]
    ]
    assert len(looks) == 12 and len(set(looks)) == 12
    assert len({look[:2] for look in looks[:8]}) == 8


def test_command_writes_both_forms_and_says_what_it_cannot(root, tmp_path):
    given = lines(made.study(2))
    assert run(root, "-o", str(tmp_path / "a.png"), given=given).returncode == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n")
    done = run(root, "-o", str(tmp_path / "a.svg"), "--x", "speculate", "--y", "wall_s", "--narrow", given=given)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<svg")
    assert run(root, given=given).stdout.startswith(b"\x89PNG")
    assert run(root, "-o", "a.gif", given=given).returncode == 2
    assert run(root, "--y", "speed", given=given).returncode == 2
    assert run(root, given=b"").returncode == 6
    assert run(root, given=b"{}\n").returncode == 3
    (tmp_path / "matplotlib.py").write_text("raise ImportError\n")
    without = subprocess.run(
        [root / "bin" / "llmpar-plot"],
        input=given,
        capture_output=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert (without.returncode, b"type: make -B setup" in without.stderr) == (4, True)


def test_a_picture_is_not_written_to_a_terminal(root, tmp_path):
    (tmp_path / "s.json").write_bytes(lines(made.study(1)))
    for command, name in (("llmpar-plot", "plot.png"), ("llmpar-report", "report.html")):
        done = subprocess.run(
            ["script", "-qec", f"{root}/bin/{command} {tmp_path}/s.json", "/dev/null"], capture_output=True, timeout=60
        )
        assert done.returncode == 2 and b"not for a terminal" in done.stdout and name.encode() in done.stdout
