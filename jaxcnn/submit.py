"""An experiment -> tasks for a scheduler: one an arm, for arms that have something left.

An arm's grid and its final seeds depend on no other arm, so arms need not wait for each other.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jaxcnn import experiment, records, slurm, sweep, train
from jaxcnn.experiment import Experiment
from jaxcnn.slurm import Job, Resources, Task


def submit(
    asked: Mapping[str, Experiment],
    options: Sequence[str],
    resources: Resources,
    root: Path,
    data_dir: Path | None,
    program: Path,
    say: Callable[[str], object],
) -> tuple[list[Job], dict[str, Exception]]:
    """(the tasks of one array, submitted to Slurm; experiment -> why it has none).

    `asked` has the experiments by what they are called on the command line, `options` are those of
    `launch.py run` that all tasks get, and `say` is told what is left out. Raises `InputError` for
    what cannot be submitted, and what is wrong with the experiment where there is one alone.
    """
    slurm.check(resources)
    records.check_writable(root)
    queued = {job.arguments: job for job in slurm.jobs(root) if job.active}
    tasks: list[Task] = []
    failed: dict[str, Exception] = {}
    for name, exp in asked.items():
        try:
            platform, best = "cpu" if resources.gpus is None else "gpu", "--keep-best" in options
            arms = left(exp, root, data_dir, platform, best=best)
        except Exception as error:
            if len(asked) == 1:
                raise
            failed[exp.name] = error
            continue
        if skipped := [arm for arm in exp.arms if arm not in arms]:
            say(f"{exp.name}: nothing to do here for {', '.join(skipped)}")
        for arm in arms:
            arguments = ("run", name, "--arms", arm, *options)
            if arguments in queued:
                say(f"{exp.name}: {arm} is in the queue as {queued[arguments].id}")
                continue
            tasks.append(Task(str(program), exp.name, arm, arguments, resources.cpus))
    return slurm.submit(tasks, resources, root) if tasks else [], failed


def left(
    exp: Experiment, root: Path, data_dir: Path | None, platform: str, *, best: bool = False
) -> list[str]:
    """The arms for devices of `platform` that have something left to train or test; `best`: by
    `launch.py run --keep-best`.

    Raises `InputError` for what cannot be trained, as `launch.py run` does. Where something is
    'auto', the device of the task decides what that means: all arms are named, and nothing is
    checked.
    """
    if experiment.automatic(exp):
        return list(exp.arms)
    own = sweep.here(exp, platform)
    datasets = train.load_data(sweep.all_runs(own), data_dir)
    train.check(sweep.all_runs(own), datasets, best=best)
    return [arm for arm in own.arms if not sweep.complete(experiment.only(own, [arm]), root)]
