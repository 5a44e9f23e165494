"""The life and death of the pool behind `parallel … llmpar-request`: real processes, killed at every point."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import optional
import pools
import pytest
from fake import Fake, fake_engine
from pools import PATIENCE_S, parallel, prompts, read, wait_for

pytestmark = optional.needs("parallel")
ROOT = Path(__file__).resolve().parents[2]
root_only = pytest.mark.skipif(os.getuid() != 0, reason="runs as another user, or mounts: run as root")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Path | None:
    """The directory of the compiled launcher; None without a compiler."""
    if shutil.which("cc") is None:
        return None
    folder = tmp_path_factory.mktemp("launcher")
    subprocess.run([ROOT / "scripts" / "build-launcher", folder / "llmpar-request"], check=True)
    return folder


@pytest.fixture(autouse=True)
def launcher(request, compiled, monkeypatch):
    """The script, or where a test asks for both the compiled launcher."""
    if getattr(request, "param", "script") == "compiled":
        optional.need("cc")
        monkeypatch.setenv("PATH", f"{compiled}:{os.environ['PATH']}")


both = pytest.mark.parametrize("launcher", ["script", "compiled"], indirect=True)


@pytest.fixture(scope="module")
def server():
    with fake_engine(tokens=6) as fake:
        yield fake


@pytest.fixture(autouse=True)
def no_survivors(clean):
    """A test that fails half way leaves nothing to the next one."""
    yield
    for pid in [*pools.launchers(), *pools.processes()]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def command(server: Fake, *options: str) -> list[str]:
    return ["llmpar-request", "--base-url", server.url, *options]


def slow(server: Fake, count: int = 3, *options: str, **more) -> subprocess.Popen:
    """A started parallel whose requests are all out and get no answer."""
    wait_for(lambda: server.counters()["running"] == 0, "an earlier test's requests are still out")
    files = prompts({f"slow{number}": "x\nfake: endless gap_ms=50" for number in range(count)})
    process = parallel(
        f"-j{count}", *more.pop("parallel", ()), *command(server, *options), ":::", *files, start=True, **more
    )
    wait_for(lambda: server.counters()["running"] == count, "the requests did not get out")
    return process


def ended(process: subprocess.Popen) -> tuple[str, str]:
    out, complaints = process.communicate(timeout=PATIENCE_S)
    return out, complaints


@both
def test_every_prompt_has_its_record_and_nothing_stays(server):
    files = prompts(40)
    done = parallel("-j8", *command(server), ":::", *files)
    found = read(done.stdout)
    assert done.returncode == 0, done.stderr
    assert sorted(record["prompt"] for record in found) == sorted(Path(file).name for file in files)
    assert {record["launcher"] for record in found} == {"pool"} and {record["status"] for record in found} == {"ok"}
    assert {record["concurrency"] for record in found} == {8}
    assert sorted(record["seq"] for record in found) == list(range(1, 41)) and {
        record["slot"] for record in found
    } <= set(range(1, 9))
    assert all(record["launched_at"] <= record["sent_at"] for record in found)
    assert len({record["pid"] for record in found}) < 40, "workers serve more than one launcher"
    pools.nothing_left()


def test_achieved_concurrency_is_the_closing_line_and_advice_comes_where_it_is_low(server):
    files = prompts({f"p{number:02d}": "x\nfake: tokens=2 ttft_ms=150" for number in range(24)})
    low = parallel("-j4", "--delay", "0.15", *command(server), ":::", *files[:8])
    assert " requests were in flight on average, of 4 asked for\n" in low.stderr
    assert float(low.stderr.split("llmpar-request: ")[1].split()[0]) < 0.97 * 4
    assert "parallel -j4 -N0 llmpar-request --queue LIST ::: {1..4}" in low.stderr
    Path("list").write_text("".join(f"{file}\n" for file in files))
    full = parallel("-j4", "-N0", *command(server, "--queue", "list"), ":::", "1", "2", "3", "4")
    assert " requests were in flight on average, of 4 asked for\n" in full.stderr and len(read(full.stdout)) == 24


def test_two_parallels_at_once_have_two_pools_and_do_not_disturb_each_other(server):
    files = prompts(30)
    first = slow(server, 2)
    second = parallel("-j4", *command(server), ":::", *files)
    assert second.returncode == 0 and len(read(second.stdout)) == 30
    # The second one's pool has swept up what is nobody's, and the first one's socket is not.
    wait_for(
        lambda: (
            [path.name for path in Path(os.environ["XDG_RUNTIME_DIR"], "llmpar").glob("*.sock")]
            == [f"{first.pid}.sock"]
        ),
        "the first pool's socket is gone, or the second one's stays",
    )
    for pid in pools.launchers():
        os.kill(pid, signal.SIGTERM)
    assert [record["status"] for record in read(ended(first)[0])] == ["cancelled", "cancelled"]
    pools.nothing_left()


def test_a_job_from_another_host_has_a_pool_that_ends_when_idle(server):
    (file,) = prompts(1)
    # A number that no process here has, as GNU parallel's is over there.
    away = str(int(Path("/proc/sys/kernel/pid_max").read_text()) - 1)
    settings = pools.environment(PARALLEL_PID=away, PARALLEL_SEQ="7", LLMPAR_POOL_IDLE_S="0.5")
    first, second = (pools.run([*command(server), file], env=settings) for _ in range(2))
    (one,), (two,) = read(first.stdout), read(second.stdout)
    assert one["launcher"] == two["launcher"] == "pool" and one["seq"] == 7
    # The number may be another run's, which had it in another container: no attempts are counted by it.
    assert (one["attempt"], two["attempt"]) == (1, 1)
    pools.nothing_left()
    # How far a list has got is known on one host: with the others each would ask every prompt.
    Path("list").write_text(f"{file}\n")
    for pooled in ("yes", "no"):
        asked = server.counters()["prompt_ended"]
        done = pools.run([*command(server), "--queue", "list"], env=settings | {"LLMPAR_POOL": pooled})
        assert done.returncode == 2 and "every host would ask every prompt" in done.stderr
        assert "parallel -S 1/HOST,1/HOST" in done.stderr and server.counters()["prompt_ended"] == asked
    pools.nothing_left()


def test_a_pool_of_an_idle_parallel_goes_and_another_comes(server):
    files = prompts(2)
    Path("list").write_text("".join(f"{file}\n" for file in files))
    # The second job starts after the first one's pool has ended for want of work, and takes what is left of the list.
    script = "sleep {}; llmpar-request --base-url $URL --queue list"
    done = parallel("-j2", script, ":::", "0", "2", env=pools.environment(URL=server.url, LLMPAR_POOL_IDLE_S="0.3"))
    assert done.returncode == 0 and sorted(record["prompt"] for record in read(done.stdout)) == ["p000", "p001"]
    pools.nothing_left()


@both
def test_killed_launchers_requests_are_cancelled_and_recorded(server):
    process = slow(server, 3)
    gone = pools.launchers()
    os.kill(gone[0], signal.SIGKILL)
    wait_for(lambda: server.counters()["running"] == 2, "the request of a killed launcher stays out")
    os.kill(gone[1], signal.SIGTERM)
    os.kill(gone[2], signal.SIGINT)
    out, _ = ended(process)
    found = read(out)
    assert [record["status"] for record in found] == ["cancelled"] * 3
    assert {record["error"]["message"] for record in found} == {"its launcher was killed"}
    assert all(record["event_s"] and record["text"] for record in found), "what had come is in the record"
    assert server.truth(3)[-1]["outcome"] == "client_left"
    pools.nothing_left()


@both
def test_status_of_a_terminated_launcher_is_that_of_its_signal(server):
    process = slow(server, 2, parallel=("--joblog", "log"))
    for pid, number in zip(pools.launchers(), (signal.SIGTERM, signal.SIGINT), strict=True):
        os.kill(pid, number)
    ended(process)
    assert sorted(line.split("\t")[6] for line in Path("log").read_text().splitlines()[1:]) == ["130", "143"]


@both
def test_killed_worker_costs_a_record_that_says_so(server):
    process = slow(server, 2)
    parent = pools.parent()
    busy = [pid for pid in pools.processes() if pid != parent and holds_tcp(pid)]
    assert len(busy) == 2
    os.kill(busy[0], signal.SIGKILL)
    wait_for(lambda: server.counters()["running"] == 1, "the worker's request stays out")
    # Its launcher goes on, in a process of its own, to the record; the pool goes on too.
    wait_for(lambda: len(pools.launchers()) == 1, "the launcher does not end")
    os.kill(pools.launchers()[0], signal.SIGTERM)
    out, complaints = ended(process)
    assert sorted(str(record["error"]["type"]) for record in read(out)) == ["cancelled", "worker_died"]
    assert "worker that had the request died" in complaints and process.returncode == 2
    pools.nothing_left()


def holds_tcp(pid: int) -> bool:
    inodes = {line.split()[9] for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]}
    try:
        return any(
            os.readlink(path.path).removeprefix("socket:[").rstrip("]") in inodes
            for path in os.scandir(f"/proc/{pid}/fd")
        )
    except OSError:
        return False


@both
def test_killed_pool_hangs_nobody(server):
    files = prompts({f"q{number:02d}": "x\nfake: tokens=3 gap_ms=100" for number in range(20)})
    process = parallel("-j4", *command(server), ":::", *files, start=True)
    # In mid-run: every launcher has reached the pool.
    wait_for(lambda: len(pools.launchers()) == 4 and all(map(pools.catches_term, pools.launchers())), "nothing starts")
    os.kill(pools.parent(), signal.SIGKILL)
    out, _ = ended(process)
    found = read(out)
    assert sorted(record["prompt"] for record in found) == sorted(Path(file).name for file in files)
    assert {record["status"] for record in found} == {"ok"} and process.returncode == 0
    pools.nothing_left()


@both
def test_pool_and_workers_killed_together(server):
    process = slow(server, 3)
    for pid in [pools.parent(), *pools.processes()]:
        os.kill(pid, signal.SIGKILL)
    out, _ = ended(process)
    assert [record["error"]["type"] for record in read(out)] == ["worker_died"] * 3
    assert process.returncode == 3
    wait_for(lambda: not pools.processes(), "a worker stays")


@both
def test_terminated_pool_cancels_what_is_out_and_the_next_job_starts_another(server):
    process = slow(server, 2)
    os.kill(pools.parent(), signal.SIGTERM)
    out, _ = ended(process)
    assert [record["error"]["message"] for record in read(out)] == ["the pool was ended"] * 2
    pools.nothing_left()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_parallel_takes_everything_along(server, number):
    process = slow(server, 3, "--output", "records.jsonl", start_new_session=True)
    process.send_signal(number)
    if number == signal.SIGTERM:
        process.send_signal(number)  # GNU parallel waits for its jobs after the first
    ended(process)
    wait_for(lambda: server.counters()["running"] == 0, "requests stay out")
    pools.nothing_left()
    wait_for(lambda: not pools.launchers(), "a launcher stays")
    assert [record["status"] for record in read(Path("records.jsonl").read_text())] == ["cancelled"] * 3


def test_the_pool_is_no_descendant_of_the_job_that_started_it(server):
    process = slow(server, 1)
    # GNU parallel's --timeout, --halt and --memfree end a job with all of its descendants.
    above, pid = [], pools.parent()
    while pid := pools.parent_of(pid):
        above.append(pid)
    assert not set(above) & {process.pid, *pools.launchers()}
    # Its own group, so that no signal of a terminal reaches it; in the session of its parallel, whose share of the
    # processors it has.
    assert os.getpgid(pools.parent()) == pools.parent() and os.getsid(pools.parent()) == os.getsid(process.pid)
    os.kill(pools.launchers()[0], signal.SIGTERM)
    ended(process)


@both
def test_full_disk_is_said_and_ends_nothing_else(server):
    files = prompts(3)
    with open("/dev/full", "w") as full:
        done = pools.run(
            ["bash", "-c", 'PARALLEL_PID=$$ llmpar-request --base-url "$1" "$2"; exit $?', "-", server.url, files[0]],
            stdout=full,
            stderr=subprocess.PIPE,
            capture_output=False,
        )
    assert done.returncode == 1 and "cannot write a record to standard output: No space left on device" in done.stderr
    done = parallel("-j2", *command(server, "--output", "/dev/full"), ":::", *files)
    assert (
        done.returncode == 3 and done.stderr.count("'/dev/full': cannot write a record: No space left on device") == 3
    )
    for number in (1, 2):
        cold = pools.run(
            [*command(server), *files[:number]],
            stdout=open("/dev/full", "w"),
            stderr=subprocess.PIPE,
            capture_output=False,
        )
        assert (
            cold.returncode == 1 and "'standard output': cannot write a record: No space left on device" in cold.stderr
        )


@root_only
def test_full_tmpfs_tears_no_line(server, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this user may not mount: run as root outside a container")
    try:
        files = prompts(40)
        done = parallel("-j4", *command(server, "--output", f"{disk}/r.jsonl"), ":::", *files)
        data = (disk / "r.jsonl").read_text()
        assert 0 < done.returncode <= 40 and "No space left on device" in done.stderr
        whole, _, torn = data.rpartition("\n")
        assert len(read(whole)) == 40 - done.returncode or torn
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_few_open_files(server):
    files = prompts(30)
    done = pools.run(
        [
            "bash",
            "-c",
            'ulimit -n 64; parallel --will-cite -j8 llmpar-request --base-url "$0" ::: "$@"',
            server.url,
            *files,
        ]
    )
    assert done.returncode == 0, done.stderr
    assert len(read(done.stdout)) == 30


@both
@pytest.mark.parametrize("fault", ["os.fork = refuse", "os.memfd_create = refuse"])
def test_where_no_pool_can_be_had_jobs_run_cold(server, fault):
    """No worker can be forked; the pool itself cannot start."""
    Path("hooks").mkdir()
    Path("hooks/sitecustomize.py").write_text(f"""import os, sys
