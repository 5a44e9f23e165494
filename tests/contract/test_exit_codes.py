"""Each exit status that a command's help names, reached; and none other where input or machine are at fault."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import called
import pytest
from test_layers import COMMANDS
from unit.made import study

from llmpar import records

NO_GPU = json.dumps({"gpus": [], "init_code": 12})
# A machine without pyarrow.
HIDDEN = "mkdir hidden && echo 'raise ImportError' > hidden/pyarrow.py && PYTHONPATH=hidden"
# command line for bash, exit status, a part of what it says
CASES = [
    ("llmpar-arrivals --rate 0", 2, "--rate"),
    ("printf '1\\nsoon\\n' | llmpar-arrivals --trace -", 3, "soon"),
    ("llmpar-arrivals --trace empty", 6, "empty"),
    ("llmpar-cells nowhere.tsv", 2, "nowhere.tsv"),
    ("llmpar-cells empty", 2, "holds no cells"),
    ("head -1 study.jsonl > cell.json; llmpar-cells --shell cell.json", 3, "not a cell"),
    ("llmpar-claims --only nonsense study.jsonl", 2, "nonsense"),
    ("llmpar-claims --only speculate-8-hurts --fail-on unsupported slow.jsonl", 5, "contradicted"),
    ("llmpar-claims empty", 6, "summary"),
    ("llmpar-clock --questions 0 load1", 2, "questions"),
    ("llmpar-clock 'false --'", 4, "false"),
    ("llmpar-compare --margin 9 --by engine study.jsonl", 2, "margin"),
    ("llmpar-compare --by speculate --base 0 --fail-on slower --figure wall_s study.jsonl", 5, "slower"),
    ("llmpar-doctor --json --host", 2, "exclude"),
    ("llmpar-export --format nonsense study.jsonl", 2, "nonsense"),
    ("echo '{}' | llmpar-export --format llm-d", 3, "kind"),
    (f"{HIDDEN} llmpar-export --format parquet study.jsonl", 4, "pyarrow"),
    ("llmpar-export --format openmetrics empty", 6, "summary"),
    ("llmpar-import empty", 3, "empty"),
    ("llmpar-import nowhere.json", 2, "nowhere.json"),
    ("llmpar-manifest nowhere", 2, "nowhere"),
    ("mkdir nothing && llmpar-manifest nothing", 6, "nothing"),
    ("llmpar-next find --slo soon study.jsonl", 2, "soon"),
    ("llmpar-next decide --a speculate=1 --b speculate=1 study.jsonl", 2, "same settings"),
    ("llmpar-until --slo soon --clients 1 --records r.jsonl -- true", 2, "soon"),
    ("llmpar-until --slo 'ttft-p95<1s' --clients 1 --records r.jsonl", 2, "no command"),
    ("llmpar-pick --ttft-p95 soon study.jsonl", 2, "soon"),
    ("llmpar-pick --ttft-p95 0.001 study.jsonl", 5, "meet"),
    ("llmpar-plan --power 2 study.jsonl", 2, "power"),
    ("llmpar-plot --y nonsense -o p.png study.jsonl", 2, "nonsense"),
    ("llmpar-plot -o p.png empty", 6, "summary"),
    ("llmpar-prompts --from nowhere.json out", 2, "nowhere.json"),
    ("echo '{' | llmpar-prompts --from - --format jsonl out", 3, "line 1"),
    ("llmpar-prompts -n 2 --base-url http://127.0.0.1:9 out", 4, "127.0.0.1:9"),
    ("llmpar-prompts -n 2 out && rm out/*1* && llmpar-prompts --check out", 5, "missing"),
    ("echo hello | llmpar-prompts --from - --format text -n 9 out", 6, "1"),
    ("llmpar-report --timelines x study.jsonl", 2, "timelines"),
    ("llmpar-report --format csv empty", 6, "summary"),
    ("llmpar-request --max-tokens 0 prompt.txt", 2, "max-tokens"),
    ("llmpar-request --base-url http://127.0.0.1:9 prompt.txt", 7, "refused"),
    ("llmpar-sample-engine", 4, "--metrics-url"),
    ("llmpar-sample-engine --interval 0", 2, "interval"),
    (f"FAKE_NVML='{NO_GPU}' PYTHONPATH=$FAKE llmpar-sample-gpu --duration 0.1", 4, "no GPU"),
    ("llmpar-sample-gpu --interval 0", 2, "interval"),
    ("llmpar-serve --engine nonsense", 2, "nonsense"),
    ("llmpar-serve --engine powerinfer --model prompt.txt -- true", 4, "PowerInfer"),
    ("llmpar-calibrate --python nowhere", 4, "nowhere"),
    ("llmpar-calibrate --seconds 0", 2, "seconds"),
    ("llmpar-simulate nowhere.tsv", 2, "nowhere.tsv"),
    ("printf 'engine\\nvllm\\n' | llmpar-simulate -", 2, "names no card"),
    ("printf 'engine\\nvllm\\n' | llmpar-simulate --card 5090 --prompt-tokens 9 -", 6, "'5090' is not known"),
    ("printf 'engine\\nvllm\\n' | llmpar-simulate --card 4090 --prompt-tokens 9 --given prompt.txt -", 3, "prompt.txt"),
    ("llmpar-summarise --slo soon study.jsonl", 2, "soon"),
    ("llmpar-summarise study.jsonl", 6, "no request record"),
    ("llmpar-table --no-such-option", 2, "no-such-option"),
    ("llmpar-table empty", 6, "no summary record"),
    ("llmpar-verify nowhere", 2, "nowhere"),
    ("mkdir nothing && llmpar-verify nothing", 3, "manifest"),
]

# One command without a word for the shell, that starts no process and waits for no signal.
READERS = re.compile(r"llmpar-(?!serve|request|sample|until|clock|prompts|doctor|calibrate)[a-z]+ [^|&;<>$]*")


@pytest.fixture
def inputs(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", str(root / "tests" / "fake_nvml" / "site"))
    made = study(3)
    for each in made:
        each["host"]["gpus"] = each["host"]["gpus"] or [{"name": "NVIDIA H100", "memory_bytes": 80 << 30}]
    (tmp_path / "study.jsonl").write_bytes(b"".join(map(records.encode, made)))
    # Speculation with 8 tokens takes as long as none: its claim is not supported.
    for each in made:
        if each["cell"]["server"].get("speculate") == 8:
            each["wall_s"]["value"] *= 17.8 / 24
    (tmp_path / "slow.jsonl").write_bytes(b"".join(map(records.encode, made)))
    (tmp_path / "empty").touch()
    (tmp_path / "prompt.txt").write_text("hello")


@pytest.mark.parametrize(("command", "code", "said"), CASES, ids=[f"{case[1]}-{case[0][:40]}" for case in CASES])
def test_exit_status(command: str, code: int, said: str, inputs: None) -> None:
    if READERS.fullmatch(command):
        done = called.run_text(shlex.split(command))
    else:
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
    assert done.returncode == code, done.stderr
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    # House style, where it is not click that speaks.
    assert not any(line.endswith(".") for line in done.stderr.splitlines() if line.startswith("llmpar-")), done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_the_statuses_that_are_reached(name: str) -> None:
    text = called.run_text([name, "--help"]).stdout
    told = " ".join(re.split(r"\bExit\b", text, maxsplit=1)[1].split()).split("Options:")[0]
    reached = {code for command, code, _ in CASES if f"{name} " in f"{command} ".split(" > ")[-1]}
    assert reached, "no case"
    for code in reached:
        assert re.search(rf"\b{code}\b", told), f"{code} is not in: {told}"


def test_input_that_is_no_record_is_3_everywhere(inputs: None) -> None:
    Path("bad.jsonl").write_text("{oops\n")
    for command in (
        "summarise",
        "table",
        "compare --by engine",
        "claims",
        "pick",
        "plan",
        "plot -o p.png",
        "report --format csv",
        "import",
    ):
        done = called.run_text([*f"llmpar-{command}".split(), "bad.jsonl"])
        assert done.returncode == 3 and "bad.jsonl" in done.stderr, (command, done.stderr)
