"""One rule of addresses, keys, certificates and proxies for every command that asks a server."""

from __future__ import annotations

import importlib
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import optional
import pytest

from llmpar import cli

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-of-the-test"
METRICS = b"vllm:num_requests_running 4.0\nvllm:num_requests_waiting 1.0\n"
ANSWER = {
    "choices": [{"index": 0, "text": "yes", "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
GIVEN = {"/tokenize": {"count": 3}, "/v1/completions": ANSWER, "/v1/models": {"data": [{"id": "m"}]}}
# What asks a server -> its options; {url} is the base URL, and a command without it has it from the environment.
COMMANDS = {
    "request": ["--no-stream", "--base-url", "{url}", "p.txt"],
    "request --threads": ["--no-stream", "--threads", "1", "--base-url", "{url}", "p.txt"],
    "request --asyncio": ["--no-stream", "--asyncio", "1", "--base-url", "{url}", "p.txt"],
    "prompts": ["--from", "p.txt", "--base-url", "{url}", "--replace", "set"],
    "sample-engine": ["--duration", "0.05", "--interval", "5"],
    "doctor": ["--server"],
}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def reply(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append(f"{self.command} {self.path}")
        if self.headers.get("authorization") != f"Bearer {KEY}":
            self.say(401, b'{"error":{"message":"no key"}}')
        elif self.path.startswith("/away"):
            self.send_response(307)
            self.send_header("location", "http://127.0.0.1:9/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()
        elif self.path == "/metrics":
            self.say(200, METRICS)
        else:
            known = self.path in GIVEN
            self.say(200 if known else 404, json.dumps(GIVEN.get(self.path, {"error": {"message": "no"}})).encode())

    do_GET = do_POST = reply

    def say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    asked: list[str]

    def handle_error(self, *arguments: Any) -> None:
        pass  # handshakes that a client ends


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[str, str]:
    optional.need("openssl")
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -addext"
    subprocess.run(
        ["openssl", *words.split(), "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.fixture
def server(certificate: tuple[str, str]) -> Iterator[tuple[str, list[str], str]]:
    """The address of an https server, what it was asked for, and its certificate."""
    made = Server(("127.0.0.1", 0), Handler)
    made.asked = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    # The handshake belongs to the thread of its connection.
    made.socket = context.wrap_socket(made.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"https://localhost:{made.server_port}", made.asked, certificate[0]
    made.shutdown()
    made.server_close()


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capfdbinary) -> Callable[..., tuple[int, str]]:
    """Run a command as a user whose environment names a proxy that is not there."""
    Path("p.txt").write_text("hello")
    Path("key").write_text(KEY + "\n")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name, value in {"API_KEY_FILE": "key", "ENGINE": "vllm", "MODEL": "m", "POOL": "no"}.items():
        monkeypatch.setenv(f"LLMPAR_{name}", value)

    def run(name: str, url: str, *options: str) -> tuple[int, str]:
        if "asyncio" in name:
            optional.need("aiohttp")
        monkeypatch.setenv("LLMPAR_BASE_URL", url)
        command = name.split()[0]
        words = [*options, *(each.format(url=url) for each in COMMANDS[name])]
        if command == "request":  # it ends its process by itself
            done = subprocess.run(
                [sys.executable, "-m", "llmpar.commands.request", *words], capture_output=True, timeout=60
            )
            return done.returncode, (done.stdout + done.stderr).decode()
        module = importlib.import_module(f"llmpar.commands.{command.replace('-', '_')}")
        code = cli.run(f"llmpar-{command}", module.main.command, words)
        said = capfdbinary.readouterr()
        text = (said.out + said.err).decode()
        # A sampler's failed readings are samples.
        return 4 if command == "sample-engine" and code == 0 and '"running":4' not in text else code, text

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_a_private_ca_is_named_in_one_way(name, server, ask, monkeypatch):
    url, asked, certificate = server
    code, said = ask(name, url)
    assert code != 0 and "--ca" in said and "--insecure" in said and not asked
    for given in (["--ca", certificate], ["--insecure"]):
        code, said = ask(name, url, *given)
        assert code == 0, said
    for variable, value in (("LLMPAR_CA_FILE", certificate), ("SSL_CERT_FILE", certificate), ("LLMPAR_INSECURE", "1")):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            assert ask(name, url)[0] == 0, variable
    code, said = ask(name, url, "--ca", "p.txt")
    assert code == 2 and "cannot read certificates from 'p.txt'" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_an_address_with_and_without_its_version_is_one(name, server, ask):
    url, asked, certificate = server
    paths = []
    for given in (url, url + "/", url + "/v1", url + "/v1/"):
        code, said = ask(name, given, "--ca", certificate)
        assert code == 0, said
        paths.append(sorted(set(asked)))
        asked.clear()
    assert paths[0] and all(each == paths[0] for each in paths)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_redirect_is_said_and_not_followed(name, server, ask):
    url, asked, certificate = server
    code, said = ask(name, url + "/away", "--ca", certificate)
    assert code != 0 and "http://127.0.0.1:9/elsewhere" in said and all("/away" in each for each in asked)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_key_goes_to_the_server_and_nowhere_else(name, server, ask, monkeypatch):
    url, _, certificate = server
    Path("key").write_text("sk-of-another\n")
    code, said = ask(name, url, "--ca", certificate)
    assert code != 0 and "sk-of-another" not in said


def test_every_command_that_takes_an_address_is_here():
    taking = set()
    for path in (ROOT / "llmpar/commands").glob("*.py"):
        module = importlib.import_module(f"llmpar.commands.{path.stem}")
        command = getattr(getattr(module, "main", None), "command", None)
        options = {option for each in getattr(command, "params", ()) for option in each.opts}
        if options & {"--base-url", "--metrics-url", "--ca", "--insecure"} and path.stem != "front":
            assert {"--ca", "--insecure"} <= options, path
            taking.add(path.stem.replace("_", "-"))
    assert taking == {name.split()[0] for name in COMMANDS}
