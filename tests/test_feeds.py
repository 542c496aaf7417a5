"""Training from a stream: the numbers do not depend on chunks, stops or kills; what cannot be read
is counted nowhere.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from photographs import jpeg, make, photo

import launch
from jaxcnn import cohorts, feeds, nets, records, sharding, step, train, trained
from jaxcnn.config import Data, Model, Optim, Run, Train, override
from jaxcnn.data import photos, pictures
from jaxcnn.data.stream import Stream

REPOSITORY = Path(__file__).resolve().parent.parent
SIDE = 20
CLASSES = tuple(f"n{i:08d}" for i in range(12))
RUN = Run(
    model=Model(name="mlp", widths=(16,), activation="relu", dropout=0.2),
    data=Data(
        name="photos",
        stream=True,
        side=SIDE,
        validation_examples=11,
        crop=16,
        scale=1.5,
        flip=True,
        color=0.1,
    ),
    optim=Optim(lr=0.02),
    train=Train(batch_size=8, steps=17, eval_every=5, eval_train_examples=19),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/: 60 pictures to train on, 24 to test on; damaged/: the same, some not readable."""
    root = tmp_path_factory.mktemp("place")
    for name in ("photos", "damaged"):
        make(root / name, "train", 5, CLASSES)
        make(root / name, "val", 2, CLASSES)
    for split, numbers in (("train", (0, 3)), ("val", (1,))):
        for k in numbers:
            path = root / "damaged" / split / CLASSES[2] / f"{CLASSES[2]}_{k}.JPEG"
            path.write_bytes(path.read_bytes()[:-2])
    return root


def load(run: Run, place: Path) -> Mapping[Data, Any]:
    return train.load_data([run], place)


def go(jobs: dict[Path, Run], place: Path, **options: Any) -> list[train.Tick]:
    labels = {folder: {"experiment": "e", "arm": "a"} for folder in jobs}
    datasets = train.load_data(jobs.values(), place)
    ticks = list(train.train(jobs, labels, datasets, **options))
    return ticks + list(train.test(jobs, datasets))


def left(folder: Path) -> tuple[Any, ...]:
    """All that a run leaves, but for clocks: curve, test errors, weights."""
    record = records.read(folder)
    assert record is not None and record.result is not None
    rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in record.rows]
    last = folder / "checkpoints" / str(record.result["step"]) / "default"
    tree = ocp.PyTreeCheckpointer().restore(last)
    weights = [np.asarray(a).tobytes() for a in jax.tree.leaves(tree)]
    assert len(weights) > 8
    return rows, record.test, weights


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> tuple[Any, ...]:
    folder = place / "undisturbed"
    assert not [tick.note for tick in go({folder: RUN}, place) if tick.note]
    return left(folder)


def test_the_curve_has_its_points_and_top_5_errors(undisturbed: tuple[Any, ...]) -> None:
    rows, test, _ = undisturbed
    assert [row["step"] for row in rows] == [0, 5, 10, 15, 17]
    assert rows[1]["batch"]["count"] == 5 * 8 and rows[-1]["batch"]["count"] == 2 * 8
    for row in rows:
        counts = row["train"]["count"], row["validation"]["count"]
        assert counts == (19, 11) and row["train"]["error5"] <= row["train"]["error"]
    assert test["count"] == 24 and 0 < test["error5"] < test["error"]
    assert "error5" not in rows[1]["batch"]


@pytest.mark.parametrize("batches", [1, 2])
def test_numbers_do_not_depend_on_chunks(
    batches: int, undisturbed: tuple[Any, ...], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohorts, "CHUNK_BYTES", batches * 8 * SIDE * SIDE * 3)
    run = override(RUN, {"optim.milestones": (0.1 * batches,)})  # unused: another compiled program
    problem = train.problem_of(run, load(run, place)[run.data])
    assert cohorts.chunk(run, problem) == batches
    assert cohorts.chunk(RUN, problem) == batches
    folder = place / f"chunks{batches}"
    go({folder: run}, place)
    (rows, test, weights), (all_rows, all_test, all_weights) = left(folder), undisturbed
    assert weights == all_weights
    assert [row.get("batch") for row in rows] == [row.get("batch") for row in all_rows]
    # The sums of an evaluation's chunks are added in float64, those within one in float32.
    for row, other in zip([test, *rows], [all_test, *all_rows], strict=True):
        for split in ("train", "validation") if "train" in row else (None,):
            one, two = (r if split is None else r[split] for r in (row, other))
            assert one == pytest.approx(two, rel=1e-6)


