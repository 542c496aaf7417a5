"""What a network is, read off its traced program: layers, neurons, parameters, multiply-adds,
receptive fields, depth.

    analysis.analyse(module, image=(224, 224, 3)).macs
    analysis.of("vgg16").layer("conv3_2").field

The program is the jaxpr of `module.apply(..., train=False)` for one picture; no weights are made
and nothing runs. So the numbers hold for any module, ours or a user's. A MAC is one multiply-add of
a convolution or a matrix product, taps on padding included; biases, normalisation, activations and
pooling are not counted. These are the "FLOPs" of He 2016, Table 1, and half of the operations of
Canziani 2016 (arXiv:1605.07678).
"""

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr

from jaxcnn import kernels, models
from jaxcnn.analysis import receptive
from jaxcnn.analysis.layers import CONVOLUTION, DENSE, NORM, Layer, Leaf, Value
from jaxcnn.analysis.receptive import Shape, Span
from jaxcnn.analysis.trace import Walk

__all__ = ["CONVOLUTION", "DENSE", "NORM", "Analysis", "Layer", "analyse", "of"]


@dataclass(frozen=True)
class Analysis:
    image: Shape  # H, W, C
    layers: tuple[Layer, ...]  # in the order of the program
    depth: int  # layers with weights on the longest way through

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)

    def kind(self, *kinds: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.kind in kinds]

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def neurons(self) -> int:
        return sum(layer.neurons for layer in self.layers)

    @property
    def kernels(self) -> int:
        """Output maps of all convolutions together."""
        return sum(layer.output[-1] for layer in self.kind(CONVOLUTION))

    @property
    def receptive_field(self) -> Span | None:
        """The largest where the output is still a map: that of the last convolution or pooling."""
        spans = [layer.span for layer in self.layers if layer.span is not None]
        return max((s for s in spans if s.axis is not None), key=lambda s: s.size, default=None)


@functools.cache
def of(name: str, size: int | None = None, **fields: Any) -> Analysis:
    """The architecture `name` at its paper's picture, or at `size` x `size`, with `fields` in place
    of its own.
    """
    module = models.create_model(name, **fields)
    height, width, channels = models.MODELS[name].image
    return analyse(module, (size or height, size or width, channels))


def analyse(module: Any, image: Shape) -> Analysis:
    """A network for pictures of `image` (H, W, C). `module` is a Linen module, or anything with its
    `init` and `apply`.
    """
    x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    tells = "train" in inspect.signature(type(module).__call__).parameters
    options = {"train": False} if tells else {}
    with kernels.plain():
        variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, **options), x)
        apply = functools.partial(module.apply, **options)
        program = jax.make_jaxpr(apply)(variables, x)
    paths, leaves = [], []
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        paths.append(tuple(keystr(path, simple=True, separator="/").split("/")))
        leaves.append(Leaf(paths[-1][1:-1], "/".join(paths[-1][1:]), leaf.size))
    parameters = [leaf for path, leaf in zip(paths, leaves, strict=True) if path[0] == "params"]
    values = [
        Value(frozenset([leaf] if path[0] == "params" else []))
        for path, leaf in zip(paths, leaves, strict=True)
    ]
    walk = Walk(type(module).__name__, {leaf.module for leaf in parameters})
    seen = Value(field=receptive.picture(x.shape))
    outputs = walk.run(program.jaxpr, [*values, seen])
    walk.unused(parameters)
    normed = {path[1:-1] for path in paths if path[0] == "batch_stats"}
    return Analysis(tuple(image), walk.layers(normed), max(value.depth for value in outputs))
