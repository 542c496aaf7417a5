"""Where pictures that do not fit in memory lie: a folder of files by class, a prepared TFDS set, or
shards made of either.

A source has `classes`, `fingerprint` (of its pictures' names, in order), a length, and by index
`into(i, out)`: the square picture, written to `out` [S, S, C] uint8, and its label; and `name(i)`.
The shards of a folder hold its pictures in its order, unreadable ones too: picture i is picture i
of the folder.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxcnn.config import InputError, suggest
from jaxcnn.data import builders, pictures, readers, workers
from jaxcnn.data.builders import Records
from jaxcnn.data.pictures import Unreadable
from jaxcnn.data.squares import Squares

INDEX = "index.json"
FORMATS = {"jpeg": 2, "pixels": 2}  # of shards: the version of each form
HEADER = struct.Struct("<iH")  # of a record: label, length of the name; then name and picture
SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


class Source(Protocol):
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def side(self) -> int: ...
    @property
    def channels(self) -> int: ...
    def __len__(self) -> int: ...
    def name(self, index: int) -> str: ...
    def into(self, index: int, out: np.ndarray) -> int:
        """The label; raises `Unreadable`."""
        ...


def read(source: Source, index: int) -> tuple[np.ndarray, int]:
    """[S, S, C] uint8, label; raises `Unreadable`."""
    out = np.empty((source.side, source.side, source.channels), np.uint8)
    label = source.into(index, out)
    return out, label


@dataclass(frozen=True, eq=False)
class Folder:
    """The files `root/CLASS/*`, sorted; labels are the places of the classes."""

    channels = 3
    root: Path
    classes: tuple[str, ...]
    side: int
    # Both [N]. The names are bytes: a million of them travel to every process that decodes.
    names: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"{self.classes[self.labels[index]]}/{os.fsdecode(self.names[index])}"

    def part(self, start: int, end: int) -> "Folder":
        """The pictures from `start` to before `end`."""
        own = slice(start, end)
        return replace(self, names=self.names[own], labels=self.labels[own])

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def load(self, index: int) -> tuple[bytes, int]:
        """The file as it is, and its label."""
        return (self.root / self.name(index)).read_bytes(), int(self.labels[index])

    def into(self, index: int, out: np.ndarray) -> int:
        data, label = self.load(index)
        pictures.into(data, self.side, out)
        return label


@dataclass(frozen=True, eq=False)
class Shards:
    """A split of the shards that `shards.prepare` wrote in the form of JPEGs."""

    channels = 3
    form = "jpeg"

    files: tuple[Path, ...]
    classes: tuple[str, ...]
    side: int
    stored: int  # the shorter side of its pictures
    fingerprint: str
    count: int

    def __len__(self) -> int:
        return self.count

    @cached_property
    def _records(self) -> Any:
        from array_record.python import array_record_data_source as array_record

        return array_record.ArrayRecordDataSource([str(file) for file in self.files])

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files: another process opens its own."""
        return {name: value for name, value in vars(self).items() if name != "_records"}

    def _record(self, index: int) -> tuple[int, bytes, int, int]:
        """Its label, itself, and where its name ends and how long that is."""
        record = self._records[index]  # `__getitems__` starts threads for it: three times as slow
        label, length = HEADER.unpack_from(record)
        return label, record, HEADER.size + length, length

    def name(self, index: int) -> str:
        _, record, end, length = self._record(index)
        return os.fsdecode(record[end - length : end])

    def into(self, index: int, out: np.ndarray) -> int:
        label, record, end, _ = self._record(index)
        if len(record) == end:
            raise Unreadable("it could not be read when the shards were made")
        pictures.into(record[end:], self.side, out)
        return label


def record(label: int, name: str, picture: bytes) -> bytes:
    """As `Shards` reads it; an empty picture is one that could not be read."""
    raw = os.fsencode(name)
    return HEADER.pack(label, len(raw)) + raw + picture


def open_split(root: Path, split: str, side: int) -> Source:
    """A split of the folder, of the TFDS set or of the shards in `root`, its pictures squares of
    `side` pixels.

    Raises `InputError` where it is not there, and for shards whose pictures cannot be of that size
    or whose files are not as the index says.
    """
    if not root.is_dir():
        raise InputError(f"--data: {str(root)!r} is no folder.")
    found = shards(root, side) if (root / INDEX).is_file() else encoded(root, side)
    if split not in found:
        raise InputError(
            f"--split: {str(root)!r} has no {split!r}, only {', '.join(found)}."
            f"{suggest(split, found)}"
        )
    return found[split]


def is_folder(root: Path) -> bool:
    return any((root / n).is_dir() for names in SPLITS.values() for n in names)


