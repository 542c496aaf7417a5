"""A finished run, back from its folder: what it was trained on, its weights, what it says of
pictures, what its layers make of them.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxcnn import config, ops, records, starts, step, train, transfer
from jaxcnn.config import InputError, Run
from jaxcnn.data import augment, readers, sources
from jaxcnn.data.sources import Dataset, Split
from jaxcnn.records import Record
from jaxcnn.step import Problem, State


class Trained(NamedTuple):
    record: Record
    run: Run
    data: Dataset
    problem: Problem
    state: State  # at the last step


def load(folder: Path, data_dir: Path | None = None) -> Trained:
    """The run in `folder`. Raises `InputError` where none is, or none that came to its end; the
    data set is needed too, for the moments of its pixels and the names of its classes.
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
    if record.diverged:
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
    return Trained(record, run, data, train.problem_of(run, data), starts.final(folder, run, data))


def probabilities(trained: Trained, files: Sequence[Path]) -> np.ndarray:
    """Of each picture and class, [N, K]. Raises `InputError` for a picture that is not of the size
    and the channels of the run's, and for a run that does not tell classes.
    """
    run = trained.run
    if run.train.objective != "classification":
        raise InputError(
            f"RUN: its train.objective is {run.train.objective!r}; probabilities of classes come"
            " from 'classification' alone."
        )
    images = np.stack([_picture(trained, file) for file in files])
    moments = (trained.data.mean, trained.data.std, trained.data.covariance)

    def softmax(state: State, images: jax.Array) -> jax.Array:
        logits, _ = step.evaluate(run, trained.problem, state, images, moments)  # type: ignore
        return jax.nn.softmax(logits.astype(np.float32))

    return np.asarray(jax.jit(softmax)(trained.state, images))


def layers(trained: Trained) -> dict[str, tuple[int, ...]]:
    """Layer -> the shape of its features of one picture, in the order in which it meets them."""
    model = step.module(trained.run, trained.problem, {})
    return transfer.shapes(model, step.seen(trained.run, trained.problem))


def features(trained: Trained, layer: str, split: str) -> np.ndarray:
    """The features of `layer` of all pictures of 'train', 'validation' or 'test', [N, ...]."""
    ops.lookup(layers(trained), layer, "--layer")
    data, run = trained.data, trained.run
    images = getattr(data, split).images
    if len(images) == 0:
        raise InputError(f"--split: {split!r} has no pictures in {run.data.name!r}.")
    model = step.module(run, trained.problem, {})
    variables = {"params": trained.state.params, "batch_stats": trained.state.batch_stats}
    seen = step.seen(run, trained.problem)
    extract, parts = transfer.extractor(model, variables, seen, layer), []
    for start in range(0, len(images), transfer.BATCH):
        part = images[start : start + transfer.BATCH]
        x = augment.evaluate_view(part, run.data, data.mean, data.std)  # type: ignore[arg-type]
        parts.append(extract(np.asarray(x)))
    return np.concatenate(parts)


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
    """[H, W, C] uint8, as the run's data set stores its own: `data.resize` is applied."""
    data, expected = trained.run.data, trained.problem.image_shape
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
