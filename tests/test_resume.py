"""Processes really killed, stopped, started twice end in the numbers of an undisturbed one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxcnn import records

REPOSITORY = Path(__file__).resolve().parent.parent
KILLS = 10
# Augmentation, dropout, momentum, a schedule and a ragged last epoch: all that a resume could lose.
SOURCE = """
from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

EXPERIMENT = Experiment(
    claim="Dropout raises the training error",
    source="a test",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max"),
        data=Data(train_examples=1000, validation_examples=500, shift=2, noise=0.1),
        optim=Optim(lr=0.05, weight_decay=1e-4, schedule="cosine"),
        train=Train(batch_size=64, steps=105, eval_every=7, eval_train_examples=100),
    ),
    arms={"some": {"model.dropout": 0.3}, "more": {"model.dropout": 0.6}},
    seeds=(0, 1, 2),
    predictions=(Prediction(Measure("final", "train"), "some", than="more"),),
)
"""


def start(
    folder: Path, environment: dict[str, str], checkpoint_every: str = "30"
) -> subprocess.Popen[str]:
    command = ["launch.py", "run", str(folder.parent / "killed.py"), "--out", str(folder)]
    return subprocess.Popen(
        [sys.executable, *command, "--checkpoint-every", checkpoint_every],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


def outcome(root: Path) -> dict[str, Any]:
    """All that a run leaves, but for clocks: its curve, its result, its test error, its weights."""
    found = {}
    for info in sorted(root.glob("killed/*/*/run.json")):
        record = records.read(info.parent)
        assert record is not None and record.result is not None
        for row in (*record.rows, record.result):
            row.pop("seconds")
            row.pop("step_seconds", None)
        steps = info.parent / "checkpoints" / str(record.result["step"]) / "default"
        tree = ocp.PyTreeCheckpointer().restore(steps)
        weights = {str(k): v for k, v in _flat(tree)}
        name = f"{info.parent.parent.name}/{info.parent.name}"
        found[name] = (record.rows, record.result, record.test, weights)
    return found


def _flat(tree: Any, prefix: str = "") -> Any:
    if isinstance(tree, dict):
        for k, v in tree.items():
            yield from _flat(v, f"{prefix}/{k}")
    elif isinstance(tree, list | tuple):
        for i, v in enumerate(tree):
            yield from _flat(v, f"{prefix}/{i}")
    elif tree is not None:
        yield prefix, np.asarray(tree)


def assert_same(root: Path, reference: dict[str, Any]) -> None:
    found = outcome(root)
    assert found.keys() == reference.keys() and len(found) == 6
    for name, (rows, result, test, weights) in reference.items():
        assert found[name][:3] == (rows, result, test), name
        assert found[name][3].keys() == weights.keys()
        assert len(rows) == 16 and len(weights) > 20
        for k, w in weights.items():
            np.testing.assert_array_equal(found[name][3][k], w, err_msg=f"{name} {k}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    (folder / "killed.py").write_text(SOURCE)
    return folder


@pytest.fixture(scope="module")
def undisturbed(place: Path, environment: dict[str, str]) -> dict[str, Any]:
    finish(start(place / "undisturbed", environment))
    return outcome(place / "undisturbed")


def rows_written(folder: Path) -> int:
    return sum(len(p.read_bytes().splitlines()) for p in folder.glob("killed/*/*/metrics.jsonl"))


@pytest.mark.slow
def test_kill_at_random_moments(
    place: Path, undisturbed: dict[str, Any], environment: dict[str, str]
) -> None:
    moments, folder, kills, rounds = random.Random(0), place / "killed0", 0, 0
    while True:
        process = start(folder, environment, checkpoint_every="0.1")
        if kills % 3:  # mostly in the midst of training, sometimes anywhere, start-up included
            before = rows_written(folder)
            while process.poll() is None and rows_written(folder) == before:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.6))
        else:
            time.sleep(moments.uniform(0.5, 6))
        if process.poll() is None and kills < KILLS:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        finish(process)
        assert_same(folder, undisturbed)
        if kills >= KILLS:
            break
        rounds += 1
        folder = place / f"killed{rounds}"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signals_save_and_say_how_to_go_on(
    number: signal.Signals, place: Path, undisturbed: dict[str, Any], environment: dict[str, str]
) -> None:
    folder = place / number.name
    process = start(folder, environment)
    while rows_written(folder) < 6:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "all is saved" in out and "python launch.py run" in out.replace(f"{REPOSITORY}/", "")
    assert "Traceback" not in out
    assert list(folder.glob("killed/*/*/checkpoints/*/_CHECKPOINT_METADATA"))
    assert not (folder / "killed" / "reports").exists()
    finish(start(folder, environment))
    assert_same(folder, undisturbed)


@pytest.mark.slow
def test_two_launches_at_once(
    place: Path, undisturbed: dict[str, Any], environment: dict[str, str]
) -> None:
    folder = place / "twice"
    both = [start(folder, environment) for _ in range(2)]
    for process in both:
        finish(process)
    assert_same(folder, undisturbed)
    for path in folder.glob("killed/*/*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["step"] for row in lines] == list(range(0, 106, 7))


@pytest.mark.slow
def test_a_launch_runs_only_what_is_missing(
    place: Path, undisturbed: dict[str, Any], environment: dict[str, str]
) -> None:
    folder = place / "more"
    shutil.copytree(place / "undisturbed", folder)
    old = {p: p.stat().st_mtime_ns for p in folder.glob("killed/*/*/metrics.jsonl")}
    command = ["launch.py", "run", str(place / "killed.py"), "--out", str(folder)]
    more = [*command, "--seeds", "0..3", "--arms", "some"]
    subprocess.run(
        [sys.executable, *more], cwd=REPOSITORY, env=environment, check=True, capture_output=True
    )
    new = {p: p.stat().st_mtime_ns for p in folder.glob("killed/*/*/metrics.jsonl")}
    assert {p for p in new if p not in old} == set(folder.glob("killed/some/seed3-*/metrics.jsonl"))
    assert len(new) == len(old) + 1
    assert all(new[p] == old[p] for p in old)
    assert os.path.exists(folder / "killed" / "reports")
