"""What every command that reads records owes its user: empty, bad, torn and unknown input, files and standard input."""

from __future__ import annotations

import subprocess
from pathlib import Path

import called
import orjson
import pytest

from llmpar import records

ROOT = Path(__file__).resolve().parent.parent.parent
# command line, the kind it reads
REQUESTS = [["llmpar-summarise"]]
SUMMARIES = [
    ["llmpar-table"],
    ["llmpar-compare", "--by", "engine"],
    ["llmpar-claims"],
    ["llmpar-pick"],
    ["llmpar-report", "--format", "csv"],
    ["llmpar-report", "--format", "markdown"],
    ["llmpar-plan"],
]


def request(number: int, **changes) -> dict:
    """A plain request record: 8 tokens, 10 ms apart."""
    sent = 1_790_000_000.0 + number * 0.05
    record = {
        "kind": "request",
        "v": 1,
        "id": f"r{number:04d}",
        "prompt": f"p{number % 8}.txt",
        "prompt_sha256": f"{number % 8:064x}",
        "attempt": 1,
        "engine": "vllm",
        "api": "openai-completions",
        "model": "m",
        "base_url": "http://127.0.0.1:1",
        "stream": True,
        "status": "ok",
        "error": None,
        "host": "h",
        "pid": 1,
        "slot": None,
        "seq": number,
        "launcher": "pool",
        "concurrency": 2,
        "scheduled_at": None,
        "launched_at": sent - 0.001,
        "sent_at": sent,
        "lateness_s": None,
        "connect_s": 0.0001,
        "headers_s": 0.01,
        "ttft_s": 0.02,
        "e2e_s": 0.1,
        "effective_ttft_s": None,
        "effective_e2e_s": None,
        "event_s": [round(0.02 + 0.01 * k, 6) for k in range(8)],
        "event_tokens": [1] * 8,
        "clock": "kernel",
        "cpu_wait_s": 0.0,
        "prompt_tokens": 10,
        "cached_tokens": 0,
        "output_tokens": 8,
        "token_source": "engine",
        "finish_reason": "length",
        "text": "x",
        "sampling": {"max_tokens": 8},
        "bytes_sent": 9,
        "bytes_received": 9,
    }
    return record | changes


def cell(engine: str, clients: int) -> dict:
    name = f"{engine}-c{clients:03d}"
    return {
        "kind": "cell",
        "v": 1,
        "id": name,
        "sweep": "s",
        "session": engine,
        "repeat": 1,
        "varies": {"engine": engine, "clients": clients},
        "server": {"engine": engine},
        "load": {"clients": clients, "launcher": "parallel", "max_tokens": 8},
        "settings_sha256": name,
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, list[bytes]]:
    """Lines of each kind: requests, and summaries that llmpar-summarise itself made of them."""
    folder = tmp_path_factory.mktemp("inputs")
    requests = [records.encode(request(number)) for number in range(40)]
    (folder / "r.jsonl").write_bytes(b"".join(requests))
    summaries = []
    for engine in ("vllm", "tgi"):
        for clients, session in ((2, "a"), (4, "a"), (2, "b")):  # one cell in two sessions: llmpar-plan needs that
            (folder / "cell.json").write_bytes(records.encode(cell(engine, clients)))
            done = run(
                [
                    "llmpar-summarise",
                    "--cell",
                    str(folder / "cell.json"),
                    "--session",
                    f"{engine}-{session}",
                    str(folder / "r.jsonl"),
                ]
            )
            assert done.returncode == 0, done.stderr
            summaries.append(done.stdout)
    return {"request": requests, "summary": summaries}


def run(command: list[str], given: bytes = b"") -> subprocess.CompletedProcess:
    return called.run(command, given)


CASES = [pytest.param(command, "request", id=" ".join(command)) for command in REQUESTS]
CASES += [pytest.param(command, "summary", id=" ".join(command)) for command in SUMMARIES]


@pytest.mark.parametrize(("command", "kind"), CASES)
class TestReader:
    def test_empty_input_is_too_little(self, command, kind, inputs):
        done = run(command)
        assert done.returncode == 6, done.stderr
        assert done.stderr and b"Traceback" not in done.stderr

    def test_bad_line_is_named(self, command, kind, inputs):
        lines = inputs[kind]
        done = run(command, lines[0] + b"{oops\n" + lines[1])
        assert done.returncode == 3
        assert b"line 2" in done.stderr

    def test_torn_last_line_loses_nothing_else(self, command, kind, inputs):
        lines = inputs[kind]
        whole, torn = run(command, b"".join(lines)), run(command, b"".join(lines) + lines[0][:-30])
        assert torn.returncode == whole.returncode, torn.stderr
        assert b"torn" in torn.stderr + torn.stdout

    def test_unknown_field_and_kind_pass(self, command, kind, inputs):
        lines = inputs[kind]
        extended = [records.encode(orjson.loads(line) | {"weather": "fine"}) for line in lines]
        whole = run(command, b"".join(lines))
        done = run(command, b'{"kind":"weather","v":3}\n' + b"".join(extended))
        assert done.returncode == whole.returncode, done.stderr
        if kind == "summary":
            assert done.stdout == whole.stdout

    def test_unknown_version_is_refused(self, command, kind, inputs):
        line = records.encode(orjson.loads(inputs[kind][0]) | {"v": 99})
        done = run(command, line)
        assert done.returncode == 3
        assert b"version 99" in done.stderr

    def test_files_and_standard_input_are_one(self, command, kind, inputs, tmp_path):
        lines = inputs[kind]
        (tmp_path / "a.jsonl").write_bytes(b"".join(lines[:2]))
        (tmp_path / "b.jsonl").write_bytes(b"".join(lines[2:]))
        whole = run(command, b"".join(lines))
        files = run([*command, str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
        mixed = run([*command, str(tmp_path / "a.jsonl"), "-"], b"".join(lines[2:]))
        assert files.stdout == whole.stdout == mixed.stdout
        assert whole.returncode == files.returncode == mixed.returncode
        assert whole.stdout

    def test_missing_file_is_a_clear_error(self, command, kind, inputs):
        done = run([*command, "no-such-file.jsonl"])
        assert done.returncode == 2
        assert b"no-such-file.jsonl" in done.stderr and b"Traceback" not in done.stderr

    def test_closed_reader_is_no_fault(self, command, kind, inputs, tmp_path):
        (tmp_path / "all.jsonl").write_bytes(b"".join(inputs[kind]))
        shell = (
            f"{' '.join([str(ROOT / 'bin' / command[0]), *command[1:]])} {tmp_path}/all.jsonl | :; echo "
            "${PIPESTATUS[0]}"
        )
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() in ("0", "6"), done.stderr
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
