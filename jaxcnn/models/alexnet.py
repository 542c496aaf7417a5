"""AlexNet and the nets around it.

- Krizhevsky, Sutskever, Hinton 2012, ImageNet classification with deep convolutional neural
  networks, NIPS, section 3.5 and Figure 2: `alexnet`. The paper says 224 pixels; only 227 give its
  55x55 maps. `caffenet` is Caffe's, which pools before it normalises.
- Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks,
  arXiv:1404.5997, footnote 1: `alexnet_owt`, the one tower that torchvision has as `alexnet`.
- Zeiler, Fergus 2014, Visualizing and understanding convolutional networks, ECCV, Figure 3:
  `zfnet`.
- cuda-convnet's CIFAR-10 layers ("18 %", Krizhevsky 2011-12): `cuda_convnet`. The four-layer net of
  the 2012 paper's Figure 1 is not described in it further; this one has four layers with weights.

| alexnet | parameters |
|---|---|
| conv1 96@55x55, 11x11/4 | 34,944 |
| conv2 256@27x27, 5x5, two towers | 307,456 |
| conv3 384@13x13, 3x3 | 885,120 |
| conv4 384@13x13, 3x3, two towers | 663,936 |
| conv5 256@13x13, 3x3, two towers | 442,624 |
| fc6 4096 | 37,752,832 |
| fc7 4096 | 16,781,312 |
| fc8 1000 | 4,097,000 |
| total | 60,965,224 |
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import ops
from jaxcnn.config import InputError


class Layer(NamedTuple):
    """A convolution and what follows it."""

    features: int
    window: int
    stride: int = 1
    padding: int = 0
    towers: bool = False  # its maps see only their own tower's
    lrn: bool = False
    pool: str | None = None  # its kind in the paper
    bias: float = 0.0  # initial value


ALEXNET = (
    Layer(96, 11, 4, lrn=True, pool="max"),
    Layer(256, 5, 1, 2, towers=True, lrn=True, pool="max", bias=1.0),
    Layer(384, 3, 1, 1),
    Layer(384, 3, 1, 1, towers=True, bias=1.0),
    Layer(256, 3, 1, 1, towers=True, pool="max", bias=1.0),
)
OWT = (
    Layer(64, 11, 4, 2, lrn=True, pool="max"),
    Layer(192, 5, 1, 2, lrn=True, pool="max"),
    Layer(384, 3, 1, 1),
    Layer(256, 3, 1, 1),
    Layer(256, 3, 1, 1, pool="max"),
)
ZFNET = (
    Layer(96, 7, 2, 1, lrn=True, pool="max"),
    Layer(256, 5, 2, lrn=True, pool="max"),
    Layer(384, 3, 1, 1),
    Layer(384, 3, 1, 1),
    Layer(256, 3, 1, 1, pool="max"),
)
CIFAR = (
    Layer(64, 5, 1, 2, lrn=True, pool="max"),
    Layer(192, 5, 1, 2, towers=True, lrn=True, pool="max"),
    Layer(384, 3, 1, 1),
    Layer(256, 3, 1, 1, towers=True),
    Layer(256, 3, 1, 1, towers=True, pool="max"),
)
CUDA_CONVNET = (
    Layer(32, 5, 1, 2, pool="max"),
    Layer(32, 5, 1, 2, pool="avg"),
    Layer(64, 5, 1, 2, pool="avg"),
)


class AlexNet(nn.Module):
    """Convolutions by `layers`, then fully-connected ones of `head`. The defaults are the paper's.

    `widths` None leaves each convolution its maps in the table, `pool` None each pooling its kind.
    `without` leaves out convolutions by name, with their activation and normalisation; a pooling
    behind one stays, so that the maps keep their sizes. Dropout stands after the layers of the head
    (section 4.2: "the first two fully-connected layers"). Batch normalisation, in no paper here,
    stands between a convolution and its activation.
    """

    classes: int = 1000
    layers: tuple[Layer, ...] = ALEXNET
    widths: tuple[int, ...] | None = None
    without: tuple[str, ...] = ()
    head: tuple[int, ...] = (4096, 4096)
    activation: str = "relu"
    pool: str | None = None
    pool_window: int = 3
    pool_stride: int = 2
    dropout: float | jax.Array = 0.5
    lrn: str | None = "krizhevsky2012"
    batch_norm: bool = False
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    groups: int = 2
    initializer: str = "normal_0.01"
    head_bias: float = 1.0  # initial, of the hidden layers of the head (section 5)
    pool_first: bool = False  # before the LRN
    dropout_first: bool = False  # torchvision's place: before each layer of the head
    ceil: bool = False  # map sizes after a pooling are rounded up
    rank: int | None = None  # of the hidden fully-connected layers (compress.rank)
    radius: float | None = None  # of cosines, in place of the last layer's weighted sums
    dtype: Any = jnp.float32

    @nn.nowrap
    def table(self) -> dict[str, Layer]:
        """The convolutions by name, those of `without` too, with the maps that they have here."""
        widths = self.widths or tuple(layer.features for layer in self.layers)
        if len(widths) != len(self.layers):
            raise InputError(
                f"model.widths: {widths}; this net has {len(self.layers)} convolutions."
            )
        rows = zip(self.layers, widths, strict=True)
        return {f"conv{i}": row._replace(features=n) for i, (row, n) in enumerate(rows, start=1)}

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x [B, H, W, C] -> logits [B, K]."""
        act = ops.lookup(ops.ACTIVATIONS, self.activation, "model.activation")
        lrn = ops.lookup(ops.LRNS, self.lrn, "model.lrn")
        init, dtype = self.initializer, self.dtype

        def convolution(x: jax.Array, i: int, layer: Layer) -> jax.Array:
            x = ops.Conv(
                layer.features,
                layer.window,
                layer.padding,
                init,
                stride=layer.stride,
                groups=self.groups if layer.towers else 1,
                bias=layer.bias,
                dtype=dtype,
                name=f"conv{i}",
            )(x)
            if self.batch_norm:
                moments = (self.bn_momentum, self.bn_epsilon)
                x = ops.BatchNorm(*moments, dtype=dtype, name=f"conv{i}_bn")(x, train=train)
            x = act(x)
            return lrn(x) if layer.lrn and not self.pool_first else x

        table = self.table()
        for name in self.without:
            ops.lookup(table, name, "model.without")
        for i, (name, layer) in enumerate(table.items(), start=1):
            there = name not in self.without
            if there:
                x = convolution(x, i, layer)
            if layer.pool is not None:
                size = (self.pool_window, self.pool_stride)
                kind = self.pool or layer.pool
                x = ops.Pool(kind, *size, self.activation, init, ceil=self.ceil, name=f"pool{i}")(x)
            if there and layer.lrn and self.pool_first:
                x = lrn(x)
        x = ops.flat(x)
        for i, width in enumerate(self.head, start=len(self.layers) + 1):
            if self.dropout_first:
                x = ops.Dropout(self.dropout)(x, train=train)
            x = act(ops.hidden(width, init, dtype, f"fc{i}", self.head_bias, rank=self.rank)(x))
            if not self.dropout_first:
                x = ops.Dropout(self.dropout)(x, train=train)
        last = f"fc{len(self.layers) + len(self.head) + 1}"
        return ops.output(self.classes, init, dtype, last, self.radius)(x), {}


