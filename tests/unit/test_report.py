"""The report's document: tables, answers that claim no more than their intervals, and every format of it."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import made
import orjson
import pytest

from llmpar import records
from llmpar.render import charts, panel, report_csv
from llmpar.report import document, provenance, study, tracks
from llmpar.report.tracks import of
from llmpar.results import rows, words
from llmpar.results.rows import group
from llmpar.verdicts import objectives

BAD = "<script>alert('&')</script>\"'"


def built(summaries, walls=None) -> document.Document:
    return document.build("T", rows.group(summaries), [], [], {}, walls)


def three(walls: dict[int, float], **more) -> list[dict]:
    return [
        made.summary(wall * noise, load={"clients": clients}, repeat=repeat, **more)
        for clients, wall in walls.items()
        for repeat, noise in enumerate((1.0, 1.02, 0.99), 1)
    ]


def noisy(walls: dict[int, float]) -> list[dict]:
    shift = {1: (1.0, 1.1, 0.9), 2: (1.1, 0.9, 1.0), 4: (0.9, 1.0, 1.1)}
    return [
        made.summary(wall * noise, load={"clients": clients}, repeat=repeat)
        for clients, wall in walls.items()
        for repeat, noise in enumerate(shift[clients], 1)
    ]


def test_answer_names_the_best_only_as_far_as_sessions_allow():
    assert (
        built(three({1: 30.0, 2: 20.0, 4: 10.0}))
        .sweeps[0]
        .answer.startswith(
            "4 clients: the best rate, 997 output tokens/s, and it may grow with more clients than were tried. "
            "Least wall seconds: clients 4, 10.0 s; the next, clients 2, takes 2.00"
        )
    )
    assert (
        "; with 3 server sessions each it cannot be told apart from clients 2 (1.05 times as long)."
        in built(noisy({1: 30.0, 2: 10.5, 4: 10.0})).sweeps[0].answer
    )
    assert built(noisy({1: 30.0, 2: 10.1, 4: 10.0})).sweeps[0].answer.endswith("from clients 2."), (
        "a difference within the margin is not worth a figure"
    )
    assert (
        "does not show"
        in built([made.summary(30.0, load={"clients": 1}), made.summary(10.0, load={"clients": 2})]).sweeps[0].answer
    )


def test_answer_says_where_other_work_disturbed_the_host():
    cells = three({1: 30.0, 2: 20.0}) + three({4: 10.0}, warnings=("busy_host",))
    said = built(cells).sweeps[0].answer
    assert said.endswith(
        "times as long. Other work used the host's processors in 1 of 3 cells (busy_host): measure those again."
    )


def test_answer_refuses_what_is_not_the_same_work_or_not_fair():
    other = [made.summary(30.0, load={"clients": 1}), made.summary(10.0, load={"clients": 2}, prompts="q" * 64)]
    assert "different work" in built(other).sweeps[0].answer
    failing = three({1: 30.0, 2: 20.0}) + three({4: 10.0}, failed=50)
    assert "Least wall seconds: clients 2" in built(failing).sweeps[0].answer


def test_engines_of_different_apis_and_model_files_are_ranked_with_a_word_on_the_models():
    def engines(llama: dict, **more) -> list[dict]:
        return three({8: 20.0}, server={"engine": "tgi", "model": "m"}, varies=("engine",), **more) + three(
            {8: 10.0}, server={"engine": "llamacpp"} | llama, varies=("engine",)
        )

    found = engines({"model": "m"})
    for one in found[:3]:
        one["workload"] |= {"sampling": {"max_new_tokens": 64, "do_sample": False}, "sampling_sha256": "t" * 64}
    assert (
        built(found).sweeps[0].answer
        == "Least wall seconds: llamacpp, 10.0 s; the next, tgi, takes 2.00 (1.93 to 2.07) times as long."
    )
    own = built(engines({"model": "m.gguf"})).sweeps[0].answer
    assert own.startswith(
        "Each engine ran a model of its own (llamacpp: m.gguf, tgi: m); only if their weights are the same "
    )
    assert "is best. Least wall seconds: llamacpp, 10.0 s; the next, tgi, takes 2.00" in own
    one = three({8: 20.0}, server={"model": "m"}, varies=("model",)) + three(
        {8: 10.0}, server={"model": "n"}, varies=("model",)
    )
    assert built(one).sweeps[0].answer.startswith("Least wall seconds: n, 10.0 s")
    several = engines({"model": "m"}) + three(
        {8: 5.0}, server={"engine": "tgi", "model": "small"}, varies=("engine", "model")
    )
    assert "different models" in built(several).sweeps[0].answer


def test_a_cell_of_one_session_does_not_hide_what_others_tell():
    once = [made.summary(15.0, load={"clients": clients}) for clients in (8, 16, 32, 64)]
    found = built(three({1: 30.0, 2: 20.0, 4: 10.0}) + once).sweeps[0].answer
    assert "Least wall seconds: clients 4, 10.0 s; the next, clients 2, takes 2.00" in found
    assert found.endswith("Measured in one server session only, so not ranked: clients 8; clients 16 and 2 more.")
    assert (
        built([made.summary(5.0, load={"clients": 8})] + three({1: 30.0, 2: 20.0}))
        .sweeps[0]
        .answer.endswith("measure with REPEATS=3.")
    )


def test_repeats_are_one_line_with_the_interval_over_sessions():
    table = built(three({1: 30.0, 2: 20.0})).sweeps[0].table
    assert [line[0] for line in table.rows] == ["1", "2"]
    assert table.rows[0][-1] == "3"
    one = rows.across([30.0, 30.6, 29.7])
    assert table.rows[0][1] == f"{one.value:.1f} s ({one.low:.1f} to {one.high:.1f})"
    assert "over server sessions" in table.note


WALLS = study.parse((Path(__file__).resolve().parents[2] / "study" / "walls.tsv").read_text(), "walls.tsv")


def test_published_wall_seconds_appear_under_their_source_where_they_are_asked_for():
    summaries = three({128: 18.0, 24: 39.0, 3: 1.0})
    whole = built(summaries, WALLS)
    table = whole.sweeps[0].table
    column = next(index for index, name in enumerate(table.header) if "the study, 2024" in name)
    assert [line[column] for line in table.rows] == ["", "664 s", "554 s"]  # by clients
    assert "from RTX A6000 with other prompts" in table.note
    (published,) = whole.published
    assert published.title == "Not measured here: the study, 2024" and "one run each" in published.note.lower()
    seconds = ["664", "561", "554", "568", "596", "945", "741", "481", "707", "1205"]
    assert [line[-1] for line in published.rows] == seconds
    assert not any("study" in name for name in built(three({1: 2.0, 2: 1.0}), WALLS).sweeps[0].table.header)
    without = built(summaries)
    assert not without.published and "study" not in " ".join(
        [*without.sweeps[0].table.header, without.sweeps[0].table.note]
    )


def test_there_is_no_published_row_for_what_was_not_run():
    assert WALLS.row({"clients": 128, "speculate": 2}).wall_s == 596
    assert WALLS.row({"clients": 128, "speculate": 4}) is None
    assert WALLS.row({"speculate": 2}) is None
    for other in ({"replicas": 2}, {"quantize": "eetq"}, {"kv_bytes": "8GiB"}, {"launcher": "threads"}):
        assert WALLS.row({"clients": 128} | other) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "header"),
        ("source\tgpu\n", "header"),
        ("\t".join(study.COLUMNS) + "\nS\tG\t1\t1\tmany\t-\t1\t5\n", "line 2.*many"),
        ("\t".join(study.COLUMNS) + "\nS\tG\n", "line 2"),
        ("\t".join(study.COLUMNS) + "\n" + "".join(f"{name}\tG\t1\t1\t1\t-\t1\t5\n" for name in "ST"), "one source"),
    ],
)
def test_a_bad_table_of_wall_seconds_is_refused(text, word):
    with pytest.raises(study.BadWalls, match=word):
        study.parse(text, "w.tsv")


def test_warnings_are_counted_once_with_their_cells():
    document = built(
        [
            made.summary(load={"clients": 1}, warnings=("few-requests",)),
            made.summary(load={"clients": 2}, warnings=("few-requests",)),
        ]
    )
    assert len(document.warnings[0].rows) == 1
    assert document.warnings[0].rows[0][0] == "few-requests"
    assert "clients-1" in document.warnings[0].rows[0][3] and "clients-2" in document.warnings[0].rows[0][3]


def test_sessions_of_other_nights_are_other_sessions():
    first, second = made.summary(10.0), made.summary(12.0)
    second["started_at"] += 86400
    second["server"]["started_at"] = 1
    assert len(rows.group([first, second])[0].by_session("wall_s")) == 2


def test_a_start_that_served_two_sweeps_is_one_server_session():
    one, other = made.summary(10.0, load={"clients": 1}), made.summary(10.0, load={"clients": 1})
    other["session"] = "another/s"
    assert ", 2 server sessions, " in provenance.facts(rows.group([one, other]))[0]
    for summary in (one, other):
        summary["server"] = {**(summary.get("server") or {}), "started_at": 1700000000.25}
    assert ", 1 server session, " in provenance.facts(rows.group([one, other]))[0]


def test_timeline_has_samples_of_one_device_on_the_same_clock():
    summary = made.summary(20.0)
    row = rows.group([summary])[0]
    start = summary["series"]["start_at"]
    samples = [
        {"kind": "gpu", "v": 1, "at": start + second, "uuid": uuid, "gpu_util_ratio": ratio}
        for second in range(0, 20, 5)
        for uuid, ratio in (("a", 0.5), ("b", 0.1))
    ]
    samples += [
        {"kind": "engine", "v": 1, "at": start + second, "cpu_s": 2.0 * second, "waiting": None}
        for second in range(0, 20, 5)
    ]
    samples.append({"kind": "gpu", "v": 1, "at": start + 500, "uuid": "a", "gpu_util_ratio": 0.9})
    one = of(row, summary, samples)
    tracks = {label: (seconds, values) for label, seconds, values in one.tracks}
    assert tracks["GPU busy, %"] == ([0, 5, 10, 15], [50, 50, 50, 50])
    assert tracks["engine CPU, cores"] == ([2.5, 7.5, 12.5], [2, 2, 2])
    assert "requests waiting in the engine" not in tracks
    assert one.flight[-1] == (pytest.approx(20.0), 0)


def test_timeline_is_of_the_gpu_that_the_engine_used_and_bridges_what_was_not_due():
    summary = made.summary(10.0)
    samples = [
        {
            "kind": "gpu",
            "v": 1,
            "at": summary["series"]["start_at"] + at / 10,
            "uuid": uuid,
            "error": "lost" if at == 6 else None,
            "gpu_util_ratio": None if at % 2 or at == 6 else used,
            "engine_memory_bytes": memory if at % 10 == 0 else None,
        }
        for at in range(12)
        for uuid, used, memory in (("GPU-a", 0.1, None), ("GPU-b", 0.9, 1 << 30))
    ]
    one = tracks.of(rows.group([summary])[0], summary, samples)
    seconds, values = next((seconds, values) for label, seconds, values in one.tracks if label == "GPU busy, %")
    assert seconds == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert values == pytest.approx([90, 90, 90, None, 90, 90])


def test_timelines_are_chosen_from_every_sweep():
    rows = group(made.study())
    assert [(row.sweep, row.cell) for row in tracks.chosen(rows, 2)] == [
        ("clients", "engine-vllm-clients-128"),
        ("speculate", "speculate-2"),
    ]
    assert len(tracks.chosen(rows, 99)) == len(rows)


class Page(HTMLParser):
    """What an HTML page holds that matters here."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.words.append(data)


