"""`launch.py prepare DIR --to FILE.npz`: a folder of pictures of any size as one array file, which
`data.name` reads into memory (sources.py).
"""

from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.config import InputError
from jaxcnn.data import photos, readers
from jaxcnn.data.pictures import Unreadable
from jaxcnn.data.readers import Progress


def prepare(
    root: Path, to: Path, *, side: int, progress: Progress | None = None
) -> dict[str, tuple[int, dict[str, str]]]:
    """Write the splits of the folder `root` as squares of `side` pixels, RGB uint8, the middle of
    each picture; gives, of each split, how many are written and which could not be read, and why.
    """
    if side < 1:
        raise InputError(f"--side: {side} is not allowed; it must be at least 1.")
    if not root.is_dir():
        raise InputError(f"--to: is for folders of pictures, and {str(root)!r} is none.")
    splits = photos.folders(root, side)
    total, done = sum(map(len, splits.values())), 0
    arrays: dict[str, Any] = {}
    told: dict[str, tuple[int, dict[str, str]]] = {}
    for split, source in splits.items():
        images = np.empty((len(source), side, side, 3), np.uint8)
        labels, unreadable = [], {}
        for i in range(len(source)):
            try:
                labels.append(source.into(i, images[len(labels)]))
            except Unreadable as error:
                unreadable[source.name(i)] = str(error)
            done += 1
            if progress:
                progress(done, total)
        if not labels:
            raise InputError(f"{str(source.root)!r}: none of its pictures can be read.")
        arrays[f"{split}_images"] = images[: len(labels)]
        arrays[f"{split}_labels"] = np.array(labels, np.int32)
        arrays["class_names"] = np.array(source.classes)
        told[split] = len(labels), unreadable
    readers.save(to, **arrays)
    return told
