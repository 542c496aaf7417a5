"""VGG: Simonyan, Zisserman 2015, Very deep convolutional networks for large-scale image
recognition, ICLR, arXiv:1409.1556, section 2 and Table 1.

| configuration | A, A-LRN | B | C | D | E |
|---|---|---|---|---|---|
| layers with weights | 11 | 13 | 16 | 16 | 19 |
| parameters | 132,863,336 | 133,047,848 | 133,638,952 | 138,357,544 | 143,667,240 |
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import ops
from jaxcnn.config import InputError
from jaxcnn.models.heatmaps import Heatmaps

# Table 1: maps of each 3x3 convolution, another window where a row says so; "|" is a pooling.
VGG = {
    "A": "64 | 128 | 256 256 | 512 512 | 512 512",
    "B": "64 64 | 128 128 | 256 256 | 512 512 | 512 512",
    "C": "64 64 | 128 128 | 256 256 256/1 | 512 512 512/1 | 512 512 512/1",
    "D": "64 64 | 128 128 | 256 256 256 | 512 512 512 | 512 512 512",
    "E": "64 64 | 128 128 | 256 256 256 256 | 512 512 512 512 | 512 512 512 512",
    # Section 4.1: B with each pair of 3x3 replaced by one 5x5 of the same field, 7 % worse in top-1
    # error. And, by the same rule, D with each triple replaced by one 7x7 (section 2.3).
    "B-5x5": "64/5 | 128/5 | 256/5 | 512/5 | 512/5",
    "D-7x7": "64/5 | 128/5 | 256/7 | 512/7 | 512/7",
}


class VGGNet(nn.Module):
    """Convolutions by `layers`, then fully-connected ones of `head`.

    `widths` gives each stage another number of maps; fewer widths than stages leave the last stages
    out, for smaller pictures.

    LRN stands after conv1_1, as in A-LRN; dropout after each layer of the head (section 3.1); batch
    normalisation, torchvision's, between a convolution and its activation. Initial weights are
    Glorot's, which section 3.1 names as the better way than its own pre-training of A.
    """

    classes: int = 1000
    layers: str = VGG["D"]
    widths: tuple[int, ...] | None = None
    head: tuple[int, ...] = (4096, 4096)
    activation: str = "relu"
    pool: str = "max"
    pool_window: int = 2
    pool_stride: int = 2
    dropout: float | jax.Array = 0.5
    lrn: str | None = None
    batch_norm: bool = False
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    initializer: str = "glorot_uniform"
    ceil: bool = False  # map sizes after a pooling are rounded up
    rank: int | None = None  # of the hidden fully-connected layers (compress.rank)
    radius: float | None = None  # of cosines, in place of the last layer's weighted sums
    heatmaps: int = 0  # so many of the last stages make them, unpooled; no head and no dropout then
    dtype: Any = jnp.float32

    @nn.nowrap
    def stages(self) -> list[list[tuple[int, int]]]:
        """Maps and window of every convolution that is here."""
        rows = [
            [(int(maps), int(window or 3)) for maps, _, window in (x.partition("/") for x in row)]
            for row in map(str.split, self.layers.split("|"))
        ]
        if self.widths is None:
            return rows
        if len(self.widths) > len(rows):
            raise InputError(f"model.widths: {self.widths}; this net has {len(rows)} stages.")
        return [
            [(width, window) for _, window in row]
            for width, row in zip(self.widths, rows, strict=False)
        ]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x [B, H, W, C] -> logits [B, K]."""
        act = ops.lookup(ops.ACTIVATIONS, self.activation, "model.activation")
        lrn = ops.lookup(ops.LRNS, self.lrn, "model.lrn")
        init, dtype = self.initializer, self.dtype
        stages: list[jax.Array] = []
        for stage, row in enumerate(self.stages(), start=1):
            for i, (features, k) in enumerate(row, start=1):
                name = f"conv{stage}_{i}"
                x = ops.Conv(features, k, k // 2, init, dtype=dtype, name=name)(x)
                if self.batch_norm:
                    moments = (self.bn_momentum, self.bn_epsilon)
                    x = ops.BatchNorm(*moments, dtype=dtype, name=f"{name}_bn")(x, train=train)
                x = act(x)
                if name == "conv1_1":
                    x = lrn(x)
            stages.append(x)
            size = (self.pool_window, self.pool_stride)
            x = ops.Pool(
                self.pool, *size, self.activation, init, ceil=self.ceil, name=f"pool{stage}"
            )(x)
        if self.heatmaps:
            return Heatmaps(self.classes, self.heatmaps, init, dtype, name="heatmaps")(stages), {}
        x = ops.flat(x)
        for i, width in enumerate(self.head, start=6):
            x = act(ops.hidden(width, init, dtype, f"fc{i}", rank=self.rank)(x))
            x = ops.Dropout(self.dropout)(x, train=train)
        last = f"fc{6 + len(self.head)}"
        return ops.output(self.classes, init, dtype, last, self.radius)(x), {}


_DEPTHS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}
_SINGLE = {"vgg13_5x5": "B-5x5", "vgg16_7x7": "D-7x7"}
# At 32 pixels the last map is 1x1x512; rounding up makes equal maps of 3x3/2 and 2x2/2 pooling.
_CIFAR = {"batch_norm": True, "head": (512,), "classes": 10, "ceil": True}

VGGS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    **{name: ((224, 224, 3), {"layers": VGG[row]}) for name, row in _DEPTHS.items()},
    **{
        f"{name}_bn": ((224, 224, 3), {"layers": VGG[row], "batch_norm": True})
        for name, row in _DEPTHS.items()
    },
    "vgg11_lrn": ((224, 224, 3), {"layers": VGG["A"], "lrn": "krizhevsky2012"}),
    "vgg16_c": ((224, 224, 3), {"layers": VGG["C"]}),
    **{name: ((224, 224, 3), {"layers": VGG[row]}) for name, row in _SINGLE.items()},
    **{
        f"{name}_cifar": ((32, 32, 3), {"layers": VGG[row], **_CIFAR})
        for name, row in (_DEPTHS | _SINGLE).items()
    },
}
