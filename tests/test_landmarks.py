"""Points on faces: how they move with their picture, their error, and a run that finds them."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import export, landmarks, losses, records, train, trained
from jaxcnn.checks import check
from jaxcnn.config import Data, InputError, Run, override
from jaxcnn.data import augment, sources

Launch = Callable[..., tuple[int, str, str]]
MOMENTS = (jnp.zeros(1), jnp.ones(1), jnp.eye(1))
MIRROR = np.array(landmarks.points(68).mirror)


def test_a_mirror_of_a_mirror_is_the_face() -> None:
    assert sorted(MIRROR) == list(range(68))
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(68))
    # the chin, the nose's ridge and tip, the lips' middles
    alone = {8, 27, 28, 29, 30, 33, 51, 57, 62, 66}
    assert set(np.flatnonzero(MIRROR == np.arange(68))) == alone
    # a jaw's end, a brow's, an eye's corners and lids, the mouth's corners
    for a, b in ((0, 16), (17, 26), (36, 45), (39, 42), (37, 44), (41, 46), (48, 54), (60, 64)):
        assert MIRROR[a] == b


@pytest.mark.parametrize(
    "changes",
    [{"pad": 2}, {"shift": 3}, {"crop": 20}, {"flip": True}]
    + [{"pad": 1, "shift": 2, "crop": 22, "flip": True}],
)
def test_points_move_with_their_picture(changes: dict[str, Any]) -> None:
    """A bright pixel at one point of each picture is where that point comes to be."""
    data = dataclasses.replace(Data(normalize="unit"), **changes)
    rng = np.random.default_rng(0)
    points = rng.integers(8, 16, (40, 68, 2)).astype(np.float32)
    images, which = np.zeros((40, 24, 24, 1), np.uint8), rng.integers(0, 68, 40)
    for i, k in enumerate(which):
        x, y = points[i, k].astype(int)
        images[i, y, x] = 255
    key = jax.random.key(3)
    views = {
        "training": augment.augment(key, images, data, *MOMENTS, 0.0, 0.0),  # type: ignore
        "evaluation": augment.evaluate_view(images, data, *MOMENTS[:2]),  # type: ignore
    }
    found = {
        "training": augment.points(key, jnp.asarray(points), data, (24, 24, 1)),
        "evaluation": augment.evaluate_points(jnp.asarray(points), data, (24, 24, 1)),
    }
    flipped = 0
    for name, view in views.items():
        assert view.shape[1:] == augment.image_shape(data, (24, 24, 1))
        for i, k in enumerate(which):
            y, x = np.unravel_index(np.argmax(view[i]), view.shape[1:3])
            here = [tuple(map(int, found[name][i, j])) for j in (k, MIRROR[k])]
            assert (x, y) in here
            flipped += (x, y) == here[1] != here[0]
    assert (flipped > 5) == bool(changes.get("flip"))


@pytest.mark.slow
def test_points_turn_with_their_picture() -> None:
    """A soft spot at one point of each picture is where that point comes to be; angles and factors
    are within their bounds, and reach them.
    """
    data = Data(normalize="unit", shift=2, flip=True, rotate=40.0, zoom=1.5)
    points = np.random.default_rng(0).uniform(10, 20, (60, 68, 2)).astype(np.float32)
    away = np.indices((31, 31))[::-1, None] - points[:, 27].T[:, :, None, None]
    images = np.rint(255 * np.exp(-np.square(away).sum(0) / 8)).astype(np.uint8)[..., None]
    key, numbers = jax.random.key(3), (data.rotate, data.zoom)
    view = augment.augment(key, images, data, *MOMENTS, 0, 0, 1, 1, 1, *numbers)  # type: ignore
    found = np.asarray(augment.points(key, jnp.asarray(points), data, (31, 31, 1), *numbers))
    weights = np.asarray(view / view.sum((1, 2), keepdims=True))[..., 0]
    y, x = ((weights * place).sum((1, 2)) for place in np.indices((31, 31)))
    np.testing.assert_allclose(found[:, 27], np.stack([x, y], -1), atol=0.3)  # 27: its own mirror
    before, after = points[:, 30] - points[:, 27], found[:, 30] - found[:, 27]
    ratio = after @ [1, 1j] / (before @ [1, 1j])
    straight = np.abs(np.angle(ratio, deg=True)) < 40.1  # the others are mirrored
    assert 20 < straight.sum() < 60 and 30 < np.abs(np.angle(ratio, deg=True))[straight].max()
    assert 1 / 1.501 < np.abs(ratio).min() < 0.72 and 1.4 < np.abs(ratio).max() < 1.501


def test_the_error_is_in_distances_of_the_eyes() -> None:
    points = np.zeros((3, 68, 2), np.float32)
    points[:, 45, 0] = 20.0  # the corners of the eyes are 20 pixels apart
    points += 5.0
    off = np.zeros((3, 68, 2), np.float32)
    off[0, :, 1], off[1, :34, 0] = 4.0, 1.0  # all by 4 pixels; half of them by 1
    half = np.array([40, 30]) / 2
    output = ((points + off - (half - 0.5)) / half).reshape(3, 136)
    sums = losses.landmarks(jnp.asarray(output), jnp.asarray(points), (30, 40), jnp.ones(3))
    np.testing.assert_allclose(sums["loss"], 4 / 20 + 0.5 / 20, atol=2e-3)
    assert (float(sums["errors"]), float(sums["count"])) == (1, 3)
    masked = losses.landmarks(
        jnp.asarray(output), jnp.asarray(points), (30, 40), jnp.array([0.0, 1.0, 1.0])
    )
    np.testing.assert_allclose(masked["loss"], 0.5 / 20, atol=1e-3)
    assert (float(masked["errors"]), float(masked["count"])) == (0, 2)
    exact = (points - (half - 0.5)) / half
    slope = jax.grad(lambda o: losses.landmarks(o, points, (30, 40), jnp.ones(3))["loss"])(  # type: ignore
        jnp.asarray(exact.reshape(3, 136))
    )
    assert np.isfinite(slope).all()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces that are a bright square somewhere, of 20 people; the points lie on its border."""
    rng = np.random.default_rng(0)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        images = rng.integers(0, 40, (n, 32, 32), np.uint8)
        unit = np.stack([np.linspace(0, 11, 68), np.tile([0.0, 11.0], 34)], -1)
        points = np.zeros((n, 68, 2), np.float32)
        for i in range(n):
            x, y = rng.integers(2, 18, 2)
            images[i, y : y + 12, x : x + 12] = 220
            points[i] = unit + (x, y)
        return images, points

    contents: dict[str, Any] = {}
    for split, n in (("train", 300), ("test", 60)):
        contents[f"{split}_images"], contents[f"{split}_points"] = drawn(n)
    contents["train_groups"] = np.arange(300) % 20
    path = tmp_path_factory.mktemp("data") / "squares.npz"
    np.savez(path, **contents)
    return path