def refuse(*_):
    raise BlockingIOError(11, 'Resource temporarily unavailable')
if 'import pool' in ' '.join(sys.orig_argv):
    {fault}
""")
    done = parallel(
        "-j2", *command(server), ":::", *prompts(3), env=pools.environment(PYTHONPATH=str(Path("hooks").resolve()))
    )
    assert done.returncode == 0, done.stderr
    assert [record["launcher"] for record in read(done.stdout)] == ["cold"] * 3
    pools.nothing_left()


@root_only
def test_another_user_is_refused(server):
    process = slow(server, 1)
    (path,) = Path(os.environ["XDG_RUNTIME_DIR"], "llmpar").glob("*.sock")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    # Even with the door to the directory open, a worker does not serve another user.
    path.parent.chmod(0o711)
    for folder in (path.parent.parent, *path.parent.parent.parents):
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    path.chmod(0o666)
    code = (
        "import os, socket, sys; os.setuid(54321); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "os.write(1, s.recv(1000))"
    )
    done = pools.run([sys.executable, "-c", code, path.name], cwd=path.parent)
    assert "this pool is another user's" in done.stdout, done.stderr
    path.parent.chmod(0o700)
    os.kill(pools.launchers()[0], signal.SIGTERM)
    ended(process)


LISTENER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
os.setuid(54321)
listener.listen()  # whose user SO_PEERCRED names
print("ready", flush=True)
listener.settimeout(60)
while True:
    connection, _ = listener.accept()
    connection.settimeout(5)
    got = connection.recv(1 << 16)
    print(len(got), flush=True)
"""


