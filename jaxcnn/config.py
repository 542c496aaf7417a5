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
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
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
    for name in path.split("."):
        config = getattr(config, name)
    return config


SHARE = (lambda v: 0 <= v < 1, "in [0, 1)")
POSITIVE = (lambda v: v >= 1, "at least 1")
ABOVE_0 = (lambda v: v > 0, "above 0")
NOT_NEGATIVE = (lambda v: v >= 0, "at least 0")
CLASSES = (
    lambda v: len(set(v)) == len(v) >= 2 and min(v) >= 0,
    "two or more different numbers, all at least 0",
)
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model.pool_window": POSITIVE,
    "model.pool_stride": POSITIVE,
    "model.dropout": SHARE,
    "model.widths": (lambda v: len(v) > 0 and min(v) >= 1, "one or more, all at least 1"),
    "model.head": (lambda v: all(n >= 1 for n in v), "all at least 1"),
    "model.width_multiplier": ABOVE_0,
    "model.bn_momentum": SHARE,
    "model.bn_epsilon": ABOVE_0,
    "model.groups": POSITIVE,
    "model.blocks": (lambda v: len(v) > 0 and min(v) >= 1, "one or more, all at least 1"),
    "model.heatmaps": NOT_NEGATIVE,
    "model.penalty": ABOVE_0,
    "model.gamma": ABOVE_0,
    "model.ridge": ABOVE_0,
    "model.neighbors": POSITIVE,
    "model.components": POSITIVE,
    "data.classes": CLASSES,
    "data.train_examples": POSITIVE,
    "data.per_class": POSITIVE,
    "data.validation_examples": NOT_NEGATIVE,
    "data.test_per_class": POSITIVE,
    "data.unseen": (lambda v: v >= 2, "at least 2"),
    "data.split_seed": NOT_NEGATIVE,
    "data.side": POSITIVE,
    "data.resize": POSITIVE,
    "data.pad": NOT_NEGATIVE,
    "data.shift": NOT_NEGATIVE,
    "data.crop": POSITIVE,
    "data.scale": POSITIVE,
    "data.area": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "data.aspect": POSITIVE,
    "data.rotate": (lambda v: 0 <= v <= 180, "in [0, 180]"),
    "data.zoom": POSITIVE,
    "data.noise": NOT_NEGATIVE,
    "data.color": NOT_NEGATIVE,
    "optim.lr": ABOVE_0,
    "optim.momentum": SHARE,
    "optim.beta2": SHARE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.warmup": SHARE,
    "optim.milestones": (
        lambda v: list(v) == sorted(set(v)) and all(0 < m < 1 for m in v),
        "rising shares of all steps, in (0, 1)",
    ),
    "optim.factor": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "optim.ema": SHARE,
    "train.batch_size": POSITIVE,
    "train.epochs": ABOVE_0,
    "train.steps": POSITIVE,
    "train.eval_every": POSITIVE,
    "train.eval_train_examples": POSITIVE,
    "train.label_smoothing": SHARE,
    "train.side_head_weight": NOT_NEGATIVE,
    "train.margin": (lambda v: 0 <= v < math.pi / 2, "in [0, pi/2)"),
    "train.radius": ABOVE_0,
    "train.greedy": SHARE,
    "train.probes": (lambda v: set(v) <= set(PROBES), f"some of {', '.join(map(repr, PROBES))}"),
    "compress.sparsity": SHARE,
    "compress.prune_from": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "compress.prune_until": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "compress.bits": (lambda v: 1 <= v <= 8, "1 to 8"),
    "compress.share_from": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "compress.int8_from": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "compress.rank": POSITIVE,
    "compress.distill": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "compress.temperature": ABOVE_0,
    "start.classes": CLASSES,
    "start.train_examples": POSITIVE,
    "start.epochs": ABOVE_0,
    "start.steps": POSITIVE,
    "start.lr": ABOVE_0,
    "start.rate": ABOVE_0,
    "start.thaw": SHARE,
    "seed": (lambda v: 0 <= v < 2**31, "in [0, 2^31)"),
}