ALEXNETS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "alexnet": ((227, 227, 3), {}),
    # As one tower would be: 62,378,344 parameters, more than the paper's 60 million.
    "alexnet_ungrouped": ((227, 227, 3), {"groups": 1}),
    "caffenet": ((227, 227, 3), {"pool_first": True, "lrn": "caffe"}),
    # torchvision leaves LRN out, puts dropout before the layers and starts as PyTorch's layers do;
    # here all but the first two are the 2012 paper's.
    "alexnet_owt": (
        (224, 224, 3),
        {"layers": OWT, "lrn": None, "groups": 1, "dropout_first": True},
    ),
    "zfnet": (
        (224, 224, 3),
        {"layers": ZFNET, "groups": 1, "pool_first": True, "ceil": True, "head_bias": 0.0},
    ),
    # 32 pixels, for ablations: alexnet_owt's widths behind smaller windows, a head of 512, and one
    # tower unless `groups` makes it two. Rounding up makes 16, 8 and 4 of 3x3/2 as of 2x2/2
    # pooling, so overlap changes nothing else.
    "alexnet_cifar": (
        (32, 32, 3),
        {"layers": CIFAR, "head": (512, 512), "groups": 1, "ceil": True, "classes": 10}
        | {"initializer": "he_normal", "head_bias": 0.0},
    ),
    "cuda_convnet": (
        (32, 32, 3),
        {"layers": CUDA_CONVNET, "head": (), "groups": 1, "ceil": True, "classes": 10}
        | {"lrn": None, "initializer": "he_normal", "dropout": 0.0},
    ),
}
