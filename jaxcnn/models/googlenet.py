"""GoogLeNet: Szegedy et al. 2015, Going deeper with convolutions, CVPR, arXiv:1409.4842, section 5
and Table 1.

6,998,552 parameters, 13,378,280 with the side heads. The paper's own column of parameters sums to
6.8 million: its first row counts fewer than 7x7x3x64.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import ops

# Table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOL_AFTER = ("3b", "4e")
SIDE_HEADS = ("4a", "4d")  # in training, what these give also goes through a classifier of its own
# For small pictures: a quarter of the widths, five of the nine, behind one 3x3 convolution.
CIFAR = {
    "3a": (16, 24, 32, 4, 8, 8),
    "3b": (32, 32, 48, 8, 24, 16),
    "4a": (48, 24, 52, 4, 12, 16),
    "4d": (28, 36, 72, 8, 16, 16),
    "4e": (64, 40, 80, 8, 32, 32),
    "5b": (96, 48, 96, 12, 32, 32),
}
# Each inception as one 3x3 convolution with 0.49 of the inception's maps: as many MACs in all.
PLAIN = {"3a": (31,), "3b": (59,), "4a": (63,), "4d": (65,), "4e": (102,), "5b": (125,)}

Layer = Callable[..., jax.Array]  # (x, features, window, name, stride=1)


class GoogLeNet(nn.Module):
    """The paper's net; `GOOGLENETS` has torchvision's.

    `pool`, its window and its stride reach the four poolings between the stages; the kind alone
    reaches the one inside each inception, whose window is 3 and stride 1. `dropout` None leaves 0.4
    before the output and 0.7 in the side heads (section 5); a number goes to all three places.
    `width_multiplier` is the share of their tables' maps that stem, inceptions and side heads have.
    """

    classes: int = 1000
    activation: str = "relu"
    pool: str = "max"
    pool_window: int = 3
    pool_stride: int = 2
    last_pool_window: int | None = None  # of the pooling after 4e, where it differs
    dropout: float | jax.Array | None = None
    output_dropout: float = 0.4
    lrn: str | None = "caffe"  # the paper does not give its numbers; these are the Caffe graph's
    batch_norm: bool = False
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-3
    conv_bias: bool = True
    five: int = 5  # window of the "5x5" branch
    side_heads: bool = True
    side_pool: str = "5x5/3"  # or "adaptive": torchvision's, to 4x4 as well
    side_widths: tuple[int, int] = (128, 1024)  # of a side head's convolution and hidden layer
    stem: str = "7x7"  # "3x3": one convolution of stride 1, for small pictures
    # Another table like INCEPTION; a row of one is a 3x3 convolution.
    inceptions: Mapping[str, tuple[int, ...]] | None = None
    width_multiplier: float = 1.0  # share of the maps of every row, stem and side heads
    transform_input: bool = False  # from ImageNet's mean and deviation to 0.5 and 0.5
    initializer: str = "glorot_uniform"
    radius: float | None = None  # of cosines, in place of the last layer's weighted sums
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x [B, H, W, C] -> logits [B, K]; in training extras 'side_4a', 'side_4d' [B, K] too."""
        lrn = ops.lookup(ops.LRNS, self.lrn, "model.lrn")

        def conv(x: jax.Array, features: int, window: int, name: str, stride: int = 1) -> jax.Array:
            return self._conv(x, features, window, name, stride, train)

        def pool(x: jax.Array, name: str, window: int | None = None) -> jax.Array:
            return self._pool(x, window or self.pool_window, self.pool_stride, name)

        ops.lookup(dict.fromkeys(("5x5/3", "adaptive")), self.side_pool, "model.side_pool")
        ops.lookup(dict.fromkeys(("7x7", "3x3")), self.stem, "model.stem")
        if self.transform_input:
            x = _transform(x)
        if self.stem == "3x3":
            x = lrn(conv(x, self._share(48), 3, "conv1"))
        else:
            x = lrn(pool(conv(x, self._share(64), 7, "conv1", 2), "pool1"))
            x = conv(x, self._share(64), 1, "conv2_reduce")
            x = lrn(conv(x, self._share(192), 3, "conv2"))
            x = pool(x, "pool2")
        extras = {}
        for name, row in (self.inceptions or INCEPTION).items():
            x = self._inception(x, row, f"inception_{name}", conv)
            # Initial weights are made with train=False, and the side heads need theirs.
            if name in SIDE_HEADS and self.side_heads and (train or self.is_initializing()):
                extras[f"side_{name}"] = self._side_head(x, f"side_{name}", conv, train)
            if name in POOL_AFTER:
                last = self.last_pool_window if name == "4e" else None
                x = pool(x, f"pool{name[0]}", last)
        x = jnp.mean(x, axis=(1, 2))
        x = ops.Dropout(self.output_dropout if self.dropout is None else self.dropout)(
            x, train=train
        )
        return self._output("output")(x), extras

    @nn.nowrap
    def side_maps(self) -> tuple[int, int]:
        """Of a side head's convolution and of its hidden layer."""
        maps, hidden = self.side_widths
        return self._share(maps), self._share(hidden)

    @nn.nowrap
    def _share(self, maps: int) -> int:
        return max(1, round(self.width_multiplier * maps))

    def _conv(
        self, x: jax.Array, features: int, window: int, name: str, stride: int, train: bool
    ) -> jax.Array:
        """Padded to keep the size at stride 1, with its normalisation and activation."""
        bias = self.conv_bias or not self.batch_norm
        x = ops.Conv(
            features,
            window,
            window // 2,
            self.initializer,
            stride=stride,
            use_bias=bias,
            dtype=self.dtype,
            name=name,
        )(x)
        if self.batch_norm:
            moments = (self.bn_momentum, self.bn_epsilon)
            x = ops.BatchNorm(*moments, dtype=self.dtype, name=f"{name}_bn")(x, train=train)
        return ops.lookup(ops.ACTIVATIONS, self.activation, "model.activation")(x)

    def _pool(self, x: jax.Array, window: int, stride: int, name: str) -> jax.Array:
        """Sizes are rounded up, as Caffe does: 112, 56, 28, 14, 7 (Table 1)."""
        padding = 1 if stride == 1 else 0
        return ops.Pool(
            self.pool,
            window,
            stride,
            self.activation,
            self.initializer,
            padding=padding,
            ceil=True,
            name=name,
        )(x)

    def _inception(self, x: jax.Array, row: tuple[int, ...], name: str, conv: Layer) -> jax.Array:
        """Figure 2b: four branches, side by side in the channels; or one 3x3 convolution."""
        row = tuple(map(self._share, row))
        if len(row) == 1:
            return conv(x, row[0], 3, name)
        one, reduce3, three, reduce5, five, proj = row
        branches = (
            conv(x, one, 1, f"{name}_1x1"),
            conv(conv(x, reduce3, 1, f"{name}_3x3_reduce"), three, 3, f"{name}_3x3"),
            conv(conv(x, reduce5, 1, f"{name}_5x5_reduce"), five, self.five, f"{name}_5x5"),
            conv(self._pool(x, 3, 1, f"{name}_pool"), proj, 1, f"{name}_pool_proj"),
        )
        return jnp.concatenate(branches, axis=-1)

    def _side_head(self, x: jax.Array, name: str, conv: Layer, train: bool) -> jax.Array:
        """Section 5: average pooling to 4x4, 128 1x1, 1024, dropout 0.7, output."""
        maps, hidden = self.side_maps()
        if self.side_pool == "adaptive":
            x = _adaptive_avg_pool(x, 4)
        else:
            x = ops.Pool("avg", 5, 3, name=f"{name}_pool")(x)
        x = conv(x, maps, 1, f"{name}_conv")
        x = x.reshape(x.shape[0], -1)
        x = ops.dense(hidden, self.initializer, self.dtype, f"{name}_fc")(x)
        x = ops.lookup(ops.ACTIVATIONS, self.activation, "model.activation")(x)
        x = ops.Dropout(0.7 if self.dropout is None else self.dropout)(x, train=train)
        return self._output(f"{name}_output")(x)

    @nn.nowrap
    def _output(self, name: str) -> nn.Dense:
        return ops.output(self.classes, self.initializer, self.dtype, name, self.radius)


