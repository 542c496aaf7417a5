"""Which checkpoints of a run stay, and what can be done with each."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_train import RUN, curve, go

from jaxcnn import records, starts, step, train
from jaxcnn.checkpoint import Saving
from jaxcnn.config import Data, InputError, override
from jaxcnn.data.sources import Dataset

Launch = Callable[..., tuple[int, str, str]]
OFTEN = Saving(seconds=0.0, keep=3, best=True)
# At the first rate the validation error is least at the end, at the others on the way there.
RUNS = {
    f"lr{lr}": override(RUN, {"optim.lr": lr, "train.eval_every": 2}) for lr in (0.05, 0.2, 0.5)
}
SOURCE = """
from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment

EXPERIMENT = Experiment(
    claim="None",
    source="a test",
    base=Run(
        model=Model(name="mlp", widths=(8,), activation="relu"),
        data=Data(train_examples=600, validation_examples=300),
        optim=Optim(lr=0.5),
        train=Train(batch_size=50, steps=20, eval_every=2, eval_train_examples=100),
    ),
    arms={"net": {}},
    seeds=(0,),
    predictions=(),
)
"""


@pytest.fixture(scope="module")
def datasets() -> Mapping[Data, Dataset]:
    return train.load_data([RUN], None)


def kept(folder: Path, place: str = "checkpoints") -> list[int]:
    return sorted(int(p.name) for p in (folder / place).iterdir() if p.name.isdigit())


def best(folder: Path) -> int:
    """The first step at which the curve is lowest."""
    return min(curve(folder), key=lambda row: (row["validation"]["error"], row["step"]))["step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, datasets: Any) -> Path:
    root = tmp_path_factory.mktemp("whole")
    go({root / name: run for name, run in RUNS.items()}, datasets, saving=OFTEN)
    return root


def test_the_best_of_each_run_is_kept_besides_the_newest(whole: Path, datasets: Any) -> None:
    """Side by side, each has its own; its state has the error that the curve has there."""
    steps = {name: best(whole / name) for name in RUNS}
    assert steps["lr0.05"] == 20 and 0 < steps["lr0.2"] != steps["lr0.5"] < 16
    for name, run in RUNS.items():
        folder = whole / name
        assert len(kept(folder)) == 3 and kept(folder)[-1] == 20
        assert kept(folder, "best") == [steps[name]]
        data = datasets[run.data]
        state = starts.final(folder, run, data, "best")
        assert state.step == steps[name]
        bare = dataclasses.replace(state, opt_state=None)
        what = (starts.problem_of(run, data), bare, data.validation.images)
        moments = (data.mean, data.std, data.covariance)
        logits, _ = step.evaluate(run, *what, moments)  # type: ignore[arg-type]
        wrong = float((logits.argmax(-1) != data.validation.labels).sum())
        [row] = [row for row in curve(folder) if row["step"] == steps[name]]
        assert wrong == round(300 * row["validation"]["error"])
        named = starts.final(folder, run, data, str(kept(folder)[0]))
        assert named.step == kept(folder)[0] and starts.final(folder, run, data).step == 20


def test_two_are_kept_and_no_best_unless_asked_for(tmp_path: Path, datasets: Any) -> None:
    folder = tmp_path / "r"
    go({folder: RUN}, datasets, saving=Saving(seconds=0.0))
    assert len(kept(folder)) == 2 and not (folder / "best").exists()
    with pytest.raises(InputError, match=r"'best' is not one of last, \d+, 20, .* --keep-best"):
        starts.final(folder, RUN, datasets[RUN.data], "best")


def test_a_run_goes_on_from_the_newest_and_knows_its_best(
    tmp_path: Path, whole: Path, datasets: Any
) -> None:
    """Stopped behind its best, which nothing later is as good as."""
    run, folder = RUNS["lr0.2"], tmp_path / "cut"
    ticks = train.train(
        {folder: run}, {folder: {}}, datasets, saving=OFTEN, stop=lambda: bool(rows)
    )
    rows: list[int] = []
    with pytest.raises(train.Interrupted):
        for tick in ticks:
            if tick.row is not None and tick.step == 10:
                rows.append(tick.step)
    assert kept(folder)[-1] == 10 and kept(folder, "best") == [best(whole / "lr0.2")] == [4]
    go({folder: run}, datasets, saving=OFTEN)
    assert curve(folder) == curve(whole / "lr0.2")
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 11  # nothing twice
    assert kept(folder, "best") == [4]


# A damaged file leaves orbax's reading tasks behind, whose loop is then closed under them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_best_behind_what_is_left_undamaged_is_made_again(
    tmp_path: Path, whole: Path, datasets: Any
) -> None:
    run, folder = RUNS["lr0.5"], tmp_path / "r"
    go({folder: run}, datasets, saving=OFTEN)
    (folder / "result.json").unlink()
    for path in (folder / "checkpoints").rglob("_METADATA"):
        path.write_text("{")
    before = (folder / "best" / "10").stat().st_ctime_ns
    notes = [t.note for t in go({folder: run}, datasets, saving=OFTEN) if t.note]
    assert "going on from the start" in notes[-1]
    assert curve(folder) == curve(whole / "lr0.5") and kept(folder, "best") == [10]
    assert (folder / "best" / "10").stat().st_ctime_ns != before
    (folder / "best" / "10" / "default" / "_METADATA").write_text("{")
    with pytest.raises(RuntimeError, match="step 10 is damaged .* names another"):
        starts.final(folder, run, datasets[run.data], "best")


def test_the_best_of_a_run_that_diverged_can_be_used(
    tmp_path: Path, command: Launch, datasets: Any
) -> None:
    source = tmp_path / "mine.py"
    source.write_text(SOURCE.replace("lr=0.5", "lr=1e12"))
    code, out, err = command("run", source, "--out", tmp_path, "--keep-best")
    assert code == 0, err
    [folder] = tmp_path.glob("mine/net/*")
    record = records.read(folder)
    assert record is not None and record.diverged and kept(folder, "best") == [0]
    code, _, err = command("evaluate", folder)
    assert code == 2 and "diverged" in err
    code, out, _ = command("evaluate", folder, "--checkpoint", "best")
    assert code == 0 and "step 0" in out


def test_by_the_command_line(tmp_path: Path, command: Launch) -> None:
    source, out = tmp_path / "mine.py", tmp_path / "said.json"
    source.write_text(SOURCE)
    run = ("run", source, "--out", tmp_path, "--checkpoint-every", 0, "--keep", 4, "--keep-best")
    code, _, err = command(*run)
    assert code == 0, err
    [folder] = tmp_path.glob("mine/net/*")
    assert len(kept(folder)) == 4 and kept(folder, "best") == [10]
    rows = {row["step"]: row["validation"] for row in curve(folder)}
    for name, at in (("best", 10), ("last", 20), (str(kept(folder)[1]), kept(folder)[1])):
        asked = ("--split", "validation", "--checkpoint", name, "--out", out)
        code, said, err = command("evaluate", folder, *asked)
        assert code == 0 and f"step {at}" in said, err
        found = json.loads(out.read_text())
        assert found["step"] == at
        assert math.isclose(found["top1"]["errors"], 300 * rows[at]["error"], abs_tol=0.01)
    code, said, err = command("export", folder, "--to", "c", "--checkpoint", "best")
    assert code == 0, err
    card = (folder / "export" / "mlp.c.md").read_text()
    assert "step 10 of 20" in card and f"{100 * rows[10]['error']:.2f} % error" in card
    assert "| test | not measured |" in card
    code, _, err = command("features", folder, "--checkpoint", "best")
    assert code == 0, err
    code, _, err = command("evaluate", folder, "--checkpoint", "7")
    assert code == 2 and "--checkpoint: '7' is not one of last, 10, best, " in err
    for words, said in (
        ((*run, "--set", "data.validation_examples=0"), "--keep-best: 'mnist' has no validation"),
        ((*run[:4], "--keep", "0"), "--keep: 0 is not allowed; it must be at least 1"),
        (("evaluate", "vgg16", "--checkpoint", "best"), "--checkpoint: 'best' is of a RUN"),
    ):
        code, _, err = command(*words)
        assert code == 2 and said in err
    assert len(list(tmp_path.glob("mine/net/*"))) == 1
