"""The four places that images are read from: this package, an array file, a folder, TFDS.

Each reader gives the source's own splits and the class names. None looks at the network: what is
not there raises `InputError`.
"""

import contextlib
import gzip
import os
import re
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.config import Absent, InputError, suggest

MNIST = Path(__file__).parent / "mnist"
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")
SPLITS = ("train", "validation", "test")
DECODE_AT_ONCE = 1000  # records a call: twice as fast as one by one


@dataclass(frozen=True, eq=False)
class Split:
    """images [N, H, W, C] uint8; labels [N] int32, or points float32 [N, P, 2]: x, y in pixels, the
    middle of the first one at 0, 0. groups [N]: pictures of one are never in two parts of a split.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None


Source = tuple[dict[str, Split], tuple[str, ...]]  # the splits by name, the classes
Progress = Callable[[int, int], None]  # examples read, of how many


def default_data_dir() -> Path:
    """Where TFDS itself looks."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def packaged_mnist() -> Source:
    def idx(name: str) -> np.ndarray:
        # LeCun's format: 0, 0, type, number of dimensions; each as a big-endian int32; the bytes.
        raw = gzip.decompress((MNIST / name).read_bytes())
        start = 4 + 4 * raw[3]
        return np.frombuffer(raw, np.uint8, offset=start).reshape(
            np.frombuffer(raw[4:start], ">i4")
        )

    splits = {
        split: as_split(
            split, idx(f"{file}-images-idx3-ubyte.gz"), idx(f"{file}-labels-idx1-ubyte.gz")
        )
        for split, file in (("train", "train"), ("test", "t10k"))
    }
    return splits, tuple("0123456789")


def npz(path: Path) -> Source:
    if not path.is_file():
        raise InputError(f"{str(path)!r} is no file.")
    arrays = _arrays(path)
    if arrays is None:
        raise InputError(f"{str(path)!r} is no .npz file of plain arrays.")
    parts = {key.rpartition("_")[0] for key in arrays}
    names = [n for n in SPLITS if n == "train" or n in parts]
    told = "points" if "points" in {key.rpartition("_")[2] for key in arrays} else "labels"
    needed = [f"{n}_{what}" for n in names for what in ("images", told)]
    if missing := [key for key in needed if key not in arrays]:
        raise InputError(
            f"{str(path)!r} lacks {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}."
        )
    if told == "points":
        splits = {
            n: _with_points(
                n, arrays[f"{n}_images"], arrays[f"{n}_points"], arrays.get(f"{n}_groups")
            )
            for n in names
        }
        count = splits["train"].labels.shape[1]
        return splits, tuple(map(str, range(count)))
    splits = {n: as_split(n, arrays[f"{n}_images"], arrays[f"{n}_labels"]) for n in names}
    if "class_names" in arrays:
        return splits, tuple(str(c) for c in arrays["class_names"])
    found = np.unique(np.concatenate([s.labels for s in splits.values()]))
    if not np.array_equal(found, np.arange(len(found))):
        raise InputError(
            f"{str(path)!r}: its {len(found)} different labels run from {found[0]} to {found[-1]};"
            " without class_names they must be 0, 1, 2, ... with none left out."
        )
    return splits, tuple(str(label) for label in found)


def folder(root: Path, progress: Progress | None) -> Source:
    places = {s: root / s for s in SPLITS}
    if not places["validation"].is_dir():
        places["validation"] = root / "val"
    places = {s: place for s, place in places.items() if place.is_dir()}
    classes = tuple(sorted(p.name for p in places["train"].iterdir() if p.is_dir()))
    if not classes:
        raise InputError(f"{str(places['train'])!r} has no folders of images, one a class.")
    files: list[tuple[str, int, Path]] = []
    for split, place in places.items():
        for directory in sorted(p for p in place.iterdir() if p.is_dir()):
            if directory.name not in classes:
                raise InputError(f"{str(directory)!r}: train/ has no class of that name.")
            found = sorted(f for f in directory.iterdir() if f.suffix.lower() in SUFFIXES)
            if not found:
                raise InputError(f"{str(directory)!r} has no image ({', '.join(SUFFIXES)}).")
            files += [(split, classes.index(directory.name), f) for f in found]
    images = _decode_files([f for _, _, f in files], progress)
    owner = np.array([split for split, _, _ in files])
    labels = np.array([label for _, label, _ in files])
    return {s: as_split(s, images[owner == s], labels[owner == s]) for s in places}, classes