def _adaptive_avg_pool(x: jax.Array, to: int) -> jax.Array:
    """PyTorch's: x [B, H, W, C] -> [B, to, to, C], cell i the mean of rows floor(i H / to) to
    ceil((i + 1) H / to).
    """

    def weights(size: int) -> jax.Array:
        at, cells = jnp.arange(size)[None], jnp.arange(to)[:, None]
        inside = (at >= cells * size // to) & (at < -(-(cells + 1) * size // to))
        return (inside / inside.sum(1, keepdims=True)).astype(x.dtype)

    return jnp.einsum("bhwc,yh,xw->byxc", x, weights(x.shape[1]), weights(x.shape[2]))


def _transform(x: jax.Array) -> jax.Array:
    """RGB normalised by ImageNet's mean and deviation -> by 0.5 and 0.5."""
    mean, std = jnp.array((0.485, 0.456, 0.406)), jnp.array((0.229, 0.224, 0.225))
    shift = (mean - 0.5) / 0.5
    return (
        x * (std / 0.5).astype(x.dtype)[None, None, None] + shift.astype(x.dtype)[None, None, None]
    )


# No side heads unless asked for: they came with a deep net without batch normalisation.
_SMALL = {"stem": "3x3", "batch_norm": True, "conv_bias": False, "lrn": None, "classes": 10}
_SMALL |= {"side_heads": False, "side_pool": "adaptive", "side_widths": (32, 128)}
_SMALL |= {"initializer": "he_normal"}

GOOGLENETS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "googlenet": ((224, 224, 3), {}),
    # torchvision's, for its weights: batch normalisation, no LRN; 3x3 where the paper has 5x5, an
    # inherited slip (pytorch/vision issue 906); 2x2 at the last pooling; its own side pooling.
    "googlenet_bn": (
        (224, 224, 3),
        {"batch_norm": True, "conv_bias": False, "lrn": None, "five": 3, "last_pool_window": 2}
        | {"output_dropout": 0.2, "side_pool": "adaptive"},
    ),
    "googlenet_cifar": ((32, 32, 3), {"inceptions": CIFAR, **_SMALL}),
    "googlenet_cifar_plain": ((32, 32, 3), {"inceptions": PLAIN, **_SMALL}),
}