def test_validation_is_of_other_people(file: Path) -> None:
    data = Data(name=str(file), validation_examples=100)
    found = sources.load(data)
    assert [len(s.labels) for s in (found.train, found.validation, found.test)] == [210, 90, 60]
    people = [set(s.groups) for s in (found.train, found.validation) if s.groups is not None]
    assert not people[0] & people[1] and len(people[0] | people[1]) == 20
    small = sources.load(dataclasses.replace(data, resize=16))
    want = (found.test.labels + 0.5) / 2 - 0.5
    np.testing.assert_allclose(small.test.labels, want, atol=1e-5)
    with pytest.raises(InputError, match="'classification' is not of .* have the points of faces"):
        few = {"data.name": str(file), "train.eval_train_examples": 100}
        train.problem_of(override(Run(), few), found)
    with pytest.raises(InputError, match="data.scale: 1.2 has no use beside"):
        check(override(Run(), {"train.objective": "landmarks", "data.scale": 1.2, "data.crop": 20}))


def test_points_are_those_of_the_picture_in_the_file(
    file: Path, command: Launch, tmp_path: Path
) -> None:
    """Which the net sees at half its size."""
    changes = {"model.name": "mlp", "model.widths": (4,), "data.name": str(file)}
    changes |= {"data.resize": 16, "data.validation_examples": 60, "train.objective": "landmarks"}
    changes |= {"train.steps": 2, "train.eval_every": 2, "train.eval_train_examples": 100}
    run = override(Run(), changes)
    folder, data = tmp_path / "run", train.load_data([run], None)
    for _ in train.train({folder: run}, {folder: {"command": "python"}}, data):
        pass
    with np.load(file) as stored:
        picture = stored["test_images"][0]
    face = tmp_path / "face.png"
    cv2.imwrite(str(face), picture)
    code, out, err = command("predict", folder, face)
    assert (code, err) == (0, ""), err
    for ending in ("png", "csv"):
        assert f"Written: {folder / 'predict' / f'face.points.{ending}'}" in out
    said = np.loadtxt(folder / "predict" / "face.points.csv", delimiter=",", skiprows=1)
    source = trained.load(folder)
    half = trained.judged(source, "test").found[0]
    np.testing.assert_array_equal(said[:, 0], np.arange(68))
    np.testing.assert_allclose(said[:, 1:], 2 * half + 0.5, atol=0.01)
    ((drawn, points),) = trained.face_points(source, [face])
    np.testing.assert_array_equal(drawn, picture)
    np.testing.assert_allclose(points, said[:, 1:], atol=0.01)
    for path in export.export(folder, "c", tmp_path):
        assert path.is_file()
    about = path.read_text()
    assert " test examples of 68 points" in about and "Points: 68, x and y of each in" in about


