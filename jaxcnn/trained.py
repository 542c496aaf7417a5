"""A finished run, back from its folder: what it was trained on, its weights, what it says of
pictures, what its layers make of them.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import config, landmarks, losses, ops, records, starts, step, train, transfer
from jaxcnn.config import InputError, Run
from jaxcnn.data import augment, pictures, readers, sources
from jaxcnn.data.pictures import Unreadable
from jaxcnn.data.sources import Dataset, Split
from jaxcnn.data.streamed import Pictures
from jaxcnn.nets import Problem
from jaxcnn.records import Record
from jaxcnn.starts import LAST
from jaxcnn.step import State


class Trained(NamedTuple):
    record: Record
    run: Run
    data: Pictures
    problem: Problem
    state: State  # at the last step, or at that of another checkpoint

    @property
    def at(self) -> int:
        """The step of its weights."""
        return int(self.state.step)


def load(folder: Path, data_dir: Path | None = None, checkpoint: str = LAST) -> Trained:
    """The run in `folder`, at its last step, at that of the 'best' checkpoint, or at a step that is
    kept. Raises `InputError` where none is, or none that came to its end; the data set is needed
    too, for the moments of its pixels and the names of its classes.
    """
    record = records.read(folder)
    if record is None:
        raise InputError(
            f"RUN: {str(folder)!r} is no run's folder: it has no run.json. Runs stand in"
            " runs/EXPERIMENT/ARM/."
        )
    if record.result is None:
        again = record.info["command"]
        raise InputError(f"RUN: {str(folder)!r} is not finished. To go on:\n  {again}")
    if record.diverged and checkpoint == LAST:
        at = record.result["step"]
        raise InputError(f"RUN: {str(folder)!r} diverged at step {at}; it has no weights to use.")
    run = record.run
    if run.model.name in config.CLASSICAL:
        raise InputError(
            f"RUN: {str(folder)!r} is of model.name {run.model.name!r}, which is fitted anew at"
            " each use; only models that are trained by steps keep weights."
        )
    data = train.load_data([run], data_dir)[run.data]
    then = record.info["data"]["fingerprint"]
    if data.fingerprint != then:
        raise InputError(
            f"data.name: {run.data.name!r} has changed since {folder} was trained (fingerprint"
            f" {data.fingerprint}, then {then})."
        )
    state = starts.final(folder, run, data, checkpoint)
    return Trained(record, run, data, train.problem_of(run, data), state)


def probabilities(trained: Trained, files: Sequence[Path]) -> np.ndarray:
    """Of each picture and class, [N, K]. Raises `InputError` for a picture that is not of the size
    and the channels of the run's, and for a run that does not tell classes.
    """
    run = trained.run
    if run.train.objective not in losses.OF_CLASSES:
        raise InputError(
            f"RUN: its train.objective is {run.train.objective!r}; probabilities of classes come"
            f" from {' or '.join(map(repr, losses.OF_CLASSES))} alone."
        )
    images = np.stack([_picture(trained, file) for file in files])
    moments = (trained.data.mean, trained.data.std, trained.data.covariance)

    def softmax(state: State, images: jax.Array) -> jax.Array:
        logits, _ = step.evaluate(run, trained.problem, state, images, moments)  # type: ignore
        return jax.nn.softmax(logits.astype(np.float32))

    return np.asarray(jax.jit(softmax)(trained.state, images))


def layers(trained: Trained) -> dict[str, tuple[int, ...]]:
    """Layer -> the shape of its features of one picture, in the order in which it meets them."""
    return starts.feature_shapes(trained.run, trained.problem)


def features(trained: Trained, layer: str, split: str) -> np.ndarray:
    """The features of `layer` of all pictures of 'train', 'validation' or 'test', [N, ...]."""
    ops.lookup(layers(trained), layer, "--layer")
    if not isinstance(trained.data, Dataset):
        raise InputError("data.stream: true; features are of data sets that fit in memory.")
    images = getattr(trained.data, split).images
    if len(images) == 0:
        raise InputError(f"--split: {split!r} has no pictures in {trained.run.data.name!r}.")
    return _features(trained, layer, images)


def face_points(trained: Trained, files: Sequence[Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(each picture as it is in its file, [H, W] or [H, W, C] uint8; where its points are [P, 2],
    x, y in that one's pixels).
    """
    images = np.stack([_picture(trained, file) for file in files])
    pictures = [readers.decode(file) for file in files]
    scales = [picture.shape[0] / images.shape[1] for picture in pictures]  # data.resize
    places = zip(_located(trained, images), scales, strict=True)
    found = [(points + 0.5) * scale - 0.5 for points, scale in places]
    return list(zip(pictures, found, strict=True))


class Judged(NamedTuple):
    """Points of all pictures of a split."""

    images: np.ndarray  # uint8 [N, H, W, C]
    found: np.ndarray  # [N, P, 2]
    points: np.ndarray  # where they are
    errors: np.ndarray  # [N]: normalised mean error, as `losses.landmarks`


def judged(trained: Trained, split: str) -> Judged:
    """Raises `InputError` for a run that has other objectives than landmarks, or no such split."""
    _check_landmarks(trained)
    part: Any = getattr(trained.data, split)
    if len(part.labels) == 0:
        raise InputError(f"--split: {split!r} has no pictures in {trained.run.data.name!r}.")
    found = _located(trained, part.images)
    left, right = landmarks.points(part.labels.shape[1]).eyes
    eyes = np.linalg.norm(part.labels[:, left] - part.labels[:, right], axis=-1)
    errors = np.linalg.norm(found - part.labels, axis=-1).mean(1) / eyes
    return Judged(part.images, found, part.labels, errors)


