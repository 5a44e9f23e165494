"""Stamps and one exchange over real sockets, the gate, targets, names for what goes wrong."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

import pytest

from llmpar import procfs
from llmpar.client import exchange, http1, receive, stamps
from llmpar.client.exchange import Connections
from llmpar.client.gate import Cancelled, Gate
from llmpar.client.receive import Raw
from llmpar.client.target import Target

STEP_NS = 2_000_000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


def test_kernel_stamps_tell_the_arrival_not_the_reading():
    client, server = pair()
    with client, server:
        assert stamps.enable(client)
        time.sleep(0.05)  # for the first socket of the machine the kernel turns stamps on in a work queue
        before = time.time_ns()
        server.sendall(b"x")
        after = time.time_ns()
        time.sleep(0.1)
        _, ancillary, _, _ = client.recvmsg(10, stamps.SPACE)
        read_at = time.time_ns()
        seen = stamps.stamp(ancillary)
        assert (
            seen is not None
            and before - STEP_NS <= seen
            and read_at - seen >= 90_000_000 - STEP_NS
            and after <= read_at
        )
    assert stamps.stamp([]) is None and stamps.stamp([(socket.SOL_SOCKET, 99, b"x" * 16)]) is None


def test_unix_sockets_have_no_stamp_to_give():
    one, two = socket.socketpair()
    with one, two:
        two.sendall(ANSWER)
        raw = Raw()
        assert receive.receive(one, raw, one.recv) == ANSWER
        assert not raw.kernel and len(raw.stamps) == 1, "stamped by the process, and the record will say so"


def test_waiting_for_a_processor_is_counted_for_this_thread():
    first = stamps.cpu_wait()
    if first is None:
        pytest.skip("no schedstat here")
    assert stamps.cpu_wait() >= first >= 0
    pid = os.fork()
    if not pid:
        os._exit(0 if (stamps.cpu_wait() or 0) <= first + 10**9 else 1)  # its own count, not its parent's
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_start_of_the_process():
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert procfs.process_start() <= time.time_ns() + tick
    assert abs(procfs.process_start() - procfs.process_start()) <= 2 * tick


def test_the_gate_raises_only_while_it_is_armed():
    gate = Gate()
    woken = []
    gate.wake = lambda: woken.append(1)
    gate.cancel("later")
    assert gate.why == "later" and woken == [1]
    with pytest.raises(Cancelled, match="later"):
        gate.arm()
    assert not gate.armed
    fresh = Gate()
    fresh.arm()
    with pytest.raises(Cancelled, match="now"):
        fresh.cancel("now")
    assert not fresh.armed


@pytest.mark.parametrize(
    "url,path",
    [
        ("http://h:1", "/v1/completions"),
        ("http://h:1/", "/v1/completions"),
        ("http://h:1/v1", "/v1/completions"),
        ("http://h:1/v1/", "/v1/completions"),
        ("http://h:1/llm", "/llm/v1/completions"),
        ("http://h:1/llm/v1", "/llm/v1/completions"),
    ],
)
def test_base_urls_with_and_without_v1(url, path):
    assert Target.of(url).path("/v1/completions") == path


def test_targets():
    assert (Target.of("http://h").port, Target.of("https://h").port, Target.of("http://[::1]:8/").host) == (
        80,
        443,
        "::1",
    )
    assert Target.of("http://[::1]:8").authority == "[::1]:8"


@pytest.mark.parametrize(
    "error,kind",
    [
        (TimeoutError(), "timeout"),
        (BlockingIOError(errno.EAGAIN, "x"), "timeout"),
        (OSError(errno.EINPROGRESS, "x"), "timeout"),
        (ConnectionRefusedError(), "connect_refused"),
        (ConnectionResetError(), "connection_reset"),
        (socket.gaierror(-2, "no such name"), "unknown_host"),
        (OSError(errno.EMFILE, "x"), "too_many_files"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "socket_ehostunreach"),
        (http1.BadFraming("odd"), "bad_http"),
    ],
)
def test_names_of_faults(error, kind):
    assert exchange.named(error, 3)[0] == kind and exchange.named(error, 3)[1]


def test_a_bug_is_no_fault_of_the_network():
    with pytest.raises(KeyError):
        exchange.named(KeyError("x"), 1)


class Server:
    """Runs `script(connection)` for each connection."""

    def __init__(self, script):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.target = Target.of(f"http://127.0.0.1:{self.listener.getsockname()[1]}")
        self.script, self.count = script, 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.count += 1
            with connection:
                self.script(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def do(
    server: Server,
    connections: Connections | None = None,
    kernel: bool = True,
    keep_alive: bool = False,
    timeout_s: float = 5,
    max_bytes: int = 10**6,
) -> Raw:
    raw = Raw(kernel)
    connections = connections or Connections()
    exchange.exchange(raw, connections, server.target, b"GET", timeout_s, max_bytes, keep_alive)
    connections.done(raw, server.target, keep_alive)
    return raw


@pytest.mark.parametrize("kernel", [True, False])
def test_receipts_are_stamped_one_by_one(kernel):
    times = []

    def script(connection):
        connection.recv(100)
        for piece in (ANSWER, b"abc", b"def"):
            times.append(time.time_ns())
            connection.sendall(piece)
            time.sleep(0.03)

    with Server(script) as server:
        raw = do(server, kernel=kernel)
    assert raw.error is None and bytes(raw.framer.body) == b"abcdef" and raw.kernel == kernel
    assert (
        raw.marks[-1] == 6
        and raw.stamps == sorted(raw.stamps)
        and raw.headers_ns == raw.stamps[0]
        and raw.end_ns == raw.stamps[-1]
    )
    assert raw.sent_ns <= times[0] + STEP_NS
    by_mark = dict(zip(raw.marks, raw.stamps, strict=True))
    assert times[2] - STEP_NS <= by_mark[6], "the last byte did not come before it was sent"
    assert raw.bytes_received == len(ANSWER) + 6 and raw.bytes_sent == 3


def test_an_answer_before_the_request_is_read_counts():
    def script(connection):
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    with Server(script) as server:
        raw = do(server)
    assert (raw.framer.status, bytes(raw.framer.body)) == (413, b"no") and (
        raw.error is None or raw.error[0] == "connection_reset"
    )


def test_kept_connection_that_died_is_replaced_once_without_a_word():
    def script(connection):
        connection.recv(100)
        connection.sendall(ANSWER + b"abcdef")

    connections = Connections()
    with Server(script) as server:
        first = do(server, connections, keep_alive=True)
        time.sleep(0.05)  # the server's FIN arrives
        second = do(server, connections, keep_alive=True)
        assert server.count == 2
    assert first.error is second.error is None and second.connect_ns is not None and not second.reused
    connections.close()


def test_interrupted_from_another_thread_is_cancelled_and_not_sent_again():
    started = threading.Event()

    def script(connection):
        connection.recv(100)
        started.set()
        connection.recv(100)

    connections = Connections()
    with Server(script) as server:
        threading.Thread(target=lambda: (started.wait(5), connections.interrupt("enough")), daemon=True).start()
        raw = do(server, connections, keep_alive=True)
        assert raw.error == ("cancelled", "enough") and server.count == 1


def test_silence_and_flood():
    def flood(connection):
        connection.recv(100)
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000)
            connection.recv(1)
        except OSError:
            pass

    with Server(lambda connection: connection.recv(100) and connection.recv(100)) as server:
        raw = do(server, timeout_s=0.2)
        assert raw.error == ("timeout", "no complete response within 0.2 s") and raw.sent_ns is not None
    with Server(flood) as server:
        raw = do(server, max_bytes=100_000)
        assert (
            raw.error == ("too_many_bytes", "more than 100000 bytes came")
            and 100_000 < raw.bytes_received <= 100_000 + receive.READ_BYTES
        )
