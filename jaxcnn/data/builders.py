"""Prepared TFDS sets whose pictures stay encoded until they are asked for: `imagenet2012`.

Reading needs no TensorFlow. A set is its folder, DIR/NAME/VERSION, with dataset_info.json in it.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.config import InputError
from jaxcnn.data import pictures, readers

INFO = "dataset_info.json"


@dataclass(frozen=True, eq=False)
class Records:
    """A split of a TFDS set."""

    channels = 3
    folder: Path
    split: str
    classes: tuple[str, ...]
    side: int
    keys: tuple[str, str]  # of a record: its picture and its label
    first: int  # record
    count: int
    fingerprint: str

    def __len__(self) -> int:
        return self.count

    @cached_property
    def _records(self) -> Any:
        import tensorflow_datasets as tfds

        found = tfds.builder_from_directory(self.folder)
        skip = {self.keys[0]: tfds.decode.SkipDecoding()}
        return found.as_data_source(self.split, decoders=skip)  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files: another process opens its own."""
        return {name: value for name, value in vars(self).items() if name != "_records"}

    def part(self, start: int, end: int) -> "Records":
        """The pictures from `start` to before `end`."""
        return replace(self, first=self.first + start, count=end - start)

    def name(self, index: int) -> str:
        """The file that it was, where the set says so."""
        name = self._records[self.first + index].get("file_name", b"")
        return name.decode() or f"{self.split}/{self.first + index}"

    def label(self, index: int) -> int:
        return self.load(index)[1]

    def load(self, index: int) -> tuple[bytes, int]:
        """The encoded picture as it is stored, and its label."""
        record = self._records[self.first + index]
        return record[self.keys[0]], int(record[self.keys[1]])

    def into(self, index: int, out: np.ndarray) -> int:
        data, label = self.load(index)
        pictures.into(data, self.side, out)
        return label


def is_builder(folder: Path) -> bool:
    return (folder / INFO).is_file()


def splits(folder: Path, side: int) -> dict[str, Records]:
    """The splits of a prepared set; those without labels (ImageNet's test pictures) are left out.

    Raises `InputError` for a set that is not stored as array_record or is not of pictures by class.
    """
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    readers.is_prepared(builder)
    info = builder.info
    keys = readers.image_and_label(builder.name, info)
    classes = getattr(info.features[keys[1]], "names", None)
    if not classes:
        raise InputError(f"{builder.name!r}: its classes have no names.")
    found = {}
    for split in readers.SPLITS:
        if split not in info.splits or info.splits[split].num_examples == 0:
            continue
        entry = info.splits[split]
        about = [info.full_name, split, entry.shard_lengths, entry.num_bytes, classes]
        fingerprint = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        own = Records(folder, split, tuple(classes), side, keys, 0, entry.num_examples, fingerprint)
        if own.load(0)[1] >= 0:
            found[split] = own
    return found