def encoded(root: Path, side: int) -> dict[str, Folder] | dict[str, Records]:
    """The splits of a folder of files, or of a TFDS set's folder."""
    return builders.splits(root, side) if builders.is_builder(root) else folders(root, side)


def folders(root: Path, side: int) -> dict[str, Folder]:
    """The splits of a folder; the classes are those of train/ where there is one."""
    places = {
        split: next((root / n for n in names if (root / n).is_dir()), None)
        for split, names in SPLITS.items()
    }
    there = {split: place for split, place in places.items() if place is not None}
    if not there:
        raise InputError(
            f"{str(root)!r} has neither {INDEX} (of prepared shards) nor a folder train/,"
            " validation/, val/ or test/ with a folder of pictures for each class; nor is it the"
            f" folder of a TFDS set's version, with {builders.INFO}."
        )
    classes: tuple[str, ...] = ()
    found = {}
    for split, place in there.items():
        own = sorted(entry.name for entry in os.scandir(place) if entry.is_dir())
        if not own:
            raise InputError(f"{str(place)!r} has no folders of pictures, one a class.")
        classes = classes or tuple(own)
        if strange := sorted(set(own) - set(classes)):
            first = next(iter(there.values()))
            raise InputError(
                f"{str(place)!r}: {', '.join(strange[:3])}: {first.name}/ has no such class."
            )
        found[split] = _folder(place, classes, side)
    return found


def _folder(place: Path, classes: tuple[str, ...], side: int) -> Folder:
    names: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if not (place / name).is_dir():
            continue
        entries = list(os.scandir(place / name))
        own = sorted(
            os.fsencode(e.name) for e in entries if e.name.lower().endswith(readers.SUFFIXES)
        )
        if not own:
            deeper = sorted(e.name for e in entries if e.is_dir())[:3]
            lower = f"; its folders ({', '.join(deeper)}) are not looked into" if deeper else ""
            raise InputError(
                f"{str(place / name)!r} has no picture ({', '.join(readers.SUFFIXES)}){lower}."
            )
        names += own
        labels += [label] * len(own)
    numbers = np.array(labels, np.int32)
    listed = b"\n".join([*map(os.fsencode, classes), *names, numbers.tobytes()])
    fingerprint = hashlib.sha256(listed).hexdigest()
    return Folder(place, classes, side, np.array(names), numbers, fingerprint)


def shards(
    root: Path, side: int, asked: str = "--resize"
) -> dict[str, Shards] | dict[str, Squares]:
    """The splits of shards that are whole. `asked` is where `side` was said, for the error."""
    try:
        index = json.loads((root / INDEX).read_text())
        form, stored, classes = index["form"], index["side"], tuple(index["classes"])
        old = form == "pixels" and index["format"] != FORMATS[form]
        splits = {split: _split(root, entry) for split, entry in index["splits"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{str(root / INDEX)!r} is no index of shards ({error}). Prepare them again."
        ) from error
    if old:
        raise InputError(
            f"{str(root)!r}: its shards of pixels are of a form that is no longer read. Move them"
            " away and prepare them again."
        )
    check_side(form, stored, side, asked, f"the shards in {str(root)!r}")
    workers.allow_files(sum(len(files) for files, *_ in splits.values()))
    if form == "pixels":
        return {
            split: Squares(files, counts, classes, side, fingerprint)
            for split, (files, fingerprint, counts) in splits.items()
        }
    return {
        split: Shards(files, classes, side, stored, fingerprint, sum(counts))
        for split, (files, fingerprint, counts) in splits.items()
    }


def check_side(form: str, stored: int, side: int, asked: str, what: str) -> None:
    """Raise `InputError` where shards of that form and side have no pictures of `side` pixels."""
    if side > stored or (form == "pixels" and side != stored):
        least = "of" if form == "pixels" else "at or below"
        raise InputError(
            f"{asked}: {side} is not possible: {what} hold {form} of shorter side {stored}. Ask for"
            f" one {least} {stored}, or prepare others: prepare --side {side}."
        )


def _split(root: Path, entry: Mapping[str, Any]) -> tuple[tuple[Path, ...], str, tuple[int, ...]]:
    files = tuple(root / shard["file"] for shard in entry["shards"])
    for file, shard in zip(files, entry["shards"], strict=True):
        size = file.stat().st_size if file.is_file() else None
        if size != shard["bytes"]:
            state = "is not there" if size is None else f"has {size} bytes, not {shard['bytes']}"
            raise InputError(f"{str(file)!r} {state}. The same `prepare` again makes it anew.")
    counts = tuple(shard["pictures"] for shard in entry["shards"])
    return files, entry["fingerprint"], counts
