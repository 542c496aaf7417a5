"""A data set's name -> uint8 arrays, divided into train, validation and test.

| `data.name`                  | read from                                                     |
|------------------------------|---------------------------------------------------------------|
| `mnist`                      | this package: all 70,000 images                               |
| `PATH.npz`                   | arrays train_images, train_labels, test_images, test_labels   |
| a folder with `train/` in it | images `train/CLASS/*`, `test/CLASS/*`                        |
| `NAME` with DIR/NAME.npz     | that array file; DIR is `--data-dir`, else TFDS's folder      |
| `NAME` or `NAME/CONFIG`      | TensorFlow Datasets, after `launch.py prepare NAME`           |

An array file may also hold validation_images, validation_labels and class_names; its images are
uint8 [N, H, W] or [N, H, W, C]. A folder may also hold `validation/` or `val/`; its images are grey
only if all are. `tfds:NAME` is TFDS's even where another row would come first (`tfds:mnist`).

For points on faces there are train_points and test_points, float32 [N, P, 2] (x, y in pixels), in
place of labels; train_groups [N] says whose pictures they are: validation is of other people.

A source with a training split alone needs `data.test_per_class`: so many pictures of each class,
drawn by `data.split_seed`, are its test split. Or `data.unseen`: so many classes are tested on and
not trained on.

With `data.stream` a folder, or its shards, is not read into memory: see streamed.py.

A source with a validation split of its own has nothing held out of its training split: validation
is at most `data.validation_examples` of its own. A source with a validation but no test split (in
TFDS, the smaller ImageNets) is tested on it, and validation is held out of the training split.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxcnn import config
from jaxcnn.config import InputError
from jaxcnn.data import photos, readers
from jaxcnn.data.readers import Progress, Source, Split, default_data_dir

__all__ = ["Dataset", "Progress", "Split", "default_data_dir", "load"]

DIVISION = ("train", "validation", "test")
Part = tuple[str, np.ndarray]  # a split as it is stored, and which of its pictures


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labels are 0 .. K-1; mean and std [C] and covariance [C, C], float32, are of the training
    split's pixels in 0..1.
    """

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    covariance: np.ndarray
    fingerprint: str  # of classes and contents: where it differs, a resumed run has other data

    @property
    def sizes(self) -> dict[str, int]:
        """Of the splits."""
        return {split: len(getattr(self, split).labels) for split in DIVISION}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels


def load(
    data: config.Data, data_dir: Path | None = None, progress: Progress | None = None
) -> Dataset:
    """The data set that `data` names, divided by `data.split_seed`; `data_dir` holds the TFDS sets.

    Never looks at the network: what is not there raises `InputError`.
    """
    try:
        splits, classes = _read(data.name, data_dir, progress)
        if data.test_per_class is not None:
            splits = _with_test(data, splits, classes)
        _check(data, splits, classes)
    except InputError as error:
        raise type(error)(f"data.name: {error}") from error.__cause__
    splits, classes = _chosen(data, splits, classes)
    if data.unseen is not None:
        splits, classes = _with_unseen(data, splits["train"], classes)
    train, validation, test = (resized(data, part) for part in _divide(data, splits))
    mean, std = _moments(train.images)
    fingerprint = _fingerprint((train, validation, test), classes)
    covariance = _covariance(train.images, mean)
    return Dataset(train, validation, test, classes, mean, std, covariance, fingerprint)


def _read(name: str, data_dir: Path | None, progress: Progress | None) -> Source:
    path = Path(name).expanduser()
    if name == "mnist":
        return readers.packaged_mnist()
    if name.endswith(".npz"):
        return readers.npz(path)
    if (path / "train").is_dir():
        return readers.folder(path, progress)
    if (path / photos.INDEX).is_file():
        raise InputError(f"{name!r} holds shards, which are read with data.stream=true.")
    if (kept := (data_dir or default_data_dir()) / f"{name}.npz").is_file():
        return readers.npz(kept)
    return readers.tfds(name.removeprefix("tfds:"), data_dir, progress)


