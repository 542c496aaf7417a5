"""A Slurm cluster of this one machine, for tests: keys, ports and folders of its own, no systemd,
no database. Debian, Ubuntu: apt install slurmctld slurmd slurm-client munge; as root.

    python tests/one_node.py       starts one, says how to use it, and ends it at Ctrl-C
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CORES = 2
# Two partitions: tasks of `urgent` put those of `main` back into the queue, after a grace time in
# which they may save. Jobs are remembered, so that squeue can say how they ended.
CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
MinJobAge=3600
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} CoresPerSocket={cores} RealMemory=1000
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""


def missing() -> str:
    """Why there can be no cluster here; '' where there can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: apt install slurmctld slurmd slurm-client munge"
    return "" if os.geteuid() == 0 else "slurmd runs jobs as root alone"


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Within, a cluster is up; what its commands need in the environment."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # munged refuses sockets that others cannot reach
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        key = folder / "munge.key"
        key.touch(0o400)
        key.write_bytes(os.urandom(1024))
        host = socket.gethostname().split(".")[0]
        conf = folder / "slurm.conf"
        conf.write_text(CONF.format(host=host, folder=folder, ports=_ports(2), cores=CORES))
        environment = {"SLURM_CONF": str(conf)}
        munged = ["munged", "--foreground", "--force", f"--key-file={key}"]
        munged += [f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"]
        munged += [f"--seed-file={folder}/munge.seed"]
        for command in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
            stack.enter_context(_running(command, folder, environment))
        _wait_for_the_node(folder, environment)
        try:
            yield environment
        finally:
            _end_jobs(environment)


@contextlib.contextmanager
def _running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Within, the program is, its words in a log; then it is asked to end, and made to."""
    with open(folder / f"{command[0]}.log", "w") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_the_node(folder: Path, environment: dict[str, str]) -> None:
    for _ in range(120):
        if "idle" in _ask(["sinfo", "--noheader", "-o", "%T"], environment):
            return
        time.sleep(0.25)
    logs = [f"{p.name}:\n{p.read_text()[-1500:]}" for p in sorted(folder.glob("*.log"))]
    raise RuntimeError("the cluster did not come up\n" + "\n".join(logs))


def _end_jobs(environment: dict[str, str]) -> None:
    """Slurm's daemons leave their jobs behind."""
    _ask(["scancel", "--user=root"], environment)
    for _ in range(60):
        if not _ask(["squeue", "--noheader"], environment):
            return
        time.sleep(0.25)


def _ask(command: list[str], environment: dict[str, str]) -> str:
    own = {**os.environ, **environment}
    return subprocess.run(command, env=own, capture_output=True, text=True).stdout


def _ports(count: int) -> list[int]:
    """Free ones."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with cluster() as found, contextlib.suppress(KeyboardInterrupt):
        for variable, value in found.items():
            print(f"export {variable}={value}", flush=True)
        signal.pause()
