"""An experiment -> its runs, in three stages: the grid, the chosen settings, the test split.

Each arm's setting is chosen on validation data; only then are its further seeds trained, and the test split
is read for the chosen runs alone.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxcnn import config, experiment, records, stats, train
from jaxcnn.config import Run
from jaxcnn.data.sources import Dataset
from jaxcnn.experiment import Experiment
from jaxcnn.train import Tick

Jobs = dict[Path, Run]


def tuning_jobs(exp: Experiment, root: Path) -> Jobs:
    """The grid at the tuning seeds; empty for an arm with a single setting."""
    return {
        experiment.folder(root, exp, arm, run): run
        for arm, settings in experiment.grid(exp).items()
        if len(settings) > 1
        for base in settings.values()
        for run in _seeded(base, exp.tune_seeds)
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
        for run in _seeded(grid[arm][setting], exp.seeds)
    }


def chosen_settings(exp: Experiment, root: Path) -> dict[str, str] | None:
    """arm -> its setting, from the records; None while the grid is incomplete."""

    def score(arm: str, run: Run) -> float | None:
        record = records.read(experiment.folder(root, exp, arm, run))
        return None if record is None or record.result is None else stats.score(record, exp.tune_by)

    return experiment.choose(exp, score)


def all_runs(exp: Experiment) -> list[Run]:
    """One run of each arm and setting: what must be checked before work begins."""
    return [run for settings in experiment.grid(exp).values() for run in settings.values()]


def work(exp: Experiment, root: Path, datasets: Mapping[config.Data, Dataset]) -> tuple[int, int]:
    """(run-steps that are left, run-steps in all), with each arm's setting still open where it is."""
    left = total = 0
    for arm, settings in experiment.grid(exp).items():
        run = next(iter(settings.values()))
        steps = train.problem_of(run, datasets[run.data]).steps
        tuned = len(settings) > 1
        more = [s for s in exp.seeds if not (tuned and s in exp.tune_seeds)]
        total += steps * (len(more) + (len(settings) * len(exp.tune_seeds) if tuned else 0))
        chosen = chosen_settings(dataclasses.replace(exp, arms={arm: exp.arms[arm]}, predictions=()), root)
        jobs = [r for s in settings.values() for r in _seeded(s, exp.tune_seeds if tuned else ())]
        if chosen is not None:
            jobs += _seeded(settings[chosen[arm]], tuple(more))
        else:
            left += steps * len(more)
        left += sum(
            steps
            for r in jobs
            if not records.is_finished(experiment.folder(root, exp, arm, r))
        )
    return left, total


def run(
    exp: Experiment,
    root: Path,
    datasets: Mapping[config.Data, Dataset],
    *,
    preset: str,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = 30.0,
) -> Iterator[Tick]:
    """Train and test all that is missing of `exp` under `root`."""

    def trained(jobs: Jobs) -> Iterator[Tick]:
        labels: dict[Path, dict[str, Any]] = {
            folder: {"experiment": exp.name, "arm": folder.parent.name, "preset": preset}
            for folder in jobs
        }
        return train.train(
            jobs, labels, datasets, stop=stop, checkpoint_seconds=checkpoint_seconds
        )

    yield from trained(tuning_jobs(exp, root))
    jobs = final_jobs(exp, root)
    assert jobs is not None  # the grid is complete
    yield from trained(jobs)
    yield from train.test(jobs, datasets)


def _seeded(run: Run, seeds: tuple[int, ...]) -> list[Run]:
    return [dataclasses.replace(run, seed=seed) for seed in seeds]
