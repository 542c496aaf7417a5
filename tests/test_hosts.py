"""Launches of several processes, on gloo: they end in the numbers of one, and who dies takes all
with it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photographs import make

from jaxcnn import records

Launch = Callable[..., tuple[int, str, str]]
REPOSITORY = Path(__file__).resolve().parent.parent
CLASSES = tuple(f"n{i:08d}" for i in range(12))
# Dropout, augmentation and momentum; BatchNorm, whose statistics are of the whole batch, and a
# batch that devices cannot share evenly; a stream, of which two pictures cannot be read. And so
# slow a training that rounding hardly grows on its way: a step lost or taken twice would show.
SOURCE = """
from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment

EXPERIMENT = Experiment(
    claim="None",
    source="a test",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max", dropout=0.3),
        data=Data(train_examples=1000, validation_examples=500, shift=2, noise=0.1),
        optim=Optim(lr=0.02, schedule="cosine"),
        train=Train(batch_size=64, steps=12, eval_every=4, eval_train_examples=100),
    ),
    arms={
        "plain": {},
        "norm": {
            "model.name": "resnet20",
            "model.blocks": (1, 1, 1),
            "model.widths": (4, 8, 16),
            "model.activation": "paper",
            "model.pool": "paper",
            "model.dropout": "paper",
            "train.batch_size": 50,
        },
        "stream": {
            "model.name": "mlp",
            "model.widths": (16,),
            "model.pool": "paper",
            "data.name": "PHOTOS",
            "data.stream": True,
            "data.side": 20,
            "data.crop": 16,
            "data.shift": 0,
            "data.noise": 0.0,
            "data.scale": 1.5,
            "data.flip": True,
            "data.color": 0.1,
            "data.train_examples": None,
            "data.validation_examples": 11,
            "train.batch_size": 8,
            "train.eval_train_examples": 19,
        },
        "long": {
            "model.name": "mlp",
            "model.widths": (64,),
            "model.pool": "paper",
            "optim.lr": 0.0003,
            "train.steps": 400,
            "train.eval_every": 100,
        },
    },
    seeds=(0,),
    predictions=(),
)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mine.py, and photos/, some of which cannot be read."""
    root = tmp_path_factory.mktemp("hosts")
    (root / "mine.py").write_text(SOURCE.replace("PHOTOS", str(root / "photos")))
    for split, count in (("train", 5), ("val", 2)):
        make(root / "photos", split, count, CLASSES)
        path = root / "photos" / split / CLASSES[2] / f"{CLASSES[2]}_1.JPEG"
        path.write_bytes(path.read_bytes()[:-2])
    return root


def start(
    place: Path, name: str, *words: str, before: Sequence[str] = (), **own: str
) -> subprocess.Popen[str]:
    command = ["launch.py", "run", str(place / "mine.py"), "--out", str(place / name)]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*before, sys.executable, *command, *words],
        cwd=REPOSITORY,
        env=environment | {"COLUMNS": "200"} | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


def outcome(root: Path) -> dict[str, tuple[list[int], np.ndarray, list[float]]]:
    """arm -> steps, losses on the way and at the end, errors."""
    found = {}
    for info in sorted(root.glob("mine/*/*/run.json")):
        record = records.read(info.parent)
        assert record is not None and record.result is not None and record.test is not None
        parts = [
            row[s] for row in record.rows for s in ("batch", "train", "validation") if s in row
        ]
        parts.append(record.test)
        numbers = np.array([part["loss"] for part in parts])
        counts = [(part["count"], part["error"]) for part in parts]
        found[info.parent.parent.name] = ([row["step"] for row in record.rows], numbers, counts)
    return found


def shares(checkpoint: Path) -> dict[int, int]:
    """process -> bytes that it wrote of the arrays; {} where they were written whole."""
    return {
        int(folder.name.removeprefix("ocdbt.process_")): sum(
            file.stat().st_size for file in (folder / "d").iterdir()
        )
        for folder in (checkpoint / "default").glob("ocdbt.process_*")
    }


def assert_shared(checkpoint: Path, processes: int) -> None:
    """Each process wrote its share of it, about as much as the others."""
    found = shares(checkpoint)
    assert found.keys() == set(range(processes)), checkpoint
    assert min(found.values()) > 0.6 * sum(found.values()) / processes, (checkpoint, found)
    # By us: orbax splits what is whole on each device, too, but not on every GPU.
    described = json.loads((checkpoint / "default" / "_sharding").read_text()).values()
    assert any(["run", "data"] in json.loads(text)["partition_spec"] for text in described)


def assert_same(found: dict[str, Any], wanted: dict[str, Any], rtol: float) -> None:
    assert found.keys() == wanted.keys() and found
    for arm, (steps, losses, counts) in wanted.items():
        assert found[arm][0] == steps, arm
        assert found[arm][2] == counts, arm
        np.testing.assert_allclose(found[arm][1], losses, rtol=rtol, err_msg=arm)


@pytest.fixture(scope="module")
def one(place: Path) -> dict[str, Any]:
    finish(start(place, "one", "--arms", "plain", "norm", "stream"))
    return outcome(place / "one")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hosts", "0"), "--hosts: '0' is not 'auto' or a number from 1 on"),
        (("--hosts", "two"), "--hosts: 'two' is not"),
        (("--hosts", "2", "--on", "slurm"), "there it is --nodes"),
    ],
)
def test_what_cannot_be_started_is_said(words: Any, said: str, command: Launch) -> None:
    code, _, err = command("run", "relu_vs_sigmoid", *words)
    assert code == 2 and said in err and err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "arms"), [(2, ("plain", "norm", "stream")), (4, ("plain", "stream"))]
)
def test_processes_end_in_the_numbers_of_one(
    processes: int, arms: tuple[str, ...], place: Path, one: dict[str, Any]
) -> None:
    name = f"all{processes}"
    out = finish(start(place, name, "--hosts", str(processes), "--keep-best", "--arms", *arms))
    assert f"{processes} processes, {processes} devices (1 each)" in out
    assert_same(outcome(place / name), {arm: one[arm] for arm in arms}, rtol=1e-5)
    for info in (place / name).glob("mine/*/*/run.json"):
        record = records.read(info.parent)
        assert record is not None
        errors = [row["validation"]["error"] for row in record.rows]
        best = record.rows[errors.index(min(errors))]["step"]
        assert [p.name for p in (info.parent / "best").iterdir()] == [str(best)]
        assert_shared(info.parent / "best" / str(best), processes)
        assert_shared(info.parent / "checkpoints" / str(record.rows[-1]["step"]), processes)
    [named] = (place / name).glob("mine/stream/*/unreadable.json")
    assert len([path for split in json.loads(named.read_text()).values() for path in split]) == 2
    infos = [json.loads(p.read_text()) for p in (place / name).glob("mine/*/*/run.json")]
    assert {info["device"]["count"] for info in infos} == {processes}
    assert {info["device"]["processes"] for info in infos} == {processes}


LONG = ("--arms", "long", "--checkpoint-every", "0.2")


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> dict[str, Any]:
    finish(start(place, "undisturbed", *LONG))
    return outcome(place / "undisturbed")


def saved(folder: Path) -> list[int]:
    files = folder.glob("mine/*/*/checkpoints/*/_CHECKPOINT_METADATA")
    return sorted(int(file.parent.name) for file in files if file.parent.name.isdigit())


def processes_of(launch: subprocess.Popen[str]) -> dict[int, int]:
    """Which process of the launch has which id."""
    found = {}
    children = Path(f"/proc/{launch.pid}/task/{launch.pid}/children").read_text().split()
    for child in map(int, children):
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        [own] = [v for v in variables if v.startswith(b"JAX_PROCESS_ID=")]
        found[int(own.partition(b"=")[2])] = child
    return found


def disturbed(place: Path, name: str, victims: tuple[int, ...], number: int) -> tuple[int, str]:
    """(exit code, what was said) of two processes, some of which get a signal in mid-training."""
    launch = start(place, name, *LONG, "--hosts", "2")
    end = time.monotonic() + 120
    while not saved(place / name):
        assert launch.poll() is None and time.monotonic() < end, launch.communicate()[0]
        time.sleep(0.05)
    ids = processes_of(launch)
    assert ids.keys() == {0, 1}
    for victim in victims:
        os.kill(ids[victim], number)
    try:
        out, _ = launch.communicate(timeout=60)  # within a minute
    except subprocess.TimeoutExpired:
        for child in (launch.pid, *ids.values()):
            os.kill(child, signal.SIGKILL)
        pytest.fail(f"it went on\n{launch.communicate()[0]}")
    assert all(not Path(f"/proc/{child}").exists() for child in ids.values())
    assert not list((place / name).glob("mine/*/*/result.json"))
    return launch.returncode, out


def goes_on(place: Path, name: str, processes: int, undisturbed: dict[str, Any]) -> None:
    """From its last checkpoint."""
    at = saved(place / name)[-1]
    finish(start(place, name, *LONG, *(("--hosts", str(processes)) if processes > 1 else ())))
    [metrics] = (place / name).glob("mine/*/*/metrics.jsonl")
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert at > 0 and steps.count(0) == 1
    assert_same(outcome(place / name), undisturbed, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "number", "said", "then"),
    [
        (1, signal.SIGKILL, "process 1 of 2 was ended by SIGKILL", 1),
        (0, signal.SIGKILL, "process 0 of 2 was ended by SIGKILL", 4),
        (1, signal.SIGSTOP, "process 1 of 2 does not answer", None),
    ],
)
def test_who_dies_takes_all_with_it_and_another_number_goes_on(
    victim: int,
    number: signal.Signals,
    said: str,
    then: int | None,
    place: Path,
    undisturbed: dict[str, Any],
) -> None:
    name = f"{number.name}{victim}"
    code, out = disturbed(place, name, (victim,), number)
    assert code == 1 and said in out and "the same command goes on" in out, out
    assert "Traceback" not in out
    if then is not None:
        goes_on(place, name, then, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("victims", [(0, 1), (1,)])
def test_a_signal_to_all_or_to_one_saves(
    victims: tuple[int, ...], place: Path, undisturbed: dict[str, Any]
) -> None:
    name = f"asked{len(victims)}"
    began = time.monotonic()
    code, out = disturbed(place, name, victims, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM and "all is saved" in out, out
    assert "coordination" not in out and time.monotonic() - began < 150, out
    if len(victims) > 1:
        goes_on(place, name, 2, undisturbed)


@pytest.mark.slow
def test_checkpoints_of_any_number_of_processes_go_on_with_any(
    place: Path, undisturbed: dict[str, Any]
) -> None:
    """Written whole by 1, then in shares by 2 and 4; the newest is damaged each time."""
    often = ("--arms", "long", "--checkpoint-every", "0", "--keep", "3")
    finish(start(place, "any", *often))
    [folder] = (place / "any").glob("mine/long/*")

    def kept() -> list[int]:
        return sorted(int(p.name) for p in (folder / "checkpoints").iterdir())

    assert not any(set(shares(folder / "checkpoints" / str(at))) - {0} for at in kept())
    for processes in (2, 4, 1):
        assert len(kept()) == 3 and kept()[-1] == 400
        newest = folder / "checkpoints" / "400" / "default"
        by_who = sorted(newest.glob("ocdbt.process_*"))[-1]
        for file in (by_who / "d").iterdir():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        before = kept()[-2]
        for name in ("result.json", "test.json"):
            (folder / name).unlink()
        words = ("--hosts", str(processes)) if processes > 1 else ()
        out = finish(start(place, "any", *often, *words))
        assert "step 400 is damaged" in out and f"going on from step {before}" in out, out
        assert_same(outcome(place / "any"), undisturbed, rtol=1e-5)
        if processes > 1:
            assert_shared(newest.parent, processes)


def mounting(folder: Path, size: str) -> list[str]:
    """What to put before a command that sees a disk of its own in the place of `folder`."""
    mount = f'mount -t tmpfs -o size={size} none {folder} && exec "$@"'
    before = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "-"]
    try:
        can = subprocess.run([*before, "true"], capture_output=True, timeout=10).returncode == 0
    except FileNotFoundError:
        can = False
    if not can:
        pytest.skip("needs unshare, and the right to mount a small tmpfs")
    return before


@pytest.mark.slow
def test_a_process_that_does_not_see_the_folder_is_named_at_once(place: Path) -> None:
    out = place / "apart"
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    own = {"JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address}
    both = [
        start(place, "apart", *LONG, "--hosts", "2", before=before, JAX_PROCESS_ID=str(i), **own)
        for i, before in enumerate([[], mounting(out, "1m")])
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert both[0].returncode == 2 and both[1].returncode == 0, said
    assert f"--out: {out} is no folder that process 1 (" in said[0], said
    assert "run-steps" not in said[0] and not list(out.iterdir())


@pytest.mark.slow
def test_a_full_disk_ends_all(place: Path) -> None:
    """Of 0.3 MB a checkpoint; whichever process's share does not fit."""
    (place / "full").mkdir()
    often = ("--arms", "long", "--checkpoint-every", "0")
    before = mounting(place / "full", "800k")
    launch = start(place, "full", *often, "--hosts", "2", before=before)
    out, _ = launch.communicate(timeout=90)
    assert launch.returncode == 1 and "No space left on device" in out, out
    assert "Traceback" not in out
