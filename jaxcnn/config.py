"""`Run` and its parts: all that determines a result and nothing else, and the one strict
`override`.

Nested frozen dataclasses: hashable, comparable, printable. This room imports neither jax nor numpy,
so the command line can list, show and check experiments in a blink.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import operator
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

# "paper": as the architecture's own table in models/ has it. A knob that an architecture does not
# have must stay "paper"; any other value is an error, never ignored.
Paper = Literal["paper"]
Activation = Literal["paper", "relu", "tanh", "sigmoid", "scaled_tanh", "leaky_relu", "identity"]
Pool = Literal["paper", "max", "avg", "subsample"]
Initializer = Literal[
    "paper",
    "lecun1998",
    "lecun_normal",
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "normal_0.01",
    "normal_0.05",
]

# What a point of the curve can record of the training step there; see probes.py.
PROBES = ("gradient_norm", "active_share", "update_variance")
# Models that are fitted at once (classical.py), not trained by steps, and the knobs of each: the
# rest of a `Model` and what only steps have a use for do not concern them.
CLASSICAL: dict[str, tuple[str, ...]] = {
    "linear": ("ridge",),
    "knn": ("neighbors", "components"),
    "svm_rbf": ("penalty", "gamma", "components"),
    "svm_poly4": ("penalty", "gamma", "components"),
    "pca_quadratic": ("components", "ridge"),
    "pca": ("components",),
    "svm_linear": ("penalty",),
    "logistic": ("penalty",),
    "lbp": ("neighbors", "cells"),
    "lbp_svm": ("penalty", "gamma", "cells"),
}

T = TypeVar("T")


class InputError(Exception):
    """What the user asked for cannot be; the message names value, field and choices."""


class Absent(InputError):
    """The pictures of an experiment are for its user to bring, and are not on this machine."""


@dataclass(frozen=True)
class Model:
    """An architecture by name and its ablation knobs; the defaults stand in models/<net>.py."""

    name: str = "lenet5"
    activation: Activation = "paper"
    pool: Pool = "paper"
    pool_window: int | Paper = "paper"
    pool_stride: int | Paper = "paper"
    dropout: float | Paper = "paper"
    initializer: Initializer = "paper"
    widths: tuple[int, ...] | Paper = "paper"  # hidden layers; maps of each convolution or stage
    code_activation: Activation = "paper"  # an autoencoder's innermost layer
    tied: bool | Paper = "paper"  # its decoders have the weights of its encoders
    head: tuple[int, ...] | Paper = "paper"  # hidden fully-connected layers behind convolutions
    lrn: Literal["paper", "krizhevsky2012", "caffe"] | None = "paper"
    batch_norm: bool | Paper = "paper"
    bn_momentum: float | Paper = "paper"
    bn_epsilon: float | Paper = "paper"
    zero_gamma: bool | Paper = "paper"  # the last scale of each residual block starts at 0
    width_multiplier: float | Paper = "paper"  # a GoogLeNet's maps, as a share of its table's
    groups: int | Paper = "paper"  # AlexNet's towers
    without: Paper | tuple[str, ...] = "paper"  # AlexNet's convolutions to leave out
    blocks: tuple[int, ...] | Paper = "paper"  # of each stage of a ResNet
    shortcut: Literal["paper", "A", "B", "C"] | None = "paper"  # None: a plain net
    stride_at: Literal["paper", "1x1", "3x3"] = "paper"  # in a ResNet's bottleneck
    side_heads: bool | Paper = "paper"  # GoogLeNet's
    scan: bool | Paper = "paper"  # a ResNet's equal blocks as one, for compile time
    remat: bool | Paper = "paper"  # a ResNet's blocks computed twice, for memory
    # of so many of the last stages of a VGG or ResNet: a map for each point of a face, whose centre
    # of mass it is, in the place of all fully-connected layers (models/heatmaps.py); 0: none
    heatmaps: int | Paper = "paper"
    penalty: float | Paper = "paper"  # C of a support vector machine or of logistic regression
    gamma: float | Paper = "paper"  # of its kernel
    ridge: float | Paper = "paper"  # squared weights against the mean squared error
    neighbors: int | Paper = "paper"  # of the K-nearest-neighbour rule
    components: int | Paper = "paper"  # principal ones, in place of the pixels
    cells: int | Paper = "paper"  # on each side of the grid of local binary patterns' histograms


@dataclass(frozen=True)
class Data:
    """A data set by name (see data/sources.py), its split, and the augmentation inside the step."""

    name: str = "mnist"
    # Of the set's, numbered from 0 in this order; None: all
    classes: None | tuple[int, ...] = None
    train_examples: int | None = None  # None: all that validation leaves
    per_class: int | None = None  # so many of each class, in the place of train_examples
    validation_examples: int = 5000  # held out of the training split
    test_per_class: int | None = None  # so many of each class are tested on; of a source with none
    # so many classes, drawn by split_seed, are tested on alone: of people, whether an embedding
    # tells those apart whom it was not trained on (faces.py)
    unseen: int | None = None
    split_seed: int = 0
    # pictures that do not fit in memory, read again at each use: a folder of them, or its shards
    stream: bool = False
    side: int = 256  # of streamed pictures: the shorter side, of which the middle square is kept
    resize: int | None = None  # side of the pictures as stored, by averages over whole cells
    pad: int = 0  # pixels of background on every side, before anything else
    normalize: Literal["unit", "standardize", "lecun1998"] = "standardize"
    shift: int = 0  # random translation by up to this many pixels (pad-and-crop)
    crop: int | None = None  # side of a random crop; evaluation takes the centre
    # of the crop: out of the picture enlarged by up to so much (VGG's 256 to 512 pixels: 2)
    scale: float = 1.0
    # of the crop, brought to its side: out of a box of at least this share of the picture, whose
    # sides differ by a factor of at most `aspect` (GoogLeNet: 0.08)
    area: float = 1.0
    aspect: float = 4 / 3
    flip: bool = False  # left-right, with probability 1/2
    rotate: float = 0.0  # about the middle, by up to so many degrees to either side
    zoom: float = 1.0  # enlarged or reduced by up to this factor, about the middle
    noise: float = 0.0  # standard deviation of Gaussian noise, in normalised units
    color: float = 0.0  # of the multiples of the pixels' principal components (Krizhevsky 2012)


@dataclass(frozen=True)
class Optim:
    """An optax optimiser and its schedule; warm-up and milestones are shares of all steps."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9  # Adam: beta1
    nesterov: bool = False
    beta2: float = 0.999
    weight_decay: float = 0.0
    decay: Literal["coupled", "decoupled"] = (
        "coupled"  # coupled: added to the gradient, as in the papers
    )
    schedule: Literal["constant", "step", "cosine", "exponential"] = "constant"
    warmup: float = 0.0  # linear, from 0
    milestones: tuple[float, ...] = (0.5, 0.75)  # step: where the rate falls
    factor: float = 0.1  # step: at each milestone; exponential: over the whole training
    # of the running mean of the weights, by which the net is judged and used; 0: of the last ones
    ema: float = 0.0