def decode(file: Path) -> np.ndarray:
    """A picture uint8, [H, W] if it is grey, else [H, W, 3], RGB."""
    import cv2

    if not file.is_file():
        raise InputError(f"{str(file)!r} is no file.")
    stored = np.fromfile(file, np.uint8)
    # ANYCOLOR keeps grey grey, drops an alpha channel and obeys the camera's orientation tag.
    picture = cv2.imdecode(stored, cv2.IMREAD_ANYCOLOR) if stored.size else None
    if picture is None:
        raise InputError(f"{str(file)!r} is no image that can be decoded.")
    return picture if picture.ndim == 2 else picture[..., ::-1]  # BGR -> RGB


def _decode_files(files: list[Path], progress: Progress | None) -> np.ndarray:
    """[N, H, W, C]; C is 1 if all are grey, else 3."""
    pictures = []
    for i, file in enumerate(files, 1):
        picture = decode(file)
        pictures.append(picture)
        if picture.shape[:2] != pictures[0].shape[:2]:
            raise InputError(
                f"images must have one size; {str(file)!r} is {size(picture.shape[:2])},"
                f" {str(files[0])!r} is {size(pictures[0].shape[:2])}."
                " With data.stream=true they are brought to one."
            )
        if progress:
            progress(i, len(files))
    if all(p.ndim == 2 for p in pictures):
        return np.stack(pictures)[..., None]
    return np.stack([p if p.ndim == 3 else np.repeat(p[..., None], 3, -1) for p in pictures])


def builder(name: str, data_dir: Path) -> Any:
    """The TFDS builder of that name, prepared or not."""
    import tensorflow_datasets as tfds  # half a second: only who asks for TFDS pays

    base, config = (*re.split("[/:]", name, maxsplit=2), "")[:2]
    known = tfds.list_builders(with_community_datasets=False)
    unknown = Absent(
        f"{name!r} is no packaged data set, no array file, no folder with train/ in it and no TFDS"
        f" builder.{suggest(base, known)}"
    )
    # No "namespace:name": TFDS would look for those on the network.
    if not re.fullmatch(r"\w+(/[\w.-]+)?(:[0-9*.]+)?", name):
        raise unknown
    if "/" in name and base in known:
        configs = tfds.builder_cls(base).builder_configs
        if config not in configs:
            raise InputError(
                f"{name!r}: {base} has no config {config!r}.{suggest(config, configs)}"
                f" Its configs: {', '.join(configs) or 'none'}."
            )
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise unknown from None
    except (AssertionError, ImportError, ValueError) as error:
        # A version that does not exist, or a builder whose code needs what is not installed.
        why = str(error).rpartition('": ')[2]
        raise InputError(f"{name!r}: {why}") from error


def is_prepared(found: Any) -> bool:
    """Whether a builder's records are on disk; raises `InputError` if not in the form we read."""
    if not (Path(found.data_dir) / "dataset_info.json").is_file():
        return False
    formats = {f.value for f in found.info.available_file_formats()}
    if "array_record" not in formats:
        raise InputError(
            f"{found.name!r} in {found.data_dir} is stored as {', '.join(sorted(formats))}, not as"
            " array_record. Move it away and prepare it again, or use another data directory."
        )
    return True


def tfds(name: str, data_dir: Path | None, progress: Progress | None) -> Source:
    found = builder(name, data_dir or default_data_dir())
    if not is_prepared(found):
        there = f" --data-dir {data_dir}" if data_dir else ""
        raise InputError(
            f"{name!r} is not prepared in {data_dir or default_data_dir()}."
            f" Run: python launch.py prepare {name}{there}"
        )
    info = found.info
    if "train" not in info.splits:
        raise InputError(f"{name!r} has no split 'train', only {', '.join(info.splits)}.")
    image, label = image_and_label(name, info)
    there = [split for split in SPLITS if split in info.splits]
    decoded = {split: _decoded(found, split, image, label, progress) for split in there}
    names = getattr(info.features[label], "names", None)
    if any(labels.dtype.kind == "U" for _, labels in decoded.values()):  # lfw's people
        names = np.unique(np.concatenate([labels for _, labels in decoded.values()]))
        decoded = {s: (i, np.searchsorted(names, told)) for s, (i, told) in decoded.items()}
        names = names.tolist()
    splits = {split: as_split(split, *arrays) for split, arrays in decoded.items()}
    count = 1 + max(int(s.labels.max()) for s in splits.values())
    return splits, tuple(names or map(str, range(count)))