def check(run: Run) -> None:
    """Raise `InputError` for a number out of range; shapes are checked where programs are built."""
    for path, (allowed, words) in RANGES.items():
        value = get(run, path)
        if value is None or value in ("paper", "auto"):
            continue
        if (isinstance(value, float) and not math.isfinite(value)) or not allowed(value):
            raise InputError(f"{path}: {value!r} is not allowed; it must be {words}.")
    if run.train.label_smoothing and run.train.objective != "classification":
        raise InputError(
            f"train.label_smoothing: {run.train.label_smoothing} is of the cross-entropy;"
            f" train.objective {run.train.objective!r} has none."
        )
    for name in ("margin", "radius"):
        if (value := getattr(run.train, name)) != getattr(Train, name):
            if run.train.objective != "margin":
                raise InputError(
                    f"train.{name}: {value} is of train.objective margin, not of"
                    f" {run.train.objective!r}."
                )
    _check_compress(run)
    _check_start(run)
    _check_boxes(run.data)
    if run.data.unseen is not None:
        _check_unseen(run)
    _check_heatmaps(run)
    if run.train.objective == "landmarks":
        for name, off in (("scale", 1), ("area", 1), ("classes", None), ("per_class", None)):
            if (value := getattr(run.data, name)) != off:
                raise InputError(
                    f"data.{name}: {value} has no use beside train.objective landmarks."
                )
    if run.data.stream:
        _check_stream(run)
    elif run.data.side != Data.side:
        raise InputError(f"data.side: {run.data.side} is of streamed pictures: data.stream=true.")


def _check_compress(run: Run) -> None:
    own = run.compress
    if own.prune_from > own.prune_until:
        raise InputError(
            f"compress.prune_from: {own.prune_from} is later than compress.prune_until,"
            f" {own.prune_until}."
        )
    if own.sparsity and own.bits and own.share_from < own.prune_until:
        raise InputError(
            f"compress.share_from: {own.share_from} is earlier than compress.prune_until,"
            f" {own.prune_until}: values are shared among the weights that are left."
        )
    if run.optim.ema and (own.sparsity or own.bits):
        raise InputError(
            f"optim.ema: {run.optim.ema} is of no use beside compress.*: a mean of weights is"
            " neither sparse nor shared."
        )
    if run.start.freeze and own.on:
        raise InputError(
            f"start.freeze: {run.start.freeze} keeps layers as they are, and compress.* changes"
            " every kernel."
        )
    if own.int8 and own.bits:
        raise InputError(
            f"compress.int8: true has no use beside compress.bits: {own.bits}, whose values are of"
            " any size."
        )
    if own.int8 and run.train.precision == "bfloat16":
        raise InputError(
            "compress.int8: true needs train.precision 'float32', which holds every product of 8"
            " bits, not 'bfloat16'."
        )
    if own.int8 and run.train.greedy:
        raise InputError(f"compress.int8: true has no use beside train.greedy: {run.train.greedy}.")
    if own.distill:
        _check_teacher(run)


def _check_teacher(run: Run) -> None:
    start, asked = run.start, f"compress.distill: {run.compress.distill:g}"
    if not start.on:
        raise InputError(
            f"{asked} needs a teacher: start.data: {run.data.name!r} for one that is trained first,"
            " or start.weights."
        )
    if run.train.objective != "classification":
        raise InputError(
            f"{asked} is of classes; train.objective is {run.train.objective!r}, not"
            " 'classification'."
        )
    if start.model in CLASSICAL:
        raise InputError(f"start.model: {start.model!r} is fitted at once and is no teacher.")
    if run.train.probes:
        raise InputError(f"{asked} has no use beside train.probes: {run.train.probes}.")
    for name in ("name", "classes"):
        theirs, ours = {"name": start.data}.get(name, start.classes), getattr(run.data, name)
        if start.data is not None and theirs != ours:
            raise InputError(
                f"start.{'data' if name == 'name' else name}: {theirs!r}; {asked} needs a teacher"
                f" of the run's own classes, data.{name} {ours!r}."
            )


def _check_start(run: Run) -> None:
    start, name = run.start, run.model.name
    if start.data is not None and start.weights is not None:
        raise InputError(
            f"start.weights: {start.weights!r}; start.data is {start.data!r}, and only one of them"
            " can be what the run starts from."
        )
    if start.thaw and not start.freeze:
        raise InputError(f"start.thaw: {start.thaw}; start.freeze names no layer to thaw.")
    if name not in CLASSICAL:
        # A teacher may be another net; only its classes are asked for.
        for path in ("features",) if run.compress.distill else ("model", "features"):
            if getattr(start, path) is not None:
                raise InputError(
                    f"start.{path}: {getattr(start, path)!r}; only for models that are fitted at"
                    f" once: {', '.join(CLASSICAL)}. model.name is {name!r}."
                )
        return
    for path in ("layers", "rate", "freeze", "thaw"):
        if getattr(start, path) != getattr(Start(), path):
            raise InputError(f"start.{path}: {name} is fitted at once and has no layers to train.")
    needed = {"start.data": start.data or start.weights}
    needed |= {f"start.{path}": getattr(start, path) for path in ("model", "features")}
    if start.model in CLASSICAL:
        raise InputError(f"start.model: {start.model!r} is fitted at once and has no layers.")
    missing = [path for path, value in needed.items() if value is None]
    if 0 < len(missing) < len(needed):
        raise InputError(
            f"{missing[0]}: none; the features of a net need start.data or start.weights,"
            " start.model and start.features."
        )


