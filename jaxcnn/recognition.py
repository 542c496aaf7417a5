"""`launch.py faces`: how well a finished run's embedding tells people apart: tables and curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn import faces, losses, ops, plots, records, starts, stats, trained
from jaxcnn.config import InputError
from jaxcnn.data import readers
from jaxcnn.data.sources import Dataset
from jaxcnn.faces import Judged
from jaxcnn.listing import Column, Listing
from jaxcnn.trained import Trained

RANKS = (1, 5)


def judged(source: Trained, layer: str, split: str, gallery: int) -> list[Judged]:
    """By the embedding of `layer` ('': what the last layer is given), by eigenfaces, by pixels.

    Raises `InputError` for a layer that is none, and for a split without pictures.
    """
    if source.run.train.objective not in losses.OF_CLASSES:
        raise InputError(
            f"RUN: its train.objective is {source.run.train.objective!r}; embeddings of people come"
            f" from {' or '.join(map(repr, losses.OF_CLASSES))}."
        )
    name = _layer(source, layer)
    found = trained.features(source, name, split)
    assert isinstance(source.data, Dataset)  # of others there are no features
    net = faces.judged(name, found, getattr(source.data, split).labels, gallery)
    return [net, *faces.baselines(source.data, split, gallery)]


def table(source: Trained, split: str, gallery: int, found: Sequence[Judged]) -> Listing:
    columns = [Column("embedding", "embedding", "l")]
    columns += [Column(f"rank{k}", f"rank-{k}, %", form=".2f") for k in RANKS]
    columns += [Column("eer", "EER, %", form=".2f")]
    columns += [
        Column(f"tar{far:g}", f"TAR at FAR {100 * far:g} %, %", form=".2f") for far in faces.FARS
    ]
    rows = []
    for one in found:
        row: dict[str, Any] = {"embedding": one.name, "eer": 100 * one.verification.equal_error}
        for k in RANKS:
            row[f"rank{k}"] = 100 * float(one.matches[min(k, len(one.matches)) - 1])
        for far in faces.FARS:
            rate = one.verification.true_at(far)
            row[f"tar{far:g}"] = None if np.isnan(rate) else 100 * rate
        rows.append(row)
    people, (false, true) = len(found[0].matches), found[0].verification.pairs
    data = source.run.data
    seen = "none of whom it was trained on" if data.unseen is not None and split == "test" else ""
    seen = seen or "whom it was trained on"
    note = (
        f"{found[0].pictures:,} pictures of {people} people, {seen}. Identification: {gallery} of"
        f" each enrolled in turn, the others to be named. Verification: {true:,} pairs of one"
        f" person, {false:,} of two."
    )
    title = f"{data.name}, {split}: who is it, and are these two one?"
    return Listing("faces", title, tuple(columns), tuple(rows), note)


def by_pairs(
    source: Trained, layer: str, pairs: Path, pictures: Path, zoom: float
) -> tuple[Listing, faces.Verification]:
    """The protocol of Labeled Faces in the Wild."""
    if zoom < 1:
        raise InputError(f"--zoom: {zoom:g} is not allowed; it must be at least 1.")
    name = _layer(source, layer)
    folds = faces.read_pairs(pairs)
    places = faces.files(folds, pictures, readers.SUFFIXES)
    shape = source.problem.image_shape
    images = np.stack([_fitted(readers.decode(file), shape, zoom) for file in places.values()])
    parts = source.run, source.problem, source.state, source.data
    found = faces.normalized(starts.features(*parts, name, images))
    own = dict(zip(places, found, strict=True))
    accuracies, curve = faces.by_folds(folds, lambda p: float(own[p.first] @ own[p.second]))
    mean, low, high = stats.interval(accuracies)
    columns = (
        Column("embedding", "embedding", "l"),
        *(Column("accuracy", "accuracy, %", form=".2f"), Column("interval", "95 %")),
        *(Column("folds", "folds"), Column("pairs", "pairs")),
        Column("eer", "EER, %", form=".2f"),
    )
    row: dict[str, Any] = {"embedding": name, "accuracy": 100 * mean, "folds": len(folds)}
    row |= {"interval": f"{100 * low:.2f} to {100 * high:.2f}", "pairs": sum(map(len, folds))}
    row |= {"eer": 100 * curve.equal_error}
    note = (
        "Each fold by the threshold that is best on the others; mean and t-interval over folds."
        " The net may have been trained on other people's pictures: the protocol of outside data."
    )
    return Listing("pairs", pairs.name, columns, (row,), note), curve


def _fitted(picture: np.ndarray, shape: tuple[int, ...], zoom: float) -> np.ndarray:
    """The middle of a picture, 1 / `zoom` of its sides or what of that has the shape's ratio, at
    the shape [H, W, C]; grey where that is.
    """
    import cv2

    height, width, channels = shape
    if channels == 1 and picture.ndim == 3:
        picture = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    if channels == 3 and picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, -1)
    scale = min(picture.shape[0] / height, picture.shape[1] / width) / zoom
    tall, wide = max(1, round(scale * height)), max(1, round(scale * width))
    top, left = (picture.shape[0] - tall) // 2, (picture.shape[1] - wide) // 2
    part = np.ascontiguousarray(picture[top : top + tall, left : left + wide])
    if part.shape[:2] != (height, width):
        way = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
        part = cv2.resize(part, (width, height), interpolation=way)
    return part.reshape(shape)


def _layer(source: Trained, name: str) -> str:
    """`name`, or the layer whose features the last one is given, where it is empty."""
    if not name:
        return faces.layer(source.run, source.problem)
    ops.lookup(trained.layers(source), name, "--layer")
    return name


def write(curves: dict[str, faces.Verification], out: Path, name: str) -> Path:
    """The receiver operating characteristics, as PNG."""
    lines = {who: (c.false_accepted, c.true_accepted) for who, c in curves.items()}
    return records.write(out / f"{name}.roc.png", plots.png(plots.operating(lines)))


def write_all(found: Sequence[Judged], out: Path, name: str) -> list[Path]:
    """Both kinds of curves, as PNG."""
    matches = plots.cumulative_matches({one.name: one.matches for one in found})
    return [
        write({one.name: one.verification for one in found}, out, name),
        records.write(out / f"{name}.cmc.png", plots.png(matches)),
    ]