def _with_test(
    data: config.Data, splits: Mapping[str, Split], classes: tuple[str, ...]
) -> dict[str, Split]:
    """The pictures of the one split as train and test."""
    own, count = splits["train"], data.test_per_class
    assert count is not None
    if own.labels.ndim > 1:
        raise InputError(f"{data.name!r} has points, no classes; data.test_per_class is {count}.")
    if more := [name for name in splits if name != "train"]:
        raise InputError(
            f"{data.name!r} has a {more[0]} split of its own, and data.test_per_class is {count}."
        )
    rng = np.random.default_rng([data.split_seed, 1])  # not the order of the rest
    tested = np.zeros(len(own.labels), bool)
    for k, name in enumerate(classes):
        members = rng.permutation(np.flatnonzero(own.labels == k))
        if len(members) <= count:
            raise InputError(
                f"{data.name!r} has {len(members)} pictures of {name!r}; data.test_per_class,"
                f" {count}, leaves none to train on."
            )
        tested[members[:count]] = True
    return {"train": _take(own, ~tested), "test": _take(own, tested)}


def _with_unseen(data: config.Data, own: Split, classes: tuple[str, ...]) -> Source:
    """All pictures of some classes as test, numbered behind those that train."""
    count = data.unseen
    assert count is not None
    if own.labels.ndim > 1:
        raise InputError(f"data.unseen: {count}; {data.name!r} has points, no classes.")
    if len(classes) - count < 2:
        raise InputError(
            f"data.unseen: {count} leaves {max(0, len(classes) - count)} of the {len(classes)}"
            f" classes of {data.name!r} to train on; two are the least."
        )
    order = np.random.default_rng([data.split_seed, 2]).permutation(len(classes))
    seen, unseen = np.sort(order[count:]), np.sort(order[:count])
    numbers = np.argsort(np.concatenate([seen, unseen]))[own.labels].astype(np.int32)
    whole = Split(own.images, numbers, own.groups)
    tested = numbers >= len(seen)
    return {"train": _take(whole, ~tested), "test": _take(whole, tested)}, tuple(
        classes[k] for k in seen
    )


def _check(data: config.Data, splits: Mapping[str, Split], classes: tuple[str, ...]) -> None:
    """Raises `InputError` for splits that do not fit each other or the classes."""
    name = data.name
    if data.unseen is not None and len(splits) > 1:
        raise InputError(
            f"{name!r} has a split of its own beside train, and data.unseen is {data.unseen}."
        )
    if data.unseen is None and not {"test", "validation"} & splits.keys():
        raise InputError(
            f"{name!r} has neither a test nor a validation split; data.test_per_class makes one."
        )
    shape = splits["train"].images.shape[1:]
    for split, part in splits.items():
        if part.images.shape[1:] != shape:
            raise InputError(
                f"{name!r}: images must have one size; those of train are {readers.size(shape)},"
                f" those of {split} {readers.size(part.images.shape[1:])}."
            )
        if part.labels.ndim > 1:  # points
            if part.labels.shape[1] != len(classes):
                raise InputError(
                    f"{name!r}: train has {len(classes)} points, {split} {part.labels.shape[1]}."
                )
            continue
        low, high = part.labels.min(), part.labels.max()
        if low < 0 or high >= len(classes):
            secret = " TFDS writes -1 where the label is secret." if low == -1 else ""
            raise InputError(
                f"{name!r}: the labels of {split} run from {low} to {high}; with {len(classes)}"
                f" classes they must be 0 to {len(classes) - 1}.{secret}"
            )


def _chosen(data: config.Data, splits: Mapping[str, Split], classes: tuple[str, ...]) -> Source:
    """The examples of `data.classes` alone, those classes numbered from 0 in that order."""
    if data.classes is None:
        return dict(splits), classes
    if max(data.classes) >= len(classes):
        raise InputError(
            f"data.classes: {data.classes}; those of {data.name!r} are 0 to {len(classes) - 1}."
        )
    numbers = np.full(len(classes), -1, np.int32)
    numbers[list(data.classes)] = np.arange(len(data.classes))
    kept = {}
    for name, part in splits.items():
        labels = numbers[part.labels]
        kept[name] = Split(part.images[labels >= 0], labels[labels >= 0])
        if len(kept[name].labels) == 0:
            raise InputError(f"data.classes: {data.classes}; {data.name!r} has none in {name}.")
    return kept, tuple(classes[k] for k in data.classes)


