"""Hosts of a test's own on this machine: namespaces (network, processes, mounts, name) with an sshd each.

Files are shared as by a network file system, but for load folders, /run and llmpar's own runtime folder. Root only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

NEEDED = ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "/usr/sbin/sshd", "parallel", "perl")
PACKAGES = "iproute2 util-linux openssh-client openssh-server parallel perl"


def missing() -> str | None:
    """Why there can be no hosts here; None where there can."""
    if os.getuid() != 0:
        return "hosts are namespaces: root only"
    absent = [tool for tool in NEEDED if not shutil.which(tool)]
    if absent:
        return f"no {', '.join(absent)}: apt-get install {PACKAGES}"
    veth = ("ip", "link", "add", "one", "type", "veth", "peer", "name", "other")
    done = subprocess.run(["unshare", "--net", "--pid", "--mount", "--uts", "--fork", *veth], capture_output=True)
    return None if done.returncode == 0 else "this machine makes no namespaces with links between them"


needed = pytest.mark.skipif(missing() is not None, reason=missing() or "")


class Host:
    """One host. `pid`: the first process of its namespaces, as seen from here."""

    def __init__(self, lab: Lab, name: str, number: int):
        self.lab, self.name, self.address = lab, name, f"10.28.0.{number}"
        self.home = lab.folder / name
        self.home.mkdir()
        script = self.home / "boot"
        script.write_text(
            f"""set -e
hostname {name}
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /root/.cache/llmpar
mount -t tmpfs none /root/.cache/llmpar
mount -t tmpfs none /run
mkdir -p /run/sshd /tmp/llmpar-0
chmod 700 /tmp/llmpar-0
mount -t tmpfs -o mode=700 none /tmp/llmpar-0
ulimit -Sn 1024
echo up > {self.home}/up
while read -r line; do eval "$line"; done
"""
        )
        self.boot = subprocess.Popen(
            ["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--kill-child", "bash", str(script)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=(self.home / "log").open("wb"),
        )  # fmt: skip
        wait_for(lambda: (self.home / "up").exists(), f"{name} does not come up: {self.home}/log")
        (self.pid,) = (
            int(word) for word in Path(f"/proc/{self.boot.pid}/task/{self.boot.pid}/children").read_text().split()
        )
        near, far = f"v{os.getpid() % 100000}{number}", "eth0"
        ip = lab.ip
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", str(self.pid))
        ip("link", "set", near, "master", "br0", "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", far)
        self.run("ip", "link", "set", far, "up")
        self.run("ip", "link", "set", "lo", "up")
        self.sshd()

    def sshd(self) -> None:
        """Start sshd, where it was killed."""
        self.run("/usr/sbin/sshd", "-f", str(self.lab.folder / "sshd_config"), "-E", str(self.home / "sshd.log"))

    def kill_sshd(self) -> None:
        """Kill every sshd of this host, those of connections too, as a crash would."""
        for pid in self.processes("sshd"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self, name: str) -> list[int]:
        """Pids (as seen from here) of this host's processes of that name."""
        mine = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/pid") == mine and Path(f"/proc/{pid}/comm").read_text().strip() == name:
                    found.append(int(pid))
        return found

    def link(self, state: str) -> None:
        """Cut its network (`down`), or mend it (`up`)."""
        self.run("ip", "link", "set", "eth0", state)

    def run(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        """A command on this host, without ssh."""
        line = ["nsenter", "-t", str(self.pid), "--net", "--pid", "--mount", "--uts", *words]
        options = {
            "check": True,
            "capture_output": True,
            "text": True,
            "timeout": 60,
            "stdin": subprocess.DEVNULL,
        } | options
        return subprocess.run(line, **options)  # type: ignore[call-overload, no-any-return]

    def stop(self) -> None:
        self.boot.kill()
        self.boot.wait()


class Lab:
    """Some hosts and the network between them, in which `run` runs commands as on a host `ctl`."""

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder = folder
        folder.mkdir()
        self.keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        wait_for(
            lambda: os.readlink(f"/proc/{self.keeper.pid}/ns/net") != os.readlink("/proc/self/ns/net"), "no network"
        )
        self.ip("link", "set", "lo", "up")
        self.ip("link", "add", "br0", "type", "bridge")
        self.ip("addr", "add", "10.28.0.1/24", "dev", "br0")
        self.ip("link", "set", "br0", "up")
        for name in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        (folder / "authorized_keys").write_text((folder / "key.pub").read_text())
        (folder / "sshd_config").write_text(
            f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n"
            f"SetEnv LLMPAR_PYTHON={sys.executable}\n"
        )
        numbered = {name: number for number, name in enumerate(names, 11)}
        (folder / "ssh_config").write_text(
            "".join(f"Host {name}\n  HostName 10.28.0.{number}\n" for name, number in numbered.items())
            + f"Host *\n  User root\n  IdentityFile {folder}/key\n  StrictHostKeyChecking no\n"
            "  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
        )
        self.ssh = (
            f"ssh -F {folder}/ssh_config -o BatchMode=yes -o ConnectTimeout=5 -o ServerAliveInterval=2 "
            "-o ServerAliveCountMax=2"
        )
        self.hosts = {name: Host(self, name, number) for name, number in numbered.items()}

    def ip(self, *words: str) -> None:
        subprocess.run(self.words("ip", *words), check=True, capture_output=True, timeout=30)

    def words(self, *words: str) -> list[str]:
        """A command line to run on `ctl`: as this process, in the network of the hosts."""
        return ["nsenter", "-t", str(self.keeper.pid), "--net", *words]

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*words), env=self.environment(env), capture_output=True, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return os.environ | {"LLMPAR_SSH": self.ssh, "PARALLEL_SSH": self.ssh} | (more or {})

    def stop(self) -> None:
        for host in self.hosts.values():
            host.stop()
        self.keeper.kill()
        self.keeper.wait()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]


def ready(folder: Path) -> Path:
    """A virtual environment that make finds ready on every host: the one that runs this."""
    real, made = Path(sys.executable).parent.parent, folder / "venv"
    made.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (made / name).symlink_to(real / name)
    (made / ".ready-run").touch()
    return made


@contextlib.contextmanager
def lab(folder: Path, *names: str) -> Iterator[Lab]:
    made = Lab(folder, names)
    try:
        yield made
    finally:
        made.stop()


def wait_for(condition: object, why: str, patience_s: float = 30.0) -> None:
    limit = time.monotonic() + patience_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit, why
        time.sleep(0.05)
