"""A data set that is read again at each use: its splits, its moments, what cannot be one."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from photographs import CLASSES, SIDE, jpeg, make, photo

from jaxcnn import train
from jaxcnn.checks import check
from jaxcnn.config import Absent, Data, InputError, Run, override
from jaxcnn.data import photos, shards, sources, streamed

DATA = Data(stream=True, side=SIDE, validation_examples=9, train_examples=25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 of train, 20 of test, in PNG of one size, which both ways of reading have as they are."""
    root = tmp_path_factory.mktemp("squares")
    for split, each in (("train", 4), ("test", 2)):
        for i, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for k in range(each):
                image = photo(1000 * each + 100 * i + k, SIDE, SIDE)
                cv2.imwrite(str(root / split / name / f"{k}.png"), image[..., ::-1])
    return root


def test_it_is_divided_and_measured_as_in_memory(folder):
    for changes in ({}, {"split_seed": 3}, {"train_examples": None}):
        data = dataclasses.replace(DATA, name=str(folder), **changes)
        read = sources.load(dataclasses.replace(data, stream=False))
        stream = streamed.load(data)
        assert stream.sizes == read.sizes
        assert (stream.image_shape, stream.classes) == (read.image_shape, CLASSES)
        for split in sources.DIVISION:
            part, want = getattr(stream, split), getattr(read, split)
            images, labels = zip(*(photos.read(part, i) for i in range(len(part))), strict=True)
            np.testing.assert_array_equal(np.stack(images), want.images)
            np.testing.assert_array_equal(labels, want.labels)
        for name in streamed.MOMENTS:
            np.testing.assert_allclose(getattr(stream, name), getattr(read, name), rtol=2e-5)


def test_moments_are_measured_once_and_part_of_the_fingerprint(folder, monkeypatch):
    data = dataclasses.replace(DATA, name=str(folder), split_seed=11)
    before = set(folder.glob(".moments-*"))
    first = streamed.load(data)
    [file] = set(folder.glob(".moments-*")) - before
    calls = []
    monkeypatch.setattr(streamed, "measured", calls.append)
    again = streamed.load(data)
    assert again.fingerprint == first.fingerprint and not calls
    for name in streamed.MOMENTS:
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"mean": [0.5, 0.5, 0.5]}))
    assert streamed.load(data).fingerprint != first.fingerprint
    other = dataclasses.replace(data, validation_examples=8)
    file.write_text(json.dumps(kept))
    monkeypatch.undo()
    assert streamed.load(other).fingerprint != first.fingerprint


def test_what_cannot_be_read_is_no_part_of_the_moments(tmp_path):
    make(tmp_path, "train", 2)
    source = photos.open_split(tmp_path, "train", SIDE)
    kept = streamed.Part(source, np.array([i for i in range(20) if i not in (3, 8)]))
    want = streamed.measured(kept)
    for i in (3, 8):
        (tmp_path / "train" / source.name(i)).write_bytes(b"")
    for got, expected in zip(streamed.measured(source), want, strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(InputError, match="none of the 2 pictures"):
        streamed.measured(streamed.Part(source, np.array([3, 8])))


def test_a_name_is_a_path_or_one_in_the_folder_of_data_sets(folder, tmp_path):
    (tmp_path / "fruit").symlink_to(folder)
    by_name = streamed.load(dataclasses.replace(DATA, name="fruit"), tmp_path)
    by_path = streamed.load(dataclasses.replace(DATA, name=str(folder)))
    assert by_name.fingerprint == by_path.fingerprint
    make(tmp_path / "photos", "train", 4)
    make(tmp_path / "photos", "val", 1)
    shards.prepare(tmp_path / "photos", tmp_path / "shards", side=SIDE, form="pixels", workers=1)
    one, other = (
        streamed.load(dataclasses.replace(DATA, name=name), tmp_path)
        for name in ("photos", "shards")
    )
    assert one.fingerprint == other.fingerprint  # the same pictures, pixel for pixel
    assert one.sizes == {"train": 25, "validation": 9, "test": 10}


def test_what_cannot_be_streamed_is_one_error(folder, tmp_path):
    run = Run(data=dataclasses.replace(DATA, name=str(folder)))

    def said(changes: dict, kind: type = InputError) -> str:
        with pytest.raises(kind) as error:
            changed = override(run, changes)
            check(changed)
            train.load_data([changed], tmp_path)
        return str(error.value)

    text = said({"data.name": "imagenet"}, Absent)
    assert "data.stream: true needs a folder" in text and "'imagenet'" in text
    assert str(tmp_path / "imagenet") in text
    (tmp_path / "a.npz").write_bytes(b"")
    assert said({"data.name": str(tmp_path / "a.npz")}).endswith("a.npz' is a file.")
    assert "data.resize: 10 is of pictures in memory" in said({"data.resize": 10})
    assert "model.name 'knn' is fitted at once" in said({"model.name": "knn"})
    assert "train.probes" in said({"train.probes": ("gradient_norm",)})
    assert "data.side: 20 is of streamed pictures" in said({"data.stream": False})
    (tmp_path / "alone" / "train" / "a").mkdir(parents=True)
    (tmp_path / "alone" / "train" / "a" / "a.jpg").write_bytes(jpeg(photo(0)))
    assert "neither a test nor a validation split" in said({"data.name": "alone"})
    make(tmp_path / "photos", "train", 1)
    shards.prepare(tmp_path / "photos", tmp_path / "shards", side=SIDE, workers=1)
    assert said({"data.name": "shards", "data.side": 30}).startswith(
        "data.side: 30 is not possible"
    )
    plain = {"data.name": str(tmp_path / "shards"), "data.stream": False, "data.side": 256}
    assert "data.stream=true" in said(plain)
    assert "data.train_examples: 41 is larger" in said({"data.train_examples": 41})
