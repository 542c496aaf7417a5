"""The loop on real MNIST, with small nets: divergence, damage, locks, and the test split."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jaxcnn import experiment, records, starts, step, sweep, train
from jaxcnn.checkpoint import Saving
from jaxcnn.config import Data, InputError, Model, Optim, Run, Train, override
from jaxcnn.data.sources import Dataset
from jaxcnn.experiment import Experiment, Measure, Prediction

RUN = Run(
    model=Model(name="mlp", widths=(8,), activation="relu"),
    data=Data(train_examples=600, validation_examples=300),
    optim=Optim(lr=0.05),
    train=Train(batch_size=50, steps=20, eval_every=5, eval_train_examples=100),
)


@pytest.fixture(scope="module")
def datasets() -> Mapping[Data, Dataset]:
    return train.load_data([RUN], None)


def go(jobs: dict[Path, Run], datasets: Any, **options: Any) -> list[train.Tick]:
    labels = {folder: {"experiment": "e", "arm": "a"} for folder in jobs}
    return list(train.train(jobs, labels, datasets, **options))


def curve(folder: Path) -> list[dict[str, Any]]:
    record = records.read(folder)
    assert record is not None
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in record.rows]


def test_a_run_that_becomes_nan_is_recorded_and_harms_no_other(
    tmp_path: Path, datasets: Any
) -> None:
    alone = {tmp_path / "alone": RUN}
    together = {
        tmp_path / "good": RUN,
        tmp_path / "wild": override(RUN, {"optim.lr": 1e12}),
        tmp_path / "late": override(RUN, {"seed": 1}),
    }
    go(alone, datasets)
    go(together, datasets)
    wild = records.read(tmp_path / "wild")
    assert wild is not None and wild.diverged and wild.result is not None
    assert wild.result["step"] < 20
    assert wild.rows[-1]["nonfinite"] is True and wild.rows[-1]["train"]["loss"] is None
    assert curve(tmp_path / "good") == curve(tmp_path / "alone")
    assert records.is_finished(tmp_path / "late")
    list(train.test(together, datasets))
    assert (tmp_path / "good" / "test.json").exists()
    assert not (tmp_path / "wild" / "test.json").exists()


def test_the_curve_has_its_points_and_the_loss_falls(tmp_path: Path, datasets: Any) -> None:
    ticks = go({tmp_path / "r": RUN}, datasets)
    rows = curve(tmp_path / "r")
    assert [row["step"] for row in rows] == [0, 5, 10, 15, 20]
    assert "batch" not in rows[0] and rows[1]["batch"]["count"] == 5 * 50
    assert rows[1]["train"]["count"] == 100 and rows[1]["validation"]["count"] == 300
    assert rows[-1]["validation"]["loss"] < rows[0]["validation"]["loss"]
    assert ticks[-1].step == 20


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, datasets: Any) -> None:
    go({tmp_path / "whole": RUN}, datasets)
    jobs = {tmp_path / "cut": RUN}
    for _ in range(20):
        calls = iter(range(100))
        try:
            go(jobs, datasets, stop=lambda calls=calls: next(calls) > 1)
            break
        except train.Interrupted:
            pass
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 5  # nothing was done twice


@pytest.mark.slow
def test_a_running_mean_of_the_weights_is_saved_and_judged(tmp_path: Path, datasets: Any) -> None:
    mean = override(RUN, {"optim.ema": 0.9})
    jobs = {tmp_path / "cut": mean}
    steps = iter([False, False, True])
    with pytest.raises(train.Interrupted):
        go(jobs, datasets, stop=lambda: next(steps))
    go(jobs, datasets)
    go({tmp_path / "whole": mean, tmp_path / "plain": RUN}, datasets)
    own, plain = curve(tmp_path / "cut"), curve(tmp_path / "plain")
    assert own == curve(tmp_path / "whole")
    assert [row.get("batch") for row in own] == [row.get("batch") for row in plain]
    assert own[0] == plain[0] and own[-1]["train"] != plain[-1]["train"]
    list(train.test(jobs, datasets))
    data = datasets[RUN.data]
    state = starts.final(tmp_path / "cut", mean, data)
    last = starts.final(tmp_path / "plain", RUN, data)
    found = []
    for each in (state, last):  # the weights of a finished run are those that it was judged by
        bare = dataclasses.replace(each, opt_state=None)
        what = (starts.problem_of(RUN, data), bare, data.test.images)
        moments = (data.mean, data.std, data.covariance)
        logits, _ = step.evaluate(RUN, *what, moments)  # type: ignore[arg-type]
        found.append(float((logits.argmax(-1) != data.test.labels).sum()))
    errors = json.loads((tmp_path / "cut" / "test.json").read_text())
    assert found[0] == round(errors["error"] * errors["count"]) != found[1]


def test_a_torn_last_line_is_passed_over_and_made_again(tmp_path: Path, datasets: Any) -> None:
    folder = tmp_path / "r"
    go({folder: RUN}, datasets)
    whole = curve(folder)
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text[: len(text) // 2])
    assert len(curve(folder)) < len(whole)
    go({folder: RUN}, datasets)
    assert curve(folder) == whole


# A damaged file leaves orbax's reading tasks behind, whose loop is then closed under them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("what", ["manifest.ocdbt", "_METADATA", "d"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    what: str, tmp_path: Path, datasets: Any
) -> None:
    folder = tmp_path / "r"
    calls = iter(range(100))
    with pytest.raises(train.Interrupted):  # a checkpoint after every dispatch
        go({folder: RUN}, datasets, stop=lambda: next(calls) > 3, saving=Saving(seconds=0.0))
    kept = sorted(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())
    assert len(kept) == 2
    newest = folder / "checkpoints" / str(kept[-1])
    for path in newest.rglob("*"):
        if path.is_file() and (path.name == what or path.parent.name == what):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    ticks = go({folder: RUN}, datasets)
    notes = [t.note for t in ticks if t.note]
    assert len(notes) == 1
    assert f"checkpoint at step {kept[-1]} is damaged" in notes[0]
    assert f"going on from step {kept[0]}" in notes[0]
    go({tmp_path / "whole": RUN}, datasets)
    assert curve(folder) == curve(tmp_path / "whole")


def test_all_checkpoints_damaged_means_from_the_start(tmp_path: Path, datasets: Any) -> None:
    folder = tmp_path / "r"
    go({folder: RUN}, datasets)
    whole = curve(folder)
    (folder / "result.json").unlink()
    for path in (folder / "checkpoints").rglob("_METADATA"):
        path.write_text("{")
    notes = [t.note for t in go({folder: RUN}, datasets) if t.note]
    assert notes and "going on from the start" in notes[-1]
    assert curve(folder) == whole


def test_other_data_under_the_same_name_are_refused(tmp_path: Path, datasets: Any) -> None:
    go({tmp_path / "r": RUN}, datasets)
    (tmp_path / "r" / "result.json").unlink()
    other = {RUN.data: dataclasses.replace(datasets[RUN.data], fingerprint="other")}
    with pytest.raises(InputError, match="has changed since"):
        go({tmp_path / "r": RUN}, other)


def test_a_run_held_by_another_launch_is_left_to_it(tmp_path: Path, datasets: Any) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    with records.lock(folder) as held:
        assert held
        generator = train.train({folder: RUN}, {folder: {}}, datasets)
        assert "another launch" in next(generator).note
    assert not (folder / "run.json").exists()
    list(generator)
    assert records.is_finished(folder)


def test_a_timed_run_is_alone_and_leaves_the_test_split(tmp_path: Path) -> None:
    exp = Experiment(
        claim="c",
        source="s",
        base=RUN,
        arms={"a": {"train.device": "cpu"}, "b": {"train.device": "gpu"}},
        predictions=(Prediction(Measure("step_time", "train"), "a", than="b"),),
        seeds=(0, 1),
        timed=True,
        name="e",
    )
    datasets, here = train.load_data([RUN, *sweep.all_runs(exp)], None), sweep.here(exp)
    ticks = list(sweep.run(here, tmp_path, datasets, preset="quick"))
    first, second = sorted(sweep.final_jobs(here, tmp_path) or {})
    places = [tick.folder for tick in ticks]
    assert set(places[: places.index(second)]) == {first} and first not in places[-1:]
    assert not list(tmp_path.rglob("test.json"))
    record = records.read(first)
    assert record is not None and "step_seconds" not in record.rows[0]
    times = [row["step_seconds"] for row in record.rows[1:]]
    assert min(times) > 0 and sum(5 * t for t in times) <= record.rows[-1]["seconds"] + 0.01


def test_the_test_split_is_read_for_the_chosen_runs_alone(tmp_path: Path, datasets: Any) -> None:
    exp = Experiment(
        claim="c",
        source="s",
        base=RUN,
        arms={"a": {}, "b": {"model.activation": "tanh"}},
        predictions=(Prediction(Measure("final", "test"), "a", than="b"),),
        tune={"optim.lr": (1e-6, 0.05)},
        tune_seeds=(0, 1),
        seeds=(0, 1, 2),
        name="tuned",
    )
    left, total = sweep.work(exp, tmp_path, datasets)
    assert left == total == 20 * 2 * (2 * 2 + 1)
    assert sweep.final_jobs(exp, tmp_path) is None
    list(sweep.run(exp, tmp_path, datasets, preset="default"))
    assert sweep.chosen_settings(exp, tmp_path) == {"a": "optim.lr=0.05", "b": "optim.lr=0.05"}
    tested = [json.loads((p.parent / "run.json").read_text()) for p in tmp_path.rglob("test.json")]
    assert sorted((i["arm"], i["config"]["seed"]) for i in tested) == [
        (arm, seed) for arm in "ab" for seed in (0, 1, 2)
    ]
    assert {i["config"]["optim"]["lr"] for i in tested} == {0.05}
    assert len(list(tmp_path.rglob("run.json"))) == 2 * (2 * 2 + 1)
    assert sweep.work(exp, tmp_path, datasets) == (0, total)
    assert experiment.folder(tmp_path, exp, "a", RUN).parent == tmp_path / "tuned" / "a"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.batch_size": 601}, "train.batch_size: 601 is larger than the 600"),
        ({"train.eval_train_examples": 601}, "train.eval_train_examples: 601 is larger"),
        ({"data.crop": 40}, "data.crop: 40 is larger"),
        ({"model.name": "lenet5_1998", "model.widths": "paper"}, "data.pad=2"),
    ],
)
def test_what_cannot_run_is_said_before_any_work(
    changes: dict[str, Any], said: str, datasets: Any
) -> None:
    run = override(RUN, changes)
    with pytest.raises(InputError, match=said):
        train.check([run], {run.data: datasets[RUN.data]})


def test_the_runs_of_a_program_are_traced_once(datasets: Any) -> None:
    runs = [override(RUN, {"seed": seed, "optim.lr": lr}) for seed in (0, 1) for lr in (0.1, 0.2)]
    train.trace.cache_clear()
    train.check(runs, datasets)
    counts = {train.parameters(run, train.problem_of(run, datasets[run.data])) for run in runs}
    assert counts == {28 * 28 * 8 + 8 + 8 * 10 + 10}
    assert train.trace.cache_info().misses == 1
