import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpar import cli, sweep_folder, sweeps
from llmpar.dialects import DIALECTS


def plan(text, **kwargs):
    return sweeps.cells(sweeps.parse(text, "t.tsv"), "t", **kwargs)


def test_alternatives_expand_to_a_product_and_share_sessions():
    made = plan("engine\tspeculate\tclients\nvllm\t0,2\t8,128\n")
    assert [cell["id"] for cell in made] == [
        "speculate-0-c008",
        "speculate-0-c128",
        "speculate-2-c008",
        "speculate-2-c128",
    ]
    assert [cell["session"] for cell in made] == ["speculate-0"] * 2 + ["speculate-2"] * 2
    assert made[3]["varies"] == {"speculate": 2, "clients": 128}
    assert made[3]["server"] == {"engine": "vllm", "speculate": 2}


def test_quoted_values_comments_and_empty_ones():
    made = plan('# a comment\nengine\tengine_args\tclients\nvllm\t"--a 1,2"\t4\n\nvllm\t\t8\n')
    assert made[0]["server"]["engine_args"] == "--a 1,2"
    assert "engine_args" not in made[1]["server"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no cells"),
        ("engine\tclients\n", "no cells"),
        ("engine\tcolour\nvllm\tred\n", "unknown column 'colour'"),
        ("engine\tclients\nvllm\tmany\n", "'many', not a whole number"),
        ("engine\tclients\nvllm\t0\n", "at least 1"),
        ("engine\tlauncher\nvllm\tcannon\n", "not one of"),
        ("engine\tclients\nvllm\t8\t9\n", "3 values under 2 columns"),
        ("engine\tclients\nvllm\t8\nvllm\t8\n", "twice"),
        ("engine\tengine\nvllm\tvllm\n", "appears twice"),
        (
            "clients\tmax_tokens\n" + ",".join(map(str, range(1, 200))) + "\t" + ",".join(map(str, range(1, 200))),
            "more than",
        ),
    ],
)
def test_bad_tables_say_where_and_what(text, said):
    with pytest.raises(sweeps.BadSweep, match=said):
        plan(text)


VALUES_OF = {int: "8", float: "0.5", str: "8GiB"}


@pytest.mark.parametrize(("theirs", "ours"), sweeps.ALIASES.items())
def test_columns_may_have_the_names_of_other_tools(theirs: str, ours: str):
    value = VALUES_OF[(sweeps.SERVER | sweeps.LOAD)[ours]]
    extra = "" if ours == "clients" else "\tclients"
    made = plan(f"engine\t{theirs}{extra}\nvllm\t{value}{extra and chr(9)}{extra and '4'}\n")
    assert made == plan(f"engine\t{ours}{extra}\nvllm\t{value}{extra and chr(9)}{extra and '4'}\n")
    settings = made[0]["server"] | made[0]["load"]
    assert settings[ours] == (sweeps.SERVER | sweeps.LOAD)[ours](value) and (theirs == ours or theirs not in settings)
    with pytest.raises(sweeps.BadSweep, match=rf"'{ours}' appears twice \({ours}, {theirs}\)"):
        plan(f"engine\t{ours}\t{theirs}\nvllm\t{value}\t{value}\n")


def test_the_share_of_a_gpus_memory_is_a_column():
    assert plan("engine\tgpu_memory_utilization\nvllm\t0.5\n")[0]["server"]["gpu_memory_utilization"] == 0.5
    for value in ("0", "1.5", "nan"):
        with pytest.raises(sweeps.BadSweep, match="gpu_memory_utilization is '.*'"):
            plan(f"engine\tgpu_memory_utilization\nvllm\t{value}\n")


def test_repeats_shuffle_sessions_by_seed_and_keep_cells_together():
    text = "engine\tspeculate\tclients\nvllm\t0,1,2,8\t8,16\n"
    made = plan(text, repeats=3, seed=7)
    assert made == plan(text, repeats=3, seed=7)
    assert made != plan(text, repeats=3, seed=8)
    assert len({cell["id"] for cell in made}) == 24
    order = [cell["session"] for cell in made]
    assert all(order[index] == order[index + 1] for index in range(0, 24, 2))


