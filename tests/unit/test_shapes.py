"""Records of a wrong shape: named by file, line and key, and costing themselves alone."""

from __future__ import annotations

import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made import study, summary

from llmpar import cli, records, shapes
from llmpar.commands import compare, table
from llmpar.summary import read
from llmpar.summary.summariser import Summariser

ROOT = Path(__file__).resolve().parents[2]


def changed(path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(summary())
    *above, last = path.split(".")
    place = made
    for key in above:
        place = place[key]
    place[last] = value
    return made


@pytest.mark.parametrize(
    "path,value,said",
    [
        ("latency", 3, "'latency' is a number, not an object"),
        ("latency.ttft_s.p95", [], "'latency.ttft_s.p95' is a list, not an object"),
        ("wall_s.value", "5", "'wall_s.value' is a text, not a number"),
        ("wall_s.value", True, "'wall_s.value' is yes or no, not a number"),
        ("wall_s.value", 1e300, "'wall_s.value' is 1e+300, which is out of range"),
        ("n.ok", -1, "'n.ok' is -1, not a count"),
        ("n.ok", None, "without 'n.ok'"),
        ("started_at", 1e15, "'started_at' is 1e+15, not an instant"),
        ("series.in_flight", [1, None], "'series.in_flight[1]' is null, not a number"),
        ("warnings", ["x"], "'warnings[0]' is a text, not an object"),
        ("cell.load.clients", "many", "'cell.load.clients' is a text, not a number"),
        ("cell.varies", {"clients": []}, "'cell.varies.clients' is a list, not a number, a text or yes or no"),
        ("host.gpus", {}, "'host.gpus' is an object, not a list"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(path, value, said):
    line = json.dumps(changed(path, value)).encode() + b"\n"
    seen = records.Read()
    found = list(records.read(io.BytesIO(json.dumps(summary()).encode() + b"\n" + line), "f.json", seen))
    assert len(found) == 1
    assert seen.left_out == [seen.left_out[0]] and seen.left_out[0].startswith("'f.json' line 2: summary record ")
    assert said in seen.left_out[0] and "llmpar-summarise rewrites it" in seen.left_out[0]


def test_a_reader_that_cannot_say_what_it_leaves_out_refuses():
    with pytest.raises(records.BadShape, match="cannot read 'f' line 1: .*'latency' is a number"):
        list(records.read(io.BytesIO(json.dumps(changed("latency", 1)).encode()), "f"))


def test_nesting_has_an_end():
    deep = b'{"kind":"summary","v":1,"label":' + b"[" * 900 + b"]" * 900 + b"}"
    with pytest.raises(records.BadShape, match="nested deeper"):
        records.decode(deep)


def test_good_records_pass():
    for record in study():
        assert shapes.fault(record) is None
    for path in (ROOT / "docs/results/h100").glob("*summar*"):
        for line in path.read_bytes().splitlines():
            records.decode(line)


@pytest.mark.parametrize("kind", sorted(shapes.SHAPES))
def test_every_shape_is_of_documented_fields(kind):
    text = (ROOT / "docs/records.md").read_text().split(f"## {kind}, version", 1)[1].split("\n## ", 1)[0]
    documented = set(re.findall(r"`([a-z0-9_]+)`", text))
    # Of hosts that 0.1 described; of samples, what docs/records.md has in the table of engine fields.
    assert set(shapes.SHAPES[kind]) - documented - {"hostname", "name", "history", "ended_early", "source_id"} == set()


def test_one_bad_summary_costs_itself(tmp_path):
    good, bad = study(1)[:2], changed("latency", [])
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"".join(json.dumps(each).encode() + b"\n" for each in (good[0], bad, good[1])))
    done = CliRunner().invoke(table.main.command, [str(path)])
    assert done.exit_code == 0 and "left out: " in done.output and "line 2" in done.output


def test_bad_summaries_alone_are_no_summaries(tmp_path, capsys):
    path = tmp_path / "s.jsonl"
    path.write_bytes(json.dumps(changed("latency", [])).encode() + b"\n")
    assert cli.run("llmpar-compare", compare.main.command, ["--by", "engine", str(path)]) == 3
    assert "'latency' is a list, not an object" in capsys.readouterr().err


def test_a_sample_costs_itself_and_a_cell_is_refused():
    sample = b'{"kind":"gpu","v":1,"at":"noon"}\n'
    summariser = Summariser()
    read.feed(summariser, io.BytesIO(sample + b'{"kind":"gpu","v":1,"at":1.5}\n'), "g.jsonl")
    assert len(summariser.beside["gpu"]) == 1
    assert summariser.left_out[0].startswith("'g.jsonl' line 1: gpu record whose 'at' is a text")
    with pytest.raises(records.BadRecord, match="cannot read 'c.json' line 1: cell record whose 'load' is a list"):
        read.feed(Summariser(), io.BytesIO(b'{"kind":"cell","v":1,"load":[]}\n'), "c.json")