NETS = {
    "lenet5": {"model.name": "lenet5", "model.activation": "relu"},
    "heatmaps": {"model.name": "vgg11_cifar", "model.widths": (8, 16, 16), "model.heatmaps": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_a_net_learns_to_find_them(net: str, file: Path, command: Launch, tmp_path: Path) -> None:
    run = override(
        Run(),
        {
            **NETS[net],
            "data.name": str(file),
            "data.validation_examples": 60,
            "data.shift": 2,
            "optim.name": "adam",
            "optim.lr": 0.003,
            "train.objective": "landmarks",
            "train.batch_size": 32,
            "train.steps": 150,
            "train.eval_every": 150,
            "train.eval_train_examples": 100,
        },
    )
    folder, data = tmp_path / "run", train.load_data([run], None)
    for _ in train.train({folder: run}, {folder: {"command": "python"}}, data):
        pass
    for _ in train.test({folder: run}, data):
        pass
    record = records.read(folder)
    assert record is not None and record.test is not None
    first, last = (record.rows[i]["validation"]["loss"] for i in (0, -1))
    if net == "lenet5":  # which begins with the mean face, whatever it sees
        train_, told = (getattr(data[run.data], s).labels for s in ("train", "validation"))
        eyes = np.linalg.norm(told[:, 36] - told[:, 45], axis=-1)
        away = np.linalg.norm(told - train_.mean(0), axis=-1).mean(1)
        assert first == pytest.approx((away / eyes).mean(), rel=1e-3)
    assert last < 0.3 * first
    found = trained.judged(trained.load(folder), "test")
    np.testing.assert_allclose(found.errors.mean(), record.test["loss"], rtol=1e-3)
    assert (found.errors > 0.1).mean() == pytest.approx(record.test["error"], abs=0.02)

    code, out, err = command("landmarks", folder, "--out", tmp_path)
    assert (code, err) == (0, "")
    wanted = f"test, 60 faces: normalised mean error {100 * found.errors.mean():.2f} %"
    assert wanted in out and re.search(r"failures, above 8 %: \d+\.\d\d %", out)
    assert f"median {100 * np.median(found.errors):.2f} %" in " ".join(out.split())
    face = tmp_path / "face.png"
    cv2.imwrite(str(face), found.images[0])
    layer = {"lenet5": "C1", "heatmaps": "conv1_1"}[net]
    code, out, err = command("predict", folder, face, "--show", layer)
    assert (folder / "predict" / f"face.{layer}.png").is_file()
    drawn = folder / "predict" / "face.points.png"
    assert (code, err) == (0, "") and f"Written: {drawn}" in out
    for path in (drawn, tmp_path / "test.faces.png", tmp_path / "test.cumulative_errors.png"):
        picture = cv2.imread(str(path))
        assert picture is not None and picture.std() > 5