@dataclass(frozen=True)
class Train:
    """How long, in what batches, in what precision, and how often the curve gets a point."""

    batch_size: int | Literal["auto"] = 128  # auto: the largest power of two that fits
    # of a batch that does not fit: so many parts of it, one after the other, make one update
    accumulate: int = 1
    # batch normalisation in training by the statistics of each of so many parts; as many as devices
    # split a batch: by each device's own
    norm_parts: int = 1
    epochs: float = 10.0
    steps: int | None = None  # set: takes the place of epochs
    eval_every: int | None = None  # steps between points of the curve; None: one epoch
    eval_train_examples: int = 5000  # training examples behind each point's training error
    label_smoothing: float = 0.0
    side_head_weight: float = 0.3  # of each side head's loss, where there are any
    # classification: by cross-entropy. one_hot, scalar: by squared error to the class's row of the
    # unit matrix, or to its number on one output. reconstruction: an autoencoder's, by squared
    # error; its loss is that of a picture, summed. landmarks: the points of faces, by their
    # normalised mean error. margin: ArcFace's, in training; elsewhere the cross-entropy
    objective: Literal[
        "classification", "margin", "reconstruction", "one_hot", "scalar", "landmarks"
    ] = "classification"
    margin: float = 0.5  # ArcFace's m: radians that a picture must be nearer to its own class
    radius: float = 64.0  # ArcFace's s: scores are cosines times this
    greedy: float = 0.0  # share of all steps: an autoencoder's layers one by one, before the whole
    # of what is computed; parameters, statistics and losses are float32 in any case
    precision: Literal["float32", "bfloat16", "auto"] = "float32"  # auto: by the device
    probes: tuple[str, ...] = ()  # of PROBES: what each point of the curve records layer by layer
    # what the run is to be timed on: a launch leaves the arms of other devices to other launches
    device: Literal["any", "cpu", "gpu", "tpu"] = "any"


