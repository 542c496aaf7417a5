"""Photos made up for tests: as arrays, as JPEGs, in folders; and what a stream of them gives."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from jaxcnn.data import photos
from jaxcnn.data.photos import open_split
from jaxcnn.data.stream import Stream

SIDE = 20
CLASSES = tuple(f"n{i:08d}" for i in range(10))


def photo(seed: int, height: int = 30, width: int = 40) -> np.ndarray:
    """[height, width, 3] uint8, smooth as photos are."""
    rough = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray | Image.Image, **options) -> bytes:
    raw = io.BytesIO()
    kind = image if isinstance(image, Image.Image) else Image.fromarray(image)
    kind.save(raw, "JPEG", quality=95, **options)
    return raw.getvalue()


def make(root: Path, split: str, each: int, classes=CLASSES) -> None:
    for i, name in enumerate(classes):
        (root / split / name).mkdir(parents=True)
        for k in range(each):
            path = root / split / name / f"{name}_{k}.JPEG"
            path.write_bytes(jpeg(photo(100 * i + k)))


def uneven(root: Path) -> Path:
    """47 of train, of sizes of their own; 10 classes."""
    make(root, "train", 4)
    for k in range(7):
        path = root / "train" / CLASSES[3] / f"more_{k}.jpg"
        path.write_bytes(jpeg(photo(900 + k, 20 + 3 * k, 50)))
    return root


def train(root: Path) -> photos.Source:
    return open_split(root, "train", SIDE)


def taken(stream: Stream, *where, **how) -> list[bytes]:
    """Every picture with its label, in order."""
    with stream.batches(*where, **how) as batches:
        return [rows for images, labels in batches for rows in rows_of(images, labels)]


def rows_of(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    assert images.shape == (len(labels), SIDE, SIDE, 3)
    return [i.tobytes() + bytes([n]) for i, n in zip(images, labels, strict=True)]


def everything(source: photos.Source) -> list[bytes]:
    return [
        image.tobytes() + bytes([n])
        for image, n in (photos.read(source, i) for i in range(len(source)))
    ]