def test_a_stopped_run_ends_as_an_undisturbed_one(
    undisturbed: tuple[Any, ...], place: Path
) -> None:
    folder = place / "cut"
    stops = 0
    while stops < 30:
        calls = iter(range(100))
        try:
            go({folder: RUN}, place, stop=lambda calls=calls: next(calls) > 0)
            break
        except train.Interrupted:
            stops += 1
    assert 2 < stops < 30
    assert left(folder) == undisturbed


def test_steps_are_those_of_the_stream_one_by_one(place: Path) -> None:
    """The loop's chunks against `train_step` on each batch of the stream of the run's seed."""
    data = load(RUN, place)[RUN.data]
    problem = train.problem_of(RUN, data)
    mesh = sharding.make_mesh(1, 1)
    program = cohorts.program(step.static(RUN), problem, mesh)
    values = sharding.put(mesh, cohorts.stack([RUN]), "run")
    carry = program.init(values)
    state = jax.tree.map(lambda a: a[0], carry.state)
    moments = (data.mean, data.std, data.covariance)
    one = jax.jit(
        lambda s, x, y: step.train_step(RUN, problem, s, x, y, moments, step.numbers(RUN))[0]
    )
    with Stream(data.train, 8, seed=0, training=True, epochs=3).batches() as batches:
        for _ in range(9):
            state = one(state, *next(batches))
    feed = feeds.feed(RUN, problem, program, values, data, 0, lambda _: None)
    at = 0
    while at < 9:
        order, chunk, position, more = feed.steps(at)
        n = min(more, 4, 9 - at)
        carry = program.advance(carry, values, order, chunk, position, n)
        at += n
    feed.close()
    assert int(carry.state.step[0]) == 9
    for got, want in zip(
        jax.tree.leaves(carry.state.params), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_allclose(got[0], want, rtol=1e-4, atol=1e-6)


def test_an_evaluation_is_that_of_all_pictures_at_once(place: Path) -> None:
    data = load(RUN, place)[RUN.data]
    problem = train.problem_of(RUN, data)
    program = cohorts.program(step.static(RUN), problem, sharding.make_mesh(1, 1))
    state = program.init(cohorts.stack([RUN])).state
    one = jax.tree.map(lambda a: a[0], state)
    moments = (data.mean, data.std, data.covariance)
    for split, count in (("train", 19), ("validation", 11), ("test", 24)):
        read = [photos.read(getattr(data, split), i) for i in range(count)]
        images, labels = np.stack([i for i, _ in read]), np.array([n for _, n in read])
        logits, _ = step.evaluate(RUN, problem, one, images, moments)  # type: ignore[arg-type]
        best = np.argsort(-np.asarray(logits), -1)
        [means] = feeds.evaluate(program, RUN, problem, state, data, split)
        assert means["count"] == count
        for name, k in (("error", 1), ("error5", 5)):
            wrong = (best[:, :k] != labels[:, None]).all(-1).mean()
            assert means[name] == pytest.approx(wrong)


def test_seeds_see_other_orders_and_are_trained_one_after_the_other(
    undisturbed: tuple[Any, ...], place: Path
) -> None:
    jobs = {place / f"seeds/{seed}": override(RUN, {"seed": seed}) for seed in (0, 1)}
    ticks = go(jobs, place)
    assert not [tick.note for tick in ticks if tick.note]
    assert left(place / "seeds/0") == undisturbed
    assert left(place / "seeds/1")[0][1]["batch"] != undisturbed[0][1]["batch"]
    source = load(RUN, place)[RUN.data].train
    labels = []
    for seed in (0, 1):
        with Stream(source, 8, seed=seed, training=True).batches() as batches:
            labels.append(next(batches)[1].tolist())
    assert labels[0] != labels[1]


def test_what_cannot_be_read_is_named_and_counted_nowhere(place: Path) -> None:
    run = override(RUN, {"data.name": "damaged", "train.eval_train_examples": 49})
    folder = place / "unread"
    notes = [tick.note for tick in go({folder: run}, place) if tick.note]
    assert "pictures that cannot be read are left out" in notes[0]
    assert len(notes) <= 3  # each is told of once
    rows, test, _ = left(folder)
    counts = {(row["train"]["count"] + row["validation"]["count"]) for row in rows}
    assert counts == {49 + 11 - 2} and test["count"] == 23
    assert [row["batch"]["count"] for row in rows[1:]] == [40, 40, 40, 16]
    named = json.loads((folder / "unreadable.json").read_text())
    names = {split: set(found) for split, found in named.items()}
    assert names["test"] == {f"{CLASSES[2]}/{CLASSES[2]}_1.JPEG"}
    both = {f"{CLASSES[2]}/{CLASSES[2]}_{k}.JPEG" for k in (0, 3)}
    assert names.get("train", set()) | names.get("validation", set()) == both
    assert named["test"][f"{CLASSES[2]}/{CLASSES[2]}_1.JPEG"] == "it is cut off"


def test_a_trained_run_sees_pictures_of_any_size(undisturbed: Any, place: Path) -> None:
    source = trained.load(place / "undisturbed", place)
    raw = jpeg(photo(0, 61, 50))
    (place / "one.jpg").write_bytes(raw)
    shares = trained.probabilities(source, [place / "one.jpg"])
    assert shares.shape == (1, 12) and shares.sum() == pytest.approx(1, abs=1e-5)
    image = pictures.square(pictures.decode(raw, SIDE))
    moments = (source.data.mean, source.data.std, source.data.covariance)
    logits, _ = step.evaluate(source.run, source.problem, source.state, image[None], moments)  # type: ignore[arg-type]
    np.testing.assert_allclose(shares, jax.nn.softmax(logits), rtol=1e-5)


def test_a_trained_run_is_judged_by_other_crops(
    undisturbed: Any, place: Path, tmp_path: Path, command: Any
) -> None:
    """One crop is what its record has; ten are the mean over them; other pictures may be named."""
    folder, file = place / "undisturbed", tmp_path / "said.json"

    def said(*more: object) -> dict[str, Any]:
        code, out, err = command("evaluate", folder, *more, "--data-dir", place, "--out", file)
        assert code == 0, err
        assert str(folder) in out.replace("\n", "") and "published" not in out
        return json.loads(file.read_text())

    _, test, _ = undisturbed
    for more in ((), ("--data", place / "photos"), ("--resize", SIDE)):
        one = said(*more)
        assert one["top1"]["errors"] == round(24 * test["error"]), more
        assert one["top5"]["errors"] == round(24 * test["error5"])
    source = trained.load(place / "undisturbed", place)
    part = source.data.test
    images, labels = map(np.array, zip(*(photos.read(part, i) for i in range(24)), strict=True))
    shares = 0
    for i, j in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)):
        crop = images[:, i : i + 16, j : j + 16]
        for seen in (crop, crop[:, :, ::-1]):
            x = (seen / 255 - source.data.mean) / source.data.std
            logits, _ = nets.build(source.run, source.problem, {}).apply(
                {"params": source.state.params}, x.astype(np.float32), train=False
            )
            shares += jax.nn.softmax(logits)
    wrong = int((np.asarray(shares).argmax(-1) != labels).sum())
    assert said("--crops", 10, "--batch-size", 5)["top1"]["errors"] == wrong
    assert said("--crops", "dense", "--resize", 24, 20, 16)["resize"] == [24, 20, 16]
    refused = {
        ("--weights", "x.pth"): "--weights, --synsets, --input, --trust: RUN has its own",
        ("--resize", 12): "--resize: 12 is less than the 16 pixels of 'mlp'",
        ("--wordnet",): "--wordnet: 12 of the 12 classes",
    }
    for more, words in refused.items():
        code, _, err = command("evaluate", folder, *more, "--data-dir", place)
        assert code == 2 and words in err, err
    code, _, err = command("evaluate", place, "--data", place)
    assert code == 2 and "--weights: none; needed where" in err


