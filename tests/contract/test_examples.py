"""Every pipeline in the commands' help and in README runs, as it stands there, against the fake engine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import called
import optional
import pytest
from fake import Fake, fake_engine
from unit.made import study, summary
from unit.test_imports import guidellm, vllm
from unit.test_imports_from_files import aiperf

from llmpar import records

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("llmpar-*"))
# What cannot run in a test, and why; each must still stand in some help.
NOT_RUN = {
    "llmpar-calibrate --python ~/vllm/bin/python -o card.json": "wants a GPU; tests/unit/test_calibrate.py has a "
    "Python that answers for one",
    "llmpar-simulate sweeps/clients.tsv --card card.json": "wants that card; tests/unit/test_calibrate.py runs it",
    "llmpar-simulate sweeps/clients.tsv --card 3090 --given runs/clients/c064/summary.json": "wants a point of a "
    "known card; tests/unit/test_simulate_command.py gives one",
    "llmpar-plot --x acceptance_length runs/acceptance/*/summary.json -o break-even.png": "wants cells of forced "
    "acceptance; tests/unit/test_break_even.py draws them",
    "llmpar-clock load1 load2 >> clock.jsonl": "wants hosts; tests/proc/test_hosts.py has some",
    "llmpar-clock 'srun -w node3' 'kubectl exec -i pod-1 --' | jq '{host, offset_s, error_s}'": "wants Slurm and "
    "Kubernetes; tests/proc/test_hosts.py asks over ssh",
    "llmpar-summarise --clock clock.jsonl requests.jsonl": "wants those clocks; tests/unit/test_clocks.py has some",
    "llmpar-manifest --sign ~/.ssh/id_ed25519 runs/quick": "wants a key; tests/proc/test_manifest.py has one",
    "llmpar-verify runs": "wants a manifest; tests/proc/test_manifest.py makes and checks some",
    "llmpar-verify --signers allowed_signers runs": "wants a signature; tests/proc/test_manifest.py signs",
    "make sweep REPEATS=3": "tests/proc/test_make.py runs make",
    "llmpar-serve --engine vllm --model my-7b --replicas 2 --gpus 0,1 --port 0 -- "
    "make sweep": "wants two GPUs; its dry run is golden",
    "llmpar-sample-engine --metrics-url http://127.0.0.1:8000/metrics --duration 10 | jq "
    ".running": "tests/proc/test_sample_engine.py has a port of its own",
}
# Exit statuses that are an answer too: a night that is slower, no cell that meets the objectives.
ANSWERS = {"llmpar-compare": {0, 5}, "llmpar-pick": {0, 6}}
FAKE_GPU = {"FAKE_NVML": '{"gpus":[{"processes":[[1,1000000]]}]}'}
BY_HAND = re.compile(r"--duration (10|60)")


def examples() -> list[str]:
    """Lines of help that begin as a pipeline of ours does, their continuation lines joined on."""
    found = []
    for name in COMMANDS:
        for line in called.run_text([name, "--help-all"]).stdout.splitlines():
            words = re.sub(r"\s+#.*", "", line.strip())
            if (
                line.startswith("  ")
                and re.match(r"(llmpar-[a-z-]+ |parallel |cat |jq |eval |make )", words + " ")
                and not words.startswith(f"{name}:")
            ):
                found.append(words)
    return list(dict.fromkeys(found))


EXAMPLES = examples()


@pytest.fixture(scope="module")
def server() -> Iterator[Fake]:
    with fake_engine(tokens=2) as fake:
        yield fake


@pytest.fixture
def surroundings(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPAR_BASE_URL", server.url)
    for name, value in FAKE_GPU.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests/fake_nvml/site'}:{ROOT}")


@pytest.fixture
def place(surroundings: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the examples name, made once."""
    whole = tmp_path_factory.getbasetemp() / "examples"
    if not whole.exists():
        made_here = tmp_path / "made"
        made_here.mkdir()
        with contextlib.chdir(made_here):
            write_files(made_here)
        made_here.rename(whole)
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def write_files(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    for number in range(12):
        (tmp_path / f"prompts/p{number:02d}.txt").write_text(f"Prompt number {number}.\n")
    shutil.copytree(ROOT / "sweeps", "sweeps")
    Path("prompts.txt").write_text("".join(f"prompts/p{number:02d}.txt\n" for number in range(12)))
    subprocess.run(
        "llmpar-prompts --index prompts/ > /dev/null; llmpar-request prompts/*.txt > requests.jsonl; "
        "llmpar-sample-gpu -o gpu.jsonl -- sleep 0.1",
        shell=True,
        check=True,
    )
    made = study()
    made += [
        summary(wall, sweep="quick", load={"clients": clients}, repeat=repeat, requests=200)
        for repeat in (1, 2, 3)
        for clients, wall in ((8, 20 + repeat / 10), (16, 11 + repeat / 10))
    ]
    made += [
        summary(30 + night / 10, sweep=f"nightly-{night}", repeat=night, load={"clients": 8}) for night in range(1, 6)
    ]
    made += [
        summary(20 + which / 10, sweep=sweep, server={"engine": engine}, repeat=which, varies=("engine",))
        for sweep in ("tonight", "last", "engines")
        for engine in ("vllm", "tgi")
        for which in (1, 2, 3)
    ]
    for each in made:
        folder = tmp_path / "runs" / each["cell"]["sweep"] / each["cell"]["id"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_bytes(records.encode(each))
    for name, each in zip("ab", made, strict=False):
        (tmp_path / f"{name}.json").write_bytes(records.encode(each))
    subprocess.run(["llmpar-cells", "sweeps/quick.tsv", "--write", "runs/quick"], check=True, stdout=subprocess.DEVNULL)
    Path("r.jsonl").write_bytes(Path("requests.jsonl").read_bytes())
    for cell in ("find/c0008", "decide/b01-a", "best/r1-k001-c0008", "acceptance/c128", "clients/c064"):
        (tmp_path / "runs" / cell).mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / cell / "summary.json").write_bytes(records.encode(made[0]))
    Path("space.tsv").write_text("engine\tmodel\tspeculate\nvllm\tm\t0,2\n")
    Path("result.json").write_text(json.dumps(vllm()))
    document = guidellm()
    document["benchmarks"] *= 2
    Path("guidellm.json").write_text(json.dumps(document))
    Path("artifacts/one").mkdir(parents=True)
    Path("artifacts/one/profile_export.jsonl").write_text("".join(json.dumps(aiperf(n)) + "\n" for n in range(9)))
    Path("azure.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        + "".join(f"2024-05-10 00:00:0{second}.5,10,4\n" for second in range(9))
    )
    Path("ShareGPT_V3.json").write_text(
        json.dumps(
            [
                {
                    "id": str(number),
                    "conversations": [
                        {"from": "human", "value": f"Question {number}, please?"},
                        {"from": "gpt", "value": "Yes."},
                    ],
                }
                for number in range(600)
            ]
        )
    )


def test_there_are_examples_of_every_command() -> None:
    assert {name for name in COMMANDS if not any(name in line for line in EXAMPLES)} == set()
    assert set(NOT_RUN) <= set(EXAMPLES)


@pytest.mark.parametrize("line", [line for line in EXAMPLES if line not in NOT_RUN])
def test_the_example_runs(line: str, place: Path) -> None:
    for tool in ("jq", "parallel"):
        if re.search(rf"(^|[|( ]){tool} ", line):
            optional.need(tool)
    if "--engine llamacpp" in line:
        optional.need("xllamacpp")
    # The same command, over sooner; a server's start is asked for the smallest model.
    shorter = (
        BY_HAND.sub(lambda found: found[0].split()[0] + " 1", line)
        .replace("parallel ", "parallel --will-cite ")
        .replace("-j512", "-j12")
    )
    if "--engine llamacpp" in line:
        shorter = shorter.replace("--max-tokens 64", "--max-tokens 2")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not ("--engine llamacpp" in line and name == "LLMPAR_BASE_URL")
    }
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shorter],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    first = next(name for name in re.findall(r"llmpar-[a-z-]+", line))
    assert done.returncode in ANSWERS.get(first, {0}), f"{shorter}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr


def test_readme_commands_exist_and_its_literal_lines_run(place: Path) -> None:
    text = (ROOT / "README.md").read_text()
    assert "@@" not in text
    jobs = subprocess.run(["llmpar"], capture_output=True, text=True, timeout=60, check=True).stdout.split()
    for job in re.findall(r"^llmpar ([a-z-]+)|`llmpar ([a-z-]+)", text, re.M):
        assert "".join(job) in jobs, job
    lines = [line for line in text.splitlines() if line.startswith(("parallel ", "llmpar-"))]
    assert len(lines) >= 2
    optional.need("jq", "parallel")
    for line in lines:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line.replace("parallel ", "parallel --will-cite ")],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
