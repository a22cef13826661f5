"""A Slurm cluster of two nodes on this machine, all of it in a folder of its own: keys, configuration, state, logs.

Its daemons run as whoever runs the tests. No system service is touched, and nothing is left when the block ends.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
NODES = ("one", "two")
SBIN = "/usr/sbin"
PATIENCE = 120.0


def lacking() -> str:
    """What of Slurm is not installed here; empty where all is."""
    return ", ".join(name for name in NEEDED if not _find(name))


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SBIN)


@dataclass(frozen=True)
class LocalSlurm:
    """A cluster that is up.

    Attributes:
        folder: where it keeps everything.
        environment: what a process needs to use it.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """Standard output of a Slurm command."""
        done = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"{' '.join(command)} exited with {done.returncode}: {done.stderr}\n{self.logs()}")
        return done.stdout

    def logs(self) -> str:
        """The last lines that each daemon wrote."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}: " + "\n".join(log.read_text().splitlines()[-15:]) for log in logs)


def free_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _configuration(folder: Path) -> str:
    host, user = socket.gethostname(), getpass.getuser()
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 RealMemory=4000"
        for name in NODES
    )
    # Credentials of ten seconds: a job that is queued again waits until the ones of its last start are void.
    return f"""
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=60
MinJobAge=300
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
JobAcctGatherType=jobacct_gather/none
{nodes}
PartitionName=work Nodes={",".join(NODES)} Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes={",".join(NODES)} MaxTime=60 State=UP PriorityTier=10
"""


def _wait_for(what: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come up")
        time.sleep(0.2)


@contextmanager
def local_slurm(folder: Path) -> Iterator[LocalSlurm]:
    """A cluster of two nodes with partitions ``work`` and ``urgent``, which takes nodes from the other.

    Args:
        folder: an empty folder with a short path: that of a socket may have a hundred characters.
    """
    folder.chmod(0o755)
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    (folder / "slurm.conf").write_text(_configuration(folder))
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:{SBIN}"}
    cluster = LocalSlurm(folder, environment)
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (folder / "output.log").open("ab") as output:
            daemons.append(
                subprocess.Popen(
                    [_find(command[0]) or command[0], *command[1:]],
                    env={**os.environ, **environment},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    try:
        paths = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        start("munged", "--foreground", "--force", *(f"--{name}={folder}/munge.{end}" for name, end in paths.items()))
        _wait_for("munged", (folder / "munge.socket").exists)
        start("slurmctld", "-D")
        for node in NODES:
            start("slurmd", "-D", "-N", node)
        _wait_for("the cluster", lambda: _idle(cluster) == len(NODES))
        yield cluster
    except RuntimeError as error:
        pytest.fail(f"{error}\n{cluster.logs()}")
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _idle(cluster: LocalSlurm) -> int:
    done = subprocess.run(
        ["sinfo", "--Node", "--noheader", "--partition=work", "--format=%t"],
        env={**os.environ, **cluster.environment},
        capture_output=True,
        text=True,
    )
    return done.stdout.split().count("idle")


if __name__ == "__main__":
    with local_slurm(Path(sys.argv[1])) as shown:
        print(" ".join(f"{name}={value}" for name, value in shown.environment.items()), flush=True)
        sys.stdin.read()
