"""Margins, and who is who among people that no net has seen."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import faces, losses, models, nets, ops, records, step, train
from jaxcnn.checks import check
from jaxcnn.config import Data, InputError, Run, override
from jaxcnn.data import sources
from jaxcnn.data.sources import Dataset
from jaxcnn.experiment import Measure
from jaxcnn.faces import Pair
from jaxcnn.nets import Problem

Launch = Callable[..., tuple[int, str, str]]
HERE = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
ORL = Path(os.environ.get("JAXCNN_TEST_DATA", HERE)) / "orl_faces" / "orl_faces.npz"

# Margins


def test_the_margin_is_an_angle() -> None:
    """Against ArcFace's equation 3 with angles themselves."""
    rng = np.random.default_rng(0)
    angles = rng.uniform(0.1, 3.1, (50, 4))
    labels = rng.integers(0, 4, 50)
    m, s = 0.5, 8.0
    own = angles[np.arange(50), labels]
    assert 0 < (own + m > np.pi).sum() < 20
    larger = np.where(own + m < np.pi, np.cos(own + m), np.cos(own) - m * np.sin(m))
    scores = np.cos(angles)
    scores[np.arange(50), labels] = larger
    p = np.exp(s * scores)
    want = -np.log(p[np.arange(50), labels] / p.sum(1))
    logits = jnp.asarray(s * np.cos(angles), jnp.float32)
    mask = np.zeros(50, np.float32)
    mask[7] = 1
    margin = jax.jit(losses.margin)
    sums = margin(logits, jnp.asarray(labels), jnp.asarray(mask), m, s)
    np.testing.assert_allclose(sums["loss"], want[7], rtol=1e-4)
    sums = margin(logits, jnp.asarray(labels), jnp.ones(50), m, s)
    assert float(sums["errors"]) == (np.argmin(angles, 1) != labels).sum()
    np.testing.assert_allclose(sums["loss"], want.sum(), rtol=1e-4)
    without = margin(logits, jnp.asarray(labels), jnp.ones(50), 0.0, s)
    plain = losses.classification(logits, jnp.asarray(labels), jnp.ones(50))
    np.testing.assert_allclose(without["loss"], plain["loss"], rtol=1e-5)
    ends = jnp.array([[s, -s, 0.0, 0.0]])
    for label in (0, 1):

        def loss(x: jax.Array, label: int = label) -> jax.Array:
            return margin(x, jnp.array([label]), jnp.ones(1), m, s)["loss"]

        assert np.isfinite(jax.grad(loss)(ends)).all()


@pytest.mark.parametrize(
    "name", ["lenet5", "mlp", "alexnet_cifar", "vgg11_cifar", "googlenet_cifar", "resnet20"]
)
def test_scores_are_cosines_times_the_radius(name: str) -> None:
    run = override(Run(), {"model.name": name, "train.objective": "margin", "train.radius": 16.0})
    problem = Problem((32, 32, 1), 12, train_examples=200, steps=10)
    module = nets.build(run, problem, {})
    assert module.radius == 16
    variables = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False)
    )
    last = [name for name in nets.layers(run, problem) if not name.startswith("side_")][-1]
    assert set(variables["params"][last]) == {"kernel"}
    assert nets.five(run, problem)


def test_cosines_of_a_layer() -> None:
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    layer: Any = ops.output(3, "he_normal", jnp.float32, "last", radius=2.0)
    variables = layer.init(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["kernel"])
    lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(kernel, axis=0)[None]
    np.testing.assert_allclose(layer.apply(variables, x), 2 * x @ kernel / lengths, rtol=1e-4)
    slope = jax.grad(lambda x: layer.apply(variables, x).sum())(np.zeros_like(x))
    assert np.isfinite(slope).all()


@pytest.mark.slow
def test_a_run_by_margin() -> None:
    changes: dict[str, Any] = {"model.name": "mlp", "model.widths": (8,), "train.batch_size": 12}
    run = override(Run(), {**changes, "train.objective": "margin", "train.radius": 16.0})
    problem = Problem((6, 6, 1), 3, train_examples=12, steps=60)
    images = np.random.default_rng(0).integers(0, 255, (12, 6, 6, 1), np.uint8)
    labels = jnp.asarray(np.arange(12) % 3)
    moments = (jnp.full(1, 0.5), jnp.full(1, 0.25), jnp.full((1, 1), 0.0625))
    values = step.numbers(run)
    state = step.init_state(run, problem, values)
    output, _ = step.evaluate(run, problem, state, images, moments)  # type: ignore
    assert 0 < np.abs(output).max() <= 16
    once = jax.jit(
        lambda state: step.train_step(run, problem, state, images, labels, moments, values)
    )  # type: ignore
    seen = []
    for _ in range(60):
        state, sums = once(state)
        seen.append(float(sums["loss"]))
    mask = jnp.ones(12)
    judged = step.eval_step(run, problem, state, images, labels, moments, mask)  # type: ignore
    # The margin is of training alone: the same weights look better without.
    state, sums = once(state)
    assert float(judged["loss"]) < 0.7 * float(sums["loss"]) and seen[-1] < 0.3 * seen[0]


