"""Slurm, through submitit: an array is submitted, asked after, cancelled. Needs extra `slurm`.

A task is `launch.py run NAME --arms ARM` on a shared folder; what tasks, status and report have in
common are the records alone. OUT/slurm holds submitit's own files, the logs, and for each
submission

    ID.json     {"command": ..., "tasks": [{"id": "12_0", "experiment": ..., "arm": ...,
                "arguments": [...]}, ...]}

Where a task ends before its work: at the time limit (SIGUSR2, 90 seconds ahead) it saves and puts
itself back into the queue; in the grace time of a pre-emption (SIGTERM while Slurm still counts it
as running) likewise; at `scancel` (SIGTERM too) it saves and ends.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import UseAppendAction

from jaxcnn import records
from jaxcnn.config import InputError

# A task that saves each time may meet its time limit as often as it likes; submitit wants a number.
TIMEOUTS = 10_000
OURS = ("array", "error", "open-mode", "output", "signal")  # what sbatch must be told by us
ENDED = ("completed", "failed", "cancelled", "timeout", "node_fail", "preempted", "out_of_memory")
ENDED += ("deadline", "boot_fail", "revoked")
GONE = "no longer known"  # to Slurm, some minutes after its end
UNKNOWN = "unknown: no squeue here"


@dataclass(frozen=True)
class Resources:
    """What each task of the array asks of the cluster."""

    # sbatch's partition.
    partition: str | None = None
    # GPUs of a task, with --nodes on each of them.
    gpus: int | None = None
    # Train each run on so many nodes: a process a GPU, or a node, that share each batch.
    nodes: int | None = None
    # CPU cores of a task, with --nodes of each of its processes.
    cpus: int | None = None
    # Main memory of a task, with --nodes on each of them, e.g. 32G.
    memory: str | None = None
    # Time limit, [DAYS-]HH:MM:SS or minutes; at it a task saves and is queued again.
    time: str = "04:00:00"
    # Tasks that may run at once.
    array_parallelism: int | None = None
    # Any other option of sbatch, as KEY=VALUE or KEY: account=vision, qos=low, exclusive.
    slurm: UseAppendAction[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Task:
    """An arm, as a callable that submitit stores and calls on its node: `program` ARGUMENTS."""

    program: str  # launch.py
    experiment: str
    arm: str
    arguments: tuple[str, ...]
    cpus: int | None = None

    def __call__(self) -> None:
        """Ends the process where launch.py would, with its exit code."""
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's
        if self.cpus is not None:  # not every cluster hides the cores that a task did not ask for
            os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(self.cpus))
        sys.path.insert(0, str(Path(self.program).parent))
        sys.argv = [self.program, *self.arguments]
        code = importlib.import_module("launch").main()
        preempted = code == 128 + signal.SIGTERM and _counts_as_running()
        if (code == 128 + signal.SIGUSR2 or preempted) and callable(requeue):
            requeue(signal.SIGUSR2, None)
        if code:  # as launch.py: a library's thread could hold the exit up
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def checkpoint(self) -> Any:
        """What submitit puts into the queue: the same again, for all that counts is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class Job:
    """A task that was submitted, and what Slurm says of it."""

    id: str  # '12_0', or '12' where it was alone
    experiment: str
    arm: str
    arguments: tuple[str, ...]
    log: Path
    state: str  # squeue's word in small letters, or GONE, or UNKNOWN
    reason: str  # why it waits

    @property
    def active(self) -> bool:
        """Whether it runs or will."""
        return self.state not in (*ENDED, GONE, UNKNOWN)


def check(resources: Resources) -> None:
    """Raise `InputError` for what sbatch would not take, or where there is no sbatch."""
    if importlib.util.find_spec("submitit") is None:
        raise InputError(
            "--on: slurm needs submitit, which is not installed. Run:"
            " pip install -c constraints.txt -e '.[slurm]'"
        )
    if shutil.which("sbatch") is None:
        raise InputError(
            "--on: slurm: there is no sbatch on the PATH; type this where you would type sbatch."
        )
    parameters(resources)


