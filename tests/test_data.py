"""Sources: what is read is what was stored, split once; what is not there is one clear line."""

import dataclasses
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxcnn.config import Data, InputError
from jaxcnn.data.sources import Dataset, Split, load

SHAPE = (5, 4)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt is a failure, even one that is caught by whoever made it."""
    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert attempts == []


def rows(*splits: Split) -> list[bytes]:
    """The examples of the splits, in an order that does not depend on theirs."""
    return sorted(
        image.tobytes() + bytes([label])
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    )


def arrays(train: int = 40, test: int = 12, channels: tuple[int, ...] = (), classes: int = 4):
    rng = np.random.default_rng(0)
    return {
        key: value
        for split, n in (("train", train), ("test", test))
        for key, value in (
            (f"{split}_images", rng.integers(0, 256, (n, *SHAPE, *channels), dtype=np.uint8)),
            (f"{split}_labels", np.arange(n) % classes),
        )
    }


def stored(path: Path, **contents) -> Data:
    np.savez(path, **contents)
    return Data(name=str(path), validation_examples=10)


def message(data: Data, *where) -> str:
    with pytest.raises(InputError) as caught:
        load(data, *where)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The package's own


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return load(Data())


def test_mnist_is_the_mnist(mnist):
    assert mnist.train.images.shape == (55_000, 28, 28, 1)
    assert mnist.validation.images.shape == (5_000, 28, 28, 1)
    assert mnist.test.images.shape == (10_000, 28, 28, 1)
    assert mnist.classes == tuple("0123456789")
    for split in (mnist.train, mnist.validation, mnist.test):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
    both = np.concatenate([mnist.train.labels, mnist.validation.labels])
    known = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(both).tolist() == known
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    whole = load(Data(validation_examples=0))
    np.testing.assert_allclose([whole.mean[0], whole.std[0]], [0.1307, 0.3081], atol=5e-5)
    assert len(whole.validation.labels) == 0
    assert rows(whole.train) == rows(mnist.train, mnist.validation)


# Splits, moments, fingerprint


def test_the_split_is_fixed_by_its_seed_and_by_nothing_else(tmp_path):
    data = stored(tmp_path / "a.npz", **arrays())
    first, again = load(data), load(data)
    other = load(dataclasses.replace(data, split_seed=1))
    few = load(dataclasses.replace(data, train_examples=7))
    everything = rows(first.train, first.validation)
    assert len(first.validation.labels) == 10
    assert len(set(everything)) == 40  # all different, so equal multisets mean disjoint splits
    assert rows(other.train, other.validation) == everything
    np.testing.assert_array_equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.validation.labels, again.validation.labels)
    assert rows(other.validation) != rows(first.validation)
    assert rows(other.test) == rows(first.test)
    np.testing.assert_array_equal(few.train.images, first.train.images[:7])
    stored_order = [image.tobytes() for image in arrays()["train_images"]]
    positions = [stored_order.index(image.tobytes()) for image in first.train.images]
    assert positions != sorted(positions)
    np.testing.assert_array_equal(few.validation.images, first.validation.images)


def test_a_source_keeps_its_own_validation_split(tmp_path):
    own = arrays(9, 1)
    names = {"validation_images": own["train_images"], "validation_labels": own["train_labels"]}
    data = stored(tmp_path / "a.npz", **arrays(), **names)
    dataset = load(data)
    assert len(dataset.train.labels) == 40
    assert rows(dataset.validation) == rows(Split(own["train_images"], own["train_labels"]))
    fewer = load(dataclasses.replace(data, validation_examples=4))
    assert len(fewer.validation.labels) == 4
    assert len(fewer.train.labels) == 40


def test_examples_that_are_not_there(tmp_path):
    data = stored(tmp_path / "a.npz", **arrays())
    too_many = dataclasses.replace(data, validation_examples=40)
    assert message(too_many).startswith("data.validation_examples: 40 leaves nothing of the 40")
    too_few = dataclasses.replace(data, train_examples=31)
    assert message(too_few).startswith("data.train_examples: 31 is larger than the 30 there are")
    assert len(load(dataclasses.replace(data, train_examples=30)).train.labels) == 30


def test_some_classes_and_as_many_of_each(tmp_path):
    data = stored(tmp_path / "a.npz", **arrays())
    whole = load(dataclasses.replace(data, validation_examples=0))
    some = dataclasses.replace(data, classes=(3, 1), validation_examples=4)
    found = load(some)
    assert found.classes == ("3", "1")
    assert [len(s.labels) for s in (found.train, found.validation, found.test)] == [16, 4, 6]
    pairs = zip(whole.train.images, whole.train.labels, strict=True)
    images = {image.tobytes(): label for image, label in pairs}
    for split in (found.train, found.validation):
        for image, label in zip(split.images, split.labels, strict=True):
            assert images[image.tobytes()] == (3, 1)[label]
    even = load(dataclasses.replace(data, per_class=5, train_examples=3))
    assert np.bincount(even.train.labels).tolist() == [5, 5, 5, 5]
    assert len(set(even.train.labels[:8].tolist())) > 1  # not sorted by class
    fewer = load(dataclasses.replace(data, per_class=2))
    assert set(rows(fewer.train)) < set(rows(even.train))
    assert not set(rows(even.train)) & set(rows(even.validation))
    assert even.fingerprint != fewer.fingerprint
    assert "data.per_class: 9 is larger than the " in message(
        dataclasses.replace(data, per_class=9)
    )
    assert "data.classes: (0, 4); those of" in message(dataclasses.replace(data, classes=(0, 4)))


def test_moments_are_those_of_the_training_examples_in_use(tmp_path):
    data = stored(tmp_path / "a.npz", **arrays(2500, channels=(3,)))
    for part in (data, dataclasses.replace(data, train_examples=5)):
        dataset = load(part)
        pixels = dataset.train.images.astype(np.float64) / 255
        np.testing.assert_allclose(dataset.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(dataset.std, pixels.std((0, 1, 2)), rtol=1e-6)
        assert dataset.mean.dtype == dataset.std.dtype == dataset.covariance.dtype == np.float32
        want = np.cov(pixels.reshape(-1, 3).T, bias=True)
        np.testing.assert_allclose(dataset.covariance, want, rtol=1e-4, atol=1e-7)


def test_pictures_are_resized_by_means_over_cells(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 6, 6, 3), np.uint8)
    contents = {"train_images": images, "train_labels": np.arange(30) % 3}
    contents |= {"test_images": images[:9], "test_labels": np.arange(9) % 3}
    data = stored(tmp_path / "a.npz", **contents)
    whole, small = load(data), load(dataclasses.replace(data, resize=2))
    for split in ("train", "validation", "test"):
        big, got = getattr(whole, split).images, getattr(small, split).images
        assert (got.shape[1:], got.dtype) == ((2, 2, 3), np.uint8)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            cell = big[:, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3].mean((1, 2))
            np.testing.assert_allclose(got[:, i, j], cell, atol=0.501)
    np.testing.assert_allclose(
        small.std, (small.train.images / 255).std((0, 1, 2)), rtol=1e-5
    )  # of what the network sees
    for side in (4, 7):
        text = message(dataclasses.replace(data, resize=side))
        assert text.startswith(f"data.resize: {side} does not divide the 6x6 pixels")


def test_so_many_of_each_class_are_tested_on(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 5, 4), np.uint8)
    labels = np.arange(30) % 3
    data = stored(tmp_path / "a.npz", train_images=images, train_labels=labels)
    data = dataclasses.replace(data, test_per_class=4, validation_examples=6)
    parts = {seed: load(dataclasses.replace(data, split_seed=seed)) for seed in (0, 1)}
    for whole in parts.values():
        splits = (whole.train, whole.validation, whole.test)
        assert [len(s.labels) for s in splits] == [12, 6, 12]
        assert np.bincount(whole.test.labels).tolist() == [4, 4, 4]
        found = sorted(a.tobytes() for s in splits for a in s.images)
        assert found == sorted(a.tobytes() for a in images)  # each picture once
    assert (parts[0].test.images != parts[1].test.images).any()
    few = dataclasses.replace(data, test_per_class=10)
    assert "has 10 pictures of '0'; data.test_per_class, 10, leaves none" in message(few)
    other = dataclasses.replace(stored(tmp_path / "b.npz", **arrays()), test_per_class=2)
    assert "has a test split of its own" in message(other)
    alone = dataclasses.replace(data, test_per_class=None)
    assert "data.test_per_class makes one" in message(alone)


def test_an_array_file_in_the_data_folder_serves_its_name(tmp_path, monkeypatch):
    stored(tmp_path / "cifar10.npz", **arrays())
    data = Data(name="cifar10", validation_examples=10)
    assert load(data, tmp_path).train.images.shape == (30, *SHAPE, 1)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(load(data).test.labels) == 12
    assert "is not prepared" in message(dataclasses.replace(data, name="tfds:cifar10"))


def test_fingerprint_tells_that_the_data_changed(tmp_path):
    contents = arrays()
    data = stored(tmp_path / "a.npz", **contents)
    same = stored(tmp_path / "b.npz", **contents)
    assert load(data).fingerprint == load(same).fingerprint
    pixel, label = contents["test_images"].copy(), contents["test_labels"].copy()
    pixel[3, 2, 1] ^= 1
    label[3] = (label[3] + 1) % 4
    changed = [
        stored(tmp_path / "c.npz", **contents | {"test_images": pixel}),
        stored(tmp_path / "d.npz", **contents | {"test_labels": label}),
        stored(tmp_path / "e.npz", **contents, class_names=list("abcd")),
        dataclasses.replace(data, split_seed=1),
        dataclasses.replace(data, train_examples=20),
    ]
    prints = {load(d).fingerprint for d in (data, *changed)}
    assert len(prints) == 6


# Array files


def test_array_files(tmp_path):
    for channels in ((), (1,), (3,)):
        contents = arrays(channels=channels)
        dataset = load(stored(tmp_path / "a.npz", **contents))
        expected = contents["test_images"].reshape(12, *SHAPE, *(channels or (1,)))
        np.testing.assert_array_equal(dataset.test.images, expected)
        np.testing.assert_array_equal(dataset.test.labels, contents["test_labels"])
        assert dataset.classes == tuple("0123")
    named = load(stored(tmp_path / "b.npz", **contents, class_names=["a", "b", "c", "d", "e"]))
    assert named.classes == tuple("abcde")


def test_array_files_that_do_not_fit(tmp_path):
    good = arrays()
    wrong_size = np.zeros((12, 9, 9), np.uint8)
    for changes, words in [
        ({"train_images": good["train_images"] / 255}, "images uint8 .* found float64"),
        ({"train_images": good["train_images"][:, 0]}, r"found uint8 \[40, 4\]"),
        ({"train_labels": good["train_labels"][1:]}, r"int64 \[39\]"),
        ({"train_labels": good["train_labels"] / 2}, r"float64 \[40\]"),
        (
            {k: good[k] + 1 for k in ("train_labels", "test_labels")},
            "0, 1, 2, ... with none left out",
        ),
        ({"test_images": wrong_size}, "one size; those of train are 5x4x1, those of test 9x9x1"),
        ({"class_names": ["a", "b"]}, "of train run from 0 to 3; with 2 classes .* 0 to 1"),
        ({"train_labels": np.array([{}] * 40)}, "no .npz file of plain arrays"),
    ]:
        with pytest.raises(InputError, match=words):
            load(stored(tmp_path / "a.npz", **good | changes))
    del good["test_labels"]
    text = message(stored(tmp_path / "a.npz", **good))
    assert "lacks test_labels; it holds train_images, train_labels, test_images" in text
    (tmp_path / "text.npz").write_text("no arrays")
    assert "plain arrays" in message(Data(name=str(tmp_path / "text.npz")))
    assert "is no file" in message(Data(name=str(tmp_path / "absent.npz")))


# Folders of images


def picture(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image if image.ndim == 2 else image[..., ::-1])


def folder(root: Path, channels: tuple[int, ...] = (3,)) -> np.ndarray:
    """train: 3 cats, 3 dogs; test: 2 cats, 1 dog. Gives the training images in that order."""
    images = np.random.default_rng(0).integers(0, 256, (9, *SHAPE, *channels), dtype=np.uint8)
    for i, name in enumerate(
        ["train/cat/a", "train/cat/b", "train/cat/c", "train/dog/a", "train/dog/b", "train/dog/c"]
        + ["test/cat/a", "test/cat/b", "test/dog/a"]
    ):
        picture(root / f"{name}.png", images[i])
    return images


@pytest.mark.parametrize("channels", [(), (3,)])
def test_folders_of_images(tmp_path, channels):
    images = folder(tmp_path, channels).reshape(9, *SHAPE, -1)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    steps = []
    dataset = load(
        Data(name=str(tmp_path), validation_examples=2), progress=lambda *at: steps.append(at)
    )
    assert dataset.classes == ("cat", "dog")
    assert rows(dataset.train, dataset.validation) == rows(
        Split(images[:6], np.array([0, 0, 0, 1, 1, 1]))
    )
    np.testing.assert_array_equal(dataset.test.images, images[6:])
    assert dataset.test.labels.tolist() == [0, 0, 1]
    assert steps == [(i, 9) for i in range(1, 10)]


def test_one_colour_image_makes_all_colour(tmp_path):
    grey = folder(tmp_path, ())
    colour = np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    picture(tmp_path / "test" / "dog" / "b.png", colour)
    dataset = load(Data(name=str(tmp_path), validation_examples=0))
    np.testing.assert_array_equal(dataset.test.images[-1], colour)
    np.testing.assert_array_equal(dataset.test.images[0], np.stack([grey[6]] * 3, -1))


def test_folders_with_a_validation_split(tmp_path):
    folder(tmp_path)
    (tmp_path / "test").rename(tmp_path / "val")
    dataset = load(Data(name=str(tmp_path), validation_examples=2))
    assert [len(s.labels) for s in (dataset.train, dataset.validation, dataset.test)] == [4, 2, 3]
    folder(tmp_path)
    dataset = load(Data(name=str(tmp_path), validation_examples=2))
    assert [len(s.labels) for s in (dataset.train, dataset.validation, dataset.test)] == [6, 2, 3]


def test_folders_that_do_not_fit(tmp_path):
    def broken(name: str, breaking) -> str:
        folder(tmp_path / name)
        breaking(tmp_path / name)
        return message(Data(name=str(tmp_path / name), validation_examples=0))

    odd = np.zeros((7, 9), np.uint8)
    text = broken("sizes", lambda root: picture(root / "train/dog/b.png", odd))
    assert "one size" in text
    assert text.index("dog/b.png' is 7x9") < text.index("cat/a.png' is 5x4")
    text = broken("class", lambda root: picture(root / "test/bird/a.png", odd))
    assert "test/bird': train/ has no class of that name" in text
    text = broken("empty", lambda root: (root / "train" / "bird").mkdir())
    assert "train/bird' has no image (.bmp" in text
    text = broken("torn", lambda root: (root / "train/cat/b.png").write_bytes(b"\x89PNG"))
    assert "train/cat/b.png' is no image that can be decoded" in text
    (tmp_path / "flat" / "train").mkdir(parents=True)
    assert "no folders of images" in message(Data(name=str(tmp_path / "flat")))
    text = broken("untested", lambda root: (root / "test").rename(root / "Test"))
    assert "neither a test nor a validation split" in text
