"""LeNet-5: LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document
recognition, Proceedings of the IEEE 86(11):2278-2324, section II.B and Figure 2.

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


class LeNet5(nn.Module):
    """The defaults are the notes' form; `LENETS` has LeCun's.

    Departures, both named by the notes: the notes' form connects all of C3, averages in S2 and S4
    without weights, and ends in a linear layer. Dropout is no part of either; where asked for, it
    follows C5 and F6.
    """

    classes: int = 10
    activation: str = "sigmoid"
    pool: str = "avg"
    pool_window: int = 2
    pool_stride: int = 2
    dropout: float | jax.Array = 0.0
    initializer: str = "glorot_uniform"
    padding: int = 2  # the notes pad 28x28 pictures by 2 in C1; LeCun's pictures are 32x32
    c3_maps: tuple[tuple[int, ...], ...] | None = None
    rbf: bool = False
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

        def conv(features: int, name: str, padding: int = 0, maps: Any = None) -> ops.Conv:
            return ops.Conv(features, 5, padding, self.initializer, maps, self.dtype, name=name)

        def pool(name: str) -> ops.Pool:
            size = (self.pool_window, self.pool_stride)
            return ops.Pool(self.pool, *size, self.activation, self.initializer, name=name)

        x = act(conv(6, "C1", padding=self.padding)(x))
        x = pool("S2")(x)
        x = act(conv(16, "C3", maps=self.c3_maps)(x))
        x = pool("S4")(x)
        x = x.reshape(x.shape[0], -1)
        x = act(ops.dense(120, self.initializer, self.dtype, "C5")(x))
        x = ops.Dropout(self.dropout)(x, train=train)
        x = act(ops.dense(84, self.initializer, self.dtype, "F6")(x))
        x = ops.Dropout(self.dropout)(x, train=train)
        if not self.rbf:
            return ops.dense(self.classes, self.initializer, self.dtype, "output")(x), {}
        # Equation 7: squared distances to the codes; the nearest wins, so they are logits with a
        # minus.
        distance = jnp.sum((x.astype(jnp.float32)[:, None] - codes()[None]) ** 2, axis=-1)
        return -distance, {}


LENETS: dict[str, dict[str, Any]] = {
    "lenet5": {},
    "lenet5_1998": {
        "activation": "scaled_tanh",
        "pool": "subsample",
        "initializer": "lecun1998",
        "padding": 0,
        "c3_maps": C3_MAPS,
        "rbf": True,
    },
}
