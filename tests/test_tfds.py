"""TFDS sets as sources, with builders of our own that need no TensorFlow."""

import dataclasses
import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_data import SHAPE, arrays, message, no_network, rows  # noqa: F401

from jaxcnn.config import Data
from jaxcnn.data import sources
from jaxcnn.data.sources import Split, load


@pytest.fixture(scope="module")
def tfds():
    import tensorflow_datasets as tfds

    return tfds


@pytest.fixture(scope="module")
def prepared(tfds, tmp_path_factory):
    """A data directory with some small sets in it, and what went into `little_pictures`."""
    features, contents = tfds.features, arrays(25, 7, (3,))

    class LittlePictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        SPLITS = ("train", "test")
        FEATURES = {
            "id": features.Text(),
            "photo": features.Image(shape=(*SHAPE, 3)),
            "kind": features.ClassLabel(names=list("abcd")),
        }
        KEYS = ("photo", "kind")

        def _info(self):
            return self.dataset_info_from_configs(
                features=features.FeaturesDict(self.FEATURES), supervised_keys=self.KEYS
            )

        def _split_generators(self, dl_manager):
            names = {"train": "train", "test": "test", "validation": "test"}
            return {s: self._generate_examples(names[s]) for s in self.SPLITS}

        def _generate_examples(self, split):
            images, labels = contents[f"{split}_images"], contents[f"{split}_labels"]
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield i, self.example(split, i, image, int(label))

        def example(self, split, i, image, label):
            png = io.BytesIO(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
            return {"id": str(i), "photo": png, "kind": label}

    class PlainPictures(LittlePictures):
        SPLITS = ("train", "validation")
        FEATURES = {"image": features.Image(shape=(*SHAPE, 3)), "label": features.Scalar(np.int64)}
        KEYS = None

        def example(self, split, i, image, label):
            example = super().example(split, i, image, label)
            return {"image": example["photo"], "label": label}

    class SecretPictures(LittlePictures):
        def example(self, split, i, image, label):
            return super().example(split, i, image, -1 if split == "test" else label)

    class ManySizes(LittlePictures):
        FEATURES = LittlePictures.FEATURES | {"photo": features.Image(shape=(None, None, 3))}

        def example(self, split, i, image, label):
            return super().example(split, i, image[: 5 - i % 2], label)

    class ManyLabels(LittlePictures):
        FEATURES = LittlePictures.FEATURES | {
            "kind": features.Sequence(features.ClassLabel(num_classes=4))
        }

        def example(self, split, i, image, label):
            return super().example(split, i, image, [label, label])

    class NamedPeople(LittlePictures):  # as TFDS's lfw has them
        SPLITS = ("train",)
        FEATURES = {"label": features.Text(), "image": features.Image(shape=(*SHAPE, 3))}
        KEYS = ("label", "image")

        def example(self, split, i, image, label):
            example = super().example(split, i, image, label)
            return {"label": "dcba"[label], "image": example["photo"]}

    class OnlyTest(LittlePictures):
        SPLITS = ("test",)

    root = tmp_path_factory.mktemp("tfds")
    sets = (LittlePictures, PlainPictures, SecretPictures, ManySizes, ManyLabels, OnlyTest)
    sets += (NamedPeople,)
    for kind in sets:
        kind.pkg_dir_path = root  # where TFDS would look for a README
        kind(data_dir=root).download_and_prepare(file_format="array_record")
    return root, contents


def originals(contents, split: str) -> list[bytes]:
    return rows(Split(contents[f"{split}_images"], contents[f"{split}_labels"]))


def test_tfds_sets_are_read_without_tensorflow_or_network(prepared):
    root, contents = prepared
    steps = []
    data = Data(name="little_pictures", validation_examples=5)
    dataset = load(data, root, progress=lambda *at: steps.append(at))
    assert rows(dataset.train, dataset.validation) == originals(contents, "train")
    assert rows(dataset.test) == originals(contents, "test")
    assert dataset.classes == tuple("abcd")
    assert steps == [(25, 25), (7, 7)]
    assert load(dataclasses.replace(data, name="tfds:little_pictures"), root).fingerprint == (
        dataset.fingerprint
    )
    assert "tensorflow" not in sys.modules


def test_tfds_sets_are_decoded_once(prepared):
    root, _ = prepared
    data = Data(name="little_pictures", validation_examples=5)
    expected = load(data, root).fingerprint
    cache = root / "little_pictures" / "1.0.0" / "jaxcnn_train.npz"
    whole = cache.read_bytes()
    steps = []
    assert load(data, root, lambda *at: steps.append(at)).fingerprint == expected
    assert steps == []
    for damage in (whole[:200], b"", np.savez):
        if damage is np.savez:  # another number of examples than the records have
            np.savez(cache, images=np.zeros((3, *SHAPE, 3), np.uint8), labels=np.zeros(3, int))
        else:
            cache.write_bytes(damage)
        assert load(data, root, lambda *at: steps.append(at)).fingerprint == expected
        assert steps.pop() == (25, 25)
        assert cache.read_bytes() == whole
    assert not list(cache.parent.glob("*.part"))


def test_tfds_sets_in_a_folder_that_is_not_ours(prepared, monkeypatch):
    root, contents = prepared
    cache = root / "little_pictures" / "1.0.0" / "jaxcnn_test.npz"
    cache.unlink(missing_ok=True)

    def refuse(self, target):
        raise PermissionError(13, "not yours", str(target))

    monkeypatch.setattr(Path, "replace", refuse)  # root may write anywhere, so ask the last step
    dataset = load(Data(name="little_pictures", validation_examples=5), root)
    assert rows(dataset.test) == originals(contents, "test")
    assert not cache.exists()
    assert not list(cache.parent.glob("*.part"))


def test_tfds_without_a_test_split_is_tested_on_its_validation_split(prepared):
    root, contents = prepared
    dataset = load(Data(name="plain_pictures", validation_examples=5), root)
    assert rows(dataset.train, dataset.validation) == originals(contents, "train")
    assert rows(dataset.test) == originals(contents, "test")
    assert dataset.classes == tuple("0123")


def test_tfds_sets_whose_labels_are_names(prepared):
    root, contents = prepared
    data = Data(name="named_people", validation_examples=0, unseen=2)
    for _ in range(2):  # the second time as it was kept
        found = load(data, root)
        both = np.concatenate([found.train.labels, found.test.labels])
        assert set(found.train.labels) == {0, 1} and set(found.test.labels) == {2, 3}
        assert len(both) == 25 and set(found.classes) < set("abcd")
        images, labels = contents["train_images"], contents["train_labels"]
        original = {i.tobytes(): "dcba"[k] for i, k in zip(images, labels, strict=True)}
        for image, label in zip(found.train.images, found.train.labels, strict=True):
            assert original[image.tobytes()] == found.classes[label]


def test_tfds_sets_that_do_not_fit(prepared):
    root, _ = prepared
    text = message(Data(name="secret_pictures"), root)
    assert "the labels of test run from -1 to -1; with 4 classes" in text
    assert "secret" in text
    assert "one size; the train split has 4x4x3 and 5x4x3" in message(Data(name="many_sizes"), root)
    assert "one class each; its examples hold" in message(Data(name="many_labels"), root)
    assert "has no split 'train', only test" in message(Data(name="only_test"), root)
    assert message(Data(name="plain_pictures/big"), root).endswith("Its configs: none.")
    assert "cannot be loaded at version 9.9.9" in message(Data(name="only_test:9.9.9"), root)
    info = root / "many_sizes" / "1.0.0" / "dataset_info.json"
    fields = json.loads(info.read_text()) | {"fileFormat": "tfrecord"}
    info.write_text(json.dumps(fields))
    assert "stored as tfrecord, not as array_record" in message(Data(name="many_sizes"), root)


def test_names_that_lead_nowhere(tmp_path, monkeypatch, tfds):
    text = message(Data(name="cifar10"), tmp_path)
    assert text == (
        f"data.name: 'cifar10' is not prepared in {tmp_path}."
        f" Run: python launch.py prepare cifar10 --data-dir {tmp_path}"
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert sources.default_data_dir() == tmp_path
    assert message(Data(name="cifar10")).endswith("Run: python launch.py prepare cifar10")
    text = message(Data(name="cifar11"))
    assert text.startswith("data.name: 'cifar11' is no packaged data set, no array file, no folder")
    assert "Did you mean" in text
    assert "cifar10 " in text
    assert "Did you mean letters?" in message(Data(name="emnist/lettres"))
    for name in ("./pictures", "no/such/folder", "kaggle:digits", "huggingface:mnist", ""):
        assert "no TFDS builder" in message(Data(name=name))
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert sources.default_data_dir() == Path.home() / "tensorflow_datasets"
