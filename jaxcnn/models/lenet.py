"""LeNet-5: LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document
recognition, Proceedings of the IEEE 86(11):2278-2324, section II.B and Figure 2.

LeNet-1 is that of LeCun et al. 1990, Handwritten digit recognition with a back-propagation network,
NIPS 2, with its 2,578 parameters. LeNet-4 is described in a sentence of the 1998 paper (section
III.C.6), which does not fix its connections; see the row.

| layer | notes' form | LeCun 1998 |
|---|---|---|
| C1 6@28x28, 5x5 | 156 | 156 |
| S2 6@14x14 | 0 | 12 |
| C3 16@10x10, 5x5 | 2,416 | 1,516 (Table 1) |
| S4 16@5x5 | 0 | 32 |
| C5 120 | 48,120 | 48,120 |
| F6 84 | 10,164 | 10,164 |
| output 10 | 850 | 0 (RBF, 840 fixed) |
| total | 61,706 | 60,000 |
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import ops
from jaxcnn.config import InputError

# Table 1: the S2 maps that each C3 map is connected to.
C3_MAPS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)

# The RBF centres: 7x12 bitmaps of the ten digits, +1 where there is ink and -1 elsewhere, after
# Figure 3. The paper prints its bitmaps only as a picture; these are drawn anew in its manner.
BITMAPS = """
..###.. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.##.##. ..###.. ##...## ##...## ...###. ##..... .##.... ##...## ##...## ##...##
##...## .####.. .....## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ##..... ##..... .....## ##...## ##...##
##...## ...##.. ....##. .....## ##..##. ##..... ##..... ....##. .##.##. ##...##
##...## ...##.. ...##.. ..####. ##..##. ######. ######. ....##. ..###.. .######
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. .##.##. .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ...##.. ##...## .....##
##...## ...##.. ##..... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## ....##. .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ....##. ##...## .##.##. ..##... ##...## ....##.
..###.. .###### ####### .#####. ....##. .#####. ..###.. ..##... .#####. .####..
"""


def codes() -> jax.Array:
    """The ten fixed centres, [10, 84] of +-1."""
    rows = [line.split() for line in BITMAPS.split("\n") if line]
    return jnp.array(
        [[1.0 if c == "#" else -1.0 for row in rows for c in row[digit]] for digit in range(10)]
    )


# LeCun 1990: 20 kernels between 4 and 12 maps, the two halves alike.
LENET1_MAPS = (
    *((0,), (0, 1), (0, 1), (1,), (0, 1), (0, 1)),
    *((2,), (2, 3), (2, 3), (3,), (2, 3), (2, 3)),
)


class LeNet(nn.Module):
    """The defaults are the notes' form of LeNet-5; `LENETS` has LeCun's.

    Departures, both named by the notes: the notes' form connects all of C3, averages in S2 and S4
    without weights, and ends in a linear layer. Dropout is no part of either; where asked for, it
    follows C5 and F6, as batch normalisation and LRN follow the convolutions.
    """

    classes: int = 10
    activation: str = "sigmoid"
    pool: str = "avg"
    pool_window: int = 2
    pool_stride: int = 2
    dropout: float | jax.Array = 0.0
    initializer: str = "glorot_uniform"
    widths: tuple[int, ...] = (6, 16)  # maps of C1 and C3
    head: tuple[int, ...] = (120, 84)  # C5 and F6
    lrn: str | None = None
    batch_norm: bool = False
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    padding: int = 2  # the notes pad 28x28 pictures by 2 in C1; LeCun's pictures are 32x32
    c3_maps: tuple[tuple[int, ...], ...] | None = None
    rbf: bool = False
    rank: int | None = None  # of the hidden fully-connected layers (compress.rank)
    radius: float | None = None  # of cosines, in place of the last layer's weighted sums
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x [B, H, W, C] -> logits [B, K]. Raises `InputError` for what the form cannot take."""
        if self.rbf and (x.shape[1:] != (32, 32, 1) or self.classes != 10):
            size = "x".join(map(str, x.shape[1:]))
            raise InputError(
                "model.name: 'lenet5_1998' takes 32x32x1 pictures of 10 classes, got"
                f" {size} of {self.classes}; MNIST needs data.pad=2."
            )
        act = ops.lookup(ops.ACTIVATIONS, self.activation, "model.activation")

        if len(self.widths) != 2 or len(self.head) > 2:
            raise InputError(
                f"model.widths, model.head: {self.widths}, {self.head}; a LeNet has two"
                " convolutions and at most two hidden fully-connected layers."
            )
        inputs = {i for maps in self.c3_maps or () for i in maps}
        if inputs and (self.widths[0] <= max(inputs) or self.widths[1] != len(self.c3_maps or ())):
            raise InputError(
                f"model.widths: {self.widths}; the connections of C3 are given for"
                f" {max(inputs) + 1} and {len(self.c3_maps or ())} maps."
            )
        if self.rbf and self.head[-1:] != (84,):
            raise InputError(
                f"model.head: {self.head}; the codes are of 84 bits, so it ends in 84."
            )
        lrn = ops.lookup(ops.LRNS, self.lrn, "model.lrn")
        init, moments = self.initializer, (self.bn_momentum, self.bn_epsilon)

        def conv(x: jax.Array, features: int, name: str, padding: int, maps: Any) -> jax.Array:
            x = ops.Conv(features, 5, padding, init, maps, self.dtype, name=name)(x)
            if self.batch_norm:
                x = ops.BatchNorm(*moments, dtype=self.dtype, name=f"{name}_bn")(x, train=train)
            return x

        def pool(x: jax.Array, name: str) -> jax.Array:
            size = (self.pool_window, self.pool_stride)
            layer = ops.Pool(self.pool, *size, self.activation, init, name=name)
            return ops.activate_and_pool(x, act, layer) if self.lrn is None else layer(lrn(act(x)))

        x = conv(x, self.widths[0], "C1", self.padding, None)
        x = pool(x, "S2")
        x = conv(x, self.widths[1], "C3", 0, self.c3_maps)
        x = pool(x, "S4")
        x = ops.flat(x)
        for width, name in zip(self.head, ("C5", "F6"), strict=False):
            x = act(ops.hidden(width, init, self.dtype, name, rank=self.rank)(x))
            x = ops.Dropout(self.dropout)(x, train=train)
        if not self.rbf:
            return ops.output(self.classes, init, self.dtype, "output", self.radius)(x), {}
        # Equation 7: squared distances to the codes; the nearest wins, so they are logits with a
        # minus.
        distance = jnp.sum((x.astype(jnp.float32)[:, None] - codes()[None]) ** 2, axis=-1)
        return -distance, {}


_1998 = {
    "activation": "scaled_tanh",
    "pool": "subsample",
    "initializer": "lecun1998",
    "padding": 0,
}

LENETS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "lenet5": ((28, 28, 1), {}),
    "lenet5_1998": ((32, 32, 1), {**_1998, "c3_maps": C3_MAPS, "rbf": True}),
    "lenet1": ((28, 28, 1), {**_1998, "widths": (4, 12), "head": (), "c3_maps": LENET1_MAPS}),
    # The paper's has two sub-sampling maps to each of its four first maps, and some of C3's
    # connections, so that it ends near 17,000 parameters; this one has one map and all connections.
    "lenet4": ((32, 32, 1), {**_1998, "widths": (4, 16), "head": (120,)}),
}
