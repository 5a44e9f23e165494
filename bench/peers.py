"""Other load clients on the same work, their times to first token held against truthd's log, request by request.

Each runs in its own .venv-peer-NAME (bench/peers) with a tokenizer made on the spot, laid out as the hub's cache has
it, so that none asks the network. Each is timed as it is: its processor seconds hold its start and its report.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import loads
import truth
from loads import EVENTS, Work
from sections import TRUTH_GAP, say
from tables import table

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = "truth/tiny"
PATIENCE_S = 120


class Peer(NamedTuple):
    """Command words for (folder, url, clients, count), and what it wrote, read."""

    command: Callable[[Path, str, int, int], list[str]]
    told: Callable[[Path], Iterator[truth.Told]]


def _first_word(prompt: str) -> str:
    return prompt.split(" ", 1)[0]


def _guidellm(folder: Path, url: str, clients: int, count: int) -> list[str]:
    return [
        "run",
        "--backend",
        f"kind=openai_http,target={url},model=truth,request_format=/v1/completions,max_tokens={EVENTS}",
        "--profile",
        f"kind=concurrent,streams={clients}",
        "--constraint",
        f"kind=max_requests,count={count}",
        "--data",
        f"kind=json_file,path={folder}/prompts.jsonl",
        "--tokenizer",
        f"kind=huggingface_auto,model={TOKENIZER}",
        "--output",
        f"kind=json,path={folder}/guidellm.json",
        "--disable-console",
    ]


def _guidellm_told(folder: Path) -> Iterator[truth.Told]:
    report = json.loads((folder / "guidellm.json").read_text())
    for request in report["benchmarks"][0]["requests"]["successful"]:
        prompt = json.loads(request["request_args"])["body"]["prompt"]
        yield truth.Told(_first_word(prompt), request["request_start_time"], [request["time_to_first_token_ms"] / 1000])


def _aiperf(folder: Path, url: str, clients: int, count: int) -> list[str]:
    return [
        "profile",
        "-m",
        "truth",
        "--url",
        url,
        "--endpoint-type",
        "completions",
        "--streaming",
        "--concurrency",
        str(clients),
        "--request-count",
        str(count),
        "--input-file",
        f"{folder}/prompts.jsonl",
        "--custom-dataset-type",
        "single_turn",
        "--tokenizer",
        TOKENIZER,
        "--output-artifact-dir",
        f"{folder}/aiperf",
        "--export-level",
        "raw",
        "--ui",
        "none",
        "--extra-inputs",
        f"max_tokens:{EVENTS}",
    ]


def _aiperf_told(folder: Path) -> Iterator[truth.Told]:
    for line in (folder / "aiperf" / "profile_export_raw.jsonl").read_text().splitlines():
        record = json.loads(line)
        start = record["start_perf_ns"]
        # Its time to first token: the first response less the start, both of its monotonic clock.
        events = [(response["perf_ns"] - start) / 1e9 for response in record["responses"][:1]]
        yield truth.Told(_first_word(record["payload"]["prompt"]), record["metadata"]["request_start_ns"] / 1e9, events)


def _inference_perf(folder: Path, url: str, clients: int, count: int) -> list[str]:
    # Its prompts come from a ShareGPT file, of which the answers' lengths limit the tokens asked for; truthd sends
    # EVENTS.
    talks = [
        {
            "conversations": [
                {"from": "human", "value": json.loads(line)["prompt"]},
                {"from": "gpt", "value": "the mill by the river " * 10},
            ]
        }
        for line in (folder / "prompts.jsonl").read_text().splitlines()
    ]
    (folder / "sharegpt.json").write_text(json.dumps(talks))
    config = {
        "api": {"type": "completion", "streaming": True},
        "data": {"type": "shareGPT", "path": f"{folder}/sharegpt.json"},
        "load": {
            "type": "concurrent",
            "num_workers": os.cpu_count(),
            "worker_max_concurrency": clients,
            "stages": [{"num_requests": count, "concurrency_level": clients}],
        },
        "server": {"type": "vllm", "model_name": "truth", "base_url": url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": TOKENIZER},
        "report": {"request_lifecycle": {"summary": True, "per_request": True}},
        "storage": {"local_storage": {"path": f"{folder}/inference-perf"}},
    }
    (folder / "inference-perf.yml").write_text(json.dumps(config))  # JSON is YAML
    return ["-c", f"{folder}/inference-perf.yml"]


def _inference_perf_told(folder: Path) -> Iterator[truth.Told]:
    for request in json.loads((folder / "inference-perf" / "per_request_lifecycle_metrics.json").read_text()):
        # Instants of a monotonic clock, so that no instant of sending can be compared.
        times = request["info"]["response_metrics"]["output_token_times"]
        yield truth.Told(
            _first_word(json.loads(request["request"])["prompt"]), None, [times[0] - request["start_time"]]
        )


PEERS = {
    "guidellm": Peer(_guidellm, _guidellm_told),
    "aiperf": Peer(_aiperf, _aiperf_told),
    "inference-perf": Peer(_inference_perf, _inference_perf_told),
}


def _tokenizer(python: Path, folder: Path) -> None:
    """The tiny tokenizer as a hub's cache of TOKENIZER, and the prompts."""
    commit = "0" * 40
    cache = folder / "hub" / f"models--{TOKENIZER.replace('/', '--')}"
    made = cache / "snapshots" / commit
    if not (made / "tokenizer.json").exists():
        subprocess.run(
            [str(python), str(ROOT / "scripts" / "tiny_llama.py"), str(made)], check=True, stdout=subprocess.DEVNULL
        )
        (cache / "refs").mkdir(parents=True, exist_ok=True)
        (cache / "refs" / "main").write_text(commit)