@both
@root_only
def test_a_pool_of_another_user_is_told_nothing(server):
    (file,) = prompts(1)
    folder = Path(os.environ["XDG_RUNTIME_DIR"], "llmpar")
    folder.mkdir(mode=0o700)
    path = folder / f"{os.getpid()}.sock"
    stranger = subprocess.Popen([sys.executable, "-c", LISTENER, path], stdout=subprocess.PIPE, text=True)
    try:
        assert stranger.stdout is not None and stranger.stdout.readline() == "ready\n"
        done = pools.run(command(server, file), env=pools.environment(PARALLEL_PID=str(os.getpid())))
        assert [record["status"] for record in read(done.stdout)] == ["ok"], done.stderr
    finally:
        stranger.kill()
        rest = stranger.communicate()[0]
    assert rest.split() and set(rest.split()) == {"0"}, "it was asked, and told nothing"


def test_those_who_do_not_keep_the_protocol_get_nothing(server):
    process = slow(server, 1)
    (path,) = Path(os.environ["XDG_RUNTIME_DIR"], "llmpar").glob("*.sock")
    folder = os.open(path.parent, os.O_RDONLY)
    before = len(server.truth())
    try:
        for data in (
            b"",
            b"\0\0",
            struct.pack("!I", 5) + b"hello",
            struct.pack("!I", 1 << 31),
            b"GET / HTTP/1.1\r\n\r\n",
            struct.pack("!I", 12) + b"llmpar1\0x\0y"[:12].ljust(12, b"\0"),
            struct.pack("!I", 17) + b"llmpar1\0001\0/\000999\0a",
        ):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(PATIENCE_S)
                stranger.connect(f"/proc/self/fd/{folder}/{path.name}")
                stranger.sendall(data)
                stranger.shutdown(socket.SHUT_WR)
                try:
                    assert stranger.recv(100) == b"", data
                except ConnectionResetError:
                    pass
    finally:
        os.close(folder)
    assert len(server.truth()) == before and pools.parent()
    os.kill(pools.launchers()[0], signal.SIGTERM)
    assert [record["status"] for record in read(ended(process)[0])] == ["cancelled"]


