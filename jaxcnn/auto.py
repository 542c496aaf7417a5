"""`auto` -> a value, before any folder is named: what is recorded of a run is what it was given.

`train.precision`: float32 on a CPU, bfloat16 on accelerators. `train.batch_size`: the largest power
of two with which every arm and setting trains in one device's memory, with all devices at work.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxcnn import cohorts, config, experiment, memory, sharding, step, train
from jaxcnn.config import CLASSICAL, InputError, Run, get, override
from jaxcnn.experiment import Experiment

PRECISION = "train.precision"
BATCH = "train.batch_size"


def resolve(exp: Experiment, data_dir: Path | None, say: Callable[[str], object]) -> Experiment:
    """`exp` with every `auto` replaced, and `say` told of what was chosen and why.

    Raises `InputError` where the device does not say how much memory it has, and `OutOfMemory`
    where not even a batch of one fits.
    """
    asked = experiment.automatic(exp)
    if PRECISION in asked:
        platform = jax.default_backend()
        precision = "float32" if platform == "cpu" else "bfloat16"
        exp = _with(exp, PRECISION, precision)
        say(f"{exp.name}: train.precision=auto is {precision}, as on every {platform}.")
    if BATCH in asked:
        size, why = _batch_size(exp, data_dir)
        exp = _with(exp, BATCH, size)
        say(f"{exp.name}: train.batch_size=auto is {size}: {why}.")
    return exp


def _batch_size(exp: Experiment, data_dir: Path | None) -> tuple[int, str]:
    """(the one size for all runs that ask for one, why)."""
    room = memory.room(len(jax.devices()))
    if room is None:
        raise InputError(
            f"{BATCH}: 'auto' needs a device that says how much memory it has; give a number."
        )
    grid = experiment.grid(exp)
    every = [(arm, run) for arm, settings in grid.items() for run in settings.values()]
    arms = [
        (arm, run)
        for arm, run in every
        if run.train.batch_size == "auto" and run.model.name not in CLASSICAL
    ]
    if not arms:
        return config.batch_size(Run()), "models that are fitted at once have no use for it"
    datasets = train.load_data([run for _, run in arms], data_dir)
    mesh = sharding.make_mesh(1, 1)

    def need(run: Run, size: int) -> float:
        """Infinite where compiling it takes too much."""
        sized, data = override(run, {BATCH: size}), datasets[run.data]
        problem = train.problem_of(sized, data)
        examples = train.examples(data, sized, problem)
        try:
            return memory.need(step.static(sized), problem, mesh, 1, examples)
        except jax.errors.JaxRuntimeError as error:
            if not memory.exhausted(error):
                raise
            return math.inf

    most = min(datasets[run.data].sizes["train"] for _, run in arms)
    size, tightest, taken = 2 ** (most.bit_length() - 1), "", 0.0
    for arm, run in (group[0] for group in cohorts.group(arms, lambda a: step.static(a[1]))):
        if tightest and need(run, size) <= room:
            continue
        size = memory.largest(functools.partial(need, run), room, size)
        tightest, taken = arm, need(run, size) if size else need(run, 1)
        if not size:
            raise memory.OutOfMemory(
                f"{exp.name}/{arm}: {BATCH}: 'auto' finds none: a batch of one takes"
                f" {memory.size(taken)}, and {memory.size(room)} may be taken of a device."
            )
    limit = f" of the {memory.size(room)} that may be taken of each device"
    if 2 * size > most:
        return size, f"the largest power of two among {most} training examples"
    return size, f"the largest power of two that fits; {tightest} takes {memory.size(taken)}{limit}"


def _with(exp: Experiment, path: str, value: Any) -> Experiment:
    """`exp` with `value` wherever `path` is 'auto'."""

    def put(changes: Any) -> dict[str, Any]:
        return {k: value if k == path and v == "auto" else v for k, v in changes.items()}

    tune = {
        p: tuple(value if p == path and v == "auto" else v for v in values)
        for p, values in exp.tune.items()
    }
    base = override(exp.base, {path: value}) if get(exp.base, path) == "auto" else exp.base
    arms = {arm: put(changes) for arm, changes in exp.arms.items()}
    return dataclasses.replace(exp, base=base, arms=arms, tune=tune)