def _row(name: str, errors: truth.Errors, held: float, cpu_ms: float, wall_s: float) -> list[str]:
    """Raises ValueError where not one request was matched."""
    if not errors.ttft:
        raise ValueError(f"no request matches the server's log ({errors.unmatched} unmatched)")
    sizes = [1e3 * abs(value) for value in errors.ttft]
    return [
        name,
        str(len(sizes)),
        f"{statistics.fmean(sizes):.3f}",
        f"{truth.quantile(sizes, 0.5):.3f}",
        f"{truth.quantile(sizes, 0.99):.3f}",
        f"{held:.0f}",
        f"{cpu_ms:.1f}",
        f"{wall_s:.1f}",
    ]


def _run(work: Work, name: str, clients: int, count: int) -> list[str]:
    """A peer's row, or what kept it from running."""
    python = ROOT / f".venv-peer-{name}" / "bin" / "python"
    if not (python.parent.parent / ".ready").exists():
        log = python.parent.parent / "install.log"
        why = "not installed: make bench-peers"
        if log.exists():
            lines = [line for line in log.read_text().splitlines() if line.lower().startswith("error")]
            why = f"could not be installed: {lines[-1][:120]}" if lines else why
        return [name, why, *"-" * 6]
    folder = (work.folder / "peer").resolve()
    for left in ("aiperf", "inference-perf"):
        shutil.rmtree(folder / left, ignore_errors=True)
    (folder / "guidellm.json").unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    _tokenizer(python, folder)
    key = "text" if name == "aiperf" else "prompt"
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({key: Path(path).read_text().strip()}) + "\n" for path in work.prompts[:count])
    )
    server = truth.Server(
        work.folder / "truthd",
        folder / "truth.tsv",
        ["-n", str(EVENTS), "-g", str(round(TRUTH_GAP * 1000))],
        work.server_core,
    )
    peer = PEERS[name]
    command = [str(python.with_name(name)), *peer.command(folder, server.url, clients, count)]
    pinned = ["taskset", "-c", work.client_cores] if work.client_cores else []
    with open(folder / f"{name}.log", "wb") as log_file:
        process = subprocess.Popen(
            [*pinned, sys.executable, "-P", str(ROOT / "bench" / "metre.py"), str(folder / "metre.json"), *command],
            env={**os.environ, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"},
            cwd=folder,
            start_new_session=True,
            stdout=log_file,
            stderr=log_file,
            stdin=subprocess.DEVNULL,
        )
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return [name, f"did not end within {PATIENCE_S} s", *"-" * 6]
        finally:
            time.sleep(0.1)
            served = [one for one in server.stop() if one.id]
    metre = json.loads((folder / "metre.json").read_text())
    try:
        errors = truth.compare(peer.told(folder), served)
        return _row(
            name, errors, truth.held(served), 1000 * (metre["user_s"] + metre["system_s"]) / count, metre["wall_s"]
        )
    except (OSError, LookupError, TypeError, ValueError) as error:
        return [
            name,
            f"exit status {metre['code']}, its output could not be read: {type(error).__name__} {error}"[:160],
            *"-" * 6,
        ]


def section(work: Work, quick: bool, clients: int = 128) -> str:
    """All on the same prompts, streams and server, one after the other."""
    count = 256 if quick else 512
    rows = []
    for name in ("queue", "pool", "curl -w"):
        run = loads.run(work, name, clients, count, TRUTH_GAP)
        rows.append(
            _row(
                f"llmpar, {name}" if name != "curl -w" else "parallel curl -w",
                run.errors,
                run.held,
                run.cpu_ms,
                run.wall_s,
            )
        )
    for name in PEERS:
        say(f"peer {name}")
        rows.append(_run(work, name, clients, count))
    return table(["client", "requests", "TTFT error mean ms", "p50", "p99", "held", "CPU ms a request", "wall s"], rows)
