"""An experiment -> its runs, in stages: what they start from, the grid, the chosen settings, the
test split.

Each arm's setting is chosen on validation data; only then are its further seeds trained, and the
test split is read for the chosen runs alone.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxcnn import config, experiment, records, stats, train, transfer
from jaxcnn.checkpoint import USUAL, Saving
from jaxcnn.config import InputError, Run, override
from jaxcnn.data.streamed import Pictures
from jaxcnn.experiment import Experiment
from jaxcnn.train import Tick

Jobs = dict[Path, Run]


def source_jobs(exp: Experiment, root: Path) -> Jobs:
    """What the runs start from, of every arm, setting and seed; runs of equal sources share one."""
    seeds = tuple(dict.fromkeys((*exp.tune_seeds, *exp.seeds))) if exp.tune else exp.seeds
    settings = [run for runs in experiment.grid(exp).values() for run in runs.values()]
    found = (transfer.source(own) for run in settings for own in experiment.seeded(exp, run, seeds))
    return {experiment.source_folder(root, run): run for run in found if run is not None}


def tuning_jobs(exp: Experiment, root: Path) -> Jobs:
    """The grid at the tuning seeds; empty for an arm with a single setting."""
    return {
        experiment.folder(root, exp, arm, run): run
        for arm, settings in experiment.grid(exp).items()
        if len(settings) > 1
        for base in settings.values()
        for run in experiment.seeded(exp, base, exp.tune_seeds)
    }


def final_jobs(exp: Experiment, root: Path) -> Jobs | None:
    """Each arm at its chosen setting, all seeds; None while the grid is incomplete."""
    chosen = chosen_settings(exp, root)
    if chosen is None:
        return None
    grid = experiment.grid(exp)
    return {
        experiment.folder(root, exp, arm, run): run
        for arm, setting in chosen.items()
        for run in experiment.seeded(exp, grid[arm][setting], exp.seeds)
    }


def chosen_settings(exp: Experiment, root: Path) -> dict[str, str] | None:
    """arm -> its setting, from the records; None while the grid is incomplete."""

    def score(arm: str, run: Run) -> float | None:
        return stats.value(records.read(experiment.folder(root, exp, arm, run)), exp.tune_by)

    return experiment.choose(exp, score)


def all_runs(exp: Experiment) -> list[Run]:
    """One run of each arm, setting and split, and behind them what these start from: what must be
    checked before work begins.
    """
    seeds = dict.fromkeys((*exp.tune_seeds, *exp.seeds)) if exp.resplit else (0,)
    settings = [run for runs in experiment.grid(exp).values() for run in runs.values()]
    own = (own for run in settings for own in experiment.seeded(exp, run, seeds))
    return transfer.with_sources(own)


def here(exp: Experiment, platform: str | None = None) -> Experiment:
    """`exp` with the arms that are for this launch's devices, or for those of `platform`.

    Raises `InputError` where there is none.
    """
    platform = platform or jax.default_backend()
    devices = {arm: override(exp.base, changes).train.device for arm, changes in exp.arms.items()}
    arms = [arm for arm, device in devices.items() if device in ("any", platform)]
    if not arms:
        asked = " and ".join(sorted(set(devices.values())))
        raise InputError(
            f"{exp.name}: train.device: every arm asks for {asked}, and this launch runs on"
            f" {platform}. JAX_PLATFORMS names another device of this machine."
        )
    return experiment.only(exp, arms)


def work(exp: Experiment, root: Path, datasets: Mapping[config.Data, Pictures]) -> tuple[int, int]:
    """(run-steps left, run-steps in all); a setting still to be chosen counts as not begun."""
    left = total = 0
    for folder, run in source_jobs(exp, root).items():
        steps = train.problem_of(run, datasets[run.data]).steps
        left += 0 if records.is_finished(folder) else steps
        total += steps
    for arm in exp.arms:
        alone = experiment.only(exp, [arm])
        tuning, final = tuning_jobs(alone, root), final_jobs(alone, root)
        run = all_runs(alone)[0]
        steps = train.problem_of(run, datasets[run.data]).steps
        if final is None:
            more = len(set(exp.seeds) - set(exp.tune_seeds))
        else:
            more = len(final.keys() - tuning.keys())
        jobs = {**tuning, **(final or {})}
        undone = sum(not records.is_finished(folder) for folder in jobs)
        left += steps * (undone + (more if final is None else 0))
        total += steps * (len(tuning) + more)
    return left, total


def complete(exp: Experiment, root: Path) -> bool:
    """Whether nothing of `exp` is left to train or to test."""
    jobs = final_jobs(exp, root)

    def over(folder: Path) -> bool:
        status = records.status(folder)
        tested = exp.timed or (folder / "test.json").is_file()
        return status == "diverged" or (status == "finished" and tested)

    return jobs is not None and all(map(over, jobs))


def run(
    exp: Experiment,
    root: Path,
    datasets: Mapping[config.Data, Pictures],
    *,
    preset: str,
    stop: Callable[[], bool] = lambda: False,
    saving: Saving = USUAL,
    at_once: int | None = None,
) -> Iterator[Tick]:
    """Train and test all that is missing of `exp` under `root`, `at_once` runs side by side."""
    if exp.timed:
        at_once = 1

    starts = source_jobs(exp, root)
    sources = {run: folder for folder, run in starts.items()}

    def trained(jobs: Jobs) -> Iterator[Tick]:
        labels: dict[Path, dict[str, Any]] = {
            folder: {"experiment": exp.name, "arm": folder.parent.name, "preset": preset}
            for folder in jobs
        }
        how: dict[str, Any] = {"stop": stop, "saving": saving, "at_once": at_once}
        return train.train(jobs, labels, datasets, sources=sources, **how)

    yield from trained(starts)
    yield from trained(tuning_jobs(exp, root))
    jobs = final_jobs(exp, root)
    assert jobs is not None  # the grid is complete
    yield from trained(jobs)
    if not exp.timed:
        yield from train.test(jobs, datasets, at_once=at_once, sources=sources)