@given(st.text(max_size=30))
def test_slugs_are_safe_in_targets(text):
    assert set(sweeps.slug(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_write_keeps_the_age_of_cells_that_did_not_change(tmp_path):
    sweep_folder.write(plan("engine\tclients\nvllm\t4,8\n"), str(tmp_path))
    first, second = tmp_path / "c004" / "cell.json", tmp_path / "c008" / "cell.json"
    import os

    for path in (first, second):
        os.utime(path, (1, 1))
    # Another varying column changes what varies in every cell, but measures only the new one again.
    sweep_folder.write(plan("engine\tclients\tmax_tokens\nvllm\t4\t64\nvllm\t8\t32\n"), str(tmp_path))
    assert not first.exists()  # its name changed, and nothing was measured under the old one
    sweep_folder.write(plan("engine\tclients\nvllm\t4,8\n"), str(tmp_path))
    for path in (first, second):
        os.utime(path, (1, 1))
    made = plan("engine\tclients\nvllm\t4\nvllm\t8\n")
    made[1]["load"] = made[1]["load"] | {"max_tokens": 1}
    made[1]["settings_sha256"] = "new"
    made[0]["varies"] = {"clients": 4, "x": None}
    sweep_folder.write(made, str(tmp_path))
    assert first.stat().st_mtime == 1 and json.loads(first.read_text())["varies"]["x"] is None
    assert second.stat().st_mtime > 1


def test_fragment_lists_cells_by_session():
    text = sweep_folder.fragment(plan("engine\tspeculate\tclients\nvllm\t0,2\t8\n"))
    assert "CELLS := speculate-0 speculate-2\n" in text
    assert "cells-of-speculate-2 := speculate-2\n" in text


def test_words_that_scripts_read_are_checked():
    assert sweeps.WORDS["api"] == tuple(DIALECTS)
    for column, value in [
        ("api", "openai-chat; id"),
        ("process", "x"),
        ("launcher", "sh"),
        ("clients", "a[$(id)]"),
        ("timeout_s", float("nan")),
        ("rate", float("inf")),
        ("rate", 0.0),
        ("max_tokens", 2**70),
        ("model", "a\nb"),
        ("stream", "yes"),
    ]:
        assert sweeps.fault(column, value), column
    cell = {"id": "c1", "session": "s", "sweep": "q", "server": {"engine": "vllm"}, "load": {"clients": 1}}
    assert sweeps.cell_fault(cell) is None
    assert "load.clients" in (sweeps.cell_fault(cell | {"load": {"clients": "a[$(id)]"}}) or "")
    for name in ("", "..", "a/b", "a b", "$(id)", "x" * 256, 5):
        assert "id is" in (sweeps.cell_fault(cell | {"id": name}) or "")


def test_settings_that_differ_in_signs_or_are_long_have_names_of_their_own(tmp_path):
    long = "--config '" + "x" * 400
    arguments = ["-t 1", "--t=1", f"{long} 1'", f"{long} 2'"]
    rows = [{"engine": "vllm", "engine_args": each, "clients": count} for each in arguments for count in (1, 2)]
    made = sweeps.cells(rows, "s", repeats=2)
    assert len({cell["id"] for cell in made}) == 16 and len({cell["session"] for cell in made}) == 8
    assert all(sweeps.cell_fault(cell) is None for cell in made)
    by_session = {(cell["session"], cell["server"]["engine_args"]) for cell in made}
    assert len(by_session) == 8, "a session has one server"
    sweep_folder.write(made, str(tmp_path))
    assert sweeps.cells(rows[:2], "s")[0]["id"] == "c001"


def test_names_of_a_strangers_record_are_no_shell_code():
    assert (
        cli.assignments({"ran_a": "x'y", "ran_b;id": 1, "ran_$(id)": 2, "ran_c": None})
        == "ran_a='x'\"'\"'y'\nran_c=''\n"
    )


RUNNING = sweeps.Running("http://127.0.0.1:8000", "vllm", "org/my-7b")


def test_a_running_server_is_part_of_what_identifies_a_cell():
    text = "engine\tmodel\tdtype\tclients\nllamacpp\tgemma3-270m\tfloat16\t1,2\n"
    made = plan(text, running=RUNNING)
    assert [cell["id"] for cell in made] == ["c001", "c002"]
    assert made[0]["server"] == {"engine": "vllm", "model": "org/my-7b", "base_url": "http://127.0.0.1:8000"}
    assert made[0]["load"]["api"] == "openai-completions" and made[0]["session"] == "vllm"
    others = [
        sweeps.Running("http://127.0.0.1:8001", "vllm", "org/my-7b"),
        sweeps.Running("http://127.0.0.1:8000", "tgi", "org/my-7b"),
        sweeps.Running("http://127.0.0.1:8000", "vllm", "org/my-13b"),
        sweeps.Running("http://127.0.0.1:8000", "vllm", "org/my-7b", "openai-chat"),
        None,
    ]
    digests = {plan(text, running=each)[0]["settings_sha256"] for each in (RUNNING, *others)}
    assert len(digests) == 6


@pytest.mark.parametrize("column, values", [("speculate", "0,2"), ("quantize", "-,awq"), ("engine", "vllm,tgi")])
def test_what_only_a_launch_sets_is_not_varied_on_a_running_server(column, values):
    header, row = ("", "") if column == "engine" else ("engine\t", "vllm\t")
    text = f"{header}{column}\tclients\n{row}{values}\t8\n"
    with pytest.raises(sweeps.BadSweep, match=f"varies {column}, which cannot be varied on a server that already runs"):
        plan(text, running=RUNNING)


@pytest.mark.parametrize(
    "given, said",
    [
        (("http://h:1", "", "m"), "ENGINE is not set"),
        (("http://h:1", "", ""), "ENGINE and MODEL are not set"),
        (("", "vllm", ""), "ENGINE=vllm without BASE_URL"),
    ],
)
def test_a_running_server_has_all_its_names(given, said):
    with pytest.raises(sweeps.BadSweep, match=said):
        sweeps.Running.named(*given)
    assert sweeps.Running.named("", "", "") is None


def test_the_first_repeat_is_the_sweep_without_repeats():
    text = "engine\tspeculate\tclients\nvllm\t0,1\t8,16\n"
    once, thrice = plan(text), plan(text, repeats=3, seed=2)
    for cell in once:
        assert cell in thrice
    assert {cell["session"] for cell in thrice} == {f"speculate-{n}{r}" for n in (0, 1) for r in ("", "-r2", "-r3")}


def measure(folder, *names):
    for name in names:
        cell = json.loads((folder / name / "cell.json").read_text())
        request = {"kind": "request", "engine": cell["server"]["engine"], "model": "m"}
        (folder / name / "requests.jsonl").write_text(json.dumps(request) + "\n")
        (folder / name / "summary.json").write_text("{}\n")


def test_cells_that_leave_the_table_leave_the_folder_and_come_back_with_it(tmp_path):
    run = tmp_path / "sweep"
    sweep_folder.write(plan("engine\tclients\nvllm\t4,8\n", repeats=2), str(run))
    measure(run, "c004", "c008", "c004-r2", "c008-r2")
    sweep_folder.write(plan("engine\tclients\nvllm\t8\nvllm\t16\n"), str(run))
    there = {path.parent.name for path in run.glob("*/summary.json")}
    assert there == {"c008", "c008-r2"}, "a further repeat stays, a removed cell goes"
    sweep_folder.write(plan("engine\tclients\nvllm\t4,8\n"), str(run))
    assert (run / "c004" / "summary.json").exists() and (run / "c004" / "requests.jsonl").exists()


def test_an_edited_row_keeps_what_was_measured_before(tmp_path):
    run = tmp_path / "sweep"
    before, after = "engine\tclients\tcount\nvllm\t4\t40\n", "engine\tclients\tcount\nvllm\t4\t80\n"
    sweep_folder.write(plan(before), str(run))
    measure(run, "only")
    sweep_folder.write(plan(after), str(run))
    assert not (run / "only" / "requests.jsonl").exists() and len(list(run.glob("removed/*/requests.jsonl"))) == 1
    measure(run, "only")
    sweep_folder.write(plan(before), str(run))
    assert json.loads((run / "only" / "cell.json").read_text())["load"]["count"] == 40
    assert (run / "only" / "requests.jsonl").exists()


def test_no_cell_moves_while_a_session_is_measured(tmp_path):
    import fcntl

    run = tmp_path / "sweep"
    sweep_folder.write(plan("engine\tclients\nvllm\t4,8\n"), str(run))
    measure(run, "c004")
    with open(tmp_path / ".session.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(sweeps.BadSweep, match="try again when it has ended"):
            sweep_folder.write(plan("engine\tclients\nvllm\t8\n"), str(run))
    assert (run / "c004" / "requests.jsonl").exists()


def test_what_is_reused_is_said_and_another_engines_results_are_not(tmp_path):
    run = tmp_path / "sweep"
    sweep_folder.write(plan("engine\tmodel\tclients\nvllm\torg/m\t4,8\n"), str(run))
    assert sweep_folder.measured(str(run)) == ""
    measure(run, "c004")
    assert re.fullmatch(r"1 of 2 cells measured \d\d:\d\d on vllm m", sweep_folder.measured(str(run)))
    path = run / "c004" / "requests.jsonl"
    path.write_text(path.read_text().replace("vllm", "llamacpp"))
    with pytest.raises(sweeps.BadSweep, match="measured with engine llamacpp, not vllm"):
        sweep_folder.measured(str(run))