def _check_landmarks(trained: Trained) -> None:
    objective = trained.run.train.objective
    if objective != "landmarks":
        raise InputError(f"RUN: its train.objective is {objective!r}, not 'landmarks'.")


def _located(trained: Trained, images: np.ndarray) -> np.ndarray:
    """[N, P, 2] of images [N, H, W, C] uint8, in their pixels."""
    run, problem = trained.run, trained.problem
    moments = (trained.data.mean, trained.data.std, trained.data.covariance)

    @jax.jit
    def locate(state: State, images: jax.Array) -> jax.Array:
        output, x = step.evaluate(run, problem, state, images, moments)  # type: ignore
        half = jnp.array([[[x.shape[2], x.shape[1]]]], jnp.float32) / 2
        found = output.reshape(len(images), -1, 2).astype(jnp.float32) * half + half - 0.5
        return found - augment.evaluate_points(jnp.zeros((1, 1, 2)), run.data, images.shape[1:])

    parts = []
    for start in range(0, len(images), transfer.BATCH):
        part = images[start : start + transfer.BATCH]
        more = ((0, transfer.BATCH - len(part)), *((0, 0),) * 3)  # one size, one program
        parts.append(np.asarray(locate(trained.state, np.pad(part, more)))[: len(part)])
    return np.concatenate(parts)


class Shown(NamedTuple):
    """What a layer makes of a picture."""

    picture: np.ndarray  # uint8 [H, W, C]
    maps: np.ndarray  # [h, w, M]
    filters: np.ndarray | None  # [kh, kw, C, M] of a layer that sees the pixels, C 1 or 3


def shown(trained: Trained, layer: str, files: Sequence[Path]) -> list[Shown]:
    """Of each picture. Raises `InputError` for a layer that has no maps, and as `probabilities`."""
    known = layers(trained)
    with_maps = {name: maps for name in known if (maps := _maps(trained, name, known[name]))}
    shape = ops.lookup(with_maps, layer, "--show")
    images = np.stack([_picture(trained, file) for file in files])
    kernel = _kernel(trained, layer)
    sees_pixels = layer == next(iter(known)) and np.ndim(kernel) == 4
    filters = np.asarray(kernel) if sees_pixels and kernel.shape[2] in (1, 3) else None
    maps = _features(trained, layer, images).reshape(len(images), *shape)
    return [Shown(picture, own, filters) for picture, own in zip(images, maps, strict=True)]


def _maps(trained: Trained, layer: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape [h, w, M] of a layer's features; None where they are no maps. Those of the last
    convolution are handed on as one row: of square ones it tells the side.
    """
    kernel = _kernel(trained, layer)
    if len(shape) == 3 or np.ndim(kernel) != 4:
        return shape if len(shape) == 3 else None
    side = math.isqrt(shape[0] // kernel.shape[-1])
    return (side, side, kernel.shape[-1]) if side**2 * kernel.shape[-1] == shape[0] else None


def _kernel(trained: Trained, layer: str) -> Any:
    found: Any = trained.state.params
    for part in layer.split("/"):
        found = found.get(part, {})
    return found.get("kernel")


def _features(trained: Trained, layer: str, images: np.ndarray) -> np.ndarray:
    """[N, ...] of images [N, H, W, C] uint8."""
    run, problem, state, data = trained.run, trained.problem, trained.state, trained.data
    return starts.features(run, problem, state, data, layer, images)


def write_features(trained: Trained, layer: str, split: str, path: Path) -> np.ndarray:
    """`features` into an .npz with `features`, `labels` and `class_names`, whole or not at all."""
    if path.suffix != ".npz":
        raise InputError(f"--to: {str(path)!r} is no name of a .npz file.")
    found = features(trained, layer, split)
    content = io.BytesIO()
    labels = getattr(trained.data, split).labels
    np.savez(content, features=found, labels=labels, class_names=np.array(trained.data.classes))
    records.write(path, content.getvalue())
    return found


def _picture(trained: Trained, file: Path) -> np.ndarray:
    """[H, W, C] uint8, as the run's data set stores its own: `data.resize` or `data.side` is
    applied.
    """
    data, expected = trained.run.data, trained.problem.image_shape
    if data.stream:
        return _square(file, data.side)
    picture = readers.decode(file)
    picture = picture if picture.ndim == 3 else picture[..., None]
    channels = {1: "grey (1 channel)", 3: "colour (3 channels)"}
    if picture.shape[2] != expected[2]:
        raise InputError(
            f"IMAGE: {str(file)!r} is {channels[picture.shape[2]]}; the pictures of"
            f" {data.name!r} are {channels.get(expected[2], f'of {expected[2]} channels')}."
        )
    if data.resize is not None and picture.shape[0] == picture.shape[1]:
        if picture.shape[0] % data.resize == 0:
            split = Split(picture[None], np.zeros(1, np.int32))
            picture = sources.resized(data, split).images[0]
    if picture.shape != expected:
        raise InputError(
            f"IMAGE: {str(file)!r} is {readers.size(picture.shape[:2])} pixels; the pictures of"
            f" {data.name!r} are {readers.size(expected[:2])}."
        )
    return picture


def _square(file: Path, side: int) -> np.ndarray:
    """As a stream has its pictures, of whatever size they are."""
    try:
        return pictures.square(pictures.decode(file.read_bytes(), side))
    except (Unreadable, OSError) as error:
        raise InputError(f"IMAGE: {str(file)!r}: {error}.") from error
