"""A TFDS set read as a stream, without TensorFlow: its pictures are those of the folder that it was
made of.
"""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from photographs import SIDE, jpeg, make, photo

from jaxcnn.config import Absent, Data
from jaxcnn.data import photos, shards, streamed
from jaxcnn.data.stream import Stream

CLASSES = ("n01440764", "n02123045", "n04487394")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """folder/ with 12 pictures to train on and 6 to validate, and the same as the set `photos`;
    that has two test pictures without labels, as ImageNet does, and one that is cut off.
    """
    root = tmp_path_factory.mktemp("builders")
    make(root / "folder", "train", 4, CLASSES)
    make(root / "folder", "val", 2, CLASSES)
    cut = root / "folder" / "val" / CLASSES[1] / f"{CLASSES[1]}_1.JPEG"
    cut.write_bytes(cut.read_bytes()[:-2])
    features = tfds.features

    class Photos(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            parts = {
                "image": features.Image(encoding_format="jpeg"),
                "label": features.ClassLabel(names=CLASSES),
                "file_name": features.Text(),
            }
            parts = features.FeaturesDict(parts)
            return self.dataset_info_from_configs(
                features=parts, supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            names = {"train": "train", "validation": "val", "test": None}
            return {split: self._generate_examples(name) for split, name in names.items()}

        def _generate_examples(self, name):
            for i in range(0 if name else 2):
                image = io.BytesIO(jpeg(photo(i)))
                yield i, {"image": image, "label": -1, "file_name": f"test_{i}.JPEG"}
            for path in sorted((root / "folder" / name).glob("*/*")) if name else ():
                image = io.BytesIO(path.read_bytes())
                about = {"label": path.parent.name, "file_name": path.name}
                yield path.name, {"image": image, **about}

    Photos.pkg_dir_path = root  # where TFDS would look for a README
    Photos(data_dir=root / "tfds").download_and_prepare(file_format="array_record")
    return root


def pictures(source: photos.Source) -> dict[str, tuple[bytes, int]]:
    found = {}
    with Stream(source, 4).batches() as batches:
        for images, labels in batches:
            for image, label in zip(images, labels, strict=True):
                found[source.name(len(found)).rpartition("/")[2]] = (image.tobytes(), int(label))
    assert len(found) == len(source)
    return found


def test_the_pictures_are_those_of_the_folder(place: Path) -> None:
    version = place / "tfds" / "photos" / "1.0.0"
    for split in ("train", "validation"):
        theirs = photos.open_split(version, split, SIDE)
        ours = photos.open_split(place / "folder", split, SIDE)
        assert theirs.classes == ours.classes == CLASSES
        assert pictures(theirs) == pictures(ours)
        again = pickle.loads(pickle.dumps(theirs))  # as to a process that decodes
        np.testing.assert_array_equal(photos.read(again, 0)[0], photos.read(theirs, 0)[0])
    assert set(photos.encoded(version, SIDE)) == {"train", "validation"}  # labels, or left out


def test_shards_of_it_are_those_of_the_folder(place: Path, tmp_path: Path) -> None:
    version = place / "tfds" / "photos" / "1.0.0"
    index = shards.prepare(version, tmp_path / "s", side=SIDE, shard_size=5, workers=1)
    assert [len(index["splits"][split]["shards"]) for split in ("train", "validation")] == [3, 2]
    names = [n for s in index["splits"]["validation"]["shards"] for n in s["unreadable"]]
    assert names == [f"{CLASSES[1]}_1.JPEG"]
    shards.prepare(place / "folder", tmp_path / "f", side=SIDE, workers=1)
    theirs, ours = (photos.open_split(tmp_path / n, "train", SIDE) for n in ("s", "f"))
    assert pictures(theirs) == pictures(ours)


def test_a_stream_by_the_set_s_name(place: Path) -> None:
    version = place / "tfds" / "photos" / "1.0.0"
    for name in ("photos", "tfds:photos", "photos:1.0.0", str(version)):
        data = Data(name=name, stream=True, side=SIDE, validation_examples=3)
        found = streamed.load(data, place / "tfds")
        assert found.sizes == {"train": 9, "validation": 3, "test": 6}
    [kept] = version.glob(".moments-*.json")
    assert json.loads(kept.read_text())["pictures"] == 9
    for name, words in (
        ("imagenet2012", "'imagenet2012' is not prepared in .* launch.py prepare imagenet2012"),
        ("imagenet", "its shards or a TFDS set, and neither 'imagenet'"),
    ):
        with pytest.raises(Absent, match=words):
            streamed.load(Data(name=name, stream=True), place / "tfds")
