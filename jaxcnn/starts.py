"""What a run starts from: the last state of its source run, or a file of weights. And the way back
from the folder of a finished run to its state.
"""

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxcnn import cohorts, config, nets, ops, records, sharding, step, transfer, weights
from jaxcnn.checkpoint import BEST, NEWEST, Checkpoints
from jaxcnn.cohorts import Carry, Program
from jaxcnn.config import Absent, InputError, Run
from jaxcnn.data import augment
from jaxcnn.data.sources import Dataset
from jaxcnn.data.streamed import Pictures
from jaxcnn.nets import Problem
from jaxcnn.step import State
from jaxcnn.wave import Wave

if TYPE_CHECKING:
    from jaxcnn.classical import See  # scikit-learn, a second: only who fits pays

LAST = "last"
ABOUT = ("source_data", "weights")  # in run.json: fingerprint of the source's data, hash of a file

Datasets = Mapping[config.Data, Pictures]


class Net(NamedTuple):
    """What is started from: how it is built, and its weights."""

    run: Run
    problem: Problem
    state: State


Begin = Callable[[Run], Net | None]


def is_fitted(run: Run) -> bool:
    """Whether the run's model is fitted at once, not trained by steps."""
    return run.model.name in config.CLASSICAL


def problem_of(run: Run, data: Pictures) -> Problem:
    """Raises `InputError` for a run that its data cannot feed."""
    n = data.sizes["train"]
    if not is_fitted(run) and config.batch_size(run) > n:
        raise InputError(
            f"train.batch_size: {run.train.batch_size} is larger than the {n} training examples"
            f" of {run.data.name}."
        )
    if run.train.eval_train_examples > n:
        raise InputError(
            f"train.eval_train_examples: {run.train.eval_train_examples} is larger than the {n}"
            f" training examples of {run.data.name}."
        )
    points, asked = _has_points(data), run.train.objective == "landmarks"
    if points != asked:
        found = "the points of faces" if points else "classes"
        raise InputError(
            f"train.objective: {run.train.objective!r} is not of {run.data.name!r}, whose pictures"
            f" have {found}."
        )
    return Problem(data.image_shape, len(data.classes), n, config.total_steps(run, n))


def _has_points(data: Pictures) -> bool:
    return isinstance(data, Dataset) and data.train.labels.ndim > 1


def about(run: Run, datasets: Datasets) -> dict[str, str]:
    """What run.json says of the start, `ABOUT`: contents, where the config has names."""
    source = transfer.source(run)
    if source is not None:
        return {"source_data": datasets[source.data].fingerprint}
    if run.start.weights is None:
        return {}
    with open(_file(run), "rb") as file:
        return {"weights": hashlib.file_digest(file, "sha256").hexdigest()[:12]}


def net(folders: Mapping[Run, Path], datasets: Datasets, run: Run) -> Net | None:
    """What the run starts from, its source run's folder being one of `folders`; None for nothing.

    Raises `InputError` where that has no weights to give, or was trained on other data than there
    are now.
    """
    if run.start.weights is not None:
        return _of_file(run, problem_of(run, datasets[run.data]))
    source = transfer.source(run)
    if source is None:
        return None
    folder, data = folders[source], datasets[source.data]
    record = records.read(folder)
    if record is None or record.result is None:
        raise RuntimeError(f"{folder}: the source run is not finished.")
    if record.diverged:
        raise InputError(
            f"start.lr: {source.optim.lr}; the source run {folder} diverged at step"
            f" {record.result['step']} and has no weights to start from."
        )
    if record.info["data"]["fingerprint"] != data.fingerprint:
        raise InputError(
            f"start.data: {source.data.name!r} has changed since {folder} was trained (fingerprint"
            f" {data.fingerprint}, then {record.info['data']['fingerprint']}). Move that folder"
            " away, or name another with --out."
        )
    return Net(source, problem_of(source, data), final(folder, source, data))