def divided(
    data: config.Data, sizes: Mapping[str, int], groups: np.ndarray | None = None
) -> tuple[Part, Part, Part]:
    """Which pictures of the stored splits, of so many each, are train, validation and test. One
    seed, one order: a smaller training set is part of a larger one. `groups` [N] of the training
    split go into validation whole, as long as there is room for them.
    """
    rng = np.random.default_rng(data.split_seed)
    total = sizes["train"]
    order = rng.permutation(total)
    held = data.validation_examples
    if groups is not None:
        names, group = np.unique(groups, return_inverse=True)
        order = order[np.argsort(rng.permutation(len(names))[group[order]], kind="stable")]
        ends = np.flatnonzero(np.diff(group[order], append=-1)) + 1
        held = int(max((end for end in ends if end <= held), default=0))
    if "test" in sizes and "validation" in sizes:
        tested = "test"
        own = rng.permutation(sizes["validation"])[: data.validation_examples]
        validation = "validation", own
    else:
        tested = "test" if "test" in sizes else "validation"
        if data.validation_examples >= total:
            raise InputError(
                f"data.validation_examples: {data.validation_examples} leaves nothing of the"
                f" {total} training examples of {data.name!r}."
            )
        validation = "train", order[:held]
        order = order[held:]
    count = data.train_examples if data.per_class is None else None
    if count is not None and count > len(order):
        raise InputError(
            f"data.train_examples: {count} is larger than the {len(order)} there are:"
            f" {data.name!r} has {total}, and {total - len(order)} are held out for validation."
        )
    test = tested, np.arange(sizes[tested])
    return ("train", order[:count]), validation, test


def _divide(data: config.Data, splits: Mapping[str, Split]) -> tuple[Split, Split, Split]:
    sizes = {split: len(part.labels) for split, part in splits.items()}
    (split, index), *others = divided(data, sizes, splits["train"].groups)
    if data.per_class is not None:
        index = _evenly(data, splits[split].labels[index], index)
    train, validation, test = (_take(splits[s], i) for s, i in ((split, index), *others))
    return train, validation, test


def _evenly(data: config.Data, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The first `data.per_class` of each class in the order, as they come."""
    assert data.per_class is not None
    counts = np.bincount(labels)
    if data.per_class > counts.min():
        raise InputError(
            f"data.per_class: {data.per_class} is larger than the {counts.min()} training examples"
            f" of class {counts.argmin()} that validation leaves of {data.name!r}."
        )
    firsts = [np.flatnonzero(labels == k)[: data.per_class] for k in range(len(counts))]
    return order[np.sort(np.concatenate(firsts))]


def _take(split: Split, index: np.ndarray) -> Split:
    groups = None if split.groups is None else split.groups[index]
    return Split(split.images[index], split.labels[index], groups)


def resized(data: config.Data, split: Split) -> Split:
    """Each pixel of a picture of side `data.resize` is the mean over a cell of the stored one."""
    if data.resize is None:
        return split
    count, height, width, channels = split.images.shape
    cell = height // data.resize
    if (height, width) != (cell * data.resize,) * 2:
        raise InputError(
            f"data.resize: {data.resize} does not divide the {height}x{width} pixels of"
            f" {data.name!r} into whole square cells."
        )
    cells = (data.resize, cell, data.resize, cell, channels)
    images = np.empty((count, data.resize, data.resize, channels), np.uint8)
    for i in range(0, count, 1000):
        part = split.images[i : i + 1000]
        mean = part.reshape(len(part), *cells).mean((2, 4), dtype=np.float32)
        images[i : i + 1000] = np.rint(mean)
    labels = split.labels if split.labels.ndim == 1 else (split.labels + 0.5) / cell - 0.5
    return Split(images, labels.astype(split.labels.dtype), split.groups)


def _covariance(images: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """[C, C], of the pixels in 0..1."""
    channels = images.shape[-1]
    total = np.zeros((channels, channels))
    for i in range(0, len(images), 1000):
        pixels = images[i : i + 1000].reshape(-1, channels).astype(np.float32) / 255 - mean
        total += pixels.T @ pixels
    return (total / (images.size // channels)).astype(np.float32)


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation [C] of the pixels in 0..1, exact: from how often each value occurs."""
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        # In parts, because bincount makes 8 bytes of each pixel.
        parts = (images[i : i + 1000, ..., channel] for i in range(0, len(images), 1000))
        counts = sum(np.bincount(part.ravel(), minlength=256) for part in parts)
        share = counts / images[..., channel].size
        means.append(share @ values)
        stds.append(np.sqrt(share @ (values - means[-1]) ** 2))
    return np.array(means, np.float32), np.array(stds, np.float32)


def _fingerprint(splits: Iterable[Split], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(json.dumps(classes).encode())
    for array in (a for split in splits for a in (split.images, split.labels)):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]
