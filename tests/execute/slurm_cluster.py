"""A private Slurm on this machine: munged, slurmctld and two slurmd of two cores each, all their
files in one temporary folder.

Nothing of the machine's own Slurm is touched: the key, the socket and the ports are ours.
Partitions: `low` (default; preempted
at once), `patient` (preempted after a warning and GRACE), `high` (preempts both).
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.ports import free_ports

PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "scontrol",
    "scancel",
    "squeue",
    "sinfo",
)
KILL_WAIT = 60  # seconds between SIGTERM and SIGKILL
GRACE = 900  # that a preempted job of `patient` may take; no test waits for them
LIMIT = 600  # seconds that anything may take

CONFIG = """
ClusterName=scaling
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=12
MessageTimeout=90
BatchStartTimeout=300
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait={kill_wait}
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={first_port} CPUs=2 RealMemory=2000
NodeName={host}b NodeHostname={host} NodeAddr=127.0.0.1 Port={second_port} CPUs=2 RealMemory=2000
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=patient Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


class Cluster:
    """A running cluster; its commands find it through SLURM_CONF, which is set while it runs."""

    def __init__(self, folder, nodes):
        self.folder, self.nodes, self.daemons = folder, nodes, []

    def ask(self, *command):
        """What a command of Slurm prints."""
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def job(self, job_id):
        """The fields of `scontrol show job` of one job or element (`7_0`)."""
        return dict(
            pair.partition("=")[::2]
            for pair in self.ask("scontrol", "--oneliner", "show", "job", job_id).split()
            if "=" in pair
        )

    def ended(self, job_id):
        """Wait until a job or element has ended; its fields."""
        return self.until(
            lambda: (
                (job := self.job(job_id))["JobState"]
                in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
                and job
            )
        )

    def until(self, condition):
        """The first true value of `condition()`; fails with the daemons' logs after LIMIT."""
        end = time.monotonic() + LIMIT
        while not (found := condition()):
            assert time.monotonic() < end, (
                f"not within {LIMIT} s\n{self.ask('squeue', '--all')}\n{self.logs()}"
            )
            time.sleep(0.2)
        return found

    def clear(self):
        """Cancel whatever is left, and wait until it is gone."""
        self.ask("scancel", "--user", "root")
        self.until(lambda: not self.ask("squeue", "--noheader", "--all"))

    def logs(self):
        """The ends of the daemons' logs."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def start(self, name, *command):
        """A daemon in the foreground, in a session of its own; the terminal's Ctrl-C must not end
        it before its jobs.
        """
        with open(self.folder / f"{name}.log", "w") as log:
            self.daemons.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def stop(self):
        """End the daemons, newest first, then everything that still runs under
        this configuration.
        """
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in _under(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def reason_to_skip():
    """Why no cluster can run here; None where it can."""
    if missing := [name for name in PROGRAMS if _found(name) is None]:
        return f"Slurm is not installed ({', '.join(missing)} missing): run .ci/engines"
    return "a private Slurm must be started by root" if os.geteuid() != 0 else None


@contextlib.contextmanager
def running():
    """A cluster for the time of a `with`; skips the test where it cannot be, and leaves nothing
    behind whatever happens.
    """
    if reason := reason_to_skip():
        pytest.skip(reason)
    folder = Path(
        tempfile.mkdtemp(prefix="slurm-", dir="/tmp")
    )  # a socket's path has at most 107 bytes
    before = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("SLURM_", "SBATCH_", "SRUN_"))
    }
    host = socket.gethostname().partition(".")[0]
    cluster = Cluster(folder, (host, f"{host}b"))
    try:
        for key in before:
            del os.environ[key]
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        _start(cluster)
        yield cluster
        cluster.clear()
    finally:
        cluster.stop()
        del os.environ["SLURM_CONF"]
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def _start(cluster):
    """Start the daemons and wait until both nodes are idle."""
    folder = cluster.folder
    folder.chmod(0o755)  # munged insists that everyone may reach its socket
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    ports = free_ports(3)
    names = {"controller_port": ports[0], "first_port": ports[1], "second_port": ports[2]}
    times = {"kill_wait": KILL_WAIT, "grace": GRACE}
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=cluster.nodes[0], folder=folder, **times, **names))
    own = {name: f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")}
    cluster.start(
        "munged",
        _found("munged"),
        "--foreground",
        f"--socket={folder}/munge.socket",
        "--num-threads=2",
        *own.values(),
    )
    cluster.until((folder / "munge.socket").exists)
    cluster.start("slurmctld", _found("slurmctld"), "-D", "-f", str(config))
    for node in cluster.nodes:
        cluster.start(f"slurmd-{node}", _found("slurmd"), "-D", "-f", str(config), "-N", node)
    cluster.until(lambda: _states() == ["idle", "idle"])


def _states():
    """The states of the nodes; none while the controller does not answer yet."""
    done = subprocess.run(
        ["sinfo", "--noheader", "-N", "-p", "low", "-o", "%t"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


def _found(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def _under(folder):
    """Processes that were started with this cluster's configuration: steps and jobs that outlived
    their daemon.
    """
    mark = f"SLURM_CONF={folder}/slurm.conf".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
