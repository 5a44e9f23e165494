"""scripts/sweep.sbatch under a real Slurm: a controller and two nodes, on hosts of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hosts
import pytest
from engines_on_path import llama_server

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol", "scancel")
ABSENT = [tool for tool in TOOLS if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin")]
pytestmark = [
    hosts.needed,
    pytest.mark.skipif(bool(ABSENT), reason=f"no {', '.join(ABSENT)}: apt-get install slurm-wlm munge"),
]
HEADER = "engine\tmodel\tclients\tprompts\tmax_tokens\tcount\twarmup\tmax_sequences\n"
CONFIGURATION = """ClusterName=lab
SlurmctldHost=n1(10.28.0.11)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=/run/munge/munge.socket.2,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%h.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeAddr=10.28.0.11 CPUs=1
NodeName=n2 NodeAddr=10.28.0.12 CPUs=1
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """A cluster whose users stand on n1."""

    def __init__(self, lab: hosts.Lab, folder: Path):
        self.lab, self.daemons = lab, list[subprocess.Popen[bytes]]()
        folder.mkdir()
        (folder / "state").mkdir()
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/run/cgroup\n")
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.configuration = f"{folder}/slurm.conf"
        for name in ("n1", "n2"):
            munged = "mkdir -p /run/munge /run/cgroup && chmod 755 /run/munge && mount -t tmpfs none /run/cgroup && "
            munged += f"exec munged --foreground --force --key-file={key} --socket=/run/munge/munge.socket.2 "
            munged += "--pid-file=/run/munge/munged.pid --seed-file=/run/munge/seed --log-file=/run/munge/log"
            self.daemon(name, "bash", "-c", munged)
        for name in ("n1", "n2"):
            lab[name].run(
                "bash",
                "-c",
                "for ((n = 0; n < 300; n++)); do [ ! -S /run/munge/munge.socket.2 ] || exit 0; sleep 0.1; done; exit 1",
            )
        self.daemon("n1", "slurmctld", "-D", "-f", self.configuration)
        for name in ("n1", "n2"):
            self.daemon(name, "slurmd", "-D", "-f", self.configuration, "-N", name)
        hosts.wait_for(
            lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D", check=False).stdout == "2\n", "no nodes", 60
        )

    def daemon(self, host: str, *words: str) -> None:
        line = ["nsenter", "-t", str(self.lab[host].pid), "--net", "--pid", "--mount", "--uts", *words]
        path = f"{os.environ['PATH']}:/usr/sbin"
        self.daemons.append(
            subprocess.Popen(
                line, env={"PATH": path}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        left_out = ("LLMPAR_LOCKS", "XDG_RUNTIME_DIR")  # those of each node's own
        environment = {name: value for name, value in os.environ.items() if name not in left_out}
        environment |= {"SLURM_CONF": self.configuration, "LLMPAR_MAKEFILE": f"{ROOT}/Makefile", "LLMPAR_SAMPLE": "no"}
        return self.lab["n1"].run(*words, env=environment, **options)

    def state(self, job: str) -> set[str]:
        return set(self.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").stdout.split())

    def submit(self, folder: Path, *options: str) -> str:
        script = str(ROOT / "scripts/sweep.sbatch")
        settings = (f"VENV={hosts.ready(folder)}", "SWEEP=t.tsv", "RUNS=runs")
        done = self.run("sbatch", "--parsable", "-D", str(folder), "-o", "%A_%a.out", *options, script, *settings)
        return done.stdout.strip()

    def stop(self) -> None:
        for each in self.daemons:
            each.kill()
            each.wait()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    with hosts.lab(folder / "lab", "n1", "n2") as lab:
        made = Slurm(lab, folder / "cluster")
        yield made
        made.stop()


def said(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("*.out"))


@pytest.mark.timeout(300)  # Slurm may look only each minute at what is queued again
def test_a_job_near_its_limit_keeps_what_is_measured_and_measures_the_rest_later(slurm: Slurm, tmp_path: Path) -> None:
    llama_server(tmp_path, "--tokens 4")
    for name, text in (("quick", "say something"), ("slow", "say something\nfake: gap_ms=60000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p.txt").write_text(text)
    row = f"llamacpp\t{tmp_path}/m.gguf\t1\tquick,slow\t4\t2\t0\t1\n"
    (tmp_path / "t.tsv").write_text(HEADER + row)
    job = slurm.submit(tmp_path)
    hosts.wait_for(lambda: list(tmp_path.glob("runs/t/*/requests.jsonl")), "nothing is measured", 90)
    (first,) = tmp_path.glob("runs/t/*/requests.jsonl")
    hosts.wait_for(lambda: len(list(tmp_path.glob("runs/t/*/command.txt"))) == 2, "the second cell does not begin", 60)
    kept, began = first.stat().st_mtime_ns, (first.parent / "started").read_text()
    (tmp_path / "slow/p.txt").write_text("say something")
    slurm.run("scancel", "--batch", "--signal=USR1", job)  # what Slurm does two minutes before the limit
    hosts.wait_for(lambda: "the rest is queued again" in said(tmp_path), "no word of the limit", 60)
    hosts.wait_for(lambda: slurm.state(job) == {"PENDING"}, "it is not queued again", 60)
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    hosts.wait_for(lambda: slurm.state(job) == {"COMPLETED"}, f"it does not end: {said(tmp_path)}", 120)
    found = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("runs/t/*/summary.json")}
    assert len(found) == 2 and all(each["n"]["ok"] == 2 for each in found.values())
    assert first.stat().st_mtime_ns == kept and (first.parent / "started").read_text() == began
    (second,) = (path for path in tmp_path.glob("runs/t/*/started") if path.parent != first.parent)
    assert second.read_text() != began, "another start of the server"


def test_an_array_shares_the_server_sessions_and_each_cell_names_its_node(slurm: Slurm, tmp_path: Path) -> None:
    # The engine starts on neither node before both have begun.
    begun = f"touch {tmp_path}/begun.$(uname -n); for ((n = 0; n < 600; n++)); do [ -e {tmp_path}/begun.n1 ] && "
    begun += f"[ -e {tmp_path}/begun.n2 ] && break; sleep 0.1; done; [ $n != 600 ] || exit 1"
    llama_server(tmp_path, "--tokens 4", before=begun)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/p.txt").write_text("say something")
    (tmp_path / "t.tsv").write_text(HEADER + f"llamacpp\t{tmp_path}/m.gguf\t1\tprompts\t4\t2\t0\t1,2,3\n")
    job = slurm.submit(tmp_path, "--array=1-2")
    hosts.wait_for(lambda: slurm.state(job) == {"COMPLETED"}, f"it does not end: {said(tmp_path)}", 120)
    found = [json.loads(path.read_text()) for path in tmp_path.glob("runs/t/*/summary.json")]
    assert len(found) == 3 and all(each["client"]["hosts"] == [each["host"]["host"]] for each in found)
    assert {each["host"]["host"] for each in found} == {"n1", "n2"}
    assert len({each["server"]["started_at"] for each in found}) == 3