@dataclass(frozen=True)
class Compress:
    """What becomes of the kernels in training (compress.py); moments are shares of all steps."""

    sparsity: float = 0.0  # share of the weights that are zero in the end, the smallest
    scope: Literal["layer", "net"] = "layer"  # among which they are
    prune_from: float = 0.5  # the first of them go here
    prune_until: float = 0.75  # and the last here; where both are equal, all at once
    bits: int | None = None  # the others of a kernel share 2^bits values; None: each has its own
    share_from: float = 0.75
    int8: bool = False  # kernels, and what they are multiplied by, are 8-bit integers times a scale
    int8_from: float = 0.75  # training sees them so from here; 1: after the training
    rank: int | None = None  # hidden fully-connected layers are products of two, of this rank
    distill: float = 0.0  # weight of a teacher's classes in the loss; `start.*` says who it is
    temperature: float = 4.0  # by which its logits, and the run's own, are divided there

    @property
    def on(self) -> bool:
        """Whether the net is stored in another form than its architecture's."""
        return bool(self.sparsity or self.bits or self.int8 or self.rank)


@dataclass(frozen=True)
class Start:
    """Where the weights of layers come from, and which of them training moves (transfer.py).

    They are those of a source run, which is this run on another data set: its model, optimiser and
    seed, and what is below; or of a file. Layers are named by patterns: 'C1', 'conv*'; a block's
    name stands for all in it, a layer's for its batch normalisation too.
    """

    data: None | str = None  # data.name of the source run; None: there is none
    classes: None | tuple[int, ...] = None  # its data.classes
    train_examples: int | None = None  # its data.train_examples
    epochs: float = 10.0  # its train.epochs
    steps: int | None = None  # its train.steps
    lr: float | None = None  # its optim.lr; None: this run's
    weights: None | str = None  # a file of them (weights/), in the place of a source run
    layers: None | tuple[str, ...] = None  # taken over; None: all but the last
    rate: float = 1.0  # learning rate of the layers taken over, as a share of optim.lr
    freeze: tuple[str, ...] = ()  # layers that stay as they start, with or without a source
    # Share of all steps after which those move after all, one by one, the last first; 0: never
    thaw: float = 0.0
    # For models that are fitted at once: the source's net, which has this run's other knobs, and
    # the layer whose features take the place of the pixels. The former for a teacher, too.
    model: None | str = None
    features: None | str = None

    @property
    def on(self) -> bool:
        """Whether something is taken over."""
        return self.data is not None or self.weights is not None


@dataclass(frozen=True)
class Run:
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    compress: Compress = field(default_factory=Compress)
    start: Start = field(default_factory=Start)
    seed: int = 0


def to_dict(config: Any) -> dict[str, Any]:
    """The config as JSON has it: nested dicts, tuples as lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """The inverse of `to_dict`; absent fields take their defaults, unknown ones raise."""
    return override(cls(), dict(_leaves(values)))


# What may be 'auto' in an experiment. auto.py puts values there before any folder is named.
AUTOMATIC = ("train.precision", "train.batch_size")


def digest(run: Run) -> str:
    """Ten hex digits of what differs from the defaults: a new field orphans no old record.

    Raises `ValueError` while something is still 'auto'.
    """
    if "auto" in [get(run, path) for path in AUTOMATIC]:
        raise ValueError("a run with 'auto' in it has no folder yet")
    defaults = dict(_leaves(to_dict(Run())))
    changed = {k: v for k, v in _leaves(to_dict(run)) if v != defaults[k]}
    return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:10]


def steps_per_epoch(run: Run, train_examples: int) -> int:
    """Whole batches only: each epoch leaves out the end of its order, another one every time."""
    return train_examples // batch_size(run)


def batch_size(run: Run) -> int:
    """Of a run whose batch size is no longer 'auto'."""
    assert run.train.batch_size != "auto"
    return run.train.batch_size


def total_steps(run: Run, train_examples: int) -> int:
    """A fit counts as one step."""
    if run.model.name in CLASSICAL:
        return 1
    if run.train.steps is not None:
        return run.train.steps
    return max(1, round(run.train.epochs * steps_per_epoch(run, train_examples)))


def eval_interval(run: Run, train_examples: int) -> int:
    """Steps between two points of the curve."""
    return run.train.eval_every or steps_per_epoch(run, train_examples)


def concerns(path: str, model: str) -> bool:
    """Whether the field at a dotted path means anything to the model of that name."""
    group, _, name = path.rpartition(".")
    if model not in CLASSICAL:
        return group != "model" or not any(name in knobs for knobs in CLASSICAL.values())
    if group == "model":
        return name in ("name", *CLASSICAL[model])
    return group not in ("optim", "compress") and (
        group != "train" or name in ("objective", "eval_train_examples")
    )


def override(config: T, changes: Mapping[str, Any]) -> T:
    """`config` with dotted paths replaced: `{"optim.lr": 0.02}`.

    A text value is read as the field's type, so the command line's `--set` uses the same words.
    Raises `InputError` for an unknown path (close matches named), a wrong type or a wrong choice.
    """
    for path, value in changes.items():
        config = _set(config, path.split("."), value, path)
    return config


def paths(config: Any, prefix: str = "") -> Iterable[str]:
    """Every dotted path to a leaf of `config`."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from paths(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name