def test_what_has_no_margin() -> None:
    problem = Problem((32, 32, 1), 10, train_examples=12, steps=60)
    for name in ("autoencoder", "lenet5_1998"):
        run = override(Run(), {"model.name": name, "train.objective": "margin"})
        with pytest.raises(InputError, match=f"the last layer of {name} has no cosines"):
            nets.build(run, problem, {})
    with pytest.raises(InputError, match=r"train.radius: 32.0 is of train.objective margin, not"):
        check(override(Run(), {"train.radius": 32.0}))
    with pytest.raises(InputError, match=r"train.margin: 1.6 is not allowed"):
        check(override(Run(), {"train.margin": 1.6, "train.objective": "margin"}))
    with pytest.raises(InputError, match="label_smoothing"):
        check(override(Run(), {"train.objective": "margin", "train.label_smoothing": 0.1}))
    assert models.create_model("mlp").radius is None


# Who is who


def test_verification_against_every_threshold() -> None:
    rng = np.random.default_rng(0)
    same = rng.random(400) < 0.3
    scores = np.round(rng.normal(1.5 * same, 1.0), 1)  # many are equal
    found = faces.verification(scores, same)
    limits = np.unique(scores)[::-1]
    far = np.array([(scores[~same] >= limit).mean() for limit in limits])
    tar = np.array([(scores[same] >= limit).mean() for limit in limits])
    for rate in (0.1, 0.01):
        assert found.true_at(rate) == pytest.approx(tar[far <= rate].max(initial=0))
    assert np.isnan(found.true_at(0.001)) and found.pairs == ((~same).sum(), same.sum())
    nearest = np.argmin(np.abs(far - (1 - tar)))
    assert found.equal_error == pytest.approx((far[nearest] + 1 - tar[nearest]) / 2, abs=0.02)
    apart = faces.verification(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert (apart.equal_error, apart.true_at(0.5)) == (0, 1)
    told = np.array([False, True, True, False])
    crossed = faces.verification(np.array([0.1, 0.5, 0.8, 0.9]), told)
    assert (crossed.equal_error, crossed.true_at(0.5)) == (0.5, 1)
    blind = faces.verification(np.zeros(6), np.arange(6) < 3)
    assert blind.equal_error == pytest.approx(0.5)
    with pytest.raises(InputError, match="0 of 3 pairs are of one person"):
        faces.verification(np.zeros(3), np.zeros(3, bool))


def test_matches_by_hand() -> None:
    angles = np.array([0.0, 0.1, 1.0, 1.1, 2.0, 0.4])  # the last is of the third person
    embeddings = np.stack([np.cos(angles), np.sin(angles)], 1)
    labels = np.array([7, 7, 8, 8, 9, 9])
    # Enrolled are 0, 1, 2: of 0.1, 1.1, 0.4 the last is nearer to the others than to its own;
    # then 0.1, 1.1, 0.4: 0 and 1 are named, 2 is nearest to 1.1 and then to its own.
    np.testing.assert_allclose(faces.matches(embeddings, labels), [4 / 6, 5 / 6, 1])
    assert faces.matches(np.ones((6, 2)), labels)[0] == 0  # one point names nobody
    three = np.tile([0, 1], 3)
    wide = np.where(three[:, None] == [0, 1], 1.0, 0.1) + 0.01 * np.arange(6)[:, None]
    assert faces.matches(faces.normalized(wide), three, gallery=2)[0] == 1
    with pytest.raises(InputError, match="--gallery: 2; a person with 2 pictures has none left"):
        faces.matches(embeddings, labels, gallery=2)


def test_pairs_of_people(tmp_path: Path) -> None:
    file = tmp_path / "pairs.txt"
    good = ["2 1", "Ann 1 2", "Ann 3 Bob 1", "Bob 1 4", "Bob 2 Ann 10"]
    file.write_text("\n".join(good) + "\n")
    folds = faces.read_pairs(file)
    assert folds[0] == [
        Pair("Ann/Ann_0001", "Ann/Ann_0002", True),
        Pair("Ann/Ann_0003", "Bob/Bob_0001", False),
    ]
    assert folds[1][1].second == "Ann/Ann_0010"
    for bad, why in (
        (["300"], "must begin with how many folds and pairs"),
        (good[:-1], "has 3 pairs; 2 folds of 1 and 1 are 4"),
        (["1 2", *good[1:]], "two folds the least"),
        ([*good[:-1], "Bob 2 Ann"], "line 5: 'Bob 2 Ann'"),
        ([*good[:-1], "Bob 2"], "line 5: 'Bob 2'"),
    ):
        file.write_text("\n".join(bad))
        with pytest.raises(InputError, match=why):
            faces.read_pairs(file)
    with pytest.raises(InputError, match="lacks 7 of the 7 pictures of --pairs: Ann/Ann_0001"):
        faces.files(folds, tmp_path, (".jpg",))
    # The threshold of a fold is that of the others, whatever would be better there.
    own = {p: v for fold, v in zip(folds, (0.9, 0.3), strict=True) for p in fold if p.same}
    own |= {p: v for fold, v in zip(folds, (0.5, 0.1), strict=True) for p in fold if not p.same}
    accuracies, curve = faces.by_folds(folds, own.__getitem__)
    assert accuracies.tolist() == [0.5, 0.5] and curve.pairs == (2, 2)


def test_photos_of_any_size_as_arrays(tmp_path: Path, command: Launch) -> None:
    rng = np.random.default_rng(0)
    for split, kinds in (("train", ("apple", "pear")), ("val", ("pear",)), ("test", ("apple",))):
        for kind in kinds:
            (tmp_path / "fruit" / split / kind).mkdir(parents=True)
            for i, size in enumerate([(20, 30, 3), (40, 16, 3), (16, 16, 3)]):
                flat = np.full(size, 40 * i + 100 * (kind == "pear"), np.uint8)
                flat[0, :3] = rng.integers(0, 255, (3, 3))
                cv2.imwrite(str(tmp_path / "fruit" / split / kind / f"{i}.png"), flat)
    (tmp_path / "fruit" / "train" / "pear" / "9.jpg").write_bytes(b"no picture")
    file = tmp_path / "fruit.npz"
    code, out, err = command("prepare", tmp_path / "fruit", "--to", file, "--side", 16)
    assert (code, err) == (0, ""), err
    assert "train, 6 pictures; 1 could not be read" in out and "pear/9.jpg" in out
    found = sources.load(Data(name=str(file), validation_examples=3))
    assert found.image_shape == (16, 16, 3) and found.classes == ("apple", "pear")
    assert found.sizes == {"train": 6, "validation": 3, "test": 3}
    for part in (found.train, found.validation, found.test):
        middle = part.images[:, 8, 8, 0].astype(int)
        assert ((middle >= 100) == (part.labels == 1)).all() and len(set(middle)) > 2
    code, _, err = command("prepare", tmp_path / "fruit", "--to", file, "--form", "pixels")
    assert code == 2 and "--to names an array file" in err


@pytest.fixture(scope="module")
def orl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Olivetti Research Laboratory's 400 faces, as a data folder's file."""
    if not ORL.is_file():
        pytest.skip(f"no {ORL}: JAXCNN_TEST_DATA names the folder of orl_faces/orl_faces.npz")
    with np.load(ORL) as stored:
        images, labels = stored["images"], stored["subject"] - 1
    path = tmp_path_factory.mktemp("data") / "orl.npz"
    np.savez(path, train_images=images[:, ::2, ::2], train_labels=labels)
    return path


def test_people_of_the_test_split_are_not_trained_on(orl: Path) -> None:
    data = Data(name=str(orl), validation_examples=0, unseen=15)
    found = sources.load(data)
    assert set(found.train.labels) == set(range(25)) and set(found.test.labels) == set(
        range(25, 40)
    )
    assert len(found.classes) == 25 and found.sizes == {"train": 250, "validation": 0, "test": 150}
    whole = sources.load(Data(name=str(orl), validation_examples=0, test_per_class=1))
    people = [
        {whole.classes[k] for k in set(_owners(whole, part.images))}
        for part in (found.train, found.test)
    ]
    assert not people[0] & people[1] and people[0] == set(found.classes)
    other = sources.load(dataclasses.replace(data, split_seed=1))
    assert other.classes != found.classes
    asked = {"data.name": str(orl), "data.unseen": 15}
    for more, why in (
        ({"data.test_per_class": 2}, "only one of them can make the test split"),
        ({"model.name": "knn"}, "knn has no embedding"),
        ({"train.objective": "scalar"}, "neither 'classification' nor 'margin'"),
        ({"data.stream": True}, "data.unseen: 15 is of pictures in memory"),
        ({"data.unseen": 1}, "data.unseen: 1 is not allowed; it must be at least 2"),
    ):
        with pytest.raises(InputError, match=why):
            check(override(Run(), {**asked, **more}))
    with pytest.raises(InputError, match="data.unseen: 39 leaves 1 of the 40 classes"):
        sources.load(dataclasses.replace(data, unseen=39))
    with pytest.raises(InputError, match="'mnist' has a split of its own beside train"):
        sources.load(Data(unseen=3))
    with pytest.raises(InputError, match="'eer' is of people whom the net has not seen"):
        Measure("final", "validation", "eer")
    # Eigenfaces of 25 people know 15 others better than chance, and worse than a net should.
    eigenfaces = faces.baselines(found, "test")[1]
    assert eigenfaces.name == "100 eigenfaces" and eigenfaces.matches[-1] == 1
    assert 0.5 < eigenfaces.rank1 < 0.9 and 0.1 < eigenfaces.verification.equal_error < 0.3


def _owners(whole: Dataset, images: np.ndarray) -> list[int]:
    """Whose pictures they are."""
    parts = (whole.train, whole.test)
    known = {i.tobytes(): int(k) for s in parts for i, k in zip(s.images, s.labels, strict=True)}
    return [known[image.tobytes()] for image in images]


@pytest.mark.slow
def test_a_net_knows_people_whom_it_has_not_seen(
    orl: Path, command: Launch, tmp_path: Path
) -> None:
    run = override(
        Run(),
        {
            "model.name": "lenet5",
            "model.activation": "relu",
            "model.pool": "max",
            "model.batch_norm": True,
            "data.name": str(orl),
            "data.validation_examples": 0,
            "data.unseen": 10,
            "data.shift": 3,
            "data.flip": True,
            "optim.name": "adam",
            "optim.lr": 0.003,
            "optim.schedule": "cosine",
            "train.objective": "margin",
            "train.radius": 16.0,
            "train.margin": 0.2,
            "train.batch_size": 30,
            "train.steps": 250,
            "train.eval_every": 250,
            "train.eval_train_examples": 100,
        },
    )
    folder, data = tmp_path / "run", train.load_data([run], None)
    for _ in train.train({folder: run}, {folder: {"command": "python"}}, data):
        pass
    for _ in train.test({folder: run}, data):
        pass
    record = records.read(folder)
    assert record is not None and record.test is not None and record.test["count"] == 100
    assert record.test["error"] < 0.5 and record.test["eer"] < 0.3

    code, out, err = command("faces", folder, "--out", tmp_path)
    assert (code, err) == (0, ""), err
    line = next(line for line in out.splitlines() if "F6" in line)
    rank1, _, eer = map(float, re.findall(r"\d+\.\d\d", line)[:3])
    assert rank1 == pytest.approx(100 * (1 - record.test["error"]), abs=0.01)
    assert eer == pytest.approx(100 * record.test["eer"], abs=0.01)
    assert "100 pictures of 10 people, none of whom" in out and "450 pairs of one person" in out
    for kind in ("roc", "cmc"):
        picture = cv2.imread(str(tmp_path / f"test.{kind}.png"))
        assert picture is not None and picture.std() > 5
    code, _, err = command("faces", folder, "--layer", "conv9")
    assert code == 2 and "--layer: 'conv9' is not one of" in err

    # The same people as files, in pairs.
    whole = data[run.data]
    assert isinstance(whole, Dataset)
    lines = ["5 4"]
    for k in range(10):
        own = whole.test.images[whole.test.labels == 30 + k]
        (tmp_path / f"p{k}").mkdir()
        for i, picture in enumerate(own, 1):
            cv2.imwrite(str(tmp_path / f"p{k}" / f"p{k}_{i:04d}.png"), picture)
    for fold in range(5):
        lines += [f"p{2 * fold} {i} {i + 1}" for i in range(1, 5)]
        lines += [f"p{2 * fold} {i} p{2 * fold + 1} {i + 2}" for i in range(1, 5)]
    file = tmp_path / "pairs.txt"
    file.write_text("\n".join(lines))
    code, out, err = command("faces", folder, "--pairs", file, "--pictures", tmp_path)
    assert (code, err) == (0, ""), err
    line = next(line for line in out.splitlines() if "F6" in line)
    accuracy = float(re.findall(r"\d+\.\d\d", line)[0])
    assert accuracy >= 70 and " 40 " in line and (folder / "faces" / "pairs.roc.png").is_file()
    code, _, err = command("faces", folder, "--pairs", file)
    assert code == 2 and "--pictures their folder" in err
