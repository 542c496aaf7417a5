"""How far experiments are, from their records and from Slurm's queue where there is one."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcnn import experiment, records, slurm, sweep
from jaxcnn.experiment import Experiment
from jaxcnn.listing import Column, Listing
from jaxcnn.slurm import Job

STATES = ("done", "diverged", "running", "pending", "stopped")
NOTE = (
    "pending: not begun, or saved and in the queue. stopped: begun, and no one is at it; the same"
    " run command goes on."
)


def table(exps: Sequence[Experiment], root: Path, preset: str, *, verbose: bool) -> Listing:
    """A row an arm, or a row a run. Experiments with neither records nor tasks are left out where
    there are several.
    """
    tasks = slurm.jobs(root)
    rows: list[dict[str, Any]] = []
    for exp in exps:
        mine = [job for job in tasks if job.experiment == exp.name]
        if len(exps) > 1 and not mine and not (root / exp.name).is_dir():
            continue
        for arm in exp.arms:
            own = [job for job in mine if job.arm == arm and _preset(job) == preset]
            make = _runs if verbose else _arm
            rows += make(experiment.only(exp, [arm]), arm, root, own[-1] if own else None)
    names = (Column("experiment", "experiment", "l"), Column("arm", "arm", "l"))
    numbers = ("runs", *STATES)
    own_columns = (
        (Column("run", "run", "l"), Column("state", "state", "l"))
        + (Column("step", "step"), Column("steps", "of"), Column("error", "error", "r", ".2%"))
        if verbose
        else (*(Column(name, name) for name in numbers), Column("task", "Slurm's task", "l"))
    )
    title = f"{preset} preset" if len(exps) > 1 else f"{exps[0].name}, {preset} preset"
    columns = (names if len(exps) > 1 else names[1:]) + own_columns
    return Listing("status", title, columns, tuple(rows), NOTE)


def state(folder: Path, queued: bool) -> str:
    """Of a run, one of `STATES`; `queued`: a task that will go on with it runs or waits."""
    status = records.status(folder)
    if status in ("finished", "diverged"):
        return "done" if status == "finished" else status
    if records.is_held(folder):
        return "running"
    return "pending" if status == "absent" or queued else "stopped"


def _arm(exp: Experiment, arm: str, root: Path, task: Job | None) -> list[dict[str, Any]]:
    queued = task is not None and task.active
    tuning, final = sweep.tuning_jobs(exp, root), sweep.final_jobs(exp, root)
    counts = Counter(state(folder, queued) for folder in {**tuning, **(final or {})})
    if final is None:  # their setting is still to be chosen
        counts["pending"] += len(set(exp.seeds) - set(exp.tune_seeds))
    row = {"experiment": exp.name, "arm": arm, "runs": counts.total()}
    return [row | {s: counts[s] for s in STATES} | {"task": _words(task, exp, root)}]


def _runs(exp: Experiment, arm: str, root: Path, task: Job | None) -> list[dict[str, Any]]:
    queued = task is not None and task.active
    rows = []
    for folder in {**sweep.tuning_jobs(exp, root), **(sweep.final_jobs(exp, root) or {})}:
        row: dict[str, Any] = {"experiment": exp.name, "arm": arm, "run": folder.name}
        row |= {"state": state(folder, queued), "step": 0, "steps": None, "error": None}
        record = records.read(folder)
        if record is not None:
            row["steps"] = record.info["steps"]
            for point in record.rows[-1:]:
                row["step"] = point["step"]
                row["error"] = point.get("validation", point["train"]).get("error")
        rows.append(row)
    return rows


def _words(task: Job | None, exp: Experiment, root: Path) -> str:
    if task is None:
        return ""
    text = f"{task.id} {task.state}"
    if task.state == "pending" and task.reason not in ("", "None"):
        return f"{text} ({task.reason})"
    if task.active or sweep.complete(exp, root):
        return text
    return f"{text}; {task.log}"


def _preset(job: Job) -> str:
    return job.arguments[job.arguments.index("--preset") + 1]
