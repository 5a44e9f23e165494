"""llmpar-request without GNU parallel and beside it: every launcher writes the same record, whatever goes wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import optional
import pools
import pytest
from fake import Fake, fake_engine
from pools import PATIENCE_S, prompts, read, wait_for

from llmpar import records

CLOCK_STEP_S = 0.002
LAUNCHERS = ["cold", "pool", "turns", "queue", "threads", "asyncio"]


@pytest.fixture(scope="module")
def server():
    with fake_engine(tokens=6, context=50) as fake:
        yield fake


def ask(launcher: str, url: str, files: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    """The same prompts through each kind of client."""
    if launcher in ("pool", "cold", "queue"):
        optional.need("parallel")
    request = ["llmpar-request", "--base-url", url, *options]
    parallel = ["parallel", "--will-cite", "-0", "-j4"]  # -0: it splits its arguments, too, at line ends
    if launcher in ("pool", "cold"):
        return pools.run(
            [*parallel, *request, ":::", *files],
            env=pools.environment(LLMPAR_POOL="no" if launcher == "cold" else "yes"),
        )
    if launcher == "queue":
        Path("list").write_bytes(b"\0".join(os.fsencode(file) for file in files))
        return pools.run([*parallel, "-N0", *request, "--queue", "list", ":::", "1", "2", "3"])
    many = {"threads": ["--threads", "3"], "asyncio": ["--asyncio", "3"], "turns": []}[launcher]
    return pools.run([*request, *many, *files])


# name: text, what is wrong in --, error type, part of its message, status, events that came
BAD = {
    "good": ("tell me", None, None, "ok", 6),
    "empty": ("", "prompt_empty", "holds no text", "error", 0),
    "blank": (" \n\n", "prompt_empty", "holds no text", "error", 0),
    "long": ("word " * 60, "BadRequestError", "exceeds the available context size (50 tokens)", "error", 0),
    "4xx": ("x\nfake: status=429 message=slow_down", None, "slow down", "error", 0),
    "5xx": ("x\nfake: status=503 message=not_now", None, "not now", "error", 0),
    "cut": ("x\nfake: cut=3", "cut_stream", "after 3 events", "error", 3),
    "cut plain": ("x\nfake: end=2 plain", "cut_stream", "after 2 events", "error", 2),
    "error event": ("x\nfake: error=2", "InternalServerError", "the engine stopped in the middle", "error", 2),
    "utf8": ("x\nfake: utf8=2", "invalid_utf8", "event 2 of the stream is not UTF-8", "error", 6),
    "json": ("x\nfake: json=2", "bad_json", "event 2 of the stream is not JSON", "error", 5),
    "reset": ("x\nfake: reset", "connection_reset", "the server reset the connection", "error", 0),
    "closed": ("x\nfake: close", "no_response", "closed before a response", "error", 0),
    "endless": ("x\nfake: endless big=500", "too_many_bytes", "more than 90000 bytes came", "error", None),
    "endless and slow": ("x\nfake: endless gap_ms=40", "timeout", "no complete response within 1 s", "timeout", None),
    "silent": ("x\nfake: hang", "timeout", "no complete response within 1 s", "timeout", 0),
    "sp ace 'quo\"te\\ $(x) {}": ("x", None, None, "ok", 6),
    "new\nline": ("x", None, None, "ok", 6),
    "naïve 東": ("x", None, None, "ok", 6),
    "-dash": ("x", None, None, "ok", 6),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_bad_input_has_a_record_a_message_and_a_code(launcher, server):
    files = prompts({name: text for name, (text, *_) in BAD.items()})
    Path("prompts/latin").write_bytes(b"caf\xe9")
    Path("prompts/folder").mkdir()
    odd = os.fsdecode(b"prompts/byte\xff")
    Path(odd).write_text("x")
    expected = {name: rest for name, (_, *rest) in BAD.items()} | {
        "latin": ["prompt_not_utf8", "'latin' is not UTF-8 at byte 3", "error", 0],
        "folder": ["prompt_unreadable", "cannot read 'folder': Is a directory", "error", 0],
        "missing": ["prompt_unreadable", "cannot read 'missing': No such file or directory", "error", 0],
        "byte\N{REPLACEMENT CHARACTER}": [None, None, "ok", 6],
    }
    files += ["prompts/latin", "prompts/folder", "prompts/missing", odd]
    done = ask(launcher, server.url, files, "--timeout", "1", "--max-bytes", "90000")
    found = {
        record["prompt"]: record
        for record in map(records.decode, done.stdout.encode("utf-8", "surrogateescape").splitlines())
    }
    failed = {name for name, rest in expected.items() if rest[2] != "ok"}
    assert done.stdout.count("\n") == len(expected) == len(found)
    assert found.keys() == expected.keys()
    for name, (kind, text, status, events) in expected.items():
        record = found[name]
        assert record["status"] == status, record["error"]
        assert record["launcher"] == launcher
        if status == "ok":
            assert record["error"] is None
        else:
            assert kind is None or record["error"]["type"] == kind, record["error"]
            assert text in record["error"]["message"]
            assert f"'{name}': {record['error']['message']}\n" in done.stderr
        assert events is None or len(record["event_s"]) == events, name
        assert record["event_s"] == sorted(record["event_s"])
    assert found["4xx"]["error"]["http_status"] == 429 and found["5xx"]["error"]["http_status"] == 503
    assert found["endless"]["event_s"] and found["endless and slow"]["event_s"], "what came before the end is kept"
    assert found["endless and slow"]["e2e_s"] + 0.2 >= 1.0 and found["silent"]["e2e_s"] is None
    assert found["endless"]["bytes_received"] < 90000 + (1 << 17)
    if launcher in ("turns", "threads", "asyncio"):
        assert done.returncode == 7
    else:  # GNU parallel counts jobs that failed: a job a prompt, or three that share them
        assert done.returncode == len(failed) if launcher != "queue" else 1 <= done.returncode <= 3
    assert "Traceback" not in done.stderr


def test_all_launchers_write_the_same_fields(server):
    files = prompts(3)
    fields = {}
    for launcher in LAUNCHERS:
        for _ in range(3):  # on a busy machine a record may miss the kernel's stamp, and then says so
            done = ask(launcher, server.url, files, "--max-tokens", "4", "--temperature", "0")
            found = read(done.stdout)
            if {record["clock"] for record in found} == {"kernel"}:
                break
        assert done.returncode == 0 and len(found) == 3, done.stderr
        assert {record["launcher"] for record in found} == {launcher}
        fields[launcher] = [
            (name, type(value)) for name, value in found[0].items() if name not in ("slot", "seq", "concurrency")
        ]
        for record in found:
            assert (record["status"], record["clock"], record["output_tokens"]) == ("ok", "kernel", 4)
            assert record["launched_at"] <= record["sent_at"]
            assert 0 < record["headers_s"] <= record["ttft_s"] == record["event_s"][0] <= record["e2e_s"]
            assert record["bytes_sent"] > 100 and record["bytes_received"] > 100 and record["cpu_wait_s"] >= 0
            assert record["connect_s"] > 0 and record["sampling"]["temperature"] == 0
    assert all(found == fields["cold"] for found in fields.values())
    sent = [truth["body"] for truth in server.truth()[-18:]]
    assert all(body == sent[0] for body in sent), "every launcher asks the same"


@pytest.mark.parametrize("launcher", ["turns", "threads", "asyncio"])
@pytest.mark.parametrize("option", ["--user-stamps", "--keep-alive"])
def test_times_agree_with_the_truth(launcher, option, tmp_path):
    with fake_engine(tokens=8, gap_ms=20, ttft_ms=30) as server:
        done = ask(launcher, server.url, prompts(6), option)
        truth = {entry["prompt"].split()[-1]: entry for entry in server.truth(6)}
    found = read(done.stdout)
    assert done.returncode == 0 and len(found) == 6
    for record in found:
        was = truth[str(int(record["prompt"][1:]))]
        arrivals = [record["sent_at"] + seconds for seconds in record["event_s"]]
        assert record["sent_at"] <= was["received_at"] + CLOCK_STEP_S
        assert len(arrivals) == 8 and all(
            seen >= written - CLOCK_STEP_S for seen, written in zip(arrivals, was["write_at"], strict=True)
        )
        assert record["clock"] == ("user" if option == "--user-stamps" else "kernel")
    connections = {entry["connection"] for entry in truth.values()}
    if option == "--keep-alive":
        assert len(connections) == (1 if launcher == "turns" else 3)
        assert sum(record["connect_s"] is None for record in found) == 6 - len(connections)
    else:
        assert len(connections) == 6


@pytest.mark.parametrize("launcher", ["turns", "threads", "asyncio", "pool"])
def test_kept_connections_that_the_server_closed_are_opened_anew(launcher):
    with closing_server() as url:
        done = ask(launcher, url, prompts(8), "--keep-alive", "--timeout", "5", "--no-stream")
    found = read(done.stdout)
    assert len(found) == 8 and {record["status"] for record in found} == {"ok"}, done.stderr


class closing_server:
    """Answers one request a connection, says that it will keep it, and closes it."""

    ANSWER = json.dumps(
        {"choices": [{"text": "yes", "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    ).encode()

    def __init__(self, context: ssl.SSLContext | None = None, cut: bool = False):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.context, self.cut = context, cut

    def __enter__(self) -> str:
        threading.Thread(target=self._serve, daemon=True).start()
        return f"{'https' if self.context else 'http'}://localhost:{self.listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            if self.context:
                connection = self.context.wrap_socket(connection, server_side=True)
            data = b""
            while b"\r\n\r\n" not in data or len(data) < data.index(b"\r\n\r\n") + 4 + int(
                data.split(b"ontent-Length: ")[1].split(b"\r")[0]
            ):
                piece = connection.recv(65536)
                if not piece:
                    return
                data += piece
            if b'"stream":true' in data:
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for number in range(3):
                    event = b'data: {"choices":[{"text":" yes","finish_reason":%b}]}\n\n' % (
                        b'"stop"' if number == 2 else b"null"
                    )
                    connection.sendall(b"%x\r\n%b\r\n" % (len(event), event))
                    time.sleep(0.05)
                    if self.cut:
                        return
                connection.sendall(b"0\r\n\r\n")
            else:
                # The answer and the end go out together: a request sent between them would rightly be reported as lost.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(self.ANSWER), self.ANSWER)
                )
        except OSError:
            pass
        finally:
            connection.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[ssl.SSLContext, str]:
    folder = tmp_path_factory.mktemp("tls")
    optional.need("openssl")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            folder / "key.pem",
            "-out",
            folder / "cert.pem",
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context, str(folder / "cert.pem")


@pytest.mark.parametrize("launcher", ["pool", "turns", "threads", "asyncio"])
def test_tls_is_stamped_by_the_process_and_says_so(launcher, certificate, monkeypatch):
    context, path = certificate
    files = prompts(2)
    with closing_server(context) as url:
        stranger = ask(launcher, url, files)
        monkeypatch.setenv("SSL_CERT_FILE", path)
        done = ask(launcher, url, files)
    for record in read(done.stdout):
        assert (record["status"], record["clock"], record["text"]) == ("ok", "user", " yes yes yes"), record["error"]
        assert len(record["event_s"]) == 3 and record["event_s"] == sorted(record["event_s"])
        assert record["connect_s"] > 0 and record["headers_s"] <= record["ttft_s"] <= record["e2e_s"]
    assert len(read(done.stdout)) == 2
    assert {record["error"]["type"] for record in read(stranger.stdout)} == {"tls"}
    with closing_server(context, cut=True) as url:
        cut = ask(launcher, url, files)
    assert [record["error"]["type"] for record in read(cut.stdout)] == ["cut_stream"] * 2


@pytest.mark.parametrize("launcher", ["cold", "pool", "turns", "threads", "asyncio"])
def test_server_that_is_not_there(launcher):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = ask(launcher, f"http://127.0.0.1:{port}", prompts(2))
    assert [(record["error"]["type"], record["sent_at"]) for record in read(done.stdout)] == [
        ("connect_refused", None)
    ] * 2
    assert "nothing listens there" in done.stderr
    unknown = ask(launcher, "http://no-such-host.invalid:80", prompts(2))
    assert [record["error"]["type"] for record in read(unknown.stdout)] == ["unknown_host"] * 2


@pytest.mark.parametrize("launcher", ["turns", "threads", "asyncio"])
def test_server_that_does_not_take_the_connection(launcher):
    # A full backlog: the kernel drops what comes after it.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        done = ask(launcher, f"http://127.0.0.1:{listener.getsockname()[1]}", prompts(2), "--timeout", "0.5")
        for filler in fillers:
            filler.close()
    assert [(record["status"], record["error"]["message"]) for record in read(done.stdout)] == [
        ("timeout", "no connection within 0.5 s")
    ] * 2


@pytest.mark.parametrize("launcher", ["turns", "threads", "asyncio"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_what_is_out_and_starts_nothing_new(launcher, number, server):
    many = {"threads": ["--threads", "2"], "asyncio": ["--asyncio", "2"], "turns": []}[launcher]
    files = prompts({f"s{k}": "x\nfake: endless gap_ms=30" for k in range(5)})
    wait_for(lambda: server.counters()["running"] == 0, "an earlier request is still out")
    process = subprocess.Popen(
        ["llmpar-request", "--base-url", server.url, *many, *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: server.counters()["running"] == (2 if many else 1), "nothing was asked")
    wait_for(lambda: server.counters()["generated_live"] > 0, "nothing was answered")
    time.sleep(0.1)
    process.send_signal(number)
    out, complaints = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number, complaints
    assert [(record["status"], record["error"]["message"]) for record in read(out)] == [
        ("cancelled", f"{number.name} arrived")
    ] * (2 if many else 1)
    assert all(record["event_s"] for record in read(out))


@pytest.mark.parametrize("launcher", ["turns", "threads", "asyncio"])
def test_names_on_standard_input_are_asked_as_they_come(launcher, server):
    many = {"threads": ["--threads", "2"], "asyncio": ["--asyncio", "2"], "turns": []}[launcher]
    first, second, third = prompts({"one": "x", "two words\there": "x", "three": "x"})
    command = ["llmpar-request", "--base-url", server.url, "--stdin", *many]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(first + "\n")
    process.stdin.flush()
    # The record leaves while the next name is still awaited.
    assert json.loads(process.stdout.readline())["prompt"] == "one"
    process.stdin.write(second + "\n\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["prompt"] == "two words\there"
    # A signal ends the wait for a name.
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 143
    assert process.stderr is not None and process.stderr.read() == ""
    process.stdin.close()
    whole = pools.run(command, input=f"{first}\n{second}\n{third}")
    assert (
        sorted(record["prompt"] for record in read(whole.stdout)) == ["one", "three", "two words\there"]
        and whole.returncode == 0
    )
    nul = pools.run(command, input=f"{first}\0{second}\0{third}\0")
    assert len(read(nul.stdout)) == 3
    assert pools.run(command, input="").stdout == ""


def test_output_is_appended_whole_after_a_torn_line(server):
    files = prompts(4)
    Path("r.jsonl").write_bytes(b'{"kind":"request","v":1,"to')
    done = ask("pool", server.url, files, "--output", "r.jsonl")
    assert done.returncode == 0 and done.stdout == ""
    lines = Path("r.jsonl").read_bytes().splitlines()
    assert lines[0].endswith(b'"to') and [json.loads(line)["status"] for line in lines[1:]] == ["ok"] * 4


def test_closed_reader_is_no_fault(server):
    files = prompts(20)
    done = pools.run(
        ["bash", "-c", 'llmpar-request --base-url "$0" "$@" | head -n 1; echo ${PIPESTATUS[0]}', server.url, *files]
    )
    record, code = done.stdout.splitlines()
    assert json.loads(record)["status"] == "ok" and code == "0" and done.stderr == ""


@pytest.mark.parametrize("launcher", ["cold", "pool"])
@pytest.mark.parametrize(
    "options,words",
    [
        ([], "no prompt file is named"),
        (["--at", "+1", "p", "q"], "llmpar-arrivals"),
        (["--colour", "p"], "--colour"),
        (["--base-url", "http://user:word@x", "p"], "--api-key-file"),
        (["--header", "A: b\r\nC: d", "p"], "is not a header"),
    ],
)
def test_wrong_options_are_usage(launcher, options, words):
    settings = pools.environment(
        LLMPAR_BASE_URL="http://127.0.0.1:9",
        PARALLEL_PID=str(os.getpid()),
        LLMPAR_POOL_IDLE_S="0.2",
        LLMPAR_POOL="no" if launcher == "cold" else "yes",
    )
    Path("p").write_text("x")
    done = pools.run(["llmpar-request", *options], env=settings)
    assert done.returncode == 2 and words in done.stderr and done.stdout == "" and "Traceback" not in done.stderr, (
        done.stderr
    )
    assert "word@" not in done.stderr


def test_no_server_named_and_no_aiohttp(server, tmp_path):
    (file,) = prompts(1)
    done = pools.run(["llmpar-request", file])
    assert done.returncode == 2 and "LLMPAR_BASE_URL" in done.stderr
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "aiohttp.py").write_text("raise ImportError('hidden')\n")
    done = pools.run(
        ["llmpar-request", "--base-url", server.url, "--asyncio", "2", file],
        env=pools.environment(PYTHONPATH=str(tmp_path / "hidden")),
    )
    assert done.returncode == 4 and "-m pip install aiohttp" in done.stderr and sys.executable in done.stderr


def test_a_used_up_queue_is_said(server):
    files = prompts(2)
    Path("list").write_text("\n".join(files))
    done = pools.run(
        ["bash", "-c", "llmpar-request --queue list; echo then; llmpar-request --queue list; echo $?"],
        env=pools.environment(LLMPAR_BASE_URL=server.url),
    )
    first, _, second = done.stdout.partition("then\n")
    assert len(read(first)) == 2 and second == "0\n" and "nothing is left of 'list'" in done.stderr


@pytest.fixture
def engine() -> Iterator[Fake]:
    with fake_engine(tokens=4, gap_ms=5) as fake:
        yield fake


@optional.needs("parallel")
def test_a_stall_of_the_server_shows_in_the_effective_figures(engine):
    """No coordinated omission: more requests are due in the stall than may be out; those sent after it count as
    well."""
    stall_s, count, slots, gap_s = 1.5, 70, 6, 0.05
    process = subprocess.Popen(
        [
            "bash",
            "-c",
            f"""
        llmpar-arrivals --rate {1 / gap_s} --process constant --start +2 "$@" |
        parallel --will-cite -j{slots} --colsep '\\t' --trim n llmpar-request --base-url $URL --at {{1}} {{2}} > r.jsonl
        """,
            "-",
            *prompts(count),
        ],
        env=pools.environment(URL=engine.url),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: engine.truth(), "nothing was asked")
    begun = time.time()
    urllib.request.urlopen(urllib.request.Request(f"{engine.url}/fake/stall?s={stall_s}", data=b"")).read()
    over = begun + stall_s
    _, complaints = process.communicate(timeout=30)
    found = sorted(read(Path("r.jsonl").read_text()), key=lambda record: record["scheduled_at"])
    assert len(found) == count and {record["status"] for record in found} == {"ok"}, complaints
    # Due times are the plan's, whatever the server did.
    first = found[0]["scheduled_at"]
    assert [record["scheduled_at"] - first for record in found] == [
        pytest.approx(gap_s * k, abs=1e-5) for k in range(count)
    ]
    for record in found:
        assert (
            record["lateness_s"] == pytest.approx(record["sent_at"] - record["scheduled_at"], abs=2e-6)
            and record["lateness_s"] >= 0
        )
        assert record["effective_ttft_s"] == pytest.approx(record["ttft_s"] + record["lateness_s"], abs=2e-6)
        assert record["effective_e2e_s"] == pytest.approx(record["e2e_s"] + record["lateness_s"], abs=2e-6)
    due_in_it = [record for record in found if begun + CLOCK_STEP_S < record["scheduled_at"] < over]
    assert len(due_in_it) > 2 * slots
    for record in due_in_it:
        # Some had an event out before the stall began; none that was due in it had.
        assert record["effective_ttft_s"] >= over - record["scheduled_at"] - CLOCK_STEP_S
    sent_after = [record for record in due_in_it if record["sent_at"] >= over - CLOCK_STEP_S]
    assert len(sent_after) >= len(due_in_it) - slots, "these a closed loop would have called quick"
    summary = json.loads(pools.run(["llmpar-summarise", "r.jsonl"]).stdout)
    effective, plain = (summary["latency"][name]["mean"]["value"] for name in ("effective_ttft_s", "ttft_s"))
    assert effective > plain + sum(over - record["scheduled_at"] for record in sent_after) / count - CLOCK_STEP_S


@optional.needs("parallel")
def test_processes_wait_ready_for_their_due_time(engine):
    due = time.time() + 300
    process = pools.parallel(
        "-j3", "llmpar-request", "--base-url", engine.url, "--at", f"{due:.6f}", ":::", *prompts(3), start=True
    )
    wait_for(lambda: sum(map(pools.catches_term, pools.launchers())) == 3, "the processes do not wait")
    for pid in pools.launchers():
        os.kill(pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=PATIENCE_S)
    for record in read(out):
        assert (record["status"], record["sent_at"], record["lateness_s"]) == ("cancelled", None, None)
        assert record["scheduled_at"] == pytest.approx(due, abs=2e-6)
    assert len(read(out)) == 3 and engine.truth() == []
    soon = pools.run(["llmpar-request", "--base-url", engine.url, "--at", "+0.2", *prompts(1)])
    (record,) = read(soon.stdout)
    assert record["sent_at"] >= record["scheduled_at"] > record["launched_at"] and record["lateness_s"] >= 0
