"""Transfer: what a run takes over of another net, and a net's features for other models.

Donahue et al. 2014, DeCAF, ICML, arXiv:1310.1531, and Razavian et al. 2014, CNN features
off-the-shelf, CVPR workshops, arXiv:1403.6382: a linear classifier on a trained net's features.
Yosinski, Clune, Bengio, Lipson 2014, How transferable are features in deep neural networks?, NIPS,
arXiv:1411.1792: the first k layers taken over, frozen or fine-tuned, the others trained anew.

The features of a layer are what the first layer behind it is given: its units after normalisation,
activation and pooling, and whatever is joined to them on the way; of the last, the net's output.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var

from jaxcnn import config, ops
from jaxcnn.config import CLASSICAL, Compress, InputError, Run, Start

BATCH = 250  # pictures at once
SIZES = ("widths", "head", "blocks", "width_multiplier")  # of a net, in config.Model
NORM = "_bn"  # how a layer's batch normalisation is named after it

Shape = tuple[int, ...]


# Source runs ------------------------------------------------------------------------------------


def net(run: Run) -> Run:
    """The run with the model whose weights it starts from, and no start: what is fitted at once has
    its own knobs, the net the rest. A teacher has the run's knobs but for its size, its paper's.
    """
    model = run.model
    if run.compress.distill:
        model = dataclasses.replace(model, **dict.fromkeys(SIZES, "paper"))
    if run.start.model is not None:
        own = {knob: "paper" for knobs in CLASSICAL.values() for knob in knobs}
        model = dataclasses.replace(model, name=run.start.model, **own)
    return dataclasses.replace(run, model=model, start=Start(), compress=Compress())


def source(run: Run) -> Run | None:
    """The run whose net `run` starts from, or has its features of; None where there is none."""
    start = run.start
    if start.data is None:
        return None
    changes = {
        "data.name": start.data,
        "data.classes": start.classes,
        "data.train_examples": start.train_examples,
        "data.per_class": None,
        "data.unseen": run.data.unseen if start.data == run.data.name else None,
        "data.test_per_class": run.data.test_per_class if start.data == run.data.name else None,
        "optim.lr": run.optim.lr if start.lr is None else start.lr,
        "train.epochs": start.epochs,
        "train.steps": start.steps,
        "train.probes": (),
    }
    return config.override(net(run), changes)


def with_sources(runs: Iterable[Run]) -> list[Run]:
    """The runs, and behind them the source runs that are not among them, each once."""
    runs = list(runs)
    return list(dict.fromkeys([*runs, *filter(None, map(source, runs))]))


# Layers by name ---------------------------------------------------------------------------------


def names(model: Any, image: Shape) -> list[str]:
    """The paths of a Linen module's convolutions and fully-connected layers, as pictures of `image`
    (H, W, C) meet them.
    """
    x = jnp.zeros((1, *image))
    with ops.shifted({}) as met:
        jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    return list(met)


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a layer or a module around it is named by one of the patterns; 'conv1_bn' is a part
    of 'conv1'.
    """
    parts = path.removesuffix(NORM).split("/")
    around = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatchcase(name, pattern) for name in around for pattern in patterns)


def taken(start: Start, layers: Sequence[str]) -> Callable[[str], bool]:
    """path -> whether that layer's weights are the source's; `layers` as `names` has them."""
    if start.layers is not None:
        return functools.partial(matches, patterns=start.layers)
    return lambda path: path.removesuffix(NORM) != layers[-1]


def static(start: Start) -> Start:
    """What of it decides the program: equal for runs that share one. Where the weights come from
    does not, and `Start()` is a program without any of this.
    """
    held = Start(freeze=start.freeze, thaw=start.thaw)
    if not start.on or start.rate == 1:
        return held
    return dataclasses.replace(held, data="", layers=start.layers, rate=start.rate)


def check(start: Start, params: Any, layers: Sequence[str], model: str) -> None:
    """Raise `InputError` for a pattern that names no layer of the model."""
    known = dict.fromkeys([*layers, *(layer_of(path) for path, _ in leaves(params))])
    for field in ("freeze", "layers"):
        for pattern in getattr(start, field) or ():
            if not any(matches(name, [pattern]) for name in known):
                raise InputError(
                    f"start.{field}: {pattern!r} is no layer of"
                    f" {model}.{config.suggest(pattern, known)} The layers: {', '.join(known)}."
                )


def groups(start: Start, params: Any, layers: Sequence[str]) -> Any:
    """A tree like params of 'frozen', 'taken' and 'free', for `optim.grouped`; what thaws is not
    'frozen'.
    """
    slower = taken(start, layers) if start.on else lambda path: False

    def group(path: Any, _: Any) -> str:
        name = layer_of(_path(path))
        if matches(name, start.freeze) and not start.thaw:
            return "frozen"
        return "taken" if slower(name) else "free"

    return jax.tree_util.tree_map_with_path(group, params)


