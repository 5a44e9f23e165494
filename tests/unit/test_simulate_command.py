"""llmpar-simulate end to end, and how its records fare among measured ones."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import called
import pytest
from unit.test_summary_docs import fields

ROOT = Path(__file__).resolve().parent.parent.parent
HEAD = "card\tengine\tmodel\tclients\tcount\tmax_tokens"
MEASURED = ROOT / "docs/results/h100/summaries.jsonl"


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return called.run_text(arguments, given)


def predictions(table: str, *options: str) -> list[dict[str, Any]]:
    done = run("llmpar-simulate", "--prompt-tokens", "357", "--format", "json", *options, "-", given=table)
    assert done.returncode in (0, 6), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    table = HEAD + "\n4090\tvllm\tvicuna-7b-v1.5\t24,64\t128\t50\n"
    done = run("llmpar-simulate", "--prompt-tokens", "200", "--write", str(folder), "-", given=table)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_study_s_table() -> None:
    done = run("llmpar-simulate", "--prompt-tokens", "357", str(ROOT / "sweeps/cards.tsv"))
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert "  4090 above 3090: by" in text and "  a6000 24GiB above 3090: by" in text
    assert (
        "  a6000 or 4090: cannot tell: 111 sequences fit a6000, 29 fit 4090; with as many on both 4090 would be ahead"
        in text
    )
    assert text.count("speculation without an acceptance length") == 2
    assert "Predictions, not measurements" in text


def test_the_record_has_the_documented_fields_and_an_interval() -> None:
    (made,) = predictions(HEAD + "\n4090\tvllm\tvicuna-7b-v1.5\t24\t64\t50\n", "--price", "4090=0.5")
    assert set(made) == fields("prediction")
    rate = made["figures"]["output_tokens_per_s"]
    assert rate["low"] == pytest.approx(0.65 * rate["value"]) and rate["high"] == pytest.approx(1.15 * rate["value"])
    assert made["output_tokens_per_price"]["value"] == pytest.approx(rate["value"] * 3600 / 0.5)


@pytest.mark.parametrize(
    "columns, values, words",
    [
        ("speculate", "2", "acceptance length"),
        ("quantize", "awq", "quantised weights"),
        ("shards", "2", "sharding"),
        ("dtype", "float32", "fp16 and bf16"),
        ("launcher", "cold", "client's own start"),
        ("memory", "13GiB", "leave no room for a KV cache"),
        ("memory", "much", "not a size"),
    ],
)
def test_what_is_refused_says_why(columns: str, values: str, words: str) -> None:
    (made,) = predictions(f"{HEAD}\t{columns}\n4090\tvllm\tvicuna-7b-v1.5\t8\t16\t20\t{values}\n")
    assert words in made["reason"] and made["figures"] == {} and made["basis"] is None


def test_an_acceptance_length_is_enough() -> None:
    slow, fast = predictions(
        f"{HEAD}\tspeculate\tacceptance_length\n4090\tvllm\tvicuna-7b-v1.5\t8\t16\t50\t2\t1.2,2.4\n"
    )
    assert fast["figures"]["tpot_mean_s"]["value"] < slow["figures"]["tpot_mean_s"]["value"]


def test_engines_are_not_told_apart_and_others_are_refused() -> None:
    vllm, sglang, other = predictions(f"{HEAD}\n4090\tvllm,sglang,llamacpp\tvicuna-7b-v1.5\t8\t16\t20\n")
    assert vllm["figures"]
    assert "under 15%" in sglang["reason"] and "batch as vLLM" in other["reason"]


def test_a_given_point_narrows_its_own_card_and_model_only(tmp_path: Path) -> None:
    line = next(line for line in MEASURED.read_text().splitlines() if '"id":"c064-r2"' in line)
    (tmp_path / "summary.json").write_text(line)
    table = HEAD.removeprefix("card\t") + "\nvllm\tvicuna-7b-v1.5\t128\t512\t200\n"
    options = (
        "--given",
        str(tmp_path / "summary.json"),
        "--model",
        "vicuna-7b-v1.5",
        "--card",
        "h100",
        "--card",
        "4090",
    )
    h100, other = predictions(table, *options)
    assert (h100["basis"], other["basis"]) == ("given", "kernel table")
    assert h100["scale"] == pytest.approx(1.0, abs=0.03) and other["scale"] == 1.0
    rate = h100["figures"]["output_tokens_per_s"]
    assert rate["low"] < 5768 < rate["high"] and rate["high"] / rate["low"] < 1.6
    calibrated = ROOT / "docs" / "results" / "h100" / "calibrated.json"
    (own,) = predictions(table, *options[:4], "--card", str(calibrated))
    assert own["basis"] == "given" and own["scale"] != h100["scale"]
    assert own["figures"]["output_tokens_per_s"]["value"] == pytest.approx(5768, rel=0.05)
    done = run(
        "llmpar-simulate",
        "--given",
        str(tmp_path / "summary.json"),
        "--card",
        "h100",
        "--prompt-tokens",
        "9",
        "-",
        given=table,
    )
    assert done.returncode == 2 and "the sizes of '/var/tmp/llmpar-gpu/model' are not known" in done.stderr
    assert "--model says which model it is" in done.stderr


def test_a_given_point_of_a_card_known_from_calibration_alone(tmp_path: Path) -> None:
    title = "NVIDIA Something 9"
    summary = json.loads(next(line for line in MEASURED.read_text().splitlines() if '"id":"c064-r2"' in line))
    for gpu in summary["host"]["gpus"]:
        gpu["name"] = title
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    card = json.loads((ROOT / "docs/results/h100/calibrated.json").read_text()) | {
        "name": "something-9",
        "title": title,
    }
    (tmp_path / "card.json").write_text(json.dumps(card))
    table = HEAD.removeprefix("card\t") + "\nvllm\tvicuna-7b-v1.5\t128\t512\t200\n"
    options = ("--given", str(tmp_path / "summary.json"), "--model", "vicuna-7b-v1.5", "--card")
    (own,) = predictions(table, *options, str(tmp_path / "card.json"))
    assert own["basis"] == "given"
    assert own["figures"]["output_tokens_per_s"]["value"] == pytest.approx(5768, rel=0.05)
    done = run("llmpar-simulate", *options, "h100", "--prompt-tokens", "9", "-", given=table)
    assert done.returncode == 2 and f"its GPU '{title}' is not known: add --card FILE" in done.stderr


def test_a_prompt_set_gives_its_lengths() -> None:
    done = run(
        "llmpar-simulate",
        "--prompts",
        str(ROOT / "prompts"),
        "--format",
        "json",
        "-",
        given=HEAD + "\n4090\tvllm\tvicuna-7b-v1.5\t8\t32\t20\n",
    )
    (made,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert made["prompt_tokens_mean"] == pytest.approx(156.0625)
    done = run("llmpar-simulate", "--prompts", "nowhere", "-", given=HEAD + "\n4090\tvllm\tvicuna-7b-v1.5\t8\t32\t20\n")
    assert done.returncode == 2 and "no manifest with token counts" in done.stderr


def test_records_are_marked_and_summarised_as_simulated(written: Path) -> None:
    (folder,) = written.glob("*c064")
    requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert len(requests) == 128 and all(each["simulated"] is True and each["clock"] == "simulated" for each in requests)
    assert {each["host"] for each in requests} == {"simulated NVIDIA GeForce RTX 4090"}
    # What llmpar-summarise makes of the requests alone is marked too, and has the predicted rate.
    done = run("llmpar-summarise", str(folder / "requests.jsonl"))
    assert json.loads(done.stdout)["simulated"] is True
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["simulated"] is True and summary["n"]["ok"] == 128
    made = predictions(HEAD + "\n4090\tvllm\tvicuna-7b-v1.5\t64\t128\t50\n")[0]["figures"]
    assert summary["throughput"]["output_tokens_per_s"]["wall"]["value"] > 0
    assert summary["tokens"]["output"] == 128 * 50 and set(made) >= {
        "output_tokens_per_s",
        "tpot_mean_s",
        "ttft_mean_s",
    }


@pytest.mark.parametrize(
    "command",
    [
        ("llmpar-compare", "--by", "clients"),
        ("llmpar-compare", "--history", "3"),
        ("llmpar-claims",),
        ("llmpar-pick",),
        ("llmpar-plan",),
    ],
)
def test_commands_that_refuse_a_mix(command: tuple[str, ...], written: Path) -> None:
    files = [str(path) for path in written.glob("*/summary.json")]
    done = run(*command, *files, str(MEASURED))
    assert (
        done.returncode == 2
        and "simulated" in done.stderr
        and "llmpar-simulate says how predictions compare" in done.stderr
    )
    assert done.stdout == ""


def test_predictions_are_picked_among_themselves(written: Path) -> None:
    done = run("llmpar-pick", *[str(path) for path in written.glob("*/summary.json")])
    assert done.returncode == 0 and "simulated" in done.stdout


def test_the_report_marks_them_in_word_and_colour_and_ranks_none(written: Path, tmp_path: Path) -> None:
    files = [str(path) for path in written.glob("*/summary.json")]
    done = run("llmpar-report", *files, str(MEASURED), "-o", str(tmp_path / "report.html"))
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "report.html").read_text()
    assert html.count('<tr class="simulated">') == 2 and html.count('<span class="badge">simulated</span>') >= 4
    assert len(re.findall(r'<tr data-row="\w+" class=" simulated">', html)) == 2
    assert "tr.simulated{" in html and "var(--guess)" in html
    text = run("llmpar-report", "--format", "text", *files).stdout
    assert "2 cells simulated, not measured: simulated NVIDIA GeForce RTX 4090" in text
    assert "Simulated cells are predictions; they are not ranked here" in text and "Least wall seconds" not in text
    assert "supported" not in text


def test_a_table_of_cards_is_refused_by_what_measures() -> None:
    done = run("llmpar-cells", str(ROOT / "sweeps/cards.tsv"))
    assert done.returncode == 2 and "column 'card' is for llmpar-simulate" in done.stderr
