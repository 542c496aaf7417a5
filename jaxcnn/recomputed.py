"""The numbers of errata.py, made anew from our models, our arithmetic and our data.

Each function gives them as the sentence that the table prints.
"""

import itertools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import analysis, models, published
from jaxcnn.analysis import DENSE, arithmetic, layers, trace
from jaxcnn.data import readers


def stacks() -> str:
    two, three = (arithmetic.receptive_field([(3, 1)] * n) for n in (2, 3))
    weights = {m: arithmetic.conv_parameters(1, m, 1, bias=False) for m in (3, two, three)}
    more = 100 * (weights[three] / (3 * weights[3]) - 1)
    return (
        f"two: {two}x{two}, {2 * weights[3]}:{weights[two]}; three: {three}x{three},"
        f" {3 * weights[3]}:{weights[three]}, {more:.0f} % more"
    )


def alexnet() -> str:
    return f"{analysis.of('alexnet').parameters:,} parameters"


def grey_levels() -> str:
    pixels = readers.packaged_mnist()[0]["train"].images
    counts = np.bincount(pixels.ravel(), minlength=256)
    between = 100 * counts[26:230].sum() / counts[1:].sum()
    return (
        f"{np.count_nonzero(counts)} levels in the training images; {between:.0f} % of the pixels"
        " that are not black lie between 10 and 90 % of white"
    )


def lenet() -> str:
    notes, paper = analysis.of("lenet5"), analysis.of("lenet5_1998")
    names = ("S2", "C3", "S4")
    parts = (f"{name} {paper.layer(name).parameters:,}" for name in names)
    return f"{paper.parameters:,} ({', '.join(parts)}); the notes' form {notes.parameters:,}"


def dropout_places() -> str:
    masks = _random_draws("alexnet") - _random_draws("alexnet", dropout=0.0)
    layers = analysis.of("alexnet").depth
    return f"{masks} masks in our AlexNet's training program, of {layers} layers"


def _random_draws(name: str, **fields: Any) -> int:
    """In the program that makes initial weights and applies them once in training."""
    model, image = models.create_model(name, **fields), models.MODELS[name].image

    def outputs(x: jax.Array) -> Any:
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        return model.init_with_output(keys, x, train=True)[0]

    program = jax.make_jaxpr(outputs)(jax.ShapeDtypeStruct((1, *image), jnp.float32))
    names = [eqn.primitive.name for eqn in trace.equations(program.jaxpr)]
    return names.count("random_bits")


class ScalingErrors(NamedTuple):
    """The largest errors of three rules for testing, over the outputs and activations."""

    masks: int
    own: dict[str, float]  # activation -> with the layer's own W and b scaled
    outputs: float  # with its outputs scaled
    following: float  # with the next layer's W and b scaled


def scaling_errors() -> ScalingErrors:
    """Seven hidden units, p = 1/2: the mean over all 2^7 masks against three rules for testing."""
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=5), rng.normal(size=(5, 7)), rng.normal(size=7)
    v, c = rng.normal(size=(7, 3)), rng.normal(size=3)
    activations = {
        "ReLU": lambda z: np.maximum(z, 0.0),
        "tanh": np.tanh,
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    }
    masks = np.array([*itertools.product((0.0, 1.0), repeat=7)])

    def error(rule: np.ndarray, true: np.ndarray) -> float:
        return float(np.abs(rule - true).max())

    own, outputs, following = {}, 0.0, 0.0
    for name, act in activations.items():
        h = act(x @ w + b)
        true = ((masks * h) @ v + c).mean(0)
        outputs = max(outputs, error(0.5 * h @ v + c, true))
        own[name] = error(act(0.5 * (x @ w + b)) @ v + c, true)
        following = max(following, error(0.5 * (h @ v + c), true))
    return ScalingErrors(len(masks), own, outputs, following)


def test_scaling() -> str:
    errors = scaling_errors()
    own = ", ".join(f"{error:.2f} {name}" for name, error in errors.own.items())
    return (
        f"error over all {errors.masks} masks: outputs scaled {errors.outputs:.2f}; own W and b"
        f" scaled {own}; the next layer's W and b scaled {errors.following:.2f}"
    )


def crops() -> str:
    offsets = 256 - 224 + 1
    return f"{offsets}^2 x 2 = {offsets**2 * 2:,}"


def googlenet() -> str:
    ours = analysis.of("googlenet", side_heads=False).parameters
    ratio = analysis.of("alexnet").parameters / ours
    return f"{ours:,}; {ratio:.1f} times fewer than AlexNet"


def ensembles() -> str:
    find = published.find
    one = find("GoogLeNet", protocol="one net, 1 crop").top5
    many = find("GoogLeNet", protocol="7 nets, 144").top5
    alone = find("ResNet-152", source=f"{published.HE}, Table 4").top5
    six = find("ResNet ensemble", published.TEST).top5
    assert one and many and alone and six
    return f"worth {one - many:.1f} and {alone - six:.1f} points"


def side_heads() -> str:
    net = analysis.of("googlenet")
    heads = net.parameters - analysis.of("googlenet", side_heads=False).parameters
    residual = len(analysis.of("resnet50").kind(layers.UNUSED))
    return f"GoogLeNet's side heads: {heads:,} parameters; ResNet-50's: {residual}"


SHARES = {
    "LeNet-5": "lenet5",
    "AlexNet": "alexnet",
    "VGG-16": "vgg16",
    "GoogLeNet": "googlenet",
    "ResNet-50": "resnet50",
}


def share(name: str, count: Literal["parameters", "macs"], kind: str) -> float:
    """The share of a net's parameters or multiply-adds that lies in layers of `kind`."""
    fields = {"side_heads": False} if name == "googlenet" else {}
    net = analysis.of(name, **fields)
    return sum(getattr(layer, count) for layer in net.kind(kind)) / getattr(net, count)


def shares() -> str:
    parts = {label: share(name, "parameters", DENSE) for label, name in SHARES.items()}
    return ", ".join(f"{label} {100 * part:.0f} %" for label, part in parts.items())


def cost() -> str:
    vgg, alexnet = analysis.of("vgg16"), analysis.of("alexnet")
    times = f"{vgg.macs / alexnet.macs:.0f}"
    return (
        f"{vgg.macs / 1e9:.2f} G against {alexnet.macs / 1e9:.3f} G MACs: {times}"
        f" times, by {vgg.kernels:,} against {alexnet.kernels:,} kernels:"
        f" {vgg.kernels / alexnet.kernels:.1f} times"
    )


def padding() -> str:
    kept = arithmetic.output_size(28, 5, padding=2)
    lost = arithmetic.output_size(28, 5)
    return (
        f"28 pixels, 5x5, stride 1: {kept} with p = 2, {lost} without; no stride loses an edge here"
    )


def plain() -> str:
    plain, residual = analysis.of("plain34"), analysis.of("resnet34", shortcut="A")
    same = (plain.parameters, plain.macs) == (residual.parameters, residual.macs)
    find = published.find
    worse = (find("plain-34").top1 or 0) - (find("plain-18").top1 or 0)
    data = published.CIFAR10
    deeper = (find("ResNet-1202", data).top1 or 0) - (find("ResNet-110", data).top1 or 0)
    equal = "the same" if same else "other"
    return (
        f"+{worse:.2f} and +{deeper:.2f} points; plain-34 and ResNet-34 (A) have {equal} parameters"
        f" ({plain.parameters:,}) and MACs"
    )