def run(root, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(root / "bin" / "llmpar-report"), *arguments], input=given, capture_output=True, timeout=90
    )


@pytest.fixture(scope="module")
def html(request):
    given = b"".join(records.encode(summary) for summary in made.study(2))
    done = run(request.config.rootpath, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_html_stands_alone(html):
    page = Page(html)
    assert "img" not in page.tags and "iframe" not in page.tags and page.tags.count("script") == 2
    assert not [one for one in page.attributes if one[1] in ("src", "action") or one[1].startswith("on")]
    links = [value for tag, name, value in page.attributes if name == "href" and not value.startswith("#")]
    assert links == ["data:,"]
    assert not re.search(r"@import|https?://|url\((?!#)", html)
    assert "default-src 'none'" in html
    assert len(page.ids) == len(set(page.ids))


def test_html_answers_first_then_contents_charts_and_what_is_folded(html):
    text = " ".join(Page(html).words)
    places = [text.index(f" {head} ") for head in ("Answers", "Compared", "Contents", "Rate against latency")]
    places += [
        text.index("The study's findings", places[-1]),
        text.rindex(" Time lines "),
        text.rindex("How it was run"),
    ]
    assert places == sorted(places)
    assert "supported" in text and "the study, 2024" not in text
    labels = [value for tag, name, value in Page(html).attributes if tag == "svg" and name == "aria-label"]
    assert any(label.startswith("output tokens per second against clients: ") for label in labels)
    assert any(label.startswith("requests in flight: up to ") for label in labels)
    drawings = re.findall(r"<svg.*?</svg>", html, re.S)
    assert not [colour for drawing in drawings for colour in re.findall(r"#[0-9a-f]{6}\b", drawing)]


def test_html_of_33_cells_is_under_300_kb(root):
    done = run(root, "--slo", "ttft-p95<500ms", str(root / "docs" / "results" / "h100" / "summaries.jsonl"))
    assert done.stdout.count(b"<tr data-row=") == 33
    assert len(done.stdout) < 300_000
    text = done.stdout.decode()
    assert (
        text.count("in TTFT p95 at 24, 64, 128, 256 and 512 clients: a server session has too few requests for it") == 1
    )
    assert "ttft_p95_s" not in text


def test_labels_of_a_chart_never_cover_one_another(root):
    given = rows.group(map(orjson.loads, (root / "docs/results/h100/summaries.jsonl").read_bytes().splitlines()))
    panels = [one for sweep in {row.sweep for row in given} for chart in charts.of_sweep(sweep, given, given)
              for one in chart.panels]  # fmt: skip
    panels += charts.trade_off(given, {"ttft_mean_s": 0.5}).panels
    lengths = rows.group(
        map(orjson.loads, (root / "docs/results/h100/speculation-by-length.jsonl").read_bytes().splitlines())
    )
    (break_even,) = charts.of_sweep("lengths", lengths, lengths)
    assert sum(len(one.crosses) for one in break_even.panels) > 5
    panels += break_even.panels
    assert sum(len(one.texts()) for one in panels) > 30
    for one in panels:
        boxes = []
        for x, y, anchor, text in one.texts():
            wide = panel.LETTER * len(text)
            left = x - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
            assert not [box for box in boxes if left < box[1] and box[0] < left + wide and abs(y - box[2]) < 8], text
            boxes.append((left, left + wide, y))


def test_a_long_interval_ends_in_an_arrow_and_a_long_line_is_thinned():
    walls = {1: (10.0, 30.0), 2: (12.0, 12.1)}
    given = rows.group(
        [made.summary(wall, load={"clients": clients}, repeat=n) for clients, pair in walls.items()
         for n, wall in enumerate(pair, 1)]
    )  # fmt: skip
    rate = charts.of_sweep("s", given, given)[0].panels[0]
    ((_, places),) = rate.placed()
    assert rate.bars(places).count("l4 -4l4 4") == 1
    line = charts.thinned([float(at) for at in range(1000)], [1.0] * 500 + [None] * 499 + [7.0])
    assert len(line) == charts.MOST_STEPS and line[-1] == (999.0, 7.0)
    assert line[0] == (2.5, 1.0) and line[-2][1] == 7.0 and line[-10][1] is None


def test_limits_of_the_page_are_the_rule_of_pick(root):
    given = rows.group(map(orjson.loads, (root / "docs/results/h100/summaries.jsonl").read_bytes().splitlines()))
    for row in given:
        for metric in ("ttft_p95_s", "tpot_p50_s", "e2e_mean_s"):
            low, high = objectives.limits(row, metric)
            for most in (0.001, 0.009, 0.013, 0.13, 0.5, 0.9, 2.0, 5.0, 60.0):
                state = "misses" if low is None or most < low else "cannot tell"
                state = "meets" if high is not None and most >= high else state
                assert state == objectives.state(row, metric, most), (row.cell, metric, most)


def test_everything_is_escaped(root, tmp_path):
    summary = made.summary(10.0, host=BAD, sweep=BAD, server={"engine": BAD, "model": BAD}, warnings=(BAD,))
    summary["label"] = summary["cell"]["id"] = BAD
    summary["server"]["command"] = [BAD]
    given = records.encode(summary) + records.encode(made.summary(11.0, sweep=BAD, load={"clients": 9}))
    for form in ("html", "markdown"):
        done = run(root, "--title", BAD, "--format", form, given=given)
        assert done.returncode == 0, done.stderr
        assert b"<script>alert" not in done.stdout
    page = Page(run(root, "--title", BAD, given=given).stdout.decode())
    assert page.tags.count("script") == 2
    assert any(BAD in words for words in page.words)


def test_picks_have_three_groups_within_the_slo(root):
    given = b"".join(records.encode(summary) for summary in made.study(2))
    text = run(root, "--slo", "ttft-p95<700ms", "--format", "text", given=given).stdout.decode()
    assert re.search(r"Picks: meet \d+ · miss \d+ · cannot tell \d+: TTFT p95 ≤ 700 ms", text)
    assert "misses (TTFT p95 is 1.10 s, above 700 ms)" in text
    assert b"'fast' is not an objective" in run(root, "--slo", "fast", given=given).stderr


def test_the_studys_findings_stand_only_where_its_sweeps_ran_or_on_request(root):
    own = records.encode(made.summary(10.0, sweep="mine")) + records.encode(
        made.summary(11.0, sweep="mine", load={"clients": 9})
    )
    bare = run(root, "--format", "markdown", given=own).stdout.decode()
    assert "study" not in bare
    asked = run(root, "--study", "--format", "markdown", given=own).stdout.decode()
    assert "The study's findings" in asked and "not run" in asked and "Not measured here: the study, 2024" in asked
    ran = run(
        root, "--format", "markdown", given=b"".join(records.encode(summary) for summary in made.study(2))
    ).stdout.decode()
    assert "The study's findings" in ran and "| not run |" not in ran and "Not measured here" not in ran


@pytest.mark.parametrize("word", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_a_csv_is_a_formula(word):
    summaries = [made.summary(20.0, server={"model": word}), made.summary(21.0, server={"model": "m"})]
    for summary in summaries:
        summary["host"] = {**(summary.get("host") or {}), "host": "=cmd|x"}
    lines = list(csv.reader(io.StringIO(report_csv.rows(group(summaries)))))
    cells = [cell for line in lines for cell in line]
    assert any(cell.startswith("'") and word.strip() in cell for cell in cells), cells
    assert not [cell for cell in cells if cell[:1] in "=+-@\t\r" and cell and not _number(cell)]


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return not text.startswith("+")


def test_csv_has_every_cell_and_reads_back(root):
    given = b"".join(records.encode(summary) for summary in made.study(2))
    lines = list(csv.DictReader(io.StringIO(run(root, "--format", "csv", given=given).stdout.decode())))
    assert len(lines) == 14
    assert {line["sessions"] for line in lines} == {"2"}
    assert float(lines[0]["wall_s_low"]) < float(lines[0]["wall_s"]) < float(lines[0]["wall_s_high"])
    assert lines[0]["goodput_per_s"] == "" if "goodput_per_s" in lines[0] else True


def test_beside_files_are_read_and_bad_ones_only_reported(root, tmp_path):
    summary = made.summary(10.0)
    (tmp_path / "summary.json").write_bytes(records.encode(summary))
    (tmp_path / "command.txt").write_text("parallel -j8 llmpar-request ::: prompts/a.txt ")
    start = summary["series"]["start_at"]
    (tmp_path / "gpu.jsonl").write_bytes(
        b"".join(
            records.encode({"kind": "gpu", "v": 1, "at": start + second, "uuid": "a", "power_w": 300.0 + second})
            for second in range(5)
        )
    )
    (tmp_path / "engine.jsonl").write_text("not a record\n")
    done = run(root, str(tmp_path / "summary.json"))
    assert done.returncode == 0
    assert b"GPU power, W" in done.stdout and b"parallel -j8 llmpar-request ::: prompts/a.txt" in done.stdout
    assert b"engine.jsonl' line 1" in done.stderr


def test_command_exit_codes(root, tmp_path):
    assert run(root, given=b"").returncode == 6
    assert run(root, given=b"nonsense\n").returncode == 3
    assert run(root, "/no/such/file").returncode == 2
    assert not os.listdir(tmp_path) or os.listdir(tmp_path) == [".runtime"]


def test_a_session_that_comes_twice_counts_once():
    row = rows.group([made.summary(10.0), made.summary(12.0)])[0]
    assert list(row.by_session("wall_s").values()) == [pytest.approx(120**0.5)]


def test_engine_and_model_of_servers_that_already_ran_are_in_every_label():
    def at(port: int, engine: str, model: str) -> list[dict]:
        server = {"engine": engine, "model": model, "base_url": f"http://h:{port}"}
        return [made.summary(load={"clients": clients}, server=server) for clients in (8, 16)]

    def names(*servers: list[dict]) -> list[str]:
        return [words.name(row) for row in rows.group(summary for each in servers for summary in each)]

    assert names(at(1, "vllm", "m")) == ["clients 8", "clients 16"]
    assert names(at(1, "vllm", "m"), at(2, "tgi", "m"))[::2] == ["vllm, clients 8", "tgi, clients 8"]
    assert names(at(1, "vllm", "m"), at(1, "vllm", "n"))[::2] == ["m, clients 8", "n, clients 8"]
    assert names(at(1, "vllm", "m"), at(2, "tgi", "n"))[::2] == ["vllm, m, clients 8", "tgi, n, clients 8"]
    two = names(at(1, "vllm", "m"), at(2, "vllm", "m"))
    assert two[::2] == ["base url http://h:1, clients 8", "base url http://h:2, clients 8"]


def test_the_answer_knows_latency():
    def answer(loads: dict[int, tuple[float, float]], **more) -> str:
        return (
            built(
                [
                    made.summary(wall, load={"clients": clients} | more, ttft=ttft)
                    for clients, (wall, ttft) in loads.items()
                ]
            )
            .sweeps[0]
            .answer
        )

    found = answer({64: (20.0, 0.2), 128: (10.2, 0.3), 512: (10.0, 3.0)})
    assert found.startswith(
        "128 clients: 98% of the best rate, 980 output tokens/s, with TTFT p95 480 ms against 4.80 s at 512 clients; "
        "more clients only wait longer. Least wall seconds: clients 512"
    )


def test_an_open_load_is_answered_by_the_rate_that_is_kept_up_with():
    def at(rate: float, served: float) -> dict:
        found = made.summary(200 / served, load={"launcher": "open", "rate": rate}, varies=("rate",))
        found["throughput"]["requests_per_s"]["steady"] = {"value": served, "low": served, "high": served}
        return found

    found = built([at(1.0, 1.0), at(2.0, 1.98), at(3.0, 2.1)]).sweeps[0].answer
    assert found == (
        "2.00 requests/s: the highest rate that the server keeps up with, TTFT p95 320 ms; at 3.00 requests queue."
    )
    assert "no higher one was tried" in built([at(1.0, 1.0), at(2.0, 1.98)]).sweeps[0].answer


def test_no_star_without_evidence():
    from llmpar.render import summaries as rendered

    once = [made.summary(wall, load={"clients": clients}) for clients, wall in ((1, 30.0), (2, 10.0))]
    assert "*" not in rendered.table(once)
    assert "10.0 s*" in rendered.table(three({1: 30.0, 2: 10.0}))


def test_the_terminal_table_says_what_was_measured_in_one_unit_and_statistic():
    from llmpar.render import summaries as rendered

    given = [
        made.summary(wall, load={"clients": clients}, ttft=ttft)
        for clients, wall, ttft in ((1, 30.0, 0.1), (2, 10.0, 0.9))
    ]
    for summary in given:
        summary["goodput"] = {"objectives": {"ttft_s": 0.5}, "met": 100, "ratio": 0.5, "steady": None}
    text = rendered.table(given)
    words = " ".join(text.split())
    assert text.startswith("llamacpp 1.0 · gemma3-270m · box, no GPU · 2026-09-21\n")
    assert re.search(r"clients +wall +tokens/s +TTFT p95 +TPOT p95 +goodput +ok\n", text)
    assert re.search(r"160 ms +32.0 ms +50% +200/200\n", text) and re.search(r"1.44 s +32.0 ms", text)
    assert "2 clients: the best rate" in words and "goodput: the share of requests with TTFT ≤ 500 ms" in words
    assert max(map(len, text.splitlines())) <= 80
    open_loads = [made.summary(load={"launcher": "open", "rate": rate}, varies=("rate",)) for rate in (1.0, 2.0)]
    assert re.search(r"cell +requests/s +tokens/s +TTFT p95", rendered.table(open_loads))