def _of_file(run: Run, problem: Problem) -> Net:
    """Raises `InputError` for a file that lacks some of the layers that are taken over."""
    own = transfer.net(run)
    state = jax.eval_shape(lambda: step.init_state(own, problem, step.numbers(own)))
    # What the file does not have, or in other shapes, as the last layer, is found by being NaN.
    lacking = {
        name: jax.tree.map(lambda a: np.full(a.shape, np.nan, a.dtype), getattr(state, name))
        for name in ("params", "batch_stats")
    }
    model, seen = nets.build(own, problem, {}), nets.seen(own, problem)
    found, _ = weights.load(_file(run), model, lacking, image=seen, strict=False)
    state = dataclasses.replace(
        state, params=found["params"], batch_stats=found.get("batch_stats", {})
    )
    if not is_fitted(run):
        met = nets.layers(run, problem)
        transfer.check(run.start, state.params, met, run.model.name)
        taken = transfer.taken(run.start, met)
        absent = [
            path
            for path, leaf in transfer.leaves(state.params) + transfer.leaves(state.batch_stats)
            if taken(transfer.layer_of(path)) and np.isnan(leaf).any()
        ]
        if absent:
            raise InputError(
                f"start.weights: {_file(run)} has no {', '.join(absent[:3])} of the run's shape;"
                " start.layers names what is taken over."
            )
    return Net(own, problem, state)


def _file(run: Run) -> Path:
    """Raises `Absent` where there is none: published weights are for the user to bring."""
    assert run.start.weights is not None
    path = Path(run.start.weights).expanduser()
    if not path.is_file():
        raise Absent(f"start.weights: {str(path)!r} is no file. Another: --set start.weights=FILE.")
    return path


# Features ---------------------------------------------------------------------------------------


def feature_size(run: Run, problem: Problem) -> int | None:
    """How many numbers `start.features` gives of a picture; None where it is off."""
    if run.start.features is None:
        return None
    own = transfer.net(run)
    found = feature_shapes(own, problem)
    return math.prod(ops.lookup(found, run.start.features, "start.features"))


def feature_shapes(run: Run, problem: Problem) -> dict[str, tuple[int, ...]]:
    """Layer -> the shape of its features of one picture, in the order in which it meets them."""
    return transfer.shapes(nets.build(run, problem, {}), nets.seen(run, problem))


def features(
    run: Run, problem: Problem, state: State, data: Pictures, layer: str, images: np.ndarray
) -> np.ndarray:
    """Of `layer`, [N, ...], of images [N, H, W, C] uint8 as the run's evaluation sees them."""
    model = nets.build(run, problem, {})
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    extract = transfer.extractor(model, variables, nets.seen(run, problem), layer)
    parts = []
    with step.in_integers(run, problem, state):
        for start in range(0, len(images), transfer.BATCH):
            part = images[start : start + transfer.BATCH]
            x = augment.evaluate_view(part, run.data, data.mean, data.std)  # type: ignore[arg-type]
            parts.append(extract(np.asarray(x)))
    return np.concatenate(parts)


def see(run: Run, begin: Begin) -> "See | None":
    """What a model that is fitted at once sees in place of pixels; None for the pixels."""
    layer, found = run.start.features, begin(run)
    if layer is None or found is None:
        return None
    model = nets.build(found.run, found.problem, {})
    variables = {"params": found.state.params, "batch_stats": found.state.batch_stats}
    image = nets.seen(found.run, found.problem)
    extract = transfer.extractor(model, variables, image, layer)

    def seen(images: np.ndarray) -> np.ndarray:
        features = extract(images)
        if np.isnan(features).any():
            raise InputError(
                f"start.features: {layer!r}; {run.start.weights or 'the source'} has not all of"
                " the weights up to it."
            )
        return features

    return seen


# States -----------------------------------------------------------------------------------------


def program(run: Run, data: Pictures, mesh: Any) -> tuple[Program, Carry]:
    """The program of a run's cohort, and one run's carry in the abstract."""
    found = cohorts.program(step.static(run), problem_of(run, data), mesh)
    devices = mesh.shape["run"]
    many = jax.eval_shape(found.init, cohorts.stack([run] * devices))
    return found, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), many)


