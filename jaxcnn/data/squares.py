"""Decoded squares in files that numpy knows, .npy: a record is a picture, its label, whether it
could be read, and its name. A picture is read by one call, to where it is wanted; ArrayRecord takes
three times as long for as many bytes.
"""

import os
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.data.pictures import Unreadable

SUFFIX = ".npy"


def record(side: int, name_bytes: int) -> np.dtype:
    picture = ("picture", "u1", (side, side, 3))
    rest = [("label", "<i4"), ("readable", "?"), ("name", f"S{max(1, name_bytes)}")]
    return np.dtype([picture, *rest])


class Opened(NamedTuple):
    descriptor: int
    start: int  # of the first record
    size: int  # of a record


@dataclass(frozen=True, eq=False)
class Squares:
    """A split of the shards that `shards.prepare` wrote in the form of pixels."""

    channels = 3
    form = "pixels"

    files: tuple[Path, ...]
    counts: tuple[int, ...] = field(repr=False)  # records of each
    classes: tuple[str, ...]
    side: int
    fingerprint: str

    @property
    def stored(self) -> int:
        return self.side

    def __len__(self) -> int:
        return sum(self.counts)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.counts))

    @cached_property
    def _opened(self) -> dict[int, Opened]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files: another process opens its own."""
        return {name: value for name, value in vars(self).items() if name != "_opened"}

    def _file(self, number: int) -> Opened:
        if number not in self._opened:
            with self.files[number].open("rb") as file:
                np.lib.format.read_magic(file)
                _, _, kind = np.lib.format.read_array_header_1_0(file)
                found = Opened(os.dup(file.fileno()), file.tell(), kind.itemsize)
            if self._opened.setdefault(number, found) is not found:  # another thread was faster
                os.close(found.descriptor)
        return self._opened[number]

    def _read(self, index: int, out: np.ndarray) -> bytes:
        """What stands behind the picture: label, whether it could be read, name."""
        number = bisect_right(self._ends, index)
        file, first = self._file(number), self._ends[number] - self.counts[number]
        rest = bytearray(file.size - out.nbytes)
        buffers: Any = [out, rest]
        at = file.start + (index - first) * file.size
        if os.preadv(file.descriptor, buffers, at) != file.size:
            raise Unreadable(f"{self.files[number].name} is cut off")
        return bytes(rest)

    def name(self, index: int) -> str:
        out = np.empty((self.side, self.side, 3), np.uint8)
        return os.fsdecode(self._read(index, out)[5:].rstrip(b"\0"))

    def into(self, index: int, out: np.ndarray) -> int:
        rest = self._read(index, out)
        if not rest[4]:
            raise Unreadable("it could not be read when the shards were made")
        return int.from_bytes(rest[:4], "little", signed=True)