def held(start: Start, updates: Any, layers: Sequence[str], step: jax.Array, steps: int) -> Any:
    """The updates of step `step` of `steps`, zero in the layers that have not thawed: gradual
    unfreezing, Howard, Ruder 2018, Universal language model fine-tuning for text classification,
    ACL, section 3.3. Momentum gathers before.
    """
    frozen = [name for name in layers if matches(name, start.freeze)]

    def own(path: Any, update: jax.Array) -> jax.Array:
        name = layer_of(_path(path))
        if not matches(name, start.freeze):
            return update
        behind = frozen[frozen.index(name) :] if name in frozen else frozen
        at = round(start.thaw * steps * len(behind) / max(1, len(frozen)))
        return jnp.where(step >= at, update, jnp.zeros_like(update))

    return jax.tree_util.tree_map_with_path(own, updates)


def replaced(tree: Any, source: Any, taken: Callable[[str], bool]) -> Any:
    """`tree` with the leaves of the layers that are `taken` as they are in `source`; of arrays or
    of their shapes. Raises `InputError` for one that is of another shape there.
    """
    theirs = dict(leaves(source))

    def choose(path: Any, ours: Any) -> Any:
        name = _path(path)
        if not taken(layer_of(name)):
            return ours
        if name not in theirs or theirs[name].shape != ours.shape:
            found = theirs[name].shape if name in theirs else "missing"
            raise InputError(
                f"start.layers: {name} is {ours.shape} in the run and {found} in its source; name"
                " the layers to take over without it."
            )
        return theirs[name]

    return jax.tree_util.tree_map_with_path(choose, tree)


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """(path, array) of each, 'conv1_bn/scale'."""
    return [(_path(p), leaf) for p, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def layer_of(path: str) -> str:
    """The layer of a parameter: 'conv1' of 'conv1_bn/scale'."""
    layer, _, leaf = path.rpartition("/")
    return (layer or leaf).removesuffix(NORM)


# Features ---------------------------------------------------------------------------------------


def features(
    model: Any, variables: Mapping[str, Any], images: np.ndarray, layer: str
) -> np.ndarray:
    """The features of `layer` of images [N, H, W, C] float32, normalised as the model sees them ->
    [N, ...] float32, as `shapes` has them.

    `model` is a Linen module whose `__call__(x, train=...)` gives (output, extras). Raises
    `InputError` for a layer that it does not have.
    """
    return extractor(model, variables, images.shape[1:], layer)(images)


def extractor(
    model: Any, variables: Mapping[str, Any], image: Shape, layer: str
) -> Callable[[np.ndarray], np.ndarray]:
    """`features` of any pictures of `image` (H, W, C), by one compiled program."""
    model = _whole(model)
    behind = ops.lookup(_behind(model, image), layer, "layer")

    @jax.jit
    def program(variables: Mapping[str, Any], x: jax.Array) -> jax.Array:
        given, output = _inputs(model, variables, x)
        return (output if behind is None else given[behind]).astype(jnp.float32)

    def extract(images: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(images), BATCH):
            part = np.asarray(images[start : start + BATCH], np.float32)
            more = ((0, BATCH - len(part)), *((0, 0),) * len(image))  # one size, one program
            found.append(np.asarray(program(variables, np.pad(part, more)))[: len(part)])
        return np.concatenate(found)

    return extract


def shapes(model: Any, image: Shape) -> dict[str, Shape]:
    """Layer -> the shape of its features of one picture of `image` (H, W, C), in the order in which
    the picture meets them.
    """
    model = _whole(model)
    x = jnp.zeros((1, *image))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    given, output = jax.eval_shape(functools.partial(_inputs, model), variables, x)
    behind = {name: output if k is None else given[k] for name, k in _behind(model, image).items()}
    return {name: array.shape[1:] for name, array in behind.items()}


def _inputs(
    model: Any, variables: Mapping[str, Any], x: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
    """(what each layer is given, the output)"""
    with ops.given() as found:
        output, _ = model.apply(variables, x, train=False)
    return dict(found), output


def _behind(model: Any, image: Shape) -> dict[str, str | None]:
    """Layer -> the first layer that it reaches; None for the output. In the order of the calls."""
    x = jnp.zeros((1, *image))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    with ops.shifted({}) as met:
        jax.eval_shape(lambda v: model.apply(v, x, train=False), variables)
    order = list(met)

    def inputs(shifts: list[jax.Array], variables: Any) -> list[jax.Array]:
        with ops.shifted(dict(zip(order, shifts, strict=True))):
            given, _ = _inputs(model, variables, x)
        return [given[name] for name in order]

    zeros = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in met.values()]
    program = jax.make_jaxpr(inputs)(zeros, variables).jaxpr
    reaches: dict[Any, set[str]] = {
        var: {name} for name, var in zip(order, program.invars, strict=False)
    }
    for eqn in program.eqns:
        through = [reaches.get(v, set()) for v in eqn.invars if isinstance(v, Var)]
        reaches |= dict.fromkeys(eqn.outvars, set().union(*through))
    seen = [reaches.get(var, set()) for var in program.outvars if isinstance(var, Var)]
    return {
        name: next((later for later, by in zip(order, seen, strict=True) if name in by), None)
        for name in order
    }


def _whole(model: Any) -> Any:
    """The model with its blocks written out, as what passes between them can be seen."""
    if getattr(model, "scan", False) is True:
        raise InputError(
            "model.scan: true; with it equal blocks are one, whose features cannot be told apart."
        )
    return model.clone(remat=False) if getattr(model, "remat", False) else model