def parameters(resources: Resources) -> dict[str, Any]:
    """The same for submitit. Raises `InputError`."""
    for name in ("gpus", "nodes", "cpus", "array_parallelism"):
        number = getattr(resources, name)
        if number is not None and number < 1:
            option = name.replace("_", "-")
            raise InputError(f"--{option}: {number} is not allowed; it must be at least 1.")
    others: dict[str, Any] = {"requeue": True}  # after a pre-emption or a node's failure
    for text in resources.slurm:
        key, equals, value = text.removeprefix("--").partition("=")
        key = key.replace("_", "-")
        if not key or key in OURS:
            raise InputError(
                f"--slurm: {text!r} is not KEY=VALUE or KEY of an option of sbatch other than"
                f" {', '.join(OURS)}, which are set already."
            )
        others[key] = value if equals else True
    own = "ntasks-per-node" in others or resources.nodes is None
    asked = {
        "partition": resources.partition,
        "nodes": resources.nodes,
        # jax gives each process of a node one of its GPUs
        "ntasks_per_node": None if own else resources.gpus or 1,
        "gpus_per_node": resources.gpus,
        "cpus_per_task": resources.cpus,
        "mem": resources.memory,
        "array_parallelism": resources.array_parallelism,
        # since Slurm 22.05 a step does not take it over from its job
        "srun_args": resources.cpus and [f"--cpus-per-task={resources.cpus}"],
    }
    return {
        **{name: value for name, value in asked.items() if value is not None},
        "job_name": "jaxcnn",
        "time": _minutes(resources.time),
        "stderr_to_stdout": True,
        "additional_parameters": others,
    }


def submit(tasks: Sequence[Task], resources: Resources, root: Path) -> list[Job]:
    """Submit `tasks` as one array, logs in `root`/slurm. Raises `RuntimeError` with sbatch's words
    where it refuses.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    executor = submitit.SlurmExecutor(root / "slurm", max_num_timeout=TIMEOUTS)
    executor.update_parameters(**parameters(resources))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            made = executor.submit_array(list(tasks))
    except FailedJobError as error:
        words = str(error).strip().splitlines() or ["no reason given"]
        raise RuntimeError(f"sbatch refuses: {words[-1]}") from error
    entries = [
        {"id": job.job_id, "experiment": t.experiment, "arm": t.arm, "arguments": t.arguments}
        for job, t in zip(made, tasks, strict=True)
    ]
    first = made[0].job_id.split("_")[0]
    written = {"command": records.command(), "tasks": entries}
    records.write_json(root / "slurm" / f"{first}.json", written)
    return [_job(entry, root, "pending", "") for entry in entries]


def jobs(root: Path) -> list[Job]:
    """All tasks that were submitted for `root`, the newest last, and how they stand."""
    files = [p for p in (root / "slurm").glob("*.json") if p.stem.isdigit()]
    files.sort(key=lambda p: p.stat().st_mtime_ns)
    entries = [entry for p in files for entry in json.loads(p.read_text("utf-8"))["tasks"]]
    if not entries:
        return []
    ids = ",".join(dict.fromkeys(p.stem for p in files))
    lines = _squeue("--array", "--states=all", "-j", ids, "-o", "%i|%T|%r")
    if lines is None:
        return [_job(entry, root, UNKNOWN, "") for entry in entries]
    said = {i: (state.lower(), why) for i, state, why in (line.split("|", 2) for line in lines)}
    return [_job(entry, root, *said.get(entry["id"], (GONE, ""))) for entry in entries]


def cancel(ended: Sequence[Job]) -> None:
    """Take the tasks out of the queue; those that run save first."""
    subprocess.run(["scancel", *(job.id for job in ended)], check=True)


def _job(entry: dict[str, Any], root: Path, state: str, reason: str) -> Job:
    return Job(
        entry["id"],
        entry["experiment"],
        entry["arm"],
        tuple(entry["arguments"]),
        root / "slurm" / f"{entry['id']}_0_log.out",
        state,
        reason,
    )


def _squeue(*options: str) -> list[str] | None:
    """Its lines; None where there is no squeue. Raises `RuntimeError` where it has no answer."""
    if shutil.which("squeue") is None:
        return None
    asked = subprocess.run(["squeue", "--noheader", *options], capture_output=True, text=True)
    if asked.returncode and "Invalid job id" not in asked.stderr:  # forgotten
        raise RuntimeError(f"squeue: {(asked.stderr.strip().splitlines() or ['no answer'])[-1]}")
    return [line.strip() for line in asked.stdout.splitlines() if line.strip()]


def _counts_as_running() -> bool:
    """Whether Slurm does, of this job: so it is between the SIGTERM and the SIGKILL of a
    pre-emption, and would be over if it ended now. `scancel` changes the state first.
    """
    return _squeue("-j", os.environ["SLURM_JOB_ID"], "-o", "%T") == ["RUNNING"]


def _minutes(text: str) -> int:
    """Rounded up."""
    found = re.fullmatch(r"(\d+)|(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text)
    if found is None or not text.strip("0:-"):
        raise InputError(f"--time: {text!r} is not [DAYS-]HH:MM:SS or minutes, above 0.")
    whole, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return whole + 1440 * days + 60 * hours + minutes + (seconds > 0)