def image_and_label(name: str, info: Any) -> tuple[str, str]:
    """What a TFDS set calls its pictures and their classes; raises `InputError` if it has none."""
    keys = info.supervised_keys
    if not (keys and len(keys) == 2 and all(isinstance(k, str) for k in keys)):
        keys = ("image", "label")
    if keys == ("label", "image"):  # lfw's are the wrong way round
        keys = ("image", "label")
    features = [info.features[k] for k in keys if k in info.features]
    match [(np.dtype(f.np_dtype), f.shape) for f in features]:
        case [(np.dtype(name="uint8"), (_, _, _)), (np.dtype(kind="i" | "u" | "O"), ())]:
            return keys
    raise InputError(
        f"{name!r} is no set of 8-bit images with one class each; its examples hold"
        f" {', '.join(info.features)}."
    )


def _decoded(
    found: Any, split: str, image: str, label: str, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of a TFDS split, numbers or names, decoded once: kept as arrays beside
    its records for the next launch.
    """
    cache = Path(found.data_dir) / f"jaxcnn_{split}.npz"
    count = found.info.splits[split].num_examples
    kept = _arrays(cache) or {}
    if kept.keys() == {"images", "labels"} and len(kept["labels"]) == count:
        return kept["images"], kept["labels"]
    source = found.as_data_source(split)
    text = np.dtype(found.info.features[label].np_dtype) == object
    images, labels = np.empty(0, np.uint8), np.empty(count, object if text else np.int64)
    for start in range(0, count, DECODE_AT_ONCE):
        end = min(start + DECODE_AT_ONCE, count)
        examples = source.__getitems__(list(range(start, end)))
        shapes = {e[image].shape for e in examples} | ({images.shape[1:]} if start else set())
        if len(shapes) > 1:
            raise InputError(
                f"{found.name!r}: images must have one size; the {split} split has"
                f" {' and '.join(size(s) for s in sorted(shapes)[:2])}."
            )
        if start == 0:  # only once a thousand agree: photos of many sizes might not fit as arrays
            images = np.empty((count, *shapes.pop()), np.uint8)
        images[start:end] = [e[image] for e in examples]
        labels[start:end] = [e[label].decode() if text else e[label] for e in examples]
        if progress:
            progress(end, count)
    with contextlib.suppress(OSError):  # where we may not write
        save(cache, images=images, labels=labels.astype(str) if text else labels)
    return images, labels.astype(str) if text else labels


def _arrays(path: Path) -> dict[str, np.ndarray] | None:
    """What an .npz file holds; None if it is not there, is damaged or holds Python objects."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            return dict(file)
    except (EOFError, OSError, TypeError, ValueError, zipfile.BadZipFile):
        return None


def save(path: Path, **arrays: np.ndarray) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def as_split(name: str, images: np.ndarray, labels: np.ndarray) -> Split:
    """Raises `InputError` for arrays that are not images and their labels."""
    fine = images.dtype == np.uint8 and images.ndim in (3, 4) and len(images) > 0
    if not fine or labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InputError(
            f"the {name} split must be images uint8 [N, H, W] or [N, H, W, C] and labels int [N];"
            f" found {images.dtype} {list(images.shape)} and {labels.dtype} {list(labels.shape)}."
        )
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int32))


def size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _with_points(
    name: str, images: np.ndarray, points: np.ndarray, groups: np.ndarray | None
) -> Split:
    """Raises `InputError` for arrays that are not images and their points."""
    whole = as_split(name, images, np.zeros(len(images), np.int32))
    fine = points.ndim == 3 and points.shape[::2] == (len(images), 2)
    if not fine or points.dtype.kind != "f" or not np.isfinite(points).all():
        raise InputError(
            f"the points of the {name} split must be finite floats [{len(images)}, P, 2]; found"
            f" {points.dtype} {list(points.shape)}."
        )
    if groups is not None and groups.shape != (len(images),):
        raise InputError(
            f"the groups of the {name} split must be [{len(images)}]; found {list(groups.shape)}."
        )
    return Split(whole.images, points.astype(np.float32), groups)
