"""A real Slurm of one node, with its own configuration, ports, folders and key: slurmctld, slurmd and munged."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
START_LIMIT_S = 30.0
WHERE = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
CONF = """
ClusterName=lreg
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=20
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1 State=UP
PartitionName=urgent Nodes={host} MaxTime=INFINITE PriorityTier=9 State=UP
"""


class NoCluster(Exception):
    """Slurm cannot be had here; the text says why."""


@contextlib.contextmanager
def cluster(cpus: int = 2) -> Iterator[Path]:
    """Slurm at work: its folder. The environment names its configuration meanwhile. Raises NoCluster."""
    _find()
    folder = Path(
        tempfile.mkdtemp(prefix="slurm-", dir="/tmp")
    )  # a socket's path must be short, and munge sees to modes
    folder.chmod(0o755)
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(_restore, before)
        os.environ |= {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": WHERE}
        _configure(folder, cpus)
        for command in _daemons(folder):
            stack.enter_context(_daemon(command, folder))
            _wait_for(folder, command[0])
        stack.callback(_end_jobs)
        yield folder


def _end_jobs() -> None:
    """Daemons that end leave the processes of their jobs alone."""
    user = f"--user={os.getuid()}"
    subprocess.run(["scancel", "--quiet", "--state=PENDING", user])
    subprocess.run(["scancel", "--quiet", "--full", "--signal=KILL", user])
    deadline = time.monotonic() + START_LIMIT_S
    while subprocess.run(["squeue", "--noheader"], capture_output=True).stdout and time.monotonic() < deadline:
        time.sleep(0.1)


def _find() -> None:
    """Raise NoCluster where Slurm is not there, and may or can not be installed."""
    missing = [name for name in NEEDED if shutil.which(name, path=WHERE) is None]
    if missing and os.environ.get("LREG_TEST_SLURM") == "install":
        if os.getuid() or shutil.which("apt-get") is None:
            raise NoCluster("LREG_TEST_SLURM=install needs apt-get, and to be root")
        command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
        done = subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, capture_output=True)
        if done.returncode:
            raise NoCluster(f"apt-get install: {done.stderr.decode(errors='replace').strip()[-300:]}")
        missing = [name for name in NEEDED if shutil.which(name, path=WHERE) is None]
    if missing:
        hint = "LREG_TEST_SLURM=install lets the test install Debian's packages"
        raise NoCluster(f"no Slurm here ({', '.join(missing)} missing; {hint})")


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _configure(folder: Path, cpus: int) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    text = CONF.format(host=host, ports=ports, user=getpass.getuser(), folder=folder, cpus=cpus)
    (folder / "slurm.conf").write_text(text)


def _daemons(folder: Path) -> list[list[str]]:
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={folder}/munge.{name}" for option, name in files.items()]
    conf = str(folder / "slurm.conf")
    return [["munged", "--foreground", *options], ["slurmctld", "-D", "-f", conf], ["slurmd", "-D", "-f", conf]]


@contextlib.contextmanager
def _daemon(command: list[str], folder: Path) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("wb") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        try:
            yield
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait_for(folder: Path, daemon: str) -> None:
    """Wait until a daemon answers. Raises NoCluster with what it said."""
    deadline = time.monotonic() + START_LIMIT_S
    while not _is_up(folder, daemon):
        if time.monotonic() > deadline:
            said = (folder / f"{daemon}.out").read_text(errors="replace").strip().splitlines()[-3:]
            raise NoCluster(f"{daemon} does not start here: {' / '.join(said)}")
        time.sleep(0.1)


def _is_up(folder: Path, daemon: str) -> bool:
    if daemon == "munged":
        return (folder / "munge.socket").exists()
    command = ["scontrol", "ping"] if daemon == "slurmctld" else ["sinfo", "--noheader", "--format=%t"]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    return " is UP" in said if daemon == "slurmctld" else said.strip().startswith(("idle", "mix", "alloc"))