def _check_unseen(run: Run) -> None:
    asked = f"data.unseen: {run.data.unseen}"
    if run.data.test_per_class is not None:
        raise InputError(
            f"{asked}; data.test_per_class is {run.data.test_per_class}, and only one of them can"
            " make the test split."
        )
    if run.model.name in CLASSICAL:
        raise InputError(f"{asked}; {run.model.name} has no embedding, but names classes.")
    if run.train.objective not in ("classification", "margin"):
        raise InputError(
            f"{asked}; train.objective is {run.train.objective!r}, neither 'classification' nor"
            " 'margin'."
        )


def _check_heatmaps(run: Run) -> None:
    count = run.model.heatmaps
    if count in ("paper", 0):
        return
    if run.train.objective != "landmarks":
        raise InputError(
            f"model.heatmaps: {count}; they find points: train.objective landmarks, not"
            f" {run.train.objective!r}."
        )
    for name in ("head", "dropout"):
        if (value := getattr(run.model, name)) != "paper":
            raise InputError(
                f"model.{name}: {value} is of the fully-connected layers, in whose place"
                f" model.heatmaps, {count}, stands."
            )


def _check_boxes(data: Data) -> None:
    """Of crops of random size: what does not go together."""
    if data.aspect != Data.aspect and data.area == 1:
        raise InputError(f"data.aspect: {data.aspect:g} is of data.area, which is 1: off.")
    if data.scale == 1 and data.area == 1:
        return
    asked = f"data.area: {data.area:g}" if data.area != 1 else f"data.scale: {data.scale:g}"
    if data.scale != 1 and data.area != 1:
        raise InputError(f"{asked} has no use beside data.scale: {data.scale:g}; one of them is 1.")
    if data.crop is None:
        raise InputError(f"{asked} needs the side of the crop, data.crop.")
    for name in ("pad", "shift"):
        if getattr(data, name):
            raise InputError(f"{asked} has no use beside data.{name}: {getattr(data, name)}.")


def _check_stream(run: Run) -> None:
    """What takes the pictures from memory."""
    if run.data.resize is not None:
        raise InputError(
            f"data.resize: {run.data.resize} is of pictures in memory; those of data.stream have"
            " their size by data.side."
        )
    names = ("classes", "per_class", "test_per_class", "unseen")
    asked = {name: getattr(run.data, name) for name in names}
    for name, value in asked.items():
        if value is not None:
            raise InputError(f"data.{name}: {value} is of pictures in memory, not of data.stream.")
    if run.model.name in CLASSICAL:
        raise InputError(
            f"data.stream: true; model.name {run.model.name!r} is fitted at once to pictures in"
            " memory."
        )
    if run.train.probes:
        raise InputError(f"train.probes: {run.train.probes} look at pictures in memory only.")


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


_kinds = functools.cache(typing.get_type_hints)  # slow, and asked for at every field that is set


def _set(config: Any, parts: list[str], value: Any, path: str) -> Any:
    names = [f.name for f in dataclasses.fields(config)]
    name, rest = parts[0], parts[1:]
    if name not in names:
        # `lr` alone finds `optim.lr`: the last word of a path is what people remember.
        done = path.split(".")[: -len(parts)]
        known = [".".join([*done, p]) for p in paths(config)]
        ends = [p for p in known if p.rsplit(".", 1)[-1] == parts[-1]]
        hint = f" Did you mean {' or '.join(ends)}?" if ends else suggest(path, known)
        where = f"fields of {'.'.join(done)}" if done else "fields"
        raise InputError(f"{path}: no such field.{hint} The {where}: {', '.join(names)}.")
    current = getattr(config, name)
    if dataclasses.is_dataclass(current):
        if not rest:
            inside = ", ".join(f"{path}.{p}" for p in paths(current))
            raise InputError(f"{path}: a group of fields; set one of {inside}.")
        return dataclasses.replace(config, **{name: _set(current, rest, value, path)})
    if rest:
        raise InputError(
            f"{path}: {'.'.join(path.split('.')[: -len(rest)])} has no fields of its own."
        )
    kind = _kinds(type(config))[name]
    return dataclasses.replace(config, **{name: _read(kind, value, path)})


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
