"""The report from synthetic records: every number recomputed here by another road."""

import csv
import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from jaxcnn import experiment, records, report
from jaxcnn.config import Data, InputError, Model, Run, Train, to_dict
from jaxcnn.experiment import Experiment, Measure, Prediction

STEPS = Measure("steps_to", "train", target=0.1)
TEST = Measure("final", "test")
EXPERIMENT = Experiment(
    name="curves_on_trial",
    claim="ReLU & friends_train 100 % <faster>",
    source="Notes, section 1",
    base=Run(model=Model(name="lenet5"), data=Data(name="mnist"), train=Train(steps=200)),
    arms={
        "relu": {"model.activation": "relu"},
        "tanh": {"model.activation": "tanh"},
        "sigmoid": {"model.activation": "sigmoid"},
    },
    tune={"optim.lr": (0.01, 0.1, 1.0)},
    tune_seeds=(0, 1),
    seeds=range(5),  # pyright: ignore[reportArgumentType]
    predictions=(
        Prediction(STEPS, "relu", than="sigmoid", published="6 times fewer", source="K. 2012"),
        Prediction(TEST, "relu", than="sigmoid"),
        Prediction(TEST, "relu", than="tanh"),
        Prediction(TEST, "relu", than="sigmoid", direction="greater"),
    ),
)
SPEED = {"relu": 0.03, "tanh": 0.028, "sigmoid": 0.012}  # decay of the error per step
BEST = {"relu": 0.1, "tanh": 0.1, "sigmoid": 1.0}


def errors(arm, lr, seed, steps):
    """A made-up learning curve: exponential decay, slower away from the arm's best rate."""
    wobble = 1 + 0.04 * math.sin(7 * seed + 2 * list(SPEED).index(arm))
    speed = SPEED[arm] * wobble * (1.0 if lr == BEST[arm] else 0.5)
    return [0.9 * math.exp(-speed * step) + 0.01 for step in steps]


def test_error(arm, seed):
    return {"relu": 0.02, "tanh": 0.0203, "sigmoid": 0.05}[arm] + 0.001 * math.sin(
        5 * seed + 3 * list(SPEED).index(arm)
    )


test_error.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def write_run(root, exp, arm, run, steps=200, status="finished", test=True, **info):
    folder = experiment.folder(root, exp, arm, run)
    points = range(0, steps + 1, 10)
    curve = errors(arm, run.optim.lr, run.seed, points)
    host = {"cpu": "A CPU", "cores": 2, "memory_gb": 8, "os": "Linux"}
    records.write_json(
        folder / "run.json",
        {
            "experiment": exp.name,
            "arm": arm,
            "config": to_dict(run),
            "steps": steps,
            "parameters": 61706,
            "commit": "0123abc",
            "dirty": False,
            "versions": {"jax": "0.10.2", "python": "3.11.7"},
            "device": {"platform": "cpu", "kind": "cpu", "count": 1, **host},
            "data": {"fingerprint": "f1f2", "train": 55000, "test": 10000, "classes": 10},
            "command": "launch.py run curves_on_trial",
            "started": f"2026-01-02T03:04:{run.seed:02d}",
        }
        | info,
    )
    with records.open_metrics(folder) as f:
        for step, error in zip(points, curve, strict=True):
            m = {"loss": 2 * error, "error": error, "count": 5000}
            row = {"step": step, "train": m, "validation": m | {"error": error + 0.005}}
            records.append(f, row | {"seconds": 0.01 * step})
    records.write_json(
        folder / "result.json", {"status": status, "step": steps, "seconds": 0.01 * steps}
    )
    if test:
        m = {"loss": 0.1, "error": test_error(arm, run.seed), "count": 10000}
        records.write_json(folder / "test.json", m)
    return folder


def write_all(root, exp=EXPERIMENT, **options):
    """The tuning grid, and every seed at each arm's best setting."""
    for arm, settings in experiment.grid(exp).items():
        for run in settings.values():
            best = run.optim.lr == BEST[arm]
            for seed in exp.seeds if best else exp.tune_seeds:
                write_run(root, exp, arm, dataclasses.replace(run, seed=seed), test=best, **options)


def at_best(arm, seed, exp=EXPERIMENT):
    return dataclasses.replace(experiment.grid(exp)[arm][f"optim.lr={BEST[arm]}"], seed=seed)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_all(folder)
    return folder