def carries(wave: Wave, begin: Begin) -> list[Carry]:
    """The runs' carries before the first step; [] where those of the program are as they are: they
    start from no other's weights, and say no coordinates.
    """
    nets = [begin(run) for run in wave.runs]
    faces = wave.data.train.labels if isinstance(wave.data, Dataset) else np.zeros(0)
    says = faces.ndim > 1 and wave.runs[0].model.heatmaps in ("paper", 0)
    if not any(nets) and not says:
        return []
    with contextlib.closing(wave.lanes([])) as lanes:
        whole = lanes.carry()
    out = []
    for i, (run, found) in enumerate(zip(wave.runs, nets, strict=True)):
        carry = jax.tree.map(lambda a, i=i: a[i], whole)
        if says:
            carry = carry._replace(state=at_mean_face(run, wave.problem, carry.state, faces))
        if found is not None:
            carry = carry._replace(state=step.started(run, wave.problem, carry.state, found.state))
        out.append(carry)
    return out


def at_mean_face(run: Run, problem: Problem, state: State, points: np.ndarray) -> State:
    """`state` of a net that says coordinates, its last layer such that it says those of the mean of
    training `points` [N, P, 2] to every picture: from Glorot's weights it is hundreds of steps to
    there.
    """
    last = nets.layers(run, problem)[-1]
    height, width, _ = nets.seen(run, problem)
    half = np.array([width, height]) / 2
    mean = augment.evaluate_points(points.mean(0, keepdims=True), run.data, problem.image_shape)
    said = (np.asarray(mean) - (half - 0.5)) / half
    start: dict[str, Any] = {f"{last}/kernel": 0.0, f"{last}/bias": said.ravel()}

    def place(path: Any, leaf: Any) -> Any:
        value = start.get(jax.tree_util.keystr(path, simple=True, separator="/"))
        return leaf if value is None else np.broadcast_to(value, leaf.shape).astype(leaf.dtype)

    params = jax.tree_util.tree_map_with_path(place, state.params)
    return step.begun(state, params, state.batch_stats)


def final(folder: Path, run: Run, data: Pictures, checkpoint: str = LAST) -> State:
    """The state of a finished run at its last step, or that of another checkpoint, with the weights
    that it was judged by.

    Raises `InputError` for a `checkpoint` that is neither `LAST` nor `BEST` nor a step that is
    kept.
    """
    _, like = program(run, data, sharding.make_mesh(1, 1))
    carry = final_carry(folder, like) if checkpoint == LAST else _kept(folder, like, checkpoint)
    return step.used(carry.state)


def _kept(folder: Path, like: Carry, checkpoint: str) -> Carry:
    kept: dict[str, tuple[Checkpoints, int]] = {}
    with contextlib.ExitStack() as stack:
        for place in (BEST, NEWEST):
            if (folder / place).is_dir():
                disk = Checkpoints(folder, place=place)
                stack.callback(disk.close)
                for at in disk.steps():
                    kept |= {name: (disk, at) for name in (str(at), place) if name != NEWEST}
        if checkpoint not in kept:
            why = " run --keep-best keeps that." if checkpoint == BEST else ""
            raise InputError(
                f"--checkpoint: {checkpoint!r} is not one of {', '.join([LAST, *kept])}, which"
                f" {folder} has.{why}"
            )
        disk, at = kept[checkpoint]
        _, carry, complaints = disk.restore(like, at)
    if carry is None:
        raise RuntimeError(f"{folder}: {complaints[0]}. --checkpoint names another.")
    return carry


def final_carry(folder: Path, like: Carry) -> Carry:
    disk = Checkpoints(folder)
    at, carry, complaints = disk.restore(like)
    disk.close()
    record = records.read(folder)
    if carry is None or record is None or record.result is None or at != record.result["step"]:
        why = "; ".join(complaints) or "no checkpoint of the last step"
        raise RuntimeError(f"{folder}: {why}. Move the folder away to train the run afresh.")
    return carry
