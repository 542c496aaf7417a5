"""`data.stream`: a folder of pictures, its shards or a TFDS set, as a data set that is read again
at each use.

Its splits, classes and moments are those that sources.py would give, and its pictures squares of
`data.side` pixels. The moments are of a sample of the training pictures, and kept beside the
pictures where they can be written there.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jaxcnn import config
from jaxcnn.config import Absent, InputError
from jaxcnn.data import builders, photos, readers, sources
from jaxcnn.data.photos import Source
from jaxcnn.data.readers import default_data_dir
from jaxcnn.data.sources import DIVISION, Dataset, Split
from jaxcnn.data.squares import Squares
from jaxcnn.data.stream import LEFT_OUT, Stream

SAMPLE = 4096  # training pictures, the first in the order of data.split_seed
MOMENTS = ("mean", "std", "covariance")


@dataclass(frozen=True, eq=False)
class Part:
    """Some pictures of a source, in an order of their own: a source again."""

    source: Source
    index: np.ndarray = field(repr=False)  # [N]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def side(self) -> int:
        return self.source.side

    @property
    def channels(self) -> int:
        return self.source.channels

    @property
    def fingerprint(self) -> str:
        own = self.source.fingerprint.encode() + np.asarray(self.index, np.int64).tobytes()
        return hashlib.sha256(own).hexdigest()

    def __len__(self) -> int:
        return len(self.index)

    def name(self, index: int) -> str:
        return self.source.name(int(self.index[index]))

    def into(self, index: int, out: np.ndarray) -> int:
        return self.source.into(int(self.index[index]), out)

    def at(self, side: int) -> "Part":
        """The same pictures as squares of `side` pixels. Raises `InputError` for shards that cannot
        give them.
        """
        if isinstance(self.source, photos.Shards | Squares):
            photos.check_side(self.source.form, self.source.stored, side, "--resize", "the shards")
        return replace(self, source=replace(self.source, side=side))  # type: ignore[type-var]


@dataclass(frozen=True, eq=False)
class Held:
    """A split in memory, of square pictures, as a source."""

    split: Split
    classes: tuple[str, ...]
    fingerprint: str

    @property
    def side(self) -> int:
        return self.split.images.shape[1]

    @property
    def channels(self) -> int:
        return self.split.images.shape[3]

    def __len__(self) -> int:
        return len(self.split.labels)

    def name(self, index: int) -> str:
        return str(index)

    def into(self, index: int, out: np.ndarray) -> int:
        out[:] = self.split.images[index]
        return int(self.split.labels[index])


@dataclass(frozen=True, eq=False)
class Streamed:
    """As a `Dataset`, but the pictures of its splits are still to be read."""

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    covariance: np.ndarray
    # of classes, names, `data.side` and moments: a million contents are not looked through
    fingerprint: str

    @property
    def sizes(self) -> dict[str, int]:
        """Of the splits."""
        return {split: len(getattr(self, split)) for split in DIVISION}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        return self.train.side, self.train.side, 3


Pictures = Dataset | Streamed


def load(data: config.Data, data_dir: Path | None = None) -> Streamed:
    """The data set that `data` names: a path, or a name in the folder of data sets.

    Raises `Absent` where no such folder is, and `InputError` for what cannot be streamed.
    """
    root = _root(data.name, data_dir)
    try:
        stored = _splits(root, data.side)
    except InputError as error:
        said = str(error)
        raise InputError(said if said.startswith("data.") else f"data.name: {said}") from error
    parts = sources.divided(data, {split: len(source) for split, source in stored.items()})
    train, validation, test = (Part(stored[split], index) for split, index in parts)
    moments = _moments(train, root)
    about = [train.classes, data.side, [part.fingerprint for part in (train, validation, test)]]
    about += [values.tolist() for values in moments]
    fingerprint = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
    return Streamed(train, validation, test, train.classes, *moments, fingerprint)


def measured(source: Source) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and deviation [C] and covariance [C, C] of the pixels in 0..1, float32, the same in any
    order: sums of so many bytes are exact. What cannot be read is left out.
    """
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    with Stream(source, 16).batches() as batches:
        for images, labels in batches:
            for image in images[labels != LEFT_OUT]:
                pixels = image.reshape(-1, 3).astype(np.float64)
                count += len(pixels)
                total += pixels.sum(0)
                products += pixels.T @ pixels
    if count == 0:
        raise InputError(f"none of the {len(source)} pictures that were tried can be read.")
    mean = total / count / 255
    covariance = products / count / 255**2 - np.outer(mean, mean)
    std = np.sqrt(np.maximum(np.diag(covariance), 0))
    return mean.astype(np.float32), std.astype(np.float32), covariance.astype(np.float32)


def _root(name: str, data_dir: Path | None) -> Path:
    path = Path(name).expanduser()
    kept = (data_dir or default_data_dir()).expanduser() / name
    for place in (path, kept):
        if (place / photos.INDEX).is_file() or photos.is_folder(place):
            return place
        if builders.is_builder(place):
            return place
    needs = "data.stream: true needs a folder of pictures (train/CLASS/*), its shards or a TFDS set"
    if path.is_file():
        raise InputError(f"{needs}; data.name {name!r} is a file.")
    try:
        found = readers.builder(name.removeprefix("tfds:"), data_dir or default_data_dir())
    except Absent:
        found = None
    if found is not None and readers.is_prepared(found):
        return Path(found.data_dir)
    if found is not None:
        raise Absent(
            f"data.name: {name!r} is not prepared in {data_dir or default_data_dir()}. Run: python"
            f" launch.py prepare {name}{f' --data-dir {data_dir}' if data_dir else ''}"
        )
    raise Absent(
        f"{needs}, and neither {str(path)!r} nor {str(kept)!r} is one: data.name is a path, a name"
        " in --data-dir, or a TFDS builder (docs/imagenet.md)."
    )


def _splits(root: Path, side: int) -> Mapping[str, Source]:
    if (root / photos.INDEX).is_file():
        found: Mapping[str, Source] = photos.shards(root, side, "data.side")
    else:
        found = photos.encoded(root, side)
    if "train" not in found:
        raise InputError(f"{str(root)!r} has no train split, only {', '.join(found)}.")
    if len(found) == 1:
        raise InputError(f"{str(root)!r} has neither a test nor a validation split.")
    return found


def _moments(train: Part, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a sample of the training pictures; measured once."""
    sample = Part(train.source, train.index[:SAMPLE])
    key = hashlib.sha256(f"{sample.fingerprint} {sample.side}".encode()).hexdigest()[:12]
    file = root / f".moments-{key}.json"
    if file.is_file():
        kept = json.loads(file.read_text())
        mean, std, covariance = (np.array(kept[n], np.float32) for n in MOMENTS)
        return mean, std, covariance
    found = measured(sample)
    if os.access(root, os.W_OK):
        about = {name: values.tolist() for name, values in zip(MOMENTS, found, strict=True)}
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text(json.dumps(about | {"pictures": len(sample)}) + "\n")
        os.replace(draft, file)
    return found