def suggest(word: str, choices: Iterable[str]) -> str:
    """' Did you mean …?' or '', for the end of an error's first sentence."""
    close = difflib.get_close_matches(word, list(choices), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def get(config: Any, path: str) -> Any:
    """The value at a dotted path."""
    return _getter(path)(config)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


# Slow, and asked for thousands of times as experiments are checked.
_getter = functools.cache(operator.attrgetter)
_kinds = functools.cache(typing.get_type_hints)


def _set(config: Any, parts: list[str], value: Any, path: str) -> Any:
    kinds = _kinds(type(config))
    name, rest = parts[0], parts[1:]
    if name not in kinds:
        # `lr` alone finds `optim.lr`: the last word of a path is what people remember.
        done = path.split(".")[: -len(parts)]
        known = [".".join([*done, p]) for p in paths(config)]
        ends = [p for p in known if p.rsplit(".", 1)[-1] == parts[-1]]
        hint = f" Did you mean {' or '.join(ends)}?" if ends else suggest(path, known)
        where = f"fields of {'.'.join(done)}" if done else "fields"
        raise InputError(f"{path}: no such field.{hint} The {where}: {', '.join(kinds)}.")
    current = getattr(config, name)
    if dataclasses.is_dataclass(current):
        if not rest:
            inside = ", ".join(f"{path}.{p}" for p in paths(current))
            raise InputError(f"{path}: a group of fields; set one of {inside}.")
        return _replaced(config, name, _set(current, rest, value, path))
    if rest:
        raise InputError(
            f"{path}: {'.'.join(path.split('.')[: -len(rest)])} has no fields of its own."
        )
    return _replaced(config, name, _read(kinds[name], value, path))


def _replaced(config: T, name: str, value: Any) -> T:
    """`dataclasses.replace` at a tenth of its time: these classes do nothing as they are made."""
    new = object.__new__(type(config))
    vars(new).update(vars(config), **{name: value})
    return new


def _read(kind: Any, value: Any, path: str) -> Any:
    """`value` as a `kind`, or `InputError`. Text is parsed; no bool is a number."""
    for option in _options(kind):
        try:
            return _as(option, value)
        except (TypeError, ValueError):
            continue
    choices = [
        c for o in _options(kind) if typing.get_origin(o) is Literal for c in typing.get_args(o)
    ]
    hint = suggest(value, map(str, choices)) if isinstance(value, str) else ""
    raise InputError(f"{path}: {value!r} is not {_describe(kind)}.{hint}")


def _options(kind: Any) -> tuple[Any, ...]:
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if union else (kind,)


def _as(kind: Any, value: Any) -> Any:
    if kind is type(None):
        if value is None or value == "none":
            return None
    elif typing.get_origin(kind) is Literal:
        if value in typing.get_args(kind):
            return value
    elif typing.get_origin(kind) is tuple:
        items = (
            [v.strip() for v in value.strip("()[] ").split(",") if v.strip()]
            if isinstance(value, str)
            else value
        )
        return tuple(_as(typing.get_args(kind)[0], v) for v in items)
    elif kind is bool:
        if value in (True, "true", "True"):
            return True
        if value in (False, "false", "False"):
            return False
    elif kind is str:
        if isinstance(value, str):
            return value
    elif kind in (int, float) and not isinstance(value, bool):
        if isinstance(value, str) or type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
    raise TypeError


def _describe(kind: Any) -> str:
    words = []
    for option in _options(kind):
        if option is type(None):
            words.append("none")
        elif typing.get_origin(option) is Literal:
            words += [repr(c) for c in typing.get_args(option)]
        elif typing.get_origin(option) is tuple:
            words.append(f"a list of {typing.get_args(option)[0].__name__}")
        else:
            words.append(
                {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[
                    option
                ]
            )
    return f"one of {', '.join(words)}" if len(words) > 1 else words[0]
