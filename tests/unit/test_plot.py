"""Pictures from summaries: what is drawn, in which form, and what the drawing says in its SVG."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET

import made
import optional
import pytest

from llmpar import records
from llmpar.results import rows
from llmpar.results.rows import across, group

optional.need("matplotlib")
from llmpar.render import plot  # noqa: E402


def run(root, *arguments: str, given: bytes = b"", **environment: str) -> subprocess.CompletedProcess:
    import os

    return subprocess.run(
        [str(root / "bin" / "llmpar-plot"), *arguments],
        input=given,
        capture_output=True,
        timeout=60,
        env=os.environ | environment,
    )


def lines(summaries) -> bytes:
    return b"".join(records.encode(summary) for summary in summaries)


def test_curves_have_every_point_of_every_series():
    rows = [row for row in group(made.study()) if row.sweep == "clients"]
    figure = plot.against(rows)
    axis = figure.axes[0]
    drawn = {container.get_label(): container.lines[0].get_xydata() for container in axis.containers}
    assert set(drawn) == {"vllm", "tgi"}
    assert drawn["vllm"][:, 0].tolist() == [24, 64, 128, 256, 512]
    assert drawn["vllm"][2, 1] == pytest.approx(
        across([102_400 / (17.8 * noise) for noise in (1.0, 1.02, 0.99)]).value, rel=0.02
    )
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "output tokens per second",
        "time to first token, p95, s",
        "time per output token, p95, s",
    ]
    assert all(axis.get_ylim()[0] == 0 for axis in figure.axes)


def test_bars_are_the_interval_over_sessions():
    rows = [row for row in group(made.study()) if row.sweep == "speculate"]
    figure = plot.dots(rows, ("wall_s",))
    container = figure.axes[0].containers[2]
    segment = container.lines[2][0].get_segments()[0]
    one = rows[2].figure("wall_s")
    assert (segment[0][0], segment[1][0]) == (pytest.approx(one.low), pytest.approx(one.high))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [f"speculate {n}" for n in (0, 1, 2, 8)]


def test_a_tail_that_few_values_cannot_give_falls_back_for_all():
    rows = group([made.summary(load={"clients": 1}), made.summary(load={"clients": 2}, tails=False)])
    assert plot.choose(rows, "ttft") == "ttft_p90_s"


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
        (str(c.lines[0].get_marker()), str(c.lines[0].get_linestyle()), c.lines[0].get_color()) for c in axis.containers
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
    without = run(root, given=given, PYTHONPATH=str(tmp_path))
    assert (without.returncode, b"pip install" in without.stderr) == (4, True)