EXPERIMENT = """from jaxcnn.config import Compress, Data, Model, Optim, Run, Start, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

EXPERIMENT = Experiment(
    claim="a test",
    source="here",
    base={run},
    arms={{"slow": {{"optim.lr": 0.001}}, "fast": {{"optim.lr": 0.02}}}},
    predictions=(Prediction(Measure("final", "test", "error5"), "fast", than="slow"),),
    seeds=(0,),
)
"""


def test_an_experiment_whose_pictures_are_not_here_is_passed_over(
    command: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone.py").write_text(EXPERIMENT.format(run=override(RUN, {"data.name": "gone"})))
    monkeypatch.setattr(launch.experiment, "EXPERIMENTS", tmp_path)
    arguments = ("--out", tmp_path / "runs", "--data-dir", place)
    code, out, err = command("run", "--all", *arguments)
    assert (code, err) == (0, "") and "failed" not in out
    assert "note: gone is passed over: data.stream: true needs a folder" in out
    code, _, err = command("run", "gone", *arguments)
    assert code == 2 and "data.stream: true needs a folder" in err and err.count("\n") == 1


@pytest.mark.slow
def test_from_pictures_to_a_report(
    command: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, data in (("here", "photos"), ("gone", "gone")):
        run = override(RUN, {"data.name": data})
        (tmp_path / f"{name}.py").write_text(EXPERIMENT.format(run=run))
    monkeypatch.setattr(launch.experiment, "EXPERIMENTS", tmp_path)
    code, out, err = command("run", "--all", "--out", tmp_path / "runs", "--data-dir", place)
    assert (code, err) == (0, "") and "gone is passed over" in out
    assert "test top-5 error" in out and "failed" not in out
    report = tmp_path / "runs/here/reports/default/curves.svg"
    assert "Validation, top-5" in report.read_text()


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one(
    place: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    run = override(RUN, {"train.steps": 400, "train.eval_every": 20})
    (tmp_path / "killed.py").write_text(EXPERIMENT.format(run=run))

    def start(out: str) -> subprocess.Popen[str]:
        arguments = ["launch.py", "run", tmp_path / "killed.py", "--out", tmp_path / out]
        arguments += ["--data-dir", place, "--arms", "fast", "--checkpoint-every", "0.1"]
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def lines() -> int:
        files = (tmp_path / "killed").glob("killed/*/*/metrics.jsonl")
        return sum(len(path.read_bytes().splitlines()) for path in files)

    kills = 0
    while True:
        process, before = start("killed"), lines()
        while process.poll() is None and lines() < before + 3:
            time.sleep(0.01)
        if process.poll() is not None or kills == 4:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert kills == 4
    whole = start("whole")
    out, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, out
    [one], [other] = ((tmp_path / n).glob("killed/fast/seed0-*") for n in ("killed", "whole"))
    assert left(one) == left(other)


@pytest.mark.slow
def test_devices_that_share_a_batch_exchange_gradients_and_no_pictures(place: Path) -> None:
    data = load(RUN, place)[RUN.data]
    problem, mesh = train.problem_of(RUN, data), sharding.make_mesh(1, 2)
    program = cohorts.program(step.static(RUN), problem, mesh)
    values = sharding.put(mesh, cohorts.stack([RUN]), "run")
    feed = feeds.feed(RUN, problem, program, values, data, 0, lambda _: None)
    order, chunk, position, _ = feed.steps(0)
    feed.close()
    assert {shard.data.shape[1] for shard in chunk.images.addressable_shards} == {8 // 2}
    lowered = program.advance.lower(program.init(values), values, order, chunk, position, 1)  # type: ignore[attr-defined]
    text = lowered.compile().as_text()
    assert "all-reduce" in text
    for other in ("all-gather", "all-to-all", "collective-permute"):
        assert other not in text, other


def test_a_chunk_is_of_whole_batches_within_its_bytes(place: Path) -> None:
    problem = train.problem_of(RUN, load(RUN, place)[RUN.data])
    large = dataclasses.replace(problem, image_shape=(256, 256, 3), steps=1000)
    many = override(RUN, {"train.batch_size": 256})
    assert cohorts.chunk(many, large) == 1
    assert cohorts.chunk(override(RUN, {"train.batch_size": 32}), large) == 10
    assert cohorts.chunk(RUN, problem) == 17  # all there are
    assert cohorts.chunk(RUN, dataclasses.replace(problem, steps=1000)) == cohorts.MOST
    assert train.examples(load(RUN, place)[RUN.data], RUN, problem) == 17 * 8