@both
@pytest.mark.parametrize("spoil", ["mode", "link", "file", pytest.param("owner", marks=root_only)])
def test_a_directory_that_is_not_ours_alone_is_not_used(server, spoil):
    (file,) = prompts(1)
    folder = Path(os.environ["XDG_RUNTIME_DIR"], "llmpar")
    if spoil == "link":
        Path("elsewhere").mkdir(mode=0o700)
        folder.symlink_to(Path("elsewhere").resolve())
    elif spoil == "file":
        folder.touch()
    else:
        folder.mkdir(mode=0o700)
        folder.chmod(0o777) if spoil == "mode" else os.chown(folder, 54321, 54321)
    done = parallel(*command(server), ":::", file)
    assert [record["launcher"] for record in read(done.stdout)] == ["cold"]
    assert not pools.processes() and (not folder.is_dir() or not list(folder.iterdir()))
    Path("list").write_text(f"{file}\n")
    done = parallel("-N0", *command(server, "--queue", "list"), ":::", "1")
    assert (
        done.returncode == 1
        and "is not a directory of this user alone" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_no_secret_is_to_be_seen(server):
    Path("key").write_text("sk-very-secret\n")
    Path("key").chmod(0o600)
    with fake_engine(tokens=400, gap_ms=20, api_key="sk-very-secret") as guarded:
        (file,) = prompts(1)
        process = parallel(*command(guarded, "--api-key-file", "key"), ":::", file, start=True)
        wait_for(lambda: guarded.counters()["running"], "the request did not get out")
        for pid in [process.pid, *pools.processes(), *pools.launchers()]:
            for name in ("cmdline", "environ"):
                assert b"very-secret" not in Path(f"/proc/{pid}/{name}").read_bytes()
        folder = Path(os.environ["XDG_RUNTIME_DIR"], "llmpar")
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*") if path.is_file())
        os.kill(pools.launchers()[0], signal.SIGTERM)
        out, complaints = ended(process)
        assert read(out)[0]["event_s"] and "very-secret" not in out + complaints
    refused = pools.run([*command(server, "--header", "Authorization: Bearer sk-very-secret"), file])
    assert refused.returncode == 2 and "--api-key-file" in refused.stderr and "sk-very" not in refused.stderr


@both
def test_retries_are_attempts(server):
    files = prompts({"good": "x", "bad": "x\nfake: status=500"})
    done = parallel("-j2", "--retries", "3", *command(server, "--output", "r.jsonl"), ":::", *files)
    assert done.returncode == 1
    found = sorted((record["prompt"], record["attempt"]) for record in read(Path("r.jsonl").read_text()))
    assert found == [("bad", 1), ("bad", 2), ("bad", 3), ("good", 1)]


def test_queue_gives_each_name_once(server):
    files = prompts(60)
    Path("list").write_text("".join(f"{file}\n" for file in files))
    done = parallel("-j7", "-N0", *command(server, "--queue", "list"), ":::", *map(str, range(10)))
    assert sorted(record["prompt"] for record in read(done.stdout)) == sorted(Path(file).name for file in files)
    assert {record["launcher"] for record in read(done.stdout)} == {"queue"} and done.returncode == 0
    pools.nothing_left()
    cold = parallel(
        "-j7",
        "-N0",
        *command(server, "--queue", "list"),
        ":::",
        *map(str, range(7)),
        env=pools.environment(LLMPAR_POOL="no"),
    )
    assert sorted(record["prompt"] for record in read(cold.stdout)) == sorted(Path(file).name for file in files)


@both
def test_queue_with_dying_workers_gives_each_name_one_record(server):
    files = prompts({f"q{number:02d}": "x\nfake: tokens=3 gap_ms=60" for number in range(30)})
    Path("list").write_text("".join(f"{file}\n" for file in files))
    process = parallel("-j4", "-N0", *command(server, "--queue", "list"), ":::", "1", "2", "3", "4", start=True)
    killed = 0
    for _ in range(2):
        busy = wait_for(lambda: [pid for pid in pools.processes() if holds_tcp(pid)], "no worker is busy")
        os.kill(busy[0], signal.SIGKILL)
        killed += 1
        time.sleep(0.2)
    out, _ = ended(process)
    found = read(out)
    assert sorted(record["prompt"] for record in found) == sorted(Path(file).name for file in files)
    assert 1 <= sum((record["error"] or {}).get("type") == "worker_died" for record in found) <= killed


def test_modules_beside_the_prompts_are_not_imported(server):
    (file,) = prompts(1)
    for name in ("click", "orjson", "llmpar", "random"):
        Path(f"{name}.py").write_text("raise SystemExit('a stranger was imported')\n")
    for settings in (pools.environment(), pools.environment(LLMPAR_POOL="no")):
        done = parallel(*command(server), ":::", file, env=settings)
        assert done.returncode == 0, done.stderr


@both
def test_job_in_a_directory_that_is_gone(server):
    (file,) = prompts(1)
    done = parallel(
        "mkdir d; cd d; rmdir ../d; llmpar-request --base-url $URL {}",
        ":::",
        str(Path(file).resolve()),
        env=pools.environment(URL=server.url),
    )
    assert done.returncode == 0, done.stderr
    assert [record["status"] for record in read(done.stdout)] == ["ok"]


@both
def test_deep_runtime_directory(server):
    (file,) = prompts(1)
    deep = Path("d" * 100, "e" * 100).resolve()
    deep.mkdir(parents=True)
    done = parallel(*command(server), ":::", file, env=pools.environment(XDG_RUNTIME_DIR=str(deep)))
    assert [record["launcher"] for record in read(done.stdout)] == ["pool"]
