import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpar import cli, sweeps
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


def test_columns_may_have_the_names_of_other_tools():
    ours = plan(
        "engine\tversion\tshards\tmax_sequences\tclients\tcount\trate\tshape\nvllm\t0.23\t2\t64\t8\t99\t4\t0.5\n"
    )
    theirs = plan(
        "engine\tengine_version\ttp\tmax_num_seqs\tmax_concurrency\tnum_prompts\trequest_rate\tburstiness\n"
        "vllm\t0.23\t2\t64\t8\t99\t4\t0.5\n"
    )
    assert theirs == ours and ours[0]["load"]["shape"] == 0.5
    with pytest.raises(sweeps.BadSweep, match=r"'clients' appears twice \(clients, max_concurrency\)"):
        plan("engine\tclients\tmax_concurrency\nvllm\t8\t8\n")


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
    sweeps.write(plan("engine\tclients\nvllm\t4,8\n"), str(tmp_path))
    first, second = tmp_path / "c004" / "cell.json", tmp_path / "c008" / "cell.json"
    import os

    for path in (first, second):
        os.utime(path, (1, 1))
    # Another varying column changes what varies in every cell, but measures only the new one again.
    sweeps.write(plan("engine\tclients\tmax_tokens\nvllm\t4\t64\nvllm\t8\t32\n"), str(tmp_path))
    assert first.stat().st_mtime == 1  # its name changed: the old cell is left as it was
    made = plan("engine\tclients\nvllm\t4\nvllm\t8\n")
    made[1]["load"] = made[1]["load"] | {"max_tokens": 1}
    made[1]["settings_sha256"] = "new"
    made[0]["varies"] = {"clients": 4, "x": None}
    sweeps.write(made, str(tmp_path))
    assert first.stat().st_mtime == 1 and json.loads(first.read_text())["varies"]["x"] is None
    assert second.stat().st_mtime > 1


def test_fragment_lists_cells_by_session():
    text = sweeps.fragment(plan("engine\tspeculate\tclients\nvllm\t0,2\t8\n"))
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
    for name in ("", "..", "a/b", "a b", "$(id)", 5):
        assert "id is" in (sweeps.cell_fault(cell | {"id": name}) or "")


def test_names_of_a_strangers_record_are_no_shell_code():
    assert (
        cli.assignments({"ran_a": "x'y", "ran_b;id": 1, "ran_$(id)": 2, "ran_c": None})
        == "ran_a='x'\"'\"'y'\nran_c=''\n"
    )
