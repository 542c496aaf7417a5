"""What a run asks of its data and its net: the net itself, what it is shown and what it is told."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn import losses, models, transfer
from jaxcnn.config import InputError, Run
from jaxcnn.data import augment
from jaxcnn.models.autoencoder import AUTOENCODERS

Numbers = dict[str, Any]  # a run's traced ones: see `step.numbers`


@dataclass(frozen=True)
class Problem:
    """What a program needs to know besides the Run: the data's shape and the length of the
    training.
    """

    image_shape: tuple[int, int, int]  # H, W, C as stored
    classes: int
    train_examples: int
    steps: int


def build(run: Run, problem: Problem, values: Numbers) -> Any:
    """The run's model. Raises `InputError` for knobs that it does not have."""
    dropout = {} if run.model.dropout in (0, "paper") else {"dropout": values.get("dropout", 0.0)}
    dtype = jnp.dtype(run.train.precision)
    fields: dict[str, Any] = {"dtype": dtype, **dropout}
    rebuilds = run.train.objective == "reconstruction"
    if rebuilds or run.train.greedy:
        _check_autoencoder(run)
    if run.model.name in AUTOENCODERS:
        fields["decoders"] = rebuilds or run.train.greedy > 0
    if run.train.objective == "margin":
        _check_margin(run)
        fields["radius"] = run.train.radius
    outputs = {"reconstruction": 0, "scalar": 1, "landmarks": 2 * problem.classes}
    count = outputs.get(run.train.objective, problem.classes)
    net = models.from_config(run.model, count, **fields)
    if run.compress.rank is None:
        return net
    hidden = getattr(net, "head", getattr(net, "widths", ()))
    if not (hidden and hasattr(net, "rank")):
        raise InputError(
            f"compress.rank: {run.compress.rank}; model.name {run.model.name!r} has no hidden"
            " fully-connected layers that could be products of two."
        )
    return net.clone(rank=run.compress.rank)


def teacher(run: Run, problem: Problem) -> Any:
    """The net whose answers a run with `compress.distill` learns from."""
    return build(transfer.net(run), problem, {})


def _check_margin(run: Run) -> None:
    name = run.model.name
    kind = models.MODELS.get(name)
    if kind is not None and (not hasattr(kind.module, "radius") or kind.row.get("rbf")):
        raise InputError(f"train.objective: margin; the last layer of {name} has no cosines.")


def _check_autoencoder(run: Run) -> None:
    asked = (
        f"train.greedy: {run.train.greedy}"
        if run.train.greedy
        else "train.objective: reconstruction"
    )
    if run.model.name not in AUTOENCODERS:
        raise InputError(
            f"{asked} needs a model with decoders; model.name is {run.model.name!r}, not one of"
            f" {', '.join(AUTOENCODERS)}."
        )
    if run.data.normalize != "unit":
        raise InputError(
            f"{asked} needs pixels in [0, 1]: data.normalize 'unit', not {run.data.normalize!r}."
        )


def seen(run: Run, problem: Problem) -> tuple[int, int, int]:
    """H, W, C of what the model sees."""
    return augment.image_shape(run.data, problem.image_shape)


def labels(run: Run, problem: Problem, count: int) -> jax.ShapeDtypeStruct:
    """What is told of `count` pictures: classes int32 [N], or points float32 [N, P, 2]."""
    if run.train.objective == "landmarks":
        return jax.ShapeDtypeStruct((count, problem.classes, 2), jnp.float32)
    return jax.ShapeDtypeStruct((count,), jnp.int32)


def layers(run: Run, problem: Problem) -> list[str]:
    """The names of the model's convolutions and fully-connected layers, 'conv2_1/conv1', in the
    order in which a picture meets them.
    """
    return transfer.names(build(run, problem, {}), seen(run, problem))


def greedy_ends(run: Run, problem: Problem) -> list[int]:
    """Layer-wise training: the step at which each layer is done, the first first; [] for none."""
    if not run.train.greedy:
        return []
    layers = len(build(run, problem, {}).widths)
    return [round(run.train.greedy * problem.steps * k / layers) for k in range(1, layers + 1)]


def five(run: Run, problem: Problem) -> bool:
    """Whether evaluation counts top-5 errors beside the errors. The sums of training steps, which
    stand in checkpoints, do not.
    """
    return run.train.objective in losses.OF_CLASSES and problem.classes > losses.FEW
